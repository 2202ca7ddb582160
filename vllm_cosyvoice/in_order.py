"""Runs several streams concurrently and yields their items in order."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing
from typing import TypeVar

Item = TypeVar("Item")
Streams = Iterable[AsyncGenerator[Item, None]] | AsyncIterable[AsyncGenerator[Item, None]]


async def in_order(streams: Streams[Item], ahead: int) -> AsyncGenerator[Item, None]:
    """Yield all items of the first stream, then of the second, …, with up to `ahead` streams in flight.

    This bounds the buffer for a slow consumer. `streams` may itself be asynchronous. An error in a stream is raised
    when its turn comes. The generator closes all streams before it ends for any reason.
    """
    slots = asyncio.Semaphore(ahead)
    outputs: asyncio.Queue[asyncio.Queue[Item | _Ended] | _Ended] = asyncio.Queue()

    async def start() -> None:
        try:
            async for stream in _arriving(streams):
                await slots.acquire()
                output: asyncio.Queue[Item | _Ended] = asyncio.Queue()
                outputs.put_nowait(output)
                tasks.append(asyncio.create_task(pump(stream, output)))
            outputs.put_nowait(_Ended(None))
        except Exception as error:
            outputs.put_nowait(_Ended(error))

    async def pump(stream: AsyncGenerator[Item, None], output: asyncio.Queue[Item | _Ended]) -> None:
        try:
            async with aclosing(stream):
                async for item in stream:
                    output.put_nowait(item)
            output.put_nowait(_Ended(None))
        except Exception as error:
            output.put_nowait(_Ended(error))

    tasks = [asyncio.create_task(start())]
    try:
        while not isinstance(output := await outputs.get(), _Ended):
            while not isinstance(item := await output.get(), _Ended):
                yield item
            if item.error is not None:
                raise item.error
            slots.release()
        if output.error is not None:
            raise output.error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Ended:
    def __init__(self, error: Exception | None) -> None:
        self.error = error


async def _arriving(streams: Streams[Item]) -> AsyncIterator[AsyncGenerator[Item, None]]:
    if isinstance(streams, AsyncIterable):
        async for stream in streams:
            yield stream
    else:
        for stream in streams:
            yield stream
