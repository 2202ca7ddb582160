"""Keeps one SpeechDecoder busy with the streams of many requests."""

import asyncio
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from vllm_cosyvoice.config import SAMPLE_RATE
from vllm_cosyvoice.decode.decoder import DecodeStream, SpeechDecoder
from vllm_cosyvoice.decode.hops import Cut, first_hop
from vllm_cosyvoice.decode.schedule import FIRST_HOP_CALLS, CostEstimate, Job, Listener, due, plan

SECONDS_TO_CAPTURE = 1.0  # that must be free for one more size of call; it takes half of that

Deliver = Callable[[np.ndarray | Exception | None], None]


@dataclass(eq=False)
class _Entry:
    stream: DecodeStream
    deliver: Deliver
    listener: Listener
    cut: Cut | None = None  # the last one that could be made
    ready_since: float = 0.0  # when the first one could

    def job(self, now: float, cut: Cut) -> Job:
        """What a decode up to `cut` is to the schedule."""
        listener = self.listener if self.stream.streaming else None
        return Job(due(now, self.ready_since, listener), self.stream.frames(cut), cut.last)


class DecodeLoop:
    """Batches what is to be decoded into one call after the other, by the listeners' deadlines.

    All methods belong to one event loop; the decoding itself runs in one thread, so that loop stays responsive.
    """

    def __init__(self, decoder: SpeechDecoder, max_rows: int | None = None) -> None:
        """At most `max_rows` streams go into one call; None: as many as are worth it on the decoder's device."""
        self._decoder = decoder
        self._max_rows = max_rows or decoder.usual_rows
        self._entries: dict[Hashable, _Entry] = {}
        self._cost = CostEstimate()
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decode")
        self._begun: float | None = None  # when the decode call that is under way has

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def seconds_in_call(self) -> float:
        """How long the decode call that is under way takes already; 0 if none is."""
        return 0.0 if self._begun is None else time.monotonic() - self._begun

    @property
    def first_hop(self) -> int:
        """Tokens of a first hop that lasts until the second is out, if calls stay as long as they are."""
        return first_hop(FIRST_HOP_CALLS * self._cost.usual)

    def add(self, key: Hashable, stream: DecodeStream, deliver: Deliver, listener: Listener | None = None) -> None:
        """Decode `stream` as its tokens come.

        `deliver` gets each piece of audio (int16 [samples]), then None once, or the error that ended the stream.
        `listener`: who hears it, where other segments come before or after; told here what is heard when.
        """
        entry = self._entries[key] = _Entry(stream, deliver, listener or Listener())
        self._look_at(entry)

    def push(self, key: Hashable, tokens: list[int], *, last: bool) -> None:
        """More speech tokens for `key`, which may be gone already; `last` ends the stream."""
        entry = self._entries.get(key)
        if entry is None:
            return
        entry.stream.push(tokens)
        entry.listener.expect(entry.stream.seconds(len(tokens)))
        if last:
            entry.stream.finish()
        self._look_at(entry)

    def drop(self, key: Hashable) -> None:
        """Forget `key`: nothing more is delivered for it, also of a decode call that is under way."""
        self._entries.pop(key, None)

    def _look_at(self, entry: _Entry) -> None:
        """Wake the loop if a decode could get `entry` further than it could before."""
        cut = entry.stream.next_cut()
        if cut and cut != entry.cut:
            entry.cut = cut
            entry.ready_since = entry.ready_since or time.monotonic()
            self._wake.set()

    async def run(self) -> None:
        """Decode for ever; cancel to stop."""
        try:
            while True:
                self._wake.clear()
                batch, frames, look_again = self._next_batch()
                if batch:
                    await self._decode(batch, frames)
                else:
                    await self._rest(look_again)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _next_batch(self) -> tuple[list[tuple[Hashable, _Entry]], int, float | None]:
        """Who is decoded now, how many frames that takes, and if it is nobody, when to look again."""
        now = time.monotonic()
        able = [(key, entry, cut) for key, entry in self._entries.items() if (cut := entry.stream.next_cut())]
        jobs = [entry.job(now, cut) for _, entry, cut in able]
        listened_to = any(entry.stream.streaming for entry in self._entries.values())
        batch, look_again = plan(now, jobs, self._cost, self._max_rows, listened_to=listened_to)
        return [able[index][:2] for index in batch], sum(jobs[index].frames for index in batch), look_again

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

    async def _decode(self, batch: list[tuple[Hashable, _Entry]], frames: int) -> None:
        streams = [entry.stream for _, entry in batch]
        begun = self._begun = time.monotonic()
        try:
            pieces = await asyncio.get_running_loop().run_in_executor(self._thread, self._decoder.decode, streams)
        except Exception as error:
            self._fail(batch, error)
        else:
            self._cost.learn(frames, time.monotonic() - begun)
            self._deliver(batch, pieces)
        finally:
            self._begun = None

    def _deliver(self, batch: list[tuple[Hashable, _Entry]], pieces: list[np.ndarray]) -> None:
        now = time.monotonic()
        for (key, entry), audio in zip(batch, pieces, strict=True):
            if self._entries.get(key) is not entry:
                continue
            entry.listener.hear(now, len(audio) / SAMPLE_RATE)
            entry.deliver(audio)
            if entry.stream.done:
                del self._entries[key]
                entry.deliver(None)

    def _fail(self, batch: list[tuple[Hashable, _Entry]], error: Exception) -> None:
        for key, entry in batch:
            if self._entries.get(key) is entry:
                del self._entries[key]
                entry.deliver(error)
