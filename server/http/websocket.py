"""What all WebSockets share: their maximum number, timeouts and message format."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from server.http.errors import answer_to
from vllm_cosyvoice.failure import Failure
from vllm_cosyvoice.text.characters import check_characters

SECONDS_TO_TAKE = 20.0  # timeout of a send
LARGEST_AUDIO = 64 << 10  # bytes of a message
LARGEST_MESSAGE = 1 << 20  # bytes: common clients close the connection at a larger one
LARGEST_TEXT = 128 << 10  # characters of a text message

# Close codes of RFC 6455 and its registry
NORMAL = 1000
UNREADABLE = 1003
REFUSED = 1008
FAILED = 1011
RESTARTING = 1012


class ProtocolError(Exception):
    """An invalid message; the text says what is expected."""


class Silent(Exception):
    """The client was silent for too long."""


class Connection:
    """A WebSocket. Its messages are JSON objects or bytes; `receive` and `send` raise WebSocketDisconnect."""

    def __init__(self, websocket: WebSocket, patience: float) -> None:
        self._websocket = websocket
        self._patience = patience
        self._active = asyncio.get_running_loop().time()

    async def receive(self, busy: Callable[[], bool], patience: float | None = None) -> dict[str, Any] | bytes:
        """Return the next message, a JSON object or bytes.

        The client may be silent while `busy`, and for `patience` seconds after. Raises Silent after that, and
        ProtocolError for any other message.
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
                    raise Silent(f"The client sent nothing for {patience:g} seconds.") from None
        self._active = loop.time()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        data = message.get("bytes")
        return data if data is not None else _json_object(message["text"])

    async def send(self, message: Mapping[str, object] | bytes, largest: int = LARGEST_AUDIO) -> None:
        """Send bytes, in messages of at most `largest` bytes, or an object as JSON.

        A client that does not read in time counts as disconnected.
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
        """Close the connection, if it is still open."""
        with contextlib.suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
            async with asyncio.timeout(SECONDS_TO_TAKE):
                await self._websocket.close(code, _at_most_123_bytes(reason))


class Connections:
    """All WebSockets of this process, up to a maximum number."""

    def __init__(self, most: int, patience: float) -> None:
        self._most = most
        self._patience = patience
        self.open = 0
        self.leaving = asyncio.Event()  # set when the server stops: current speech may end, nothing new begins

    async def serve(self, websocket: WebSocket, session: Callable[[Connection], Awaitable[None]]) -> None:
        """Run `session` with the connection until it returns or the client disconnects."""
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
    """Raise ProtocolError for a text that can't be encoded."""
    try:
        check_characters(text)
    except ValueError as error:
        raise ProtocolError(str(error)) from error


def _json_object(text: str) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"The message is not valid JSON: {error}.") from None
    if not isinstance(message, dict):
        raise ProtocolError("The message is not a JSON object.")
    return message


def _at_most_123_bytes(reason: str) -> str:
    """Truncate to the size of a close frame."""
    return reason.encode()[:123].decode(errors="ignore")
