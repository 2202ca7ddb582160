"""Segments of one text are produced at the same time and heard in order."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from vllm_cosyvoice.in_order import in_order


class Streams:
    """Streams of two items each, which note when they start, end and are closed."""

    def __init__(self) -> None:
        self.running: set[str] = set()
        self.most_running = 0
        self.closed: list[str] = []

    async def stream(self, name: str, delay: float = 0.0, error: Exception | None = None) -> AsyncGenerator[str, None]:
        self.running.add(name)
        self.most_running = max(self.most_running, len(self.running))
        try:
            for item in range(2):
                await asyncio.sleep(delay)
                yield f"{name}{item}"
            if error:
                raise error
        finally:
            self.running.discard(name)
            self.closed.append(name)


async def test_items_come_in_the_streams_order_whatever_finishes_first() -> None:
    streams = Streams()
    slow_first = [streams.stream("a", delay=0.02), streams.stream("b"), streams.stream("c")]
    assert [item async for item in in_order(slow_first, ahead=3)] == ["a0", "a1", "b0", "b1", "c0", "c1"]
    assert streams.closed[-1] == "a"


async def test_no_more_than_ahead_run_at_a_time() -> None:
    streams = Streams()
    many = [streams.stream(name, delay=0.001) for name in "abcdefgh"]
    assert len([item async for item in in_order(many, ahead=3)]) == 16
    assert streams.most_running == 3


async def test_an_error_is_raised_in_its_turn_and_ends_the_others() -> None:
    streams = Streams()
    failing = [
        streams.stream("a", delay=0.01),
        streams.stream("b", error=RuntimeError("broken")),
        streams.stream("c", delay=10),
    ]
    heard = []
    with pytest.raises(RuntimeError, match="broken"):
        async for item in in_order(failing, ahead=3):
            heard.append(item)
    assert heard == ["a0", "a1", "b0", "b1"]
    assert not streams.running


async def test_leaving_early_closes_every_stream() -> None:
    streams = Streams()
    endless = in_order([streams.stream(name, delay=0.01) for name in "abc"], ahead=2)
    assert await anext(endless) == "a0"
    await endless.aclose()
    assert not streams.running
    assert sorted(streams.closed) == ["a", "b"]
