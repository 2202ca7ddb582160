"""The http worker's side of the stages: it owns a request from its first byte to its last."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from server.audio_format import Encoder
from server.channel import Channel
from server.http.failure import Failure
from server.http.measuring import Answers, Speeches, account, measured
from server.http.stages import Stages
from server.messages import (
    Abort,
    Address,
    AnyMessage,
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
    Pong,
    Prepare,
    Prepared,
    PrepareStream,
    RegisterVoice,
    Release,
    StageUp,
    StreamPrepared,
    Text,
    Tokens,
    Voices,
)
from server.metrics import Numbers
from vllm_cosyvoice.in_order import in_order
from vllm_cosyvoice.recording import Recording, StoredVoice
from vllm_cosyvoice.sampling import SamplingOptions

log = logging.getLogger(__name__)

SEGMENTS_AHEAD = 4  # segments of one request in the engine at a time
PATIENCE = 590.0  # seconds that a stage may keep a request waiting; OpenAI's client gives up after 600 without a byte

Request = Prepare | PrepareStream | Convert | ListVoices | RegisterVoice | DeleteVoice
Answer = Prepared | StreamPrepared | Converted | Voices
Expected = TypeVar("Expected", Prepared, StreamPrepared, Converted, Voices)
Awaited = TypeVar("Awaited")


@dataclass(eq=False)
class Usage:
    """What a request took. Complete when its audio is."""

    input_tokens: int = 0  # of the text
    output_tokens: int = 0  # of speech


@dataclass(eq=False)
class _Preparing:
    encoder: Address
    answer: asyncio.Future[Answer]


@dataclass(eq=False)
class _Speaking:
    source: Address  # where its tokens come from
    decoder: Address
    heard: bool = False  # some of its audio has come
    pieces: asyncio.Queue[Audio | Failure] = field(default_factory=asyncio.Queue)


class Pipeline:
    """Speaks texts by way of the stages that are up. A Stage itself: its inbox brings the answers."""

    def __init__(self, channel: Channel, patience: float = PATIENCE) -> None:
        """`patience`: seconds that a request waits for the answer of a stage, or for the next piece of its audio."""
        self.stages = Stages(channel)
        self.speeches = Speeches()
        self.answers = Answers()
        self._channel = channel
        self._patience = patience
        self._preparing: dict[str, _Preparing] = {}
        self._speaking: dict[str, _Speaking] = {}
        self._requests = 0
        self._live = 0
        self._unfinished = 0

    # What the routes use

    @measured
    async def speak(
        self,
        request_id: str,
        text: str,
        voice: str | Recording,
        instructions: str | None,
        speed: float,
        sampling: SamplingOptions,
        usage: Usage | None = None,
        *,
        streaming: bool = True,
    ) -> AsyncGenerator[bytes, None]:
        """The audio of `text`: pieces of int16 PCM, little endian, mono, 24 kHz, as they are made.

        If not `streaming`, a piece is a whole segment, decoded in one go, which costs less and is in no hurry.
        `request_id` is used once; the stages' logs show it. What is spoken is added to `usage`. However the generator
        is left, nothing of the request stays behind in any stage. Raises Failure.
        """
        prepare = Prepare(request_id, self._channel.address, text, voice, instructions)
        usage = usage or Usage()
        async with self._asked(prepare, Prepared) as (encoder, prepared):
            generator, decoder = self.stages.pick("generate"), self.stages.pick("decode")
            usage.input_tokens += sum(segment.text_tokens for segment in prepared.segments)

            def open_for(index: int) -> Open:
                return Open(
                    segment_id=f"{request_id}.{index}",
                    request_id=request_id,
                    reply_to=self._channel.address,
                    generator=generator,
                    encoder=encoder,
                    voice_key=prepared.voice_key,
                    speed=speed,
                    seed=sampling.seed or 0,
                    streaming=streaming,
                )

            segments = [
                Generate(segment, sampling, decoder, open_for(index), refusable=index == 0)
                for index, segment in enumerate(prepared.segments)
            ]
            streams = [
                self._speak_segment(work.open.segment_id, generator, decoder, work, usage=usage) for work in segments
            ]
            async with aclosing(in_order(streams, SEGMENTS_AHEAD)) as pieces:
                async for piece in pieces:
                    yield piece

    @measured
    async def speak_arriving(
        self,
        request_id: str,
        text: AsyncIterator[str],
        voice: str | Recording,
        speed: float,
        sampling: SamplingOptions,
    ) -> AsyncGenerator[bytes, None]:
        """The audio of text that is still arriving, in pieces cut anywhere; it starts before the text ends.

        A Failure that `text` raises ends the audio, too. Yields and raises what `speak` does.
        """
        segment_id, here = f"{request_id}.0", self._channel.address
        async with self._asked(PrepareStream(request_id, here, voice), StreamPrepared) as (encoder, prepared):
            generator, decoder = self.stages.pick("generate"), self.stages.pick("decode")
            key, seed = prepared.voice_key, sampling.seed or 0
            opening = Open(segment_id, request_id, here, generator, encoder, key, speed, seed)
            prompt = prepared.prompt_text, prepared.prompt_speech
            work = GenerateFromText(*prompt, sampling, decoder, opening, refusable=True)
            # The first step of the loop sends `work`; the task gets its first turn when that step waits.
            forwarding = asyncio.create_task(self._forward(text, segment_id, generator))
            try:
                async with aclosing(self._speak_segment(segment_id, generator, decoder, work)) as pieces:
                    async for piece in pieces:
                        yield piece
            finally:
                forwarding.cancel()
                await asyncio.gather(forwarding, return_exceptions=True)

    async def check_voice(self, request_id: str, voice: str | Recording) -> None:
        """Make the voice, so that speaking with it starts sooner. Raises Failure when it can't be used."""
        async with self._asked(PrepareStream(request_id, self._channel.address, voice), StreamPrepared):
            pass

    @measured
    async def convert(
        self, request_id: str, audio: bytes, voice: str | Recording, speed: float
    ) -> AsyncGenerator[bytes, None]:
        """What `audio`, a file of any format, says, spoken by `voice`. Yields and raises what `speak` does."""
        here, segment_id = self._channel.address, f"{request_id}.0"
        async with self._asked(Convert(request_id, here, audio, voice), Converted) as (encoder, converted):
            decoder = self.stages.pick("decode")
            opening = Open(segment_id, request_id, here, here, encoder, converted.voice_key, speed, seed=0)
            tokens = Tokens([(segment_id, converted.tokens, True)])
            async with aclosing(self._speak_segment(segment_id, decoder, decoder, opening, tokens)) as pieces:
                async for piece in pieces:
                    yield piece

    async def list_voices(self, request_id: str) -> list[StoredVoice]:
        """All voices that can be asked for by name. Raises Failure."""
        async with self._asked(ListVoices(request_id, self._channel.address), Voices) as (_, answer):
            return answer.voices

    async def register_voice(self, request_id: str, name: str, recording: Recording) -> StoredVoice:
        """Keep the voice that `recording` makes as `name`, for every process. Raises Failure."""
        register = RegisterVoice(request_id, self._channel.address, name, recording)
        async with self._asked(register, Voices) as (_, answer):
            return answer.voices[0]

    async def delete_voice(self, request_id: str, name: str) -> StoredVoice:
        """Delete the registered voice `name`, for every process. Raises Failure."""
        async with self._asked(DeleteVoice(request_id, self._channel.address, name), Voices) as (_, answer):
            return answer.voices[0]

    # What the inbox brings

    def handle(self, message: AnyMessage) -> None:  # noqa: D102 - see Stage
        match message:
            case Prepared() | StreamPrepared() | Converted() | Voices():
                if (preparing := self._preparing.pop(message.request_id, None)) and not preparing.answer.done():
                    preparing.answer.set_result(message)
            case Audio():
                if speaking := self._speaking.get(message.segment_id):
                    speaking.heard = True
                    speaking.pieces.put_nowait(message)
            case Failed():
                self._fail(message.id, Failure(message.kind, message.message, message.param))
            case StageUp() if not self._channel.is_dead(message.address):
                self.stages.add(message)
            case Pong():
                self.stages.answered(message)

    def drop(self, address: Address) -> None:
        """A stage has died: fail at once what it still owed.

        What is heard already, its decoder has: that one fails it, too, unless all of its tokens have come.
        """
        name = self.stages.remove(address)
        failure = Failure("unavailable", f"{name} has died and is being restarted; try again in a few seconds.")
        for request_id, preparing in list(self._preparing.items()):
            if preparing.encoder == address:
                self._fail(request_id, failure)
        for segment_id, speaking in list(self._speaking.items()):
            if address == speaking.decoder or (address == speaking.source and not speaking.heard):
                self._fail(segment_id, failure)

    def numbers(self) -> Numbers:  # noqa: D102 - see Stage
        return {
            **self.speeches.numbers(),
            **self.answers.numbers(),
            "encoders": len(Encoder.unclosed),
            "requests": self._live,
            "segments": len(self._speaking),
            "requests_total": self._requests,
            "requests_unfinished_total": self._unfinished,
        }

    # Inside

    @asynccontextmanager
    async def _asked(self, request: Request, kind: type[Expected]) -> AsyncIterator[tuple[Address, Expected]]:
        """An encoder and its answer. Inside the context it holds the voice of the request, if that has one."""
        if entry := account.get():
            entry.note(request)
        encoder, request_id = self.stages.pick("encode"), request.request_id
        asked: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._preparing[request_id] = _Preparing(encoder, asked)
        self._requests += 1
        self._live += 1
        finished = False
        try:
            self._channel.send(encoder, request)
            with self.stages.busy(encoder):
                answer = await self._in_time(asked, "answer of an encode process")
                assert isinstance(answer, kind)
                yield encoder, answer
                finished = True
        finally:
            self._unfinished += not finished
            self._live -= 1
            self._preparing.pop(request_id, None)
            self._channel.send(encoder, Release(request_id))

    async def _speak_segment(
        self, segment_id: str, source: Address, decoder: Address, *orders: Message, usage: Usage | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The audio that comes of sending `orders` to `source`, which has `decoder` make it or is the decoder."""
        speaking = self._speaking[segment_id] = _Speaking(source, decoder)
        finished = False
        try:
            for order in orders:
                self._channel.send(source, order)
            if self._channel.is_dead(source) or self._channel.is_dead(decoder):
                raise Failure("unavailable", "The stage that made this audio has died; try again in a few seconds.")
            with self.stages.busy(decoder):
                while not finished:
                    piece = await self._in_time(speaking.pieces.get(), "audio")
                    if isinstance(piece, Failure):
                        raise piece
                    finished = piece.last
                    if finished and usage:
                        usage.output_tokens += piece.tokens
                    if piece.pcm:
                        yield piece.pcm
        finally:
            del self._speaking[segment_id]
            if not finished:
                self._channel.send(source, Abort(segment_id, decoder))

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
                self._channel.send(generator, Text(segment_id, piece, last=False))
        except Failure as failure:
            self._fail(segment_id, failure)
        except Exception:
            log.exception("The text of segment %s could not be read.", segment_id)
            self._fail(segment_id, Failure("internal", "The text could not be read; the server's log says why."))
        else:
            self._channel.send(generator, Text(segment_id, "", last=True))

    def _fail(self, id: str, failure: Failure) -> None:
        if (preparing := self._preparing.pop(id, None)) and not preparing.answer.done():
            preparing.answer.set_exception(failure)
        if speaking := self._speaking.get(id):
            speaking.pieces.put_nowait(failure)
