"""Keeps one SpeechDecoder busy with the utterances of many requests."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple
from weakref import WeakSet

import numpy as np

from vllm_cosyvoice.config import SAMPLE_RATE
from vllm_cosyvoice.decode.batching import CostEstimate, Pace, first_hop_seconds, next_call
from vllm_cosyvoice.decode.decoder import SpeechDecoder
from vllm_cosyvoice.decode.hops import Cut, first_hop
from vllm_cosyvoice.decode.utterance import FlowPrompt, Utterance

SECONDS_TO_CAPTURE = 1.0  # idle time needed to capture one more call size, which takes half of it
PAUSE = 0.5  # idle seconds before that, so that a caller who asks again soon does not wait for a capture

Deliver = Callable[[np.ndarray | Exception | None], None]
Work = tuple[Utterance, Cut]
Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class DecodeLoop:
    """Runs one decode call after another, and batches utterances by their listeners' deadlines.

    Use it on one event loop. Decoding runs in a thread, so the loop stays responsive.
    """

    def __init__(self, decoder: SpeechDecoder, max_rows: int | None = None) -> None:
        """`max_rows`: largest number of utterances per call; None: the best one for the decoder's device."""
        self._decoder = decoder
        self._max_rows = max_rows or decoder.usual_rows
        self._utterances: dict[Utterance, Deliver] = {}
        self._prepared: WeakSet[Utterance] = WeakSet()  # whose prompt was computed before their first tokens
        self._cost = CostEstimate()
        self._pace = Pace()
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decode")
        self._begun: float | None = None  # start time of the decode call in progress

    @property
    def seconds_in_call(self) -> float:
        """Seconds since the start of the decode call in progress; 0 if there is none."""
        return 0.0 if self._begun is None else time.monotonic() - self._begun

    @property
    def first_hop(self) -> int:
        """Tokens of the first hop of the utterance that was added last.

        Its audio lasts until the second hop is decoded, if tokens arrive and calls take as long as now.
        """
        seconds = first_hop_seconds(self._utterances, self._cost, self._pace, remembers=self._decoder.remembers)
        return first_hop(seconds, self._decoder.hold_back)

    def add(self, utterance: Utterance, deliver: Deliver) -> None:
        """Decode `utterance` as its voice and its tokens arrive.

        `deliver` gets each piece of audio (int16 [samples]), then None once, or the error that ended the utterance.
        """
        self._utterances[utterance] = deliver
        self._look_at(utterance)

    def begin(self, utterance: Utterance, prompt: FlowPrompt, first_hop: int | None) -> None:
        """Give `utterance` its voice, see `SpeechDecoder.begin`."""
        self._decoder.begin(utterance, prompt, first_hop)
        self._look_at(utterance)

    def push(self, utterance: Utterance, tokens: list[int], *, last: bool) -> None:
        """Add speech tokens; `last` finishes the utterance. Raises ValueError, see `Utterance.push`."""
        utterance.push(tokens)
        if tokens:
            self._pace.learn(time.monotonic(), utterance, len(tokens))
        if last:
            utterance.finish()
        self._look_at(utterance)

    def drop(self, utterance: Utterance) -> None:
        """Forget `utterance`: nothing more is delivered for it, not even the result of the decode call in progress."""
        self._utterances.pop(utterance, None)

    def _look_at(self, utterance: Utterance) -> None:
        """Wake the loop if `utterance` can be decoded further than before."""
        cut = utterance.next_cut()
        if cut and cut != utterance.reachable:
            utterance.reachable = cut
            utterance.ready_since = utterance.ready_since or time.monotonic()
            self._wake.set()
        elif utterance.prompt_is_new:
            self._wake.set()

    async def run(self) -> None:
        """Decode until cancelled."""
        try:
            while True:
                self._wake.clear()
                if self._decoder.capture_is_due:
                    await self._in_thread(self._decoder.capture_next)
                    continue
                work, look_again = next_call(time.monotonic(), self._utterances, self._cost, self._max_rows)
                if work:
                    await self._decode(work)
                elif new_voice := self._new_voice():
                    await self._remember_prompt(new_voice)
                else:
                    await self._rest(look_again)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _new_voice(self) -> Utterance | None:
        """An utterance whose prompt can be computed while its first tokens are generated: if nobody listens yet."""
        if any(utterance.hops for utterance in self._utterances):
            return None
        new = (utterance for utterance in self._utterances if utterance.prompt_is_new)
        return next((utterance for utterance in new if utterance not in self._prepared), None)

    async def _remember_prompt(self, utterance: Utterance) -> None:
        self._prepared.add(utterance)  # whether there is room for it or not
        try:
            await self._in_thread(self._decoder.remember_prompt, utterance)
        except Exception as error:
            self._fail([utterance], error)

    async def _rest(self, until: float | None) -> None:
        """Wait for a change, or until a time of the monotonic clock."""
        if until is None:
            await self._in_thread(self._decoder.give_back_memory)
        pause = PAUSE
        while self._has_time_to_capture(until, pause) and not await self._woken(pause):
            pause = 0.0
            if not await self._in_thread(self._decoder.capture_next):
                break
        await self._woken(None if until is None else until - time.monotonic())

    async def _woken(self, within: float | None) -> bool:
        """Wait for a change, for at most `within` seconds if it is not None, and return whether one has come."""
        try:
            async with asyncio.timeout(within):
                return await self._wake.wait()
        except TimeoutError:
            return False

    def _has_time_to_capture(self, until: float | None, pause: float) -> bool:
        if not all(utterance.hops for utterance in self._utterances):
            return False  # somebody waits for first audio
        return until is None or until - time.monotonic() > pause + SECONDS_TO_CAPTURE

    def _in_thread(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> asyncio.Future[Result]:
        """Run `function` in the thread that decodes."""
        return asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def _decode(self, work: list[Work]) -> None:
        frames = sum(utterance.frames(cut) for utterance, cut in work)  # before the call, which remembers them
        start = self._begun = time.monotonic()
        try:
            pieces = await self._in_thread(self._decoder.decode, work)
        except Exception as error:
            self._fail([utterance for utterance, _ in work], error)
        else:
            self._cost.learn(frames, time.monotonic() - start)
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

    def _fail(self, utterances: list[Utterance], error: Exception) -> None:
        for utterance in utterances:
            if deliver := self._utterances.pop(utterance, None):
                deliver(error)
