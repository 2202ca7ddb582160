"""The engine: the way of a request through the stages, from its text to its last piece of audio.

    engine ──▶ encode ──▶ engine ──▶ generate ──▶ decode ──▶ engine

How a request ends, also early, is in request_lifecycle.py.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass

import msgspec

from vllm_cosyvoice.config import SAMPLE_RATE
from vllm_cosyvoice.failure import Failure
from vllm_cosyvoice.in_order import in_order
from vllm_cosyvoice.recording import Recording, StoredVoice
from vllm_cosyvoice.request import SpeechRequest
from vllm_cosyvoice.request_lifecycle import RequestsInFlight, StageDirectory
from vllm_cosyvoice.segment import Segment
from vllm_cosyvoice.stages.messages import (
    Address,
    Convert,
    Converted,
    DeleteVoice,
    Generate,
    GenerateFromText,
    ListVoices,
    Message,
    Open,
    Post,
    Prepare,
    Prepared,
    RegisterVoice,
    StreamPrepared,
    Text,
    Tokens,
    Voices,
)
from vllm_cosyvoice.text.arriving_segments import arriving_segments
from vllm_cosyvoice.text.arriving_tokens import joined, up_to_words
from vllm_cosyvoice.text.characters import has_words

log = logging.getLogger(__name__)

SEGMENTS_AHEAD = 4  # segments of one request that are in the stages, or wait to be played


@dataclass(eq=False)
class Usage:
    """What a request took. It is complete when the audio is."""

    input_tokens: int = 0  # of the text; text that arrives in pieces is not counted
    output_tokens: int = 0  # of speech

    @property
    def total_tokens(self) -> int:
        """Both."""
        return self.input_tokens + self.output_tokens


class Engine:
    """Speaks by way of stages. It is a stage itself: `handle` takes what the others send."""

    def __init__(self, post: Post, stages: StageDirectory, patience: float | None) -> None:
        """`patience`: see RequestsInFlight."""
        self._post = post
        self._stages = stages
        self.in_flight = RequestsInFlight(post, stages, patience)

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
        async with self.in_flight.ask(Convert(request, self._post.address, audio), Converted) as (encoder, converted):
            with self._stages.using("decode") as decoder:
                opening = self._open(request, 0, self._post.address, encoder, converted.voice_key)
                tokens = Tokens([(opening.segment_id, converted.tokens, True)])
                speech = self._speak_segment(opening.segment_id, decoder, decoder, opening, tokens, usage=Usage())
                async with aclosing(speech) as pieces:
                    async for piece in pieces:
                        yield piece

    async def check_voice(self, request_id: str, voice: str | Recording) -> None:
        """Make the voice, so that speaking with it starts sooner. Raises Failure when it can't be used."""
        request = SpeechRequest(id=request_id, voice=voice)
        async with self.in_flight.ask(Prepare(request, self._post.address), StreamPrepared):
            pass

    async def list_voices(self, request_id: str) -> list[StoredVoice]:
        """All voices that can be asked for by name. Raises Failure."""
        async with self.in_flight.ask(ListVoices(request_id, self._post.address), Voices) as (_, answer):
            return answer.voices

    async def register_voice(self, request_id: str, name: str, recording: Recording) -> StoredVoice:
        """Keep the voice that `recording` makes as `name`. Raises Failure."""
        async with self.in_flight.ask(RegisterVoice(request_id, self._post.address, name, recording), Voices) as (
            _,
            answer,
        ):
            return answer.voices[0]

    async def delete_voice(self, request_id: str, name: str) -> StoredVoice:
        """Delete the registered voice `name`. Raises Failure."""
        async with self.in_flight.ask(DeleteVoice(request_id, self._post.address, name), Voices) as (_, answer):
            return answer.voices[0]

    # What stages send

    def handle(self, message: Message) -> None:
        """Act on a message of a stage."""
        self.in_flight.handle(message)

    # Inside

    async def _speak_text(self, request: SpeechRequest, usage: Usage) -> AsyncGenerator[bytes, None]:
        async with self.in_flight.ask(Prepare(request, self._post.address), Prepared) as (encoder, prepared):
            with self._speakers() as (generator, decoder):
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
        async with self.in_flight.ask(Prepare(request, self._post.address), StreamPrepared) as (encoder, prepared):
            with self._speakers() as (generator, decoder):

                async def streams() -> AsyncGenerator[AsyncGenerator[bytes, None], None]:
                    index = 0
                    async with aclosing(arriving_segments(text)) as segments:
                        async for segment in segments:
                            opening = self._open(request, index, generator, encoder, prepared.voice_key)
                            work = GenerateFromText(
                                prepared.prompt, request.sampling, decoder, opening, refusable=index == 0
                            )
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

    @contextmanager
    def _speakers(self) -> Iterator[tuple[Address, Address]]:
        """The generator and the decoder of a request. Raises Failure when there is none."""
        with self._stages.using("generate") as generator, self._stages.using("decode") as decoder:
            yield generator, decoder

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

    async def _speak_segment(
        self, segment_id: str, source: Address, decoder: Address, *orders: Message, usage: Usage
    ) -> AsyncGenerator[bytes, None]:
        async with aclosing(self.in_flight.speak(segment_id, source, decoder, *orders)) as pieces:
            async for piece in pieces:
                if piece.last:
                    usage.output_tokens += piece.tokens
                if piece.pcm:
                    yield piece.pcm

    async def _forward(self, text: AsyncIterator[str], segment_id: str, generator: Address) -> None:
        """Send `text` on as it arrives; when it fails, so does the segment, which would wait for ever."""
        try:
            async for piece in text:
                self._post.send(generator, Text(segment_id, piece, last=False))
        except Failure as failure:
            self.in_flight.fail(segment_id, failure)
        else:
            self._post.send(generator, Text(segment_id, "", last=True))


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
