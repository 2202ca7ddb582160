"""The generate stage: vLLM turns segments into speech tokens, which are sent directly to a decoder."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import NoReturn

from vllm_cosyvoice.decode.hops import awaited_tokens
from vllm_cosyvoice.llm.generator import EngineDeadError, SpeechTokenGenerator
from vllm_cosyvoice.llm.text_stream import small_pieces
from vllm_cosyvoice.stages.messages import (
    Abort,
    Address,
    Failed,
    Generate,
    GenerateFromText,
    Message,
    Post,
    Text,
    Tokens,
)
from vllm_cosyvoice.text import ArrivingText

log = logging.getLogger(__name__)

SECONDS_BETWEEN_CHECKS = 0.2


@dataclass(frozen=True, eq=False)
class _Live:
    work: Generate | GenerateFromText
    text: asyncio.Queue[Text]  # not yet read
    task: asyncio.Task[None]


class GenerateStage:
    """Runs one task per segment. The tokens of one engine step are sent in one message per decoder."""

    def __init__(
        self, post: Post, generator: SpeechTokenGenerator, arriving: ArrivingText, capacity: int | None = None
    ) -> None:
        """`capacity`: largest number of segments, running and waiting; None: no limit."""
        self._post = post
        self._generator = generator
        self._arriving = arriving
        self._capacity = capacity
        self._live: dict[str, _Live] = {}
        self._unsent: dict[Address, list[tuple[str, list[int], bool]]] = {}
        self._generated = 0
        self._text_tokens = 0
        self._refused = 0

    def handle(self, message: Message) -> None:  # noqa: D102 - see server.processes.process.Stage
        match message:
            case Generate() | GenerateFromText():
                self._accept(message)
            case Text() if live := self._live.get(message.segment_id):
                live.text.put_nowait(message)
            case Abort():
                self._abort(message)

    def drop(self, address: Address) -> None:
        """Abort the segments of a dead engine. For a dead decoder, the engines send the Aborts."""
        for segment_id, live in list(self._live.items()):
            if live.work.open.reply_to == address:
                self._abort(Abort(segment_id, live.work.decoder))

    def numbers(self) -> dict[str, int]:  # noqa: D102 - see server.processes.process.Stage
        return {
            "segments": len(self._live),
            "segments_running": self._generator.running,
            "segments_from_text": sum(isinstance(live.work, GenerateFromText) for live in self._live.values()),
            "segments_refused_total": self._refused,
            "speech_tokens_total": self._generated,
            "text_tokens_total": self._text_tokens,
        }

    async def watch_engine(self) -> NoReturn:
        """Raise EngineDeadError once vLLM's engine is dead or hangs. While idle, vLLM does not report this itself."""
        while True:
            await self._generator.check_health()
            await asyncio.sleep(SECONDS_BETWEEN_CHECKS)

    def _accept(self, work: Generate | GenerateFromText) -> None:
        reply_to, segment_id = work.open.reply_to, work.open.segment_id
        if self._post.is_dead(reply_to):
            return
        if work.refusable and self._capacity is not None and len(self._live) >= self._capacity:
            self._refused += 1
            reason = f"{self._capacity} segments are already running or waiting; try again in a moment."
            self._post.send(reply_to, Failed(segment_id, "overloaded", reason))
            return
        if isinstance(work, Generate):
            self._text_tokens += work.segment.text_tokens
        self._post.send(work.decoder, work.open)
        text: asyncio.Queue[Text] = asyncio.Queue()
        self._live[segment_id] = _Live(work, text, asyncio.create_task(self._generate(work, text)))

    def _abort(self, abort: Abort) -> None:
        if live := self._live.pop(abort.segment_id, None):
            live.task.cancel()
        self._post.send(abort.decoder, abort)

    async def _generate(self, work: Generate | GenerateFromText, text: asyncio.Queue[Text]) -> None:
        segment_id, decoder = work.open.segment_id, work.decoder
        try:
            async with aclosing(self._steps(work, text)) as steps:
                async for tokens in steps:
                    self._generated += len(tokens)
                    self._queue(decoder, segment_id, tokens, last=False)
            self._queue(decoder, segment_id, [], last=True)
        except ValueError as error:
            self._post.send(decoder, Failed(segment_id, "invalid", str(error), "input"))
        except EngineDeadError:
            reason = "The language model's engine has died; try again in a few seconds."
            self._post.send(decoder, Failed(segment_id, "unavailable", reason))
        except Exception:
            log.exception("Segment %s failed.", segment_id)
            self._post.send(decoder, Failed(segment_id, "internal", "The language model failed."))
        finally:
            self._live.pop(segment_id, None)

    def _steps(self, work: Generate | GenerateFromText, text: asyncio.Queue[Text]) -> AsyncGenerator[list[int], None]:
        """Stream the speech tokens of `work`."""
        segment_id = work.open.segment_id
        sent_at_once = awaited_tokens(work.open.speed) if work.open.streaming else 0
        if isinstance(work, Generate):
            return self._generator.generate(segment_id, work.segment, work.sampling, sent_at_once)
        tokens = small_pieces(self._arriving.tokens(_read(text)))
        prompt = work.prompt
        return self._generator.generate_from_text_stream(
            segment_id, prompt.text, prompt.speech, tokens, work.sampling, prompt.instruction, sent_at_once
        )

    def _queue(self, decoder: Address, segment_id: str, tokens: list[int], *, last: bool) -> None:
        """Queue tokens. vLLM outputs a whole step in one iteration of the event loop, at whose end they are sent."""
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._send)
        self._unsent.setdefault(decoder, []).append((segment_id, tokens, last))

    def _send(self) -> None:
        unsent, self._unsent = self._unsent, {}
        for decoder, new in unsent.items():
            self._post.send(decoder, Tokens(new))


async def _read(text: asyncio.Queue[Text]) -> AsyncIterator[str]:
    while True:
        piece = await text.get()
        yield piece.text
        if piece.last:
            return
