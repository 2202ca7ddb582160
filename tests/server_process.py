"""A real server for tests: its processes, its port, its numbers."""

import asyncio
import contextlib
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
from openai import AsyncOpenAI

from server.demo import free_port
from server.processes.fork_server import TITLE

Value = TypeVar("Value")
SLOW = 300.0  # seconds that a slow machine may need for anything
SIZES = ("--max_total_token_num", "16384", "--max_req_total_len", "8192")
BODY = {"model": "tts-1", "input": "The sun rose over the hills.", "voice": "default", "response_format": "pcm"}


def exactly(tokens: int) -> dict[str, int]:
    """The fields that make each segment so many speech tokens long, since random weights end where they please."""
    return {"min_tokens": tokens, "max_tokens": tokens, "seed": 0}


@dataclass(frozen=True)
class ServerProcess:
    """A running `python -m server`."""

    process: "subprocess.Popen[bytes]"
    port: int
    log: Path
    key: str = "any"  # an API key that it knows, if it asks for one

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=SLOW, headers={"Authorization": f"Bearer {self.key}"})

    def openai(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0, timeout=SLOW)

    def healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=10).status_code == 200
        except httpx.TransportError:
            return False

    def ready(self) -> bool:
        """Whether all of its processes have started, which `healthy` does not wait for."""
        return "Ready: " in self.log.read_text()

    def family(self) -> list[psutil.Process]:
        supervisor = psutil.Process(self.process.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def named(self, name: str) -> psutil.Process:
        return wait_until(lambda: self.find(name), f"there is a process {name}")

    def find(self, name: str) -> psutil.Process | None:
        """The process of that name, or None.

        None also for a moment of its start: psutil does not see a process whose parent ends during the search.
        """
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                if process.name().removeprefix(TITLE) == name:
                    return process
        return None

    def numbers(self) -> dict[str, dict[str, int]]:
        """/metrics: name → process → value."""
        numbers: dict[str, dict[str, int]] = {}
        text = httpx.get(f"{self.url}/metrics", timeout=SLOW).text
        for name, process, value in re.findall(r'^cosyvoice_(\w+)\{process="([\w-]+)"\} (\d+)$', text, re.MULTILINE):
            numbers.setdefault(name, {})[process] = int(value)
        return numbers

    def idle(self) -> bool:
        """Whether every process answers and none holds anything of any request."""
        numbers = self.numbers()
        kept = ("_total", "_sum", "_count", "_bytes", "voices_cached")
        held = (values for name, values in numbers.items() if not name.endswith(kept))
        names = [process.name() for process in self.family()]
        stages = {name.removeprefix(TITLE) for name in names if name.startswith(TITLE)}
        answering = {process for values in numbers.values() for process in values}
        return answering == stages and not any(any(values.values()) for values in held)

    @contextlib.asynccontextmanager
    async def speaking(self, tokens: int) -> AsyncIterator[httpx.Response]:
        """A request whose first audio has come."""
        async with (
            self.client() as client,
            client.stream("POST", "/v1/audio/speech", json=BODY | exactly(tokens)) as answer,
        ):
            assert answer.status_code == 200, await answer.aread()
            body = answer.aiter_raw()
            await anext(body)
            answer.extensions["body"] = body
            yield answer


@contextlib.contextmanager
def running_server(
    model: Path | None, log: Path, *flags: str, key: str = "any", module: str = "server"
) -> Iterator[ServerProcess]:
    """A small server with `flags`, not yet ready; whatever is left of it at the end is killed.

    Without a `model` it is not told of any.
    """
    port = free_port()
    command = [sys.executable, "-m", module, "--host", "127.0.0.1", "--port", str(port)]
    if model:
        command += ["--model_dir", str(model)]
    with log.open("wb") as output:
        process = subprocess.Popen([*command, *SIZES, "--load_trt", "False", *flags], stdout=output, stderr=output)
    server = ServerProcess(process, port, log, key)
    try:
        yield server
    except BaseException:
        sys.stderr.write(log.read_text())
        raise
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def ready_server(model: Path | None, log: Path, *flags: str, module: str = "server") -> Iterator[ServerProcess]:
    """`running_server` when all of its processes have started."""
    with running_server(model, log, *flags, module=module) as running:
        wait_until(lambda: running.process.poll() is not None or running.ready(), "the server is ready")
        assert running.process.poll() is None
        yield running


def wait_until(condition: Callable[[], Value | None], what: str) -> Value:
    """Poll until `condition` holds; returns its value."""
    deadline = time.monotonic() + SLOW
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what}: still not so after {SLOW:.0f} s"
        time.sleep(0.1)
    return value


async def eventually(condition: Callable[[], Value | None], what: str) -> Value:
    """`wait_until` beside other tasks."""
    return await asyncio.to_thread(wait_until, condition, what)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended; a zombie has, and only waits for its parent."""
    return [process for process in processes if _lives(process)]


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def belongings(server: ServerProcess) -> list[Path]:
    """What the server's processes have in the file system: the sockets' directory and shared memory."""
    maps = [mapped.path for process in server.family() for mapped in process.memory_maps()]
    shared = {Path(path.removesuffix(" (deleted)")) for path in maps if path.startswith("/dev/shm/")}
    return [*Path("/tmp").glob(f"cosyvoice_{server.port}_*"), *shared]


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The envelope's entries, which are always the same four."""
    assert answer.headers["x-request-id"].startswith("req_")
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error
