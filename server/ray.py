"""The server as replicas of Ray Serve: `serve run server.ray:app model_dir=…`, or deploy/ray.yaml.

    client ── HAProxy of a node ── replica: Serve's uvicorn, the HTTP app, the supervisor
                                      └ encode, generate, decode: child processes, as with `python -m server`

A replica that can't speak any more exits. HAProxy balances by the fewest connections, so it would prefer a replica that
refuses requests quickly. Serve starts a new replica; meanwhile, refused connections go to the other replicas.
"""

import asyncio
import contextlib
import difflib
import logging
import os
from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

import ray
from ray import serve
from ray.serve import Application
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.app import create
from server.arguments import FLAGS, read
from server.checks import check
from server.http.websocket import Connections
from server.processes.engine import StagedEngine
from server.processes.messages import Kind
from server.processes.process import configure_logging
from server.processes.process import serve as answer
from server.processes.supervisor import MODULES, Supervisor, surroundings

log = logging.getLogger(__name__)

OF_SERVE = {"host", "port", "httpserver_workers", "listen_when_ready"}  # flags of what Serve does itself


class Replica:
    """One server: this process answers HTTP requests, its children are the stages."""

    modules: ClassVar[Mapping[Kind, str]] = MODULES  # what the children run

    def __init__(self, flags: Mapping[str, str]) -> None:
        """`flags`: flags of `python -m server`, name → value. Starts nothing yet."""
        self._flags = flags
        self._surroundings = contextlib.ExitStack()
        self._watching: asyncio.Task[NoReturn] | None = None

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        """Start the stages and return the app when all are ready. Serve calls this at the start.

        Raises:
            ArgumentsError, CannotServe: the flags, the model or the voices directory can't be used.
            RuntimeError: a stage did not start.
        """
        name = serve.get_replica_context().replica_id.unique_id
        configure_logging(f"replica {name}")
        arguments, notes = read([f"--{flag}={value}" for flag, value in self._flags.items()])
        for note in notes:
            log.info(note)
        arguments, model = await asyncio.to_thread(check, arguments)
        _forget_threads_of_ray()
        surrounding = self._surroundings.enter_context(surroundings(arguments, name))
        self._supervisor = Supervisor(arguments, model, None, *surrounding, self.modules)
        channel = self._supervisor.join()
        self._engine = StagedEngine(channel)
        self._running = asyncio.create_task(self._supervisor.run())
        self._answering = asyncio.create_task(answer(self._engine, channel))
        ready = asyncio.create_task(self._engine.stages.until(complete=True))
        await asyncio.wait([ready, self._running], return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            raise RuntimeError("A stage did not start; the replica's log says why.")
        self._watching = asyncio.create_task(self._crash_when_incomplete())
        connections = Connections(arguments.max_websockets, arguments.websocket_timeout)
        return _OneRequestId(create(self._engine, connections, model, arguments, trust_request_id=True))

    async def check_health(self) -> None:
        """Raise RuntimeError if the server can't serve requests. Serve calls this every few seconds."""
        if missing := await self._engine.stages.missing():
            raise RuntimeError(f"Not ready: {'; '.join(missing)}.")

    async def __del__(self) -> None:
        """Stop. Serve calls this when no request is in flight any more."""
        if self._watching:
            self._watching.cancel()
            self._supervisor.stop()
            await self._running
            self._answering.cancel()
            self._surroundings.close()

    async def _crash_when_incomplete(self) -> NoReturn:
        incomplete = asyncio.create_task(self._engine.stages.until(complete=False))
        await asyncio.wait([incomplete, self._running, self._answering], return_when=asyncio.FIRST_COMPLETED)
        log.critical("This replica can't speak any more and exits; Serve starts another one.")
        os._exit(1)  # the stages end when they notice


class _OneRequestId:
    """Removes the app's `x-request-id` from HTTP answers: Serve adds the same one, which would duplicate it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope."""

        async def send_without_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                message["headers"] = [(name, value) for name, value in headers if name.lower() != b"x-request-id"]
            await send(message)

        await self._app(scope, receive, send_without_id)


def _forget_threads_of_ray() -> None:
    """Unset `OMP_NUM_THREADS`, which Ray sets to a replica's CPUs, one by default: stages would be slow."""
    env_vars = ray.get_runtime_context().runtime_env.get("env_vars", {})
    if "OMP_NUM_THREADS" not in env_vars:
        os.environ.pop("OMP_NUM_THREADS", None)


Speech = serve.deployment(
    name="speech",
    ray_actor_options={"num_gpus": 1, "num_cpus": 4},
    max_ongoing_requests=1000,  # more than the server accepts: its own 429 has OpenAI's envelope
    graceful_shutdown_timeout_s=300.0,  # time for streams to end
    health_check_period_s=5.0,
    health_check_timeout_s=10.0,
)(serve.ingress()(Replica))


def app(flags: dict[str, Any]) -> Application:
    """Return the application for `flags`, such as {"model_dir": "FunAudioLLM/CosyVoice2-0.5B", "gpt_paral_num": 256}.

    Names are checked here, values by the replicas, which have the files.

    Raises:
        ValueError: a flag does not exist or has no value.
    """
    return Speech.bind(texts(flags))


def texts(flags: Mapping[str, Any]) -> dict[str, str]:
    """Return the flags as strings, as on a command line. Raises ValueError like `app`."""
    for flag, value in flags.items():
        if flag in OF_SERVE:
            raise ValueError(f"{flag}: Ray Serve does this; set http_options and num_replicas in its config instead.")
        if flag not in FLAGS:
            matches = difflib.get_close_matches(flag, FLAGS, 1)
            raise ValueError(f"There is no flag {flag!r}{f'; did you mean {matches[0]!r}?' if matches else '.'}")
        if value is None or isinstance(value, dict):
            raise ValueError(f"{flag} needs a value: a string, a number, a boolean or a list.")
    return {flag: ",".join(map(str, value)) if isinstance(value, list) else str(value) for flag, value in flags.items()}
