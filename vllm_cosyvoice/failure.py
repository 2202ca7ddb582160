"""How a request fails."""

from typing import Literal

FailureKind = Literal["invalid", "not_found", "conflict", "overloaded", "unavailable", "timeout", "internal"]


class Failure(Exception):
    """A request ended without (all of) its audio. `param` is the field of the request that is at fault, if one is."""

    def __init__(self, kind: FailureKind, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.param = param


class InputError(Failure, ValueError):
    """What a caller sent can't be spoken. `param` names the field, in the words of the OpenAI speech API."""

    param: str

    def __init__(self, param: str, message: str) -> None:
        super().__init__("invalid", message, param)
