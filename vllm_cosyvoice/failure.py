"""Errors of requests."""

from typing import Literal

FailureKind = Literal["invalid", "not_found", "conflict", "overloaded", "unavailable", "timeout", "internal"]


class Failure(Exception):
    """A request ended before its audio was complete. `param` is the invalid field of the request, if any."""

    def __init__(self, kind: FailureKind, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.param = param


class InputError(Failure, ValueError):
    """The input can't be spoken. `param` names the invalid field as in the OpenAI speech API."""

    param: str

    def __init__(self, param: str, message: str) -> None:
        super().__init__("invalid", message, param)
