"""How a request fails, in the words of the stages; `server.http.errors` gives it a status."""

from server.messages import FailureKind


class Failure(Exception):
    """A request ended without (all of) its audio. `param` is the field of the request that is at fault, if one is."""

    def __init__(self, kind: FailureKind, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.param = param
