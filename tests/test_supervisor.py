"""The supervisor, with stand-ins for its stages and for NVIDIA's Multi-Process Service."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import cast

import psutil
import pytest

from server.arguments import parse
from server.processes import supervisor
from server.processes.addresses import RunDirectory
from server.processes.gpus import Placement
from server.processes.nvidia_mps import Service
from server.processes.supervisor import (
    LONGEST_PAUSE,
    MODULES,
    MOST_FAILURES,
    SECONDS_REMEMBERED,
    Child,
    Supervisor,
    pause_after,
)
from server.served_model import ServedModel

SECONDS = 60.0


def test_pauses_grow_to_half_a_minute() -> None:
    assert [pause_after(failures) for failures in range(1, 9)] == [0, 1, 2, 4, 8, 16, LONGEST_PAUSE, LONGEST_PAUSE]


def test_old_failures_are_forgotten() -> None:
    child = Child("decode", 0)
    assert [child.fail(now) for now in (0.0, 1.0, 2.0)] == [1, 2, 3]
    assert child.fail(SECONDS_REMEMBERED + 1.5) == 2


def test_starts_that_fail_are_counted_until_one_succeeds() -> None:
    child = Child("decode", 0)
    for _ in range(2):
        child.begin("ipc:///tmp/x", "importing")
        child.end()
    assert child.failed_starts == 2
    child.begin("ipc:///tmp/x", "importing")
    child.succeed()
    child.end()
    assert child.failed_starts == 0


class FakeService:
    """Not NVIDIA's service: it takes a client at the `takes`th attempt."""

    variables: Mapping[str, str] = {"SHARED": "yes"}

    def __init__(self, takes: int) -> None:
        self.attempts = 0
        self._takes = takes

    def takes_clients(self, variables: Mapping[str, str]) -> bool:
        self.attempts += 1
        self.asked_with = variables
        return self.attempts >= self._takes

    def in_use(self) -> bool:
        return True


class Run:
    """A supervisor of fake stages."""

    def __init__(self, supervisor: Supervisor, directory: Path) -> None:
        self.supervisor = supervisor
        self.task = asyncio.create_task(supervisor.run())
        self._directory = directory

    def births(self, name: str) -> int:
        born = self._directory / f"{name}.born"
        return born.stat().st_size if born.exists() else 0

    def environment(self, name: str) -> dict[str, str]:
        """Of its last life."""
        variables: dict[str, str] = json.loads((self._directory / f"{name}.environment").read_text())
        return variables

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(SECONDS):
            while not condition():
                assert not self.task.done()
                await asyncio.sleep(0.05)


Start = Callable[..., Run]
ONE = Placement(first=0, gpus=1, decoders=1)


