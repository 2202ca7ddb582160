"""Several streams produced at the same time, consumed one after the other."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

Item = TypeVar("Item")


async def in_order(streams: Sequence[AsyncGenerator[Item, None]], ahead: int) -> AsyncGenerator[Item, None]:
    """All items of the first stream, then of the second, …, while up to `ahead` unfinished streams are running.

    An error in a stream is raised when its turn comes. However this generator ends, it closes every stream first.
    """
    slots = asyncio.Semaphore(ahead)
    outputs: list[asyncio.Queue[Item | _Ended]] = [asyncio.Queue() for _ in streams]

    async def pump(stream: AsyncGenerator[Item, None], output: asyncio.Queue[Item | _Ended]) -> None:
        async with slots, aclosing(stream):
            try:
                async for item in stream:
                    output.put_nowait(item)
                output.put_nowait(_Ended(None))
            except Exception as error:
                output.put_nowait(_Ended(error))

    tasks = [asyncio.create_task(pump(*pair)) for pair in zip(streams, outputs, strict=True)]
    try:
        for output in outputs:
            while not isinstance(item := await output.get(), _Ended):
                yield item
            if item.error is not None:
                raise item.error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Ended:
    def __init__(self, error: Exception | None) -> None:
        self.error = error
