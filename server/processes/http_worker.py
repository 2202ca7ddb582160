"""The HTTP worker process: uvicorn and the engine."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator

import uvicorn

from server.app import create
from server.arguments import Arguments
from server.http.websocket import Connections
from server.listener import listen
from server.processes.channel import Channel
from server.processes.engine import StagedEngine
from server.processes.messages import Ready
from server.processes.process import Settings, serve
from server.processes.stage_registry import Stages

SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_FOR_PONG = 120.0  # a busy machine may take long; who does not listen is given up much earlier


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, connections: Connections) -> None:
        super().__init__(config)
        self._connections = connections

    async def listen_while_ready(self, stages: Stages, arguments: Arguments) -> None:
        """Listen while the server can serve requests; otherwise refuse connections and close idle ones.

        A load balancer would take a server that answers 503 quickly for the least busy one.
        """
        while True:
            await stages.until(complete=True)
            if not self.should_exit:
                await self.startup([listen(arguments, beside_others=True)])
            await stages.until(complete=False)
            for server in self.servers:
                server.close()
            for connection in list(self.server_state.connections):
                if isinstance(connection, self.config.http_protocol_class):  # shutdown would drop a WebSocket
                    connection.shutdown()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let WebSockets finish their speech: uvicorn waits for requests but drops WebSockets at once."""
        for server in self.servers:
            server.close()
        self._connections.leaving.set()
        while self._connections.open and not self.force_exit:  # noqa: ASYNC110 - uvicorn has a flag, no event
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `run`: uvicorn would raise SIGTERM again after shutdown."""
        yield


async def run(settings: Settings, channel: Channel) -> None:
    """Serve until SIGTERM, then finish requests in flight."""
    assert settings.listener is not None
    listener = socket.socket(fileno=settings.listener)
    engine = StagedEngine(channel, worker=settings.index)
    arguments = settings.arguments
    connections = Connections(arguments.max_websockets, arguments.websocket_timeout)
    app = create(engine, connections, settings.model, arguments)
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,  # the app handles them
        ws_per_message_deflate=False,  # audio does not compress
        ws_ping_timeout=SECONDS_FOR_PONG,
    )
    server = _Server(config, connections)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.handle_exit, signal.SIGTERM, None)
    channel.send(settings.supervisor, Ready(channel.address))
    tasks: list[asyncio.Task[None]] = [asyncio.create_task(serve(engine, channel))]
    if arguments.listen_when_ready:
        tasks.append(asyncio.create_task(server.listen_while_ready(engine.stages, arguments)))
    for task in tasks:
        task.add_done_callback(lambda _: server.handle_exit(signal.SIGINT, None))  # the worker can't work without it
    try:
        await server.serve([] if arguments.listen_when_ready else [listener])
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)
