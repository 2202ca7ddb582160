"""Middleware around the whole app: request ids and limits on request bodies."""

import asyncio
import re
import uuid
from collections.abc import Callable, Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_UPLOAD = 10 << 20  # bytes of a recording
SECONDS_TO_SEND = 60.0  # for the next piece of a body

# Values of `x-should-retry`. Without it, OpenAI's client retries a conflict.
WORTH_RETRYING = {409: "false", 429: "true", 503: "true"}


READABLE_ID = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)


class RequestId:
    """Adds `x-request-id` to every answer, for clients to show, and to the state as `answer_id`.

    It is the id that a trusted proxy has sent, else a new one. The stages use `request_id` of the state, which begins
    with it and is always unique, whatever a proxy sends. Errors also say whether a retry may help.
    """

    def __init__(self, app: ASGIApp, is_trusted: Callable[[str], bool]) -> None:
        """`is_trusted` says whether to accept the `x-request-id` of a client address."""
        self._app = app
        self._is_trusted = is_trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        proxy_id, new_id = self._id_of_proxy(scope), f"req_{uuid.uuid4().hex}"
        answer_id, request_id = (proxy_id, f"{proxy_id}.{new_id}") if proxy_id else (new_id, new_id)
        scope.setdefault("state", {}).update(answer_id=answer_id, request_id=request_id)

        async def send_with_id(message: Message) -> None:
            kind = message["type"].removeprefix("websocket.")
            if kind in ("http.response.start", "accept"):
                message.setdefault("headers", [])
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = answer_id
                if advice := WORTH_RETRYING.get(message.get("status", 101)):
                    headers["x-should-retry"] = advice
            await send(message)

        await self._app(scope, receive, send_with_id)

    def _id_of_proxy(self, scope: Scope) -> str | None:
        request_id = Headers(scope=scope).get("x-request-id", "")
        client = scope.get("client")
        valid = READABLE_ID.fullmatch(request_id) and client is not None and self._is_trusted(client[0])
        return request_id if valid else None


class BodyLimit:
    """Refuses a body of more than `limit` bytes with status 413, without reading all of it.

    The paths in `larger` have their own limits. A body that stops arriving is refused with status 408, a compressed one
    with 415.
    """

    def __init__(self, app: ASGIApp, limit: int, larger: Mapping[str, int]) -> None:
        self._app = app
        self._limit = limit
        self._larger = larger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._larger.get(scope["path"], self._limit)
        headers = Headers(scope=scope)
        announced, encoding = headers.get("content-length", "0"), headers.get("content-encoding", "identity")
        received, complete = 0, False

        async def receive_at_most() -> Message:
            nonlocal received, complete
            if encoding != "identity":
                raise HTTPException(415, f"The body has the encoding {encoding}: send it without compression.")
            if announced.isdigit() and int(announced) > limit:
                raise _too_large(limit)
            try:
                async with asyncio.timeout(
                    None if complete else SECONDS_TO_SEND
                ):  # after the body only a disconnect can come
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"The body stopped arriving: no data for {SECONDS_TO_SEND:g} s.") from None
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > limit:
                raise _too_large(limit)
            return message

        await self._app(scope, receive_at_most, send)


def _too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"The body is larger than {limit} bytes.")
