"""Errors in OpenAI's envelope, so that OpenAI clients show the message and the field at fault."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from vllm_cosyvoice.failure import Failure, FailureKind

STATUS: dict[FailureKind, int] = {
    "invalid": 400,
    "not_found": 404,
    "conflict": 409,
    "overloaded": 429,
    "unavailable": 503,
    "timeout": 504,
    "internal": 500,
}
CODE: dict[FailureKind, str] = {"invalid": "invalid_value"}  # the code of any other kind is its name
TYPE = {429: "rate_limit_error"}  # by status
RETRY_AFTER: dict[FailureKind, int] = {"overloaded": 1, "unavailable": 5}  # seconds


UNREADABLE = "There was an error parsing the body"  # FastAPI's message for JSON that is not UTF-8


class ApiError(Exception):
    """An error with its HTTP status and the entries of its envelope."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code


class Error(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None  # the field at fault
    code: str | None


class Envelope(BaseModel):
    """The body of every error."""

    error: Error


RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Envelope, "description": "The request can't be served; the message gives the reason."},
    "5XX": {"model": Envelope, "description": "The server failed or is not ready."},
}


def install(app: FastAPI) -> None:
    """Answer all of the app's errors in the envelope."""

    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> JSONResponse:
        return envelope(error.status, str(error), error.param, error.code)

    @app.exception_handler(Failure)
    async def failure(_: Request, error: Failure) -> JSONResponse:
        return answer_to(error)

    @app.exception_handler(RequestValidationError)
    async def validation_error(_: Request, error: RequestValidationError) -> JSONResponse:
        message, param = what_is_wrong(error.errors())
        return envelope(400, message, param, "invalid_value")

    @app.exception_handler(HTTPException)
    async def http_exception(request: Request, error: HTTPException) -> JSONResponse:
        if str(error.detail) == UNREADABLE:
            return envelope(400, "The body can't be read: send JSON in UTF-8.", None, "invalid_value")
        messages = {
            404: f"There is no {request.url.path} here.",
            405: f"{request.url.path} does not support {request.method}.",
        }
        codes = {404: "unknown_url", 405: "method_not_allowed"}
        message = messages.get(error.status_code, str(error.detail))
        return envelope(error.status_code, message, None, codes.get(error.status_code), error.headers)

    @app.exception_handler(Exception)
    async def bug(_: Request, __: Exception) -> JSONResponse:
        return envelope(500, "The server failed; its log says why.", None, "internal")


def envelope(
    status: int, message: str, param: str | None, code: str | None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return an error in the envelope."""
    return JSONResponse({"error": _entries(status, message, param, code)}, status, headers)


def answer_to(failure: Failure) -> JSONResponse:
    """Return the envelope of a failure, with `retry-after` where it applies."""
    return JSONResponse({"error": error_entries(failure)}, STATUS[failure.kind], retry_after(failure))


def retry_after(failure: Failure) -> dict[str, str]:
    """Return the header `retry-after` if a retry can help, else no headers."""
    seconds = RETRY_AFTER.get(failure.kind)
    return {"retry-after": str(seconds)} if seconds else {}


def error_entries(failure: Failure) -> dict[str, str | None]:
    """Return the entries of the envelope of a failure."""
    return _entries(STATUS[failure.kind], str(failure), failure.param, CODE.get(failure.kind, failure.kind))


def _entries(status: int, message: str, param: str | None, code: str | None) -> dict[str, str | None]:
    """Return all four keys: clients rely on them."""
    kind = "server_error" if status >= 500 else TYPE.get(status, "invalid_request_error")
    return {"message": message, "type": kind, "param": param, "code": code}


def too_long(field: str, length: int, longest: int) -> str:
    """Return the message for a text of more than `longest` characters."""
    return f"{field} has {length} characters; the limit of this server is {longest} (--max_input_chars)."


def what_is_wrong(errors: Sequence[Any]) -> tuple[str, str | None]:
    """Return message and field of the first of pydantic's errors.

    An error's `loc` is ("body", field, …), or ("body", byte) for invalid JSON.
    """
    first = errors[0]
    location = first["loc"][1:]
    if first["type"] == "json_invalid":
        return f"The body is not valid JSON: {first['ctx']['error']}.", None
    if not location:
        return "Send a JSON object, with the header Content-Type: application/json.", None
    param = str(location[0])
    if first["type"] == "missing":
        return f"{param} is missing.", param
    if "UploadFile" in first["msg"]:
        return f"{param} must be a file, in a multipart/form-data body.", param
    return f"{param}: {first['msg']}.", param
