"""One utterance of a session: receives its text as it arrives, and sends its speech as it is generated."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from server.http.audio_format import packed
from server.http.websocket import LARGEST_AUDIO, LARGEST_MESSAGE, Connection
from server.ws import messages
from server.ws.messages import SessionConfig
from vllm_cosyvoice.engine import Engine
from vllm_cosyvoice.failure import Failure
from vllm_cosyvoice.in_order import in_order
from vllm_cosyvoice.recording import Recording
from vllm_cosyvoice.text.arriving_sentences import sentences
from vllm_cosyvoice.text.arriving_tokens import joined

SENTENCES_AHEAD = 2  # generated at the same time


@dataclass(frozen=True)
class _Piece:
    sentence: str
    data: bytes | None  # None: end of the sentence


class Utterance:
    """Takes text with `add` and `end` while `speak` runs; `speak` may be cancelled at any time."""

    def __init__(
        self,
        connection: Connection,
        engine: Engine,
        request_id: str,
        index: int,
        config: SessionConfig,
        voice: str | Recording,
        longest_text: int,
    ) -> None:
        self._connection = connection
        self._engine = engine
        self._request_id = request_id
        self._index = index
        self._config = config
        self._voice = voice
        self._longest_text = longest_text
        self._text: asyncio.Queue[str | Failure | None] = asyncio.Queue()
        self._length = 0  # characters
        self._complete = asyncio.Event()
        self._spoken = 0  # sentences
        self._sounding = False  # audio.start was sent, audio.done not yet
        self._sent = 0  # bytes of the current sentence

    @property
    def complete(self) -> bool:
        """Whether the text is complete."""
        return self._complete.is_set()

    def add(self, text: str) -> None:
        """Add the next piece of the text. Above `longest_text` characters the utterance fails and ignores the rest."""
        previous_length, self._length = self._length, self._length + len(text)
        if self._length <= self._longest_text:
            self._text.put_nowait(text)
        elif previous_length <= self._longest_text:
            reason = f"An utterance has at most {self._longest_text} characters: send input.done between paragraphs."
            self._text.put_nowait(Failure("invalid", reason, "text"))

    def end(self) -> None:
        """End the text."""
        self._text.put_nowait(None)
        self._complete.set()

    async def speak(self) -> None:
        """Send the speech and the session.done. A failure is sent as a message, too."""
        try:
            async with aclosing(in_order(self._sentences(), SENTENCES_AHEAD)) as pieces:
                async for piece in pieces:
                    await self._send(piece)
        except Failure as failure:
            await self._send_failure(failure)
        await self._complete.wait()
        await self._connection.send(messages.session_done(self._index, self._spoken))

    async def send_cancelled(self) -> None:
        """Send the end of the utterance after `speak` was cancelled. Nothing else may be sent in between."""
        if self._sounding:
            await self._connection.send(messages.audio_done(self._index, self._spoken, self._sent, cancelled=True))
        await self._connection.send(messages.session_done(self._index, self._spoken, cancelled=True))

    async def _sentences(self) -> AsyncIterator[AsyncGenerator[_Piece, None]]:
        """Yield the audio of each sentence. Without splitting, the text is one sentence; an empty text has none."""
        config, text = self._config, self._pieces()
        if config.split_granularity == "none":
            async for piece in text:
                if piece.strip():
                    request = config.request(self._request_id, None, self._voice, streaming=True)
                    yield self._packed(piece.strip(), self._engine.speak(request, joined(piece, text)))
                    return
            return
        number = 0
        async for sentence in sentences(text, config.split_granularity):
            request_id = f"{self._request_id}.{number}"
            request = config.request(request_id, sentence, self._voice, streaming=config.stream_audio)
            yield self._packed(sentence, self._engine.speak(request))
            number += 1

    async def _pieces(self) -> AsyncIterator[str]:
        while (piece := await self._text.get()) is not None:
            if isinstance(piece, Failure):
                raise piece
            yield piece

    async def _packed(self, sentence: str, audio: AsyncGenerator[bytes, None]) -> AsyncGenerator[_Piece, None]:
        config = self._config
        data = packed(audio, config.packing(), config.sample_rate, whole=not config.stream_audio)
        async with aclosing(data) as pieces:
            async for piece in pieces:
                yield _Piece(sentence, piece)
        yield _Piece(sentence, None)

    async def _send(self, piece: _Piece) -> None:
        if not self._sounding:
            await self._send_start(piece.sentence)
        if piece.data is None:
            await self._connection.send(messages.audio_done(self._index, self._spoken, self._sent))
            self._sounding = False
            self._spoken += 1
        else:
            await self._connection.send(piece.data, LARGEST_AUDIO if self._config.stream_audio else LARGEST_MESSAGE)
            self._sent += len(piece.data)

    async def _send_start(self, sentence: str) -> None:
        await self._connection.send(messages.audio_start(self._index, self._spoken, sentence, self._config))
        self._sounding, self._sent = True, 0

    async def _send_failure(self, failure: Failure) -> None:
        if not self._sounding:
            await self._send_start("")
        place = {"utterance_index": self._index, "sentence_index": self._spoken}
        partial = {"partial_audio": True, "action": "discard"} if self._sent else {}
        await self._connection.send(messages.error(failure, **place, **partial))
        await self._connection.send(messages.audio_done(self._index, self._spoken, self._sent, error=True))
        self._sounding = False
