"""One http process: uvicorn in front, the pipeline behind."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator

import uvicorn

from server.channel import Channel
from server.http.app import create
from server.http.pipeline import Pipeline
from server.messages import Ready
from server.process import Settings, serve


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `run`: uvicorn would raise SIGTERM once more after its work is done."""
        yield


async def run(settings: Settings, channel: Channel) -> None:
    """Serve until SIGTERM, then finish what is in flight."""
    assert settings.listener is not None
    pipeline = Pipeline(channel)
    app = create(pipeline, settings.model_id)
    server = _Server(uvicorn.Config(app, lifespan="off", log_config=None, log_level="warning", access_log=False))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.handle_exit, signal.SIGTERM, None)
    channel.send(settings.supervisor, Ready(channel.address))
    answering = asyncio.create_task(serve(pipeline, channel))
    answering.add_done_callback(lambda _: server.handle_exit(signal.SIGINT, None))  # deaf, it is of no use
    try:
        await server.serve([socket.socket(fileno=settings.listener)])
    finally:
        answering.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await answering
