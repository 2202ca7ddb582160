"""Keeps one SpeechDecoder busy with the streams of many requests."""

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from vllm_cosyvoice.speech_decoder import DecodeStream, SpeechDecoder

Deliver = Callable[[np.ndarray | Exception | None], None]


@dataclass(eq=False)
class _Entry:
    stream: DecodeStream
    deliver: Deliver
    rank: int


class DecodeLoop:
    """Batches whatever streams are ready into one decode call after the other, first hops first.

    All methods belong to one event loop; the decoding itself runs in one thread, so that loop stays responsive.
    """

    def __init__(self, decoder: SpeechDecoder, max_rows: int | None = None) -> None:
        """At most `max_rows` streams go into one call; None: as many as are worth it on the decoder's device."""
        self._decoder = decoder
        self._max_rows = max_rows or decoder.usual_rows
        self._entries: dict[Hashable, _Entry] = {}
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decode")
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, key: Hashable, stream: DecodeStream, deliver: Deliver) -> None:
        """Decode `stream` as its tokens come.

        `deliver` gets each piece of audio (int16 [samples]), then None once, or the error that ended the stream.
        """
        self._arrivals += 1
        self._entries[key] = _Entry(stream, deliver, self._arrivals)
        self._wake.set()

    def push(self, key: Hashable, tokens: list[int], *, last: bool) -> None:
        """More speech tokens for `key`, which may be gone already; `last` ends the stream."""
        entry = self._entries.get(key)
        if entry is None:
            return
        entry.stream.push(tokens)
        if last:
            entry.stream.finish()
        if entry.stream.ready:
            self._wake.set()

    def drop(self, key: Hashable) -> None:
        """Forget `key`: nothing more is delivered for it, also of a decode call that is under way."""
        self._entries.pop(key, None)

    async def run(self) -> None:
        """Decode for ever; cancel to stop."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                while batch := self._next_batch():
                    await self._decode(batch)
                await loop.run_in_executor(self._thread, self._decoder.give_back_memory)
                await self._wake.wait()
                self._wake.clear()
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _decode(self, batch: list[tuple[Hashable, _Entry]]) -> None:
        streams = [entry.stream for _, entry in batch]
        try:
            pieces = await asyncio.get_running_loop().run_in_executor(self._thread, self._decoder.decode, streams)
        except Exception as error:
            self._fail(batch, error)
        else:
            self._deliver(batch, pieces)

    def _next_batch(self) -> list[tuple[Hashable, _Entry]]:
        ready = [(key, entry) for key, entry in self._entries.items() if entry.stream.ready]
        ready.sort(key=lambda item: (item[1].stream.hops > 0, item[1].rank))
        return ready[: self._max_rows]

    def _deliver(self, batch: list[tuple[Hashable, _Entry]], pieces: list[np.ndarray]) -> None:
        for (key, entry), audio in zip(batch, pieces, strict=True):
            if self._entries.get(key) is not entry:
                continue
            entry.deliver(audio)
            if entry.stream.done:
                del self._entries[key]
                entry.deliver(None)

    def _fail(self, batch: list[tuple[Hashable, _Entry]], error: Exception) -> None:
        for key, entry in batch:
            if self._entries.get(key) is entry:
                del self._entries[key]
                entry.deliver(error)
