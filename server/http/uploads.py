"""Recordings uploaded in form fields."""

import contextlib
from collections.abc import Iterator
from typing import Annotated

from fastapi import File, Form, UploadFile

from server.http.errors import ApiError
from server.http.guards import LARGEST_UPLOAD
from vllm_cosyvoice.failure import Failure

LONGEST_TRANSCRIPT = 2000  # characters, more than anybody says in 30 s

Upload = Annotated[UploadFile, File()]
Transcript = Annotated[str, Form(max_length=LONGEST_TRANSCRIPT)]


async def read_upload(upload: UploadFile, param: str) -> bytes:
    """Return the file in the form field `param`; raises ApiError if it is too large."""
    data = await upload.read(LARGEST_UPLOAD + 1)
    if len(data) > LARGEST_UPLOAD:
        message = f"{param} is larger than {LARGEST_UPLOAD >> 20} MiB: cut the recording to the best 5 to 15 s."
        raise ApiError(413, message, param=param, code="too_large")
    return data


@contextlib.contextmanager
def recording_is(param: str) -> Iterator[None]:
    """Attribute errors of the recording to `param`, its field name on this route."""
    try:
        yield
    except Failure as failure:
        if failure.param != "ref_audio":
            raise
        raise Failure(failure.kind, str(failure), param) from failure