@pytest.fixture
async def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts a supervisor whose stages live as they are told."""
    monkeypatch.setattr("server.processes.supervisor.MODULES", dict.fromkeys(MODULES, "tests.fake_stage"))
    monkeypatch.setattr("server.processes.supervisor.SECONDS_BETWEEN_PINGS", 0.3)
    monkeypatch.setattr("server.processes.supervisor.pause_after", lambda failures: 0.0)
    arguments = parse(["--port", "1", "--voices_dir", str(tmp_path)], {})[0]
    runs: list[Run] = []
    with RunDirectory(Path("/tmp"), 1) as run_directory, socket.create_server(("127.0.0.1", 0)) as listener:

        def start(
            lives: Mapping[str, list[str]], service: FakeService | None = None, placement: Placement = ONE
        ) -> Run:
            monkeypatch.setenv("LIVES", json.dumps(lives))
            started = Supervisor(
                arguments,
                ServedModel(tmp_path, "model", "CosyVoice2"),
                listener,
                run_directory,
                placement,
                cast("Service", service),
            )
            runs.append(Run(started, run_directory.path))
            return runs[-1]

        yield start
        for run in runs:
            run.supervisor._end(0)
            await run.task


async def test_each_process_gets_its_variables(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    run = start({}, FakeService(takes=1))
    await run.until(lambda: run.supervisor._announced)
    variables = {child.name: run.environment(child.name) for child in run.supervisor._children}
    assert [name for name, values in variables.items() if "SHARED" in values] == ["decode-0", "generate-0"]
    gpus = {name: values["CUDA_VISIBLE_DEVICES"] for name, values in variables.items()}
    assert gpus == {"http-0": "5,6", "encode-0": "5,6", "decode-0": "5", "generate-0": "5,6"}
    assert all(int(values["OMP_NUM_THREADS"]) >= 1 for values in variables.values())


async def test_a_first_start_that_fails_ends_the_server(start: Start) -> None:
    run = start({"decode-0": ["die"]})
    assert await asyncio.wait_for(run.task, SECONDS) == 1
    assert run.births("decode-0") == 1


async def test_a_restart_that_fails_does_not_end_a_server_that_has_served(start: Start) -> None:
    run = start({"decode-0": ["mortal", "die", "die", "live"]})
    await run.until(lambda: run.births("decode-0") == 4 and run.supervisor._announced)
    await run.until(lambda: all(child.ready for child in run.supervisor._children))


async def test_what_fails_too_often_ends_the_server(start: Start) -> None:
    run = start({"encode-0": ["mortal"]})
    assert await asyncio.wait_for(run.task, SECONDS) == 1
    assert run.births("encode-0") == MOST_FAILURES + 1


async def test_what_answers_no_pings_is_killed_and_started_again(start: Start) -> None:
    run = start({"generate-0": ["deaf", "live"]})
    await run.until(lambda: run.births("generate-0") == 2)
    await run.until(lambda: all(child.ready for child in run.supervisor._children))
    await asyncio.sleep(4 * 0.3)
    births = {child.name: run.births(child.name) for child in run.supervisor._children}
    assert births == {"http-0": 1, "encode-0": 1, "decode-0": 1, "generate-0": 2}, "who answers is left alone"


async def test_stages_live_on_when_the_fork_server_dies_and_another_starts_the_next(start: Start) -> None:
    run = start({})
    await run.until(lambda: run.supervisor._announced)
    server = run.supervisor._fork_server._process
    assert server
    server.kill()
    server.wait()
    victim = next(child for child in run.supervisor._children if child.name == "decode-0")
    assert victim.process
    os.kill(victim.process.pid, signal.SIGKILL)
    await run.until(lambda: run.births("decode-0") == 2 and victim.ready)
    assert sum(run.births(child.name) for child in run.supervisor._children) == 1 + len(run.supervisor._children)


async def test_a_stage_that_cannot_be_imported_says_why_and_ends_the_server(
    start: Start, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(supervisor.MODULES, "encode", "tests.no_such_stage")
    run = start({})
    assert await asyncio.wait_for(run.task, SECONDS) == 1
    assert "No module named 'tests.no_such_stage'" in capfd.readouterr().err


async def test_nothing_is_left_of_a_process_and_of_what_it_started(start: Start) -> None:
    run = start({"encode-0": ["parent", "live"]})
    child = next(child for child in run.supervisor._children if child.name == "encode-0")
    await run.until(lambda: child.ready)
    assert child.process
    first = child.process.pid
    started = psutil.Process(first).children()
    assert started
    os.kill(first, signal.SIGKILL)
    await run.until(lambda: run.births("encode-0") == 2 and child.ready)
    assert not any(psutil.pid_exists(process.pid) for process in started)
    assert not psutil.pid_exists(first)


async def test_a_ready_that_comes_after_the_death_is_forgotten(start: Start) -> None:
    run = start({"decode-0": ["live"]})
    await run.until(lambda: run.supervisor._announced)
    child = next(child for child in run.supervisor._children if child.name == "decode-0")
    address = child.address
    child.end()
    assert run.supervisor._at(address) is None


async def test_a_client_of_the_service_starts_again_when_it_takes_one(start: Start) -> None:
    service = FakeService(takes=2)
    run = start({"decode-0": ["mortal", "live"]}, service)
    await run.until(lambda: run.births("decode-0") == 2)
    assert service.attempts == 2
    assert run.supervisor._service is not None


async def test_one_of_two_on_another_gpu_is_restarted_when_the_service_takes_it_there(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    service = FakeService(takes=1)
    run = start({"decode-1": ["mortal", "live"]}, service, Placement(first=1, gpus=1, decoders=2))
    await run.until(lambda: run.births("decode-1") == 2)
    assert run.births("decode-0") == run.births("generate-0") == 1
    assert service.asked_with == {"SHARED": "yes", "CUDA_VISIBLE_DEVICES": "1"}
    sharing = [child.name for child in run.supervisor._children if "SHARED" in run.environment(child.name)]
    assert sharing == ["decode-0", "decode-1"]


async def test_without_the_service_if_it_takes_nobody_any_more(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("server.processes.supervisor.SECONDS_FOR_SERVICE", 0.5)
    run = start({"decode-0": ["mortal", "live"], "generate-0": ["mortal", "live"]}, FakeService(takes=1000))
    await run.until(lambda: run.births("decode-0") == run.births("generate-0") == 2)
    await run.until(lambda: all(child.ready for child in run.supervisor._children))
    assert run.supervisor._service is None
    assert not any("SHARED" in run.environment(child.name) for child in run.supervisor._children)
    assert caplog.text.count("Going on without NVIDIA's Multi-Process Service") == 1


async def test_without_the_service_if_starts_with_it_fail(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    run = start({"decode-0": ["mortal", "die", "die", "die", "live"]}, FakeService(takes=1))
    await run.until(lambda: run.births("decode-0") == 5)
    await run.until(lambda: all(child.ready for child in run.supervisor._children))
    assert "decode-0 has failed to start 3 times with it" in caplog.text
