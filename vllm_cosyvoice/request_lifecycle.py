"""What the stages owe the engine, and how requests end: complete, aborted by the client, failed, or at a deadline.

When a client leaves, the generator of its audio is closed: the `finally` blocks here abort its segments and release its
voice. When a stage dies, everything that it still owes fails at once.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from vllm_cosyvoice.failure import Failure
from vllm_cosyvoice.stages.messages import (
    Abort,
    Address,
    Audio,
    Convert,
    Converted,
    DeleteVoice,
    Failed,
    ListVoices,
    Message,
    Post,
    Prepare,
    Prepared,
    RegisterVoice,
    Release,
    StageKind,
    StreamPrepared,
    Voices,
)

Question = Prepare | Convert | ListVoices | RegisterVoice | DeleteVoice
Answer = Prepared | StreamPrepared | Converted | Voices
Expected = TypeVar("Expected", Prepared, StreamPrepared, Converted, Voices)
Awaited = TypeVar("Awaited")


class StageDirectory(Protocol):
    """Which stages there are."""

    def using(self, kind: StageKind) -> AbstractContextManager[Address]:
        """Choose a stage of this kind for a request, which counts as its work inside the context.

        Raises Failure when none is up.
        """


@dataclass(eq=False)
class _Asked:
    encoder: Address
    answer: asyncio.Future[Answer]


@dataclass(eq=False)
class _Speaking:
    source: Address  # sends the tokens
    decoder: Address
    started: bool = False  # some of its audio has arrived
    pieces: asyncio.Queue[Audio | Failure] = field(default_factory=asyncio.Queue)


class RequestsInFlight:
    """The questions that wait for an encode stage's answer, and the segments that wait for audio."""

    def __init__(self, post: Post, stages: StageDirectory, patience: float | None) -> None:
        """`patience`: seconds that a request waits for a stage's answer or its next audio; None: no limit."""
        self._post = post
        self._stages = stages
        self._patience = patience
        self._asked: dict[str, _Asked] = {}  # by request id
        self._speaking: dict[str, _Speaking] = {}  # by segment id
        self._requests = 0
        self._live = 0
        self._unfinished = 0

    @asynccontextmanager
    async def ask(self, question: Question, kind: type[Expected]) -> AsyncIterator[tuple[Address, Expected]]:
        """Ask an encode stage; yield its address and its answer. It keeps the request's voice inside the context.

        Raises Failure.
        """
        request_id = question.request_id
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        with self._stages.using("encode") as encoder:
            self._asked[request_id] = _Asked(encoder, answered)
            self._requests += 1
            self._live += 1
            finished = False
            try:
                self._post.send(encoder, question)
                answer = await self._in_time(answered, "answer of an encode process")
                assert isinstance(answer, kind)
                yield encoder, answer
                finished = True
            finally:
                self._unfinished += not finished
                self._live -= 1
                self._asked.pop(request_id, None)
                self._post.send(encoder, Release(request_id))

    async def speak(
        self, segment_id: str, source: Address, decoder: Address, *orders: Message
    ) -> AsyncGenerator[Audio, None]:
        """Send `orders` to `source`, the generator or the decoder itself, and yield the audio that comes of them.

        Raises Failure.
        """
        speaking = self._speaking[segment_id] = _Speaking(source, decoder)
        finished = False
        try:
            for order in orders:
                self._post.send(source, order)
            if self._post.is_dead(source) or self._post.is_dead(decoder):
                raise Failure("unavailable", "The stage that made this audio has died; try again in a few seconds.")
            while not finished:
                piece = await self._in_time(speaking.pieces.get(), "audio")
                if isinstance(piece, Failure):
                    raise piece
                finished = piece.last
                yield piece
        finally:
            del self._speaking[segment_id]
            if not finished:
                self._post.send(source, Abort(segment_id, decoder))

    def handle(self, message: Message) -> None:
        """Pass on what a stage sent. Messages for requests that have ended are dropped."""
        match message:
            case Prepared() | StreamPrepared() | Converted() | Voices():
                if (asked := self._asked.pop(message.request_id, None)) and not asked.answer.done():
                    asked.answer.set_result(message)
            case Audio():
                if speaking := self._speaking.get(message.segment_id):
                    speaking.started = True
                    speaking.pieces.put_nowait(message)
            case Failed():
                self.fail(message.id, Failure(message.kind, message.message, message.param))

    def fail(self, id: str, failure: Failure) -> None:
        """Fail the request or segment `id`, if it is in flight."""
        if (asked := self._asked.pop(id, None)) and not asked.answer.done():
            asked.answer.set_exception(failure)
        if speaking := self._speaking.get(id):
            speaking.pieces.put_nowait(failure)

    def fail_all(self, failure: Failure) -> None:
        """Fail everything in flight."""
        for id in [*self._asked, *self._speaking]:
            self.fail(id, failure)

    def fail_owed_by(self, dead: Address, failure: Failure) -> None:
        """Fail what the stage at `dead` still owes.

        If a generator dies, its decoder may have all tokens of a segment whose audio has started. It fails the segment
        itself if not.
        """
        for request_id, asked in list(self._asked.items()):
            if asked.encoder == dead:
                self.fail(request_id, failure)
        for segment_id, speaking in list(self._speaking.items()):
            if dead == speaking.decoder or (dead == speaking.source and not speaking.started):
                self.fail(segment_id, failure)

    def numbers(self) -> dict[str, int]:
        """Figures for the metrics."""
        return {
            "requests": self._live,
            "segments": len(self._speaking),
            "requests_total": self._requests,
            "requests_unfinished_total": self._unfinished,
        }

    async def _in_time(self, wait: Awaitable[Awaited], what: str) -> Awaited:
        """Await `wait`. Raises Failure when that takes too long."""
        try:
            async with asyncio.timeout(self._patience):
                return await wait
        except TimeoutError:
            raise Failure("timeout", f"No {what} came for {self._patience:g} s; try again later.") from None
