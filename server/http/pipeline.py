"""The http worker's side of the stages: it owns a request from its first byte to its last."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field

from server.channel import Channel
from server.messages import (
    Abort,
    Address,
    AnyMessage,
    Audio,
    Failed,
    FailureKind,
    Generate,
    Kind,
    Open,
    Ping,
    Pong,
    Prepare,
    Prepared,
    Release,
    StageUp,
)
from vllm_cosyvoice.in_order import in_order
from vllm_cosyvoice.sampling import SamplingOptions

log = logging.getLogger(__name__)

SEGMENTS_AHEAD = 4  # segments of one request in the engine at a time
SECONDS_TO_ANSWER = 1.0  # what a stage may take for a Pong
SECONDS_HEALTH_HOLDS = 1.0  # how long one look at the stages' health answers for
WORKING_STAGES: tuple[Kind, ...] = ("encode", "generate", "decode")


class Failure(Exception):
    """A request ended without (all of) its audio. `param` is the field of the request that is at fault, if one is."""

    def __init__(self, kind: FailureKind, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.param = param


@dataclass(eq=False)
class _Preparing:
    encoder: Address
    answer: asyncio.Future[Prepared]


@dataclass(eq=False)
class _Speaking:
    generator: Address
    decoder: Address
    pieces: asyncio.Queue[Audio | Failure] = field(default_factory=asyncio.Queue)


class Pipeline:
    """Speaks texts by way of the stages that are up. A Stage itself: its inbox brings the answers."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._stages: dict[Kind, dict[Address, str]] = {"http": {}, "encode": {}, "generate": {}, "decode": {}}
        self._load: Counter[Address] = Counter()  # what this worker has at each stage
        self._preparing: dict[str, _Preparing] = {}
        self._speaking: dict[str, _Speaking] = {}
        self._pongs: dict[int, dict[Address, asyncio.Future[dict[str, int]]]] = {}
        self._pings = 0
        self._looked = float("-inf")
        self._look: asyncio.Task[list[str]] | None = None
        self._requests = 0
        self._live = 0
        self._unfinished = 0

    # What the routes use

    async def speak(
        self,
        request_id: str,
        text: str,
        voice: str,
        instructions: str | None,
        speed: float,
        sampling: SamplingOptions,
        *,
        streaming: bool = True,
    ) -> AsyncGenerator[bytes, None]:
        """The audio of `text`: pieces of int16 PCM, little endian, mono, 24 kHz, as they are made.

        If not `streaming`, a piece is a whole segment, decoded in one go, which costs less and is in no hurry.
        `request_id` is used once; the stages' logs show it. However the generator is left, nothing of the request
        stays behind in any stage. Raises Failure.
        """
        encoder = self._pick("encode")
        answer: asyncio.Future[Prepared] = asyncio.get_running_loop().create_future()
        self._preparing[request_id] = _Preparing(encoder, answer)
        self._requests += 1
        self._live += 1
        self._load[encoder] += 1
        self._channel.send(encoder, Prepare(request_id, self._channel.address, text, voice, instructions))
        finished = False
        try:
            prepared = await answer
            generator, decoder = self._pick("generate"), self._pick("decode")

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

            streams = [
                self._speak_segment(Generate(segment, sampling, decoder, open_for(index), refusable=index == 0))
                for index, segment in enumerate(prepared.segments)
            ]
            async with aclosing(in_order(streams, SEGMENTS_AHEAD)) as pieces:
                async for piece in pieces:
                    yield piece
            finished = True
        finally:
            self._unfinished += not finished
            self._live -= 1
            self._load[encoder] -= 1
            self._preparing.pop(request_id, None)
            self._channel.send(encoder, Release(request_id))

    async def missing(self) -> list[str]:
        """Why a request would not be served now, a reason each; empty when it would. One look answers for a second."""
        if self._look is None or time.monotonic() - self._looked > SECONDS_HEALTH_HOLDS:
            self._looked = time.monotonic()
            self._look = asyncio.create_task(self._missing())
        return await asyncio.shield(self._look)

    async def numbers_of_all(self) -> dict[str, dict[str, int]]:
        """The numbers of every process that answers, by its name."""
        names = {address: name for stages in self._stages.values() for address, name in stages.items()}
        numbers = await self._ping(names)
        return {names[address]: found for address, found in numbers.items()}

    # What the inbox brings

    def handle(self, message: AnyMessage) -> None:  # noqa: D102 - see Stage
        match message:
            case Prepared():
                if (preparing := self._preparing.pop(message.request_id, None)) and not preparing.answer.done():
                    preparing.answer.set_result(message)
            case Audio():
                if speaking := self._speaking.get(message.segment_id):
                    speaking.pieces.put_nowait(message)
            case Failed():
                self._fail(message.id, Failure(message.kind, message.message, message.param))
            case StageUp():
                self._stages[message.kind][message.address] = message.name
            case Pong():
                if answer := self._pongs.get(message.nonce, {}).get(message.sender):
                    answer.set_result(message.numbers)

    def drop(self, address: Address) -> None:
        """A stage has died: fail at once what it still owed."""
        names = [stages.pop(address) for stages in self._stages.values() if address in stages]
        name = names[0] if names else "A stage"
        failure = Failure("unavailable", f"{name} has died and is being restarted; try again in a few seconds.")
        for request_id, preparing in list(self._preparing.items()):
            if preparing.encoder == address:
                self._fail(request_id, failure)
        for segment_id, speaking in list(self._speaking.items()):
            if address in (speaking.generator, speaking.decoder):
                self._fail(segment_id, failure)

    def numbers(self) -> dict[str, int]:  # noqa: D102
        return {
            "requests": self._live,
            "segments": len(self._speaking),
            "requests_total": self._requests,
            "requests_unfinished_total": self._unfinished,
        }

    # Inside

    def _pick(self, kind: Kind) -> Address:
        """The stage of this kind with the least of this worker's work."""
        stages = self._stages[kind]
        if not stages:
            raise Failure("unavailable", f"No {kind} process is up: the server is starting, or restarting what died.")
        return min(stages, key=lambda address: self._load[address])

    async def _speak_segment(self, work: Generate) -> AsyncGenerator[bytes, None]:
        segment_id, generator, decoder = work.open.segment_id, work.open.generator, work.decoder
        speaking = self._speaking[segment_id] = _Speaking(generator, decoder)
        self._load[decoder] += 1
        self._channel.send(generator, work)
        finished = False
        try:
            if self._channel.is_dead(generator) or self._channel.is_dead(decoder):
                raise Failure("unavailable", "The stage that made this audio has died; try again in a few seconds.")
            while not finished:
                piece = await speaking.pieces.get()
                if isinstance(piece, Failure):
                    raise piece
                finished = piece.last
                if piece.pcm:
                    yield piece.pcm
        finally:
            del self._speaking[segment_id]
            self._load[decoder] -= 1
            if not finished:
                self._channel.send(generator, Abort(segment_id, decoder))

    def _fail(self, id: str, failure: Failure) -> None:
        if (preparing := self._preparing.pop(id, None)) and not preparing.answer.done():
            preparing.answer.set_exception(failure)
        if speaking := self._speaking.get(id):
            speaking.pieces.put_nowait(failure)

    async def _missing(self) -> list[str]:
        absent = [f"no {kind} process is up" for kind in WORKING_STAGES if not self._stages[kind]]
        names = {address: name for kind in WORKING_STAGES for address, name in self._stages[kind].items()}
        answers = await self._ping(names)
        return absent + [f"{name} does not answer" for address, name in names.items() if address not in answers]

    async def _ping(self, addresses: Iterable[Address]) -> dict[Address, dict[str, int]]:
        """What those answer who answer in time."""
        self._pings += 1
        nonce, loop = self._pings, asyncio.get_running_loop()
        answers = self._pongs[nonce] = {address: loop.create_future() for address in addresses}
        try:
            for address in answers:
                self._channel.send(address, Ping(nonce, self._channel.address))
            if answers:
                await asyncio.wait(answers.values(), timeout=SECONDS_TO_ANSWER)
            return {address: answer.result() for address, answer in answers.items() if answer.done()}
        finally:
            del self._pongs[nonce]
