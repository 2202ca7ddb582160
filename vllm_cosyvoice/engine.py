"""The engine: the way of a request through the stages, from its text to its last piece of audio.

    engine ──▶ encode ──▶ engine ──▶ generate ──▶ decode ──▶ engine

It owns each request from the first message to the last: however its audio ends, every stage lets go of the request.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import AbstractContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import msgspec

from vllm_cosyvoice.config import SAMPLE_RATE
from vllm_cosyvoice.failure import Failure
from vllm_cosyvoice.in_order import in_order
from vllm_cosyvoice.recording import Recording, StoredVoice
from vllm_cosyvoice.request import SpeechRequest
from vllm_cosyvoice.segment import Segment
from vllm_cosyvoice.stages.messages import (
    Abort,
    Address,
    Audio,
    Convert,
    Converted,
    DeleteVoice,
    Failed,
    Generate,
    GenerateFromText,
    ListVoices,
    Message,
    Open,
    Post,
    Prepare,
    Prepared,
    RegisterVoice,
    Release,
    StageKind,
    StreamPrepared,
    Text,
    Tokens,
    Voices,
)
from vllm_cosyvoice.text.arriving_segments import arriving_segments
from vllm_cosyvoice.text.arriving_tokens import joined, up_to_words
from vllm_cosyvoice.text.characters import has_words

log = logging.getLogger(__name__)

SEGMENTS_AHEAD = 4  # segments of one request that are in the stages, or wait to be heard

Question = Prepare | Convert | ListVoices | RegisterVoice | DeleteVoice
Answer = Prepared | StreamPrepared | Converted | Voices
Expected = TypeVar("Expected", Prepared, StreamPrepared, Converted, Voices)
Awaited = TypeVar("Awaited")


class StageDirectory(Protocol):
    """Which stages there are."""

    def pick(self, kind: StageKind) -> Address:
        """The stage of this kind to give work to. Raises Failure when none is up."""

    def busy(self, address: Address) -> AbstractContextManager[None]:
        """The stage at `address` works for this engine inside the context."""


@dataclass(eq=False)
class Usage:
    """What a request took. Complete when its audio is."""

    input_tokens: int = 0  # of the text; text that arrives in pieces is not counted
    output_tokens: int = 0  # of speech

    @property
    def total_tokens(self) -> int:
        """Both."""
        return self.input_tokens + self.output_tokens


@dataclass(eq=False)
class _Asked:
    encoder: Address
    answer: asyncio.Future[Answer]


@dataclass(eq=False)
class _Speaking:
    source: Address  # where its tokens come from
    decoder: Address
    heard: bool = False  # some of its audio has come
    pieces: asyncio.Queue[Audio | Failure] = field(default_factory=asyncio.Queue)


class Engine:
    """Speaks by way of stages. It is a stage itself: `handle` takes what the others send."""

    def __init__(self, post: Post, stages: StageDirectory, patience: float | None) -> None:
        """`patience`: seconds that a request waits for a stage's answer or its next audio; None: for ever."""
        self._post = post
        self._stages = stages
        self._patience = patience
        self._asked: dict[str, _Asked] = {}
        self._speaking: dict[str, _Speaking] = {}
        self._requests = 0
        self._live = 0
        self._unfinished = 0

    # What callers use

    async def speak(
        self, request: SpeechRequest, arriving: AsyncIterator[str] | None = None, usage: Usage | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The audio of the request's text: pieces of int16 PCM, little endian, mono, 24 kHz, as they are made.

        `arriving` brings the text of a request that has none, in pieces cut anywhere; its audio starts before the text
        ends, and a Failure that it raises ends the audio, too. A request that is not streamed has a piece for each
        segment. A text without words is spoken as silence. What is spoken is added to `usage`. However the generator is
        left, no stage keeps anything of the request. Raises Failure.
        """
        usage = usage or Usage()
        work = self._speak_text(request, usage) if arriving is None else self._speak_arriving(request, arriving, usage)
        async with aclosing(work) as pieces:
            async for piece in pieces:
                yield piece

    async def convert(self, request: SpeechRequest, audio: bytes) -> AsyncGenerator[bytes, None]:
        """What `audio`, a file of any format, says, spoken by the request's voice. Yields and raises as `speak`."""
        async with self._ask(Convert(request, self._post.address, audio), Converted) as (encoder, converted):
            decoder = self._stages.pick("decode")
            opening = self._open(request, 0, self._post.address, encoder, converted.voice_key)
            tokens = Tokens([(opening.segment_id, converted.tokens, True)])
            speech = self._speak_segment(opening.segment_id, decoder, decoder, opening, tokens, usage=Usage())
            async with aclosing(speech) as pieces:
                async for piece in pieces:
                    yield piece

    async def check_voice(self, request_id: str, voice: str | Recording) -> None:
        """Make the voice, so that speaking with it starts sooner. Raises Failure when it can't be used."""
        request = SpeechRequest(id=request_id, voice=voice)
        async with self._ask(Prepare(request, self._post.address), StreamPrepared):
            pass

    async def list_voices(self, request_id: str) -> list[StoredVoice]:
        """All voices that can be asked for by name. Raises Failure."""
        async with self._ask(ListVoices(request_id, self._post.address), Voices) as (_, answer):
            return answer.voices

    async def register_voice(self, request_id: str, name: str, recording: Recording) -> StoredVoice:
        """Keep the voice that `recording` makes as `name`. Raises Failure."""
        async with self._ask(RegisterVoice(request_id, self._post.address, name, recording), Voices) as (_, answer):
            return answer.voices[0]

    async def delete_voice(self, request_id: str, name: str) -> StoredVoice:
        """Delete the registered voice `name`. Raises Failure."""
        async with self._ask(DeleteVoice(request_id, self._post.address, name), Voices) as (_, answer):
            return answer.voices[0]

    # What stages send

    def handle(self, message: Message) -> None:
        """Act on a message of a stage."""
        match message:
            case Prepared() | StreamPrepared() | Converted() | Voices():
                if (asked := self._asked.pop(message.request_id, None)) and not asked.answer.done():
                    asked.answer.set_result(message)
            case Audio():
                if speaking := self._speaking.get(message.segment_id):
                    speaking.heard = True
                    speaking.pieces.put_nowait(message)
            case Failed():
                self._fail(message.id, Failure(message.kind, message.message, message.param))

    def fail_what_is_owed_by(self, address: Address, failure: Failure) -> None:
        """The stage at `address` has died: fail at once what it still owed.

        What is heard already, its decoder has: that one fails it, too, unless all of its tokens have come.
        """
        for request_id, asked in list(self._asked.items()):
            if asked.encoder == address:
                self._fail(request_id, failure)
        for segment_id, speaking in list(self._speaking.items()):
            if address == speaking.decoder or (address == speaking.source and not speaking.heard):
                self._fail(segment_id, failure)

    def fail_all(self, failure: Failure) -> None:
        """Fail whatever is under way."""
        for id in [*self._asked, *self._speaking]:
            self._fail(id, failure)

    # Inside

    async def _speak_text(self, request: SpeechRequest, usage: Usage) -> AsyncGenerator[bytes, None]:
        async with self._ask(Prepare(request, self._post.address), Prepared) as (encoder, prepared):
            generator, decoder = self._stages.pick("generate"), self._stages.pick("decode")
            usage.input_tokens += sum(segment.text_tokens for segment in prepared.segments)
            streams = []
            for index, segment in enumerate(prepared.segments):
                if not segment.prompt:
                    streams.append(_silent(segment))
                    continue
                opening = self._open(request, index, generator, encoder, prepared.voice_key)
                work = Generate(segment, request.sampling, decoder, opening, refusable=index == 0)
                speech = self._speak_segment(opening.segment_id, generator, decoder, work, usage=usage)
                streams.append(_between_silence(segment, speech))
            async with aclosing(in_order(streams, SEGMENTS_AHEAD)) as pieces:
                async for piece in pieces:
                    yield piece

    async def _speak_arriving(
        self, request: SpeechRequest, text: AsyncIterator[str], usage: Usage
    ) -> AsyncGenerator[bytes, None]:
        text = _read(text, request.id)
        beginning = await up_to_words(text)
        if has_words(beginning):
            work = self._speak_words(request, joined(beginning, text), usage)
        else:
            work = self._speak_text(msgspec.structs.replace(request, text=beginning), usage)
        async with aclosing(work) as pieces:
            async for piece in pieces:
                yield piece

    async def _speak_words(
        self, request: SpeechRequest, text: AsyncIterator[str], usage: Usage
    ) -> AsyncGenerator[bytes, None]:
        async with self._ask(Prepare(request, self._post.address), StreamPrepared) as (encoder, prepared):
            generator, decoder = self._stages.pick("generate"), self._stages.pick("decode")

            async def streams() -> AsyncGenerator[AsyncGenerator[bytes, None], None]:
                index = 0
                async with aclosing(arriving_segments(text)) as segments:
                    async for segment in segments:
                        opening = self._open(request, index, generator, encoder, prepared.voice_key)
                        prompt = prepared.prompt_text, prepared.prompt_speech
                        work = GenerateFromText(*prompt, request.sampling, decoder, opening, refusable=index == 0)
                        yield self._speak_arriving_segment(segment, work, usage)
                        index += 1

            async with aclosing(in_order(streams(), SEGMENTS_AHEAD)) as pieces:
                async for piece in pieces:
                    yield piece

    async def _speak_arriving_segment(
        self, text: AsyncIterator[str], work: GenerateFromText, usage: Usage
    ) -> AsyncGenerator[bytes, None]:
        """The audio of a segment whose `text` is arriving."""
        segment_id, generator = work.open.segment_id, work.open.generator
        # The first step of the loop sends `work`; the task gets its first turn when that step waits.
        forwarding = asyncio.create_task(self._forward(text, segment_id, generator))
        try:
            speech = self._speak_segment(segment_id, generator, work.decoder, work, usage=usage)
            async with aclosing(speech) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            forwarding.cancel()
            await asyncio.gather(forwarding, return_exceptions=True)

    def _open(self, request: SpeechRequest, index: int, source: Address, encoder: Address, voice_key: str) -> Open:
        return Open(
            segment_id=f"{request.id}.{index}",
            request_id=request.id,
            reply_to=self._post.address,
            generator=source,
            encoder=encoder,
            voice_key=voice_key,
            speed=request.speed,
            seed=request.sampling.seed or 0,
            streaming=request.streaming,
        )

    @asynccontextmanager
    async def _ask(self, question: Question, kind: type[Expected]) -> AsyncIterator[tuple[Address, Expected]]:
        """An encoder and its answer. Inside the context it holds the voice of the request, if that has one."""
        encoder, request_id = self._stages.pick("encode"), question.request_id
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[request_id] = _Asked(encoder, answered)
        self._requests += 1
        self._live += 1
        finished = False
        try:
            self._post.send(encoder, question)
            with self._stages.busy(encoder):
                answer = await self._in_time(answered, "answer of an encode process")
                assert isinstance(answer, kind)
                yield encoder, answer
                finished = True
        finally:
            self._unfinished += not finished
            self._live -= 1
            self._asked.pop(request_id, None)
            self._post.send(encoder, Release(request_id))

    async def _speak_segment(
        self, segment_id: str, source: Address, decoder: Address, *orders: Message, usage: Usage
    ) -> AsyncGenerator[bytes, None]:
        """The audio that comes of sending `orders` to `source`, which has `decoder` make it or is the decoder."""
        speaking = self._speaking[segment_id] = _Speaking(source, decoder)
        finished = False
        try:
            for order in orders:
                self._post.send(source, order)
            if self._post.is_dead(source) or self._post.is_dead(decoder):
                raise Failure("unavailable", "The stage that made this audio has died; try again in a few seconds.")
            with self._stages.busy(decoder):
                while not finished:
                    piece = await self._in_time(speaking.pieces.get(), "audio")
                    if isinstance(piece, Failure):
                        raise piece
                    finished = piece.last
                    if finished:
                        usage.output_tokens += piece.tokens
                    if piece.pcm:
                        yield piece.pcm
        finally:
            del self._speaking[segment_id]
            if not finished:
                self._post.send(source, Abort(segment_id, decoder))

    async def _in_time(self, wait: Awaitable[Awaited], what: str) -> Awaited:
        """What `wait` brings. Raises Failure when that takes too long, whoever is to blame."""
        try:
            async with asyncio.timeout(self._patience):
                return await wait
        except TimeoutError:
            raise Failure("timeout", f"No {what} came for {self._patience:g} s; try again later.") from None

    async def _forward(self, text: AsyncIterator[str], segment_id: str, generator: Address) -> None:
        """Send `text` on as it arrives; when it fails, so does the segment, which would wait for ever."""
        try:
            async for piece in text:
                self._post.send(generator, Text(segment_id, piece, last=False))
        except Failure as failure:
            self._fail(segment_id, failure)
        else:
            self._post.send(generator, Text(segment_id, "", last=True))

    def _fail(self, id: str, failure: Failure) -> None:
        if (asked := self._asked.pop(id, None)) and not asked.answer.done():
            asked.answer.set_exception(failure)
        if speaking := self._speaking.get(id):
            speaking.pieces.put_nowait(failure)


async def _read(text: AsyncIterator[str], request_id: str) -> AsyncIterator[str]:
    """`text`; whatever it raises becomes a Failure."""
    try:
        async for piece in text:
            yield piece
    except Failure:
        raise
    except Exception:
        log.exception("The text of request %s could not be read.", request_id)
        raise Failure("internal", "The text could not be read; the log says why.") from None


async def _silent(segment: Segment) -> AsyncGenerator[bytes, None]:
    """The audio of a segment without words."""
    yield _silence(segment.silence_before)


async def _between_silence(segment: Segment, speech: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The segment's `speech`, with the pauses that the text asks for around it."""
    silence_before = segment.silence_before
    async with aclosing(speech) as pieces:
        async for piece in pieces:
            if silence_before:  # not before the first piece, which tells that the segment was not refused
                yield _silence(silence_before)
                silence_before = 0.0
            yield piece
        if segment.silence_after:
            yield _silence(segment.silence_after)


def _silence(seconds: float) -> bytes:
    return bytes(2 * round(SAMPLE_RATE * seconds))
