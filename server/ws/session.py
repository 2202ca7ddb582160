"""One connection of `WS /v1/audio/speech/stream`: receives text as it is written, sends speech as it is generated.

One task reads, so that it sees a cancel at any time; another speaks, one utterance after the other.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from server.http.errors import ApiError
from server.http.websocket import (
    LARGEST_TEXT,
    NORMAL,
    REFUSED,
    RESTARTING,
    Connection,
    ProtocolError,
    Silent,
    check_text,
)
from server.ws import messages
from server.ws.messages import SessionConfig
from server.ws.utterance import Utterance
from vllm_cosyvoice.engine import Engine
from vllm_cosyvoice.failure import Failure
from vllm_cosyvoice.recording import Recording
from vllm_cosyvoice.text.characters import whole_characters

SECONDS_FOR_CONFIG = 10.0
MOST_UTTERANCES = 8  # begun and not finished

Check = Callable[[SessionConfig], Awaitable[str | Recording]]  # → the voice; raises ApiError


class Session:
    """Serves one connection with `run`."""

    def __init__(
        self,
        connection: Connection,
        engine: Engine,
        session_id: str,
        check: Check,
        longest_text: int,
        leaving: asyncio.Event,
    ) -> None:
        """`longest_text`: maximum characters of an utterance. `leaving` is set when the server stops."""
        self._connection = connection
        self._engine = engine
        self._id = session_id
        self._check = check
        self._longest_text = longest_text
        self._leaving = leaving
        self._configured = 0  # times
        self._begun = 0  # utterances
        self._half = ""  # first half of a surrogate pair; the second half comes with the next message
        self._open: Utterance | None = None  # the utterance whose text is arriving
        self._unfinished: deque[Utterance] = deque()
        self._changed = asyncio.Event()  # wakes the speaking task
        self._close_code: int | None = None  # if set, close with it when all utterances are spoken

    async def run(self) -> None:
        """Serve until either side closes. If the client does, raises WebSocketDisconnect in an exception group."""
        try:
            message = await self._connection.receive(busy=lambda: False, patience=SECONDS_FOR_CONFIG)
            if isinstance(message, bytes) or message.get("type") != "session.config":
                raise ProtocolError("The first message must be a session.config.")
            await self._configure(message)
        except (ProtocolError, ApiError, Failure, Silent) as problem:
            await self._connection.send(messages.error(problem))
            await self._connection.close(REFUSED, str(problem))
            return
        async with asyncio.TaskGroup() as self._tasks:
            self._speaking = self._tasks.create_task(self._speak())
            leaving = self._tasks.create_task(self._leave())
            await self._read()
            self._speaking.cancel()
            leaving.cancel()

    async def _speak(self) -> None:
        while True:
            while self._unfinished:
                await self._unfinished[0].speak()
                self._unfinished.popleft()
            if self._close_code is not None:
                await self._connection.close(self._close_code)
                return
            self._changed.clear()
            await self._changed.wait()

    async def _leave(self) -> None:
        await self._leaving.wait()
        self._close_code = RESTARTING
        self._changed.set()

    async def _read(self) -> None:
        while True:
            try:
                await self._handle(await self._connection.receive(busy=self._is_owed))
            except (ProtocolError, ApiError, Failure) as problem:
                await self._connection.send(messages.error(problem))
            except Silent as problem:
                await self._connection.send(messages.error(problem))
                await self._connection.close(REFUSED, str(problem))
                return

    def _is_owed(self) -> bool:
        """Return whether the client waits for speech."""
        return any(utterance.complete for utterance in self._unfinished)

    async def _handle(self, message: dict[str, Any] | bytes) -> None:
        match message:
            case bytes():
                raise ProtocolError("Messages must be JSON objects with a type, not bytes.")
            case {"type": "session.config"}:
                await self._configure(message)
            case {"type": "input.text", "text": str(text)}:
                self._add(text)
            case {"type": "input.done"}:
                self._end()
            case {"type": "input.cancel"}:
                await self._cancel()
            case {"type": "session.close"}:
                self._close_code = NORMAL
                self._changed.set()
                if self._open:
                    self._end()
            case {"type": "input.text"}:
                raise ProtocolError("input.text needs the field text, a string.")
            case {"type": kind}:
                raise ProtocolError(f"There is no message type {kind!r}.")
            case _:
                raise ProtocolError("The message has no type.")

    async def _configure(self, message: dict[str, Any]) -> None:
        if self._open:
            raise ProtocolError("An utterance has begun: send input.done or input.cancel before session.config.")
        config = SessionConfig.of(message)
        voice = await self._check(config)
        self._configured += 1
        await self._engine.check_voice(f"{self._id}.voice{self._configured}", voice)
        self._config, self._voice = config, voice

    def _add(self, text: str) -> None:
        if len(text) > LARGEST_TEXT:
            raise ProtocolError(f"The text has {len(text)} characters; send at most {LARGEST_TEXT} at a time.")
        text, self._half = whole_characters(self._half + text)
        check_text(text)
        if text:
            self._utterance().add(text)

    def _end(self) -> None:
        """End the text of the open utterance."""
        half, self._half = self._half, ""
        self._utterance().end()
        self._open = None
        if half:
            raise ProtocolError("The text ended in the middle of a character; that character is dropped.")

    def _utterance(self) -> Utterance:
        """Return the open utterance, or begin a new one."""
        if self._open is None:
            if self._close_code is not None:
                raise ProtocolError("This session is closing.")
            if len(self._unfinished) >= MOST_UTTERANCES:
                raise ProtocolError(f"{MOST_UTTERANCES} utterances are already waiting: wait for a session.done.")
            self._open = Utterance(
                self._connection,
                self._engine,
                f"{self._id}.{self._begun}",
                self._begun,
                self._config,
                self._voice,
                self._longest_text,
            )
            self._begun += 1
            self._unfinished.append(self._open)
            self._changed.set()
        return self._open

    async def _cancel(self) -> None:
        """Stop all utterances. Each gets its session.done here, unless it was sent before."""
        self._speaking.cancel()
        await asyncio.wait([self._speaking])
        cancelled, self._unfinished, self._open, self._half = self._unfinished, deque(), None, ""
        for utterance in cancelled:
            await utterance.send_cancelled()
        self._speaking = self._tasks.create_task(self._speak())
