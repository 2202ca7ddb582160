"""Keeps one SpeechDecoder busy with the utterances of many requests."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from vllm_cosyvoice.config import SAMPLE_RATE
from vllm_cosyvoice.decode.batching import FIRST_HOP_CALLS, CostEstimate, Job, due, plan
from vllm_cosyvoice.decode.decoder import SpeechDecoder
from vllm_cosyvoice.decode.hops import Cut, first_hop
from vllm_cosyvoice.decode.utterance import FlowPrompt, Utterance

# Seconds of a call that decodes a streamed utterance to its end. If it would take longer, as on a CPU, and compute at
# least twice the frames of an ordinary hop, that hop is made first: the listener would run out of audio meanwhile.
LONGEST_LAST_HOP = 1.0
SECONDS_TO_CAPTURE = 1.0  # that must be free for one more size of call; it takes half of that

Deliver = Callable[[np.ndarray | Exception | None], None]
Work = tuple[Utterance, Cut]


class DecodeLoop:
    """Batches what is to be decoded into one call after the other, by the listeners' deadlines.

    All methods belong to one event loop; the decoding itself runs in one thread, so that loop stays responsive.
    """

    def __init__(self, decoder: SpeechDecoder, max_rows: int | None = None) -> None:
        """At most `max_rows` utterances go into one call; None: as many as are worth it on the decoder's device."""
        self._decoder = decoder
        self._max_rows = max_rows or decoder.usual_rows
        self._utterances: dict[Utterance, Deliver] = {}
        self._cost = CostEstimate()
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decode")
        self._begun: float | None = None  # when the decode call that is under way has

    @property
    def seconds_in_call(self) -> float:
        """How long the decode call that is under way takes already; 0 if none is."""
        return 0.0 if self._begun is None else time.monotonic() - self._begun

    @property
    def first_hop(self) -> int:
        """Tokens of a first hop that lasts until the second is out, if calls stay as long as they are."""
        return first_hop(FIRST_HOP_CALLS * self._cost.usual)

    def add(self, utterance: Utterance, deliver: Deliver) -> None:
        """Decode `utterance` once its voice and its tokens come.

        `deliver` gets each piece of audio (int16 [samples]), then None once, or the error that ended the utterance.
        """
        self._utterances[utterance] = deliver
        self._look_at(utterance)

    def begin(self, utterance: Utterance, prompt: FlowPrompt, first_hop: int | None) -> None:
        """Give `utterance` its voice, see `SpeechDecoder.begin`."""
        self._decoder.begin(utterance, prompt, first_hop)
        self._look_at(utterance)

    def push(self, utterance: Utterance, tokens: list[int], *, last: bool) -> None:
        """More speech tokens; `last` ends the utterance. Raises ValueError as `Utterance.push`."""
        utterance.push(tokens)
        if last:
            utterance.finish()
        self._look_at(utterance)

    def drop(self, utterance: Utterance) -> None:
        """Forget `utterance`: nothing more is delivered for it, also of a decode call that is under way."""
        self._utterances.pop(utterance, None)

    def _look_at(self, utterance: Utterance) -> None:
        """Wake the loop if a decode could get `utterance` further than it could before."""
        cut = utterance.next_cut()
        if cut and cut != utterance.reachable:
            utterance.reachable = cut
            utterance.ready_since = utterance.ready_since or time.monotonic()
            self._wake.set()

    async def run(self) -> None:
        """Decode for ever; cancel to stop."""
        try:
            while True:
                self._wake.clear()
                work, look_again = self._next_work()
                if work:
                    await self._decode(work)
                else:
                    await self._rest(look_again)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _next_work(self) -> tuple[list[Work], float | None]:
        """What is decoded now; if it is nothing, when to look again."""
        now = time.monotonic()
        candidates = [(utterance, cut) for utterance in self._utterances if (cut := self._cut(utterance))]
        jobs = [_job(now, utterance, cut) for utterance, cut in candidates]
        listened_to = any(utterance.streaming for utterance in self._utterances)
        batch, look_again = plan(now, jobs, self._cost, self._max_rows, listened_to=listened_to)
        return [candidates[index] for index in batch], look_again

    def _cut(self, utterance: Utterance) -> Cut | None:
        """How far a decode of `utterance` goes now: to its end only if the listener need not wait long for that."""
        cut = utterance.next_cut()
        if cut and cut.last and utterance.streaming and self._cost.seconds(utterance.frames(cut)) > LONGEST_LAST_HOP:
            shorter = utterance.next_cut(to_the_end=False)
            if shorter and 2 * utterance.frames(shorter) <= utterance.frames(cut):
                return shorter
        return cut

    async def _rest(self, until: float | None) -> None:
        """Wait for something to change, or for a moment of the monotonic clock."""
        loop = asyncio.get_running_loop()
        if until is None:
            await loop.run_in_executor(self._thread, self._decoder.give_back_memory)
        while not self._wake.is_set() and (until is None or until - time.monotonic() > SECONDS_TO_CAPTURE):
            if not await loop.run_in_executor(self._thread, self._decoder.capture_next):
                break
        timer = loop.call_later(until - time.monotonic(), self._wake.set) if until is not None else None
        try:
            await self._wake.wait()
        finally:
            if timer:
                timer.cancel()

    async def _decode(self, work: list[Work]) -> None:
        begun = self._begun = time.monotonic()
        try:
            pieces = await asyncio.get_running_loop().run_in_executor(self._thread, self._decoder.decode, work)
        except Exception as error:
            self._fail(work, error)
        else:
            frames = sum(utterance.frames(cut) for utterance, cut in work)
            self._cost.learn(frames, time.monotonic() - begun)
            self._deliver(work, pieces)
        finally:
            self._begun = None

    def _deliver(self, work: list[Work], pieces: list[np.ndarray]) -> None:
        now = time.monotonic()
        for (utterance, _), audio in zip(work, pieces, strict=True):
            if deliver := self._utterances.get(utterance):
                utterance.playback.play(now, len(audio) / SAMPLE_RATE)
                deliver(audio)
                if utterance.done:
                    del self._utterances[utterance]
                    deliver(None)

    def _fail(self, work: list[Work], error: Exception) -> None:
        for utterance, _ in work:
            if deliver := self._utterances.pop(utterance, None):
                deliver(error)


def _job(now: float, utterance: Utterance, cut: Cut) -> Job:
    assert utterance.ready_since is not None
    playback = utterance.playback if utterance.streaming else None
    return Job(due(now, utterance.ready_since, playback), utterance.frames(cut), cut.last)
