"""One http process: uvicorn in front, the engine behind."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator

import uvicorn

from server.app import create
from server.http.websocket import Connections
from server.processes.channel import Channel
from server.processes.engine import StagedEngine
from server.processes.messages import Ready
from server.processes.process import Settings, serve

SECONDS_BETWEEN_LOOKS = 0.1


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, connections: Connections) -> None:
        super().__init__(config)
        self._connections = connections

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let WebSockets finish what they speak, as uvicorn lets requests: it would drop them at once."""
        for server in self.servers:
            server.close()
        self._connections.leaving.set()
        while self._connections.open and not self.force_exit:  # noqa: ASYNC110 - uvicorn's is a flag, no event
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `run`: uvicorn would raise SIGTERM once more after its work is done."""
        yield


async def run(settings: Settings, channel: Channel) -> None:
    """Serve until SIGTERM, then finish what is in flight."""
    assert settings.listener is not None
    engine = StagedEngine(channel)
    arguments = settings.arguments
    connections = Connections(arguments.max_websockets, arguments.websocket_timeout)
    app = create(engine, connections, settings.model_id, arguments)
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        ws_per_message_deflate=False,  # sound does not compress
    )
    server = _Server(config, connections)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.handle_exit, signal.SIGTERM, None)
    channel.send(settings.supervisor, Ready(channel.address))
    answering = asyncio.create_task(serve(engine, channel))
    answering.add_done_callback(lambda _: server.handle_exit(signal.SIGINT, None))  # deaf, it is of no use
    try:
        await server.serve([socket.socket(fileno=settings.listener)])
    finally:
        answering.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await answering
