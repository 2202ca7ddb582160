"""What holds for every WebSocket: how many there may be, how long a client may be silent, or deaf."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from server.http.errors import answer_to
from vllm_cosyvoice.failure import Failure
from vllm_cosyvoice.text.characters import check_characters

SECONDS_TO_TAKE = 20.0  # for what is ready to be sent; a client that reads takes it at once
LARGEST_AUDIO = 64 << 10  # bytes of a message
LARGEST_MESSAGE = 1 << 20  # bytes: at a larger one, ordinary clients close the connection
LARGEST_TEXT = 128 << 10  # characters of a text message

# Close codes of RFC 6455 and its registry
NORMAL = 1000
UNREADABLE = 1003
REFUSED = 1008
FAILED = 1011
RESTARTING = 1012


class ProtocolError(Exception):
    """A message that makes no sense here; says what would."""


class Silent(Exception):
    """The client has said nothing for as long as it may."""


class Connection:
    """A WebSocket. Its messages are JSON objects or bytes; `receive` and `send` raise WebSocketDisconnect."""

    def __init__(self, websocket: WebSocket, patience: float) -> None:
        self._websocket = websocket
        self._patience = patience
        self._active = asyncio.get_running_loop().time()

    async def receive(self, busy: Callable[[], bool], patience: float | None = None) -> dict[str, Any] | bytes:
        """The next message, a JSON object or bytes. While `busy`, and for `patience` after, the client may be silent.

        Raises Silent after that, and ProtocolError for what is neither.
        """
        patience = patience or self._patience
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout_at(self._active + patience):
                    message = await self._websocket.receive()
                break
            except TimeoutError:
                if busy():
                    self._active = loop.time()
                elif loop.time() >= self._active + patience:
                    raise Silent(f"Nothing was said for {patience:g} seconds.") from None
        self._active = loop.time()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        data = message.get("bytes")
        return data if data is not None else _json_object(message["text"])

    async def send(self, message: Mapping[str, object] | bytes, largest: int = LARGEST_AUDIO) -> None:
        """Send bytes, in messages of at most `largest`, or an object as JSON.

        A client that does not take it in time counts as gone.
        """
        try:
            async with asyncio.timeout(SECONDS_TO_TAKE):
                if isinstance(message, bytes):
                    for start in range(0, len(message), largest):
                        await self._websocket.send_bytes(message[start : start + largest])
                else:
                    await self._websocket.send_text(json.dumps(message, ensure_ascii=False))
        except TimeoutError:
            raise WebSocketDisconnect(FAILED, "the client does not read") from None
        self._active = asyncio.get_running_loop().time()

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Say goodbye, if there is somebody to say it to."""
        with contextlib.suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
            async with asyncio.timeout(SECONDS_TO_TAKE):
                await self._websocket.close(code, _at_most_123_bytes(reason))


class Connections:
    """All WebSockets of this process: lets them in, up to a number, and sees them out."""

    def __init__(self, most: int, patience: float) -> None:
        self._most = most
        self._patience = patience
        self.open = 0
        self.leaving = asyncio.Event()  # set when the server stops: what is being spoken may end, nothing new begins

    async def serve(self, websocket: WebSocket, session: Callable[[Connection], Awaitable[None]]) -> None:
        """Run `session` with the connection, until it returns or the client leaves."""
        if self.open >= self._most:
            reason = f"{self._most} WebSockets are open already; try again in a moment."
            await websocket.send_denial_response(answer_to(Failure("overloaded", reason)))
            return
        self.open += 1
        connection = Connection(websocket, self._patience)
        try:
            await websocket.accept()
            await session(connection)
        except* WebSocketDisconnect:
            pass
        finally:
            self.open -= 1


def check_text(text: str) -> None:
    """Raise ProtocolError for a text that no encoding can carry."""
    try:
        check_characters(text)
    except ValueError as error:
        raise ProtocolError(str(error)) from error


def _json_object(text: str) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"That message is not valid JSON: {error}.") from None
    if not isinstance(message, dict):
        raise ProtocolError("That message is not a JSON object.")
    return message


def _at_most_123_bytes(reason: str) -> str:
    """What a close frame has room for."""
    return reason.encode()[:123].decode(errors="ignore")
