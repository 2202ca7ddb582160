"""NVIDIA's Multi-Process Service, by a stand-in for its daemon, which needs a GPU."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from server.arguments import read
from server.processes.gpus import LARGE_CARD
from server.processes.nvidia_mps import DAEMON, PIPES, NoDaemon, multi_process_service, service_if_possible
from server.processes.supervisor import surroundings
from tests.server_process import alive, belongings, eventually, ready_server, wait_until


@pytest.fixture
def stand_in_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Not NVIDIA's daemon: it notes how it was called. Returns where."""
    notes, command = tmp_path / "notes", tmp_path / "bin" / DAEMON
    command.parent.mkdir()
    says = f'echo "$@ $CUDA_MPS_PIPE_DIRECTORY $CUDA_MPS_LOG_DIRECTORY" >>{notes}'
    answers = f"if [ $# = 0 ] && tee -a {notes} | grep -q get_server_list; then cat {notes}.users; fi"
    command.write_text(f"#!/bin/sh\n{says}\n{answers}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv(PIPES, raising=False)
    return notes


def called(notes: Path) -> str:
    return notes.read_text()


def test_it_has_directories_of_its_own(stand_in_daemon: Path, tmp_path: Path) -> None:
    with multi_process_service(tmp_path) as service:
        pipes, logs = service.variables[PIPES], service.variables["CUDA_MPS_LOG_DIRECTORY"]
        assert Path(pipes).is_dir()
        assert Path(pipes).is_relative_to(tmp_path)
        assert stand_in_daemon.read_text() == f"-d {pipes} {logs}\n"
    assert stand_in_daemon.read_text() == f"-d {pipes} {logs}\n {pipes} {logs}\nquit\n"


def test_it_tells_whether_it_is_used(stand_in_daemon: Path, tmp_path: Path) -> None:
    users = stand_in_daemon.with_name("notes.users")
    with multi_process_service(tmp_path) as service:
        users.write_text("")
        assert not service.in_use()
        users.write_text("1234\n")
        assert service.in_use()


def test_it_ends_when_what_it_is_for_fails(stand_in_daemon: Path, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), multi_process_service(tmp_path):
        raise ZeroDivisionError
    assert stand_in_daemon.read_text().endswith("quit\n")


def test_it_ends_when_who_started_it_is_killed(stand_in_daemon: Path, tmp_path: Path) -> None:
    module = "server.processes.nvidia_mps"
    starts = f"from pathlib import Path; from {module} import multi_process_service as service\n"
    waits = f"with service(Path({str(tmp_path)!r})): print('on', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", starts + waits], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == b"on\n"
        user.send_signal(signal.SIGKILL)
    wait_until(lambda: stand_in_daemon.read_text().endswith("quit\n"), "the daemon is told to end")


def test_where_there_is_none_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoDaemon, match=f"{DAEMON} is neither on PATH nor in"), multi_process_service(tmp_path):
        pass


async def test_who_shares_the_gpu_is_served_and_goes_on_without_until_the_supervisor_is_killed(
    stand_in_daemon: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """There is no GPU here, so the service takes no new client when one has died. The supervisor takes all along.

    The stages are stand-ins: only the supervisor knows of the service.
    """
    stand_in_daemon.with_name("notes.users").write_text("1234\n")
    flags = ["--voices_dir", str(tmp_path)]
    with ready_server(tiny_model, tmp_path / "log", *flags, module="tests.replayed_server") as server:
        await eventually(
            lambda: "Multi-Process Service runs and is in use" in server.log.read_text(), "the log says so"
        )
        others = [server.named(name) for name in ("generate-0", "encode-0")]
        server.named("decode-0").kill()
        await eventually(lambda: not server.healthy(), "the death is noticed")
        await eventually(server.healthy, "it is there again")
        async with server.speaking(30):
            assert all(process.is_running() for process in others)
        assert "Going on without NVIDIA's Multi-Process Service: it no longer accepts clients" in server.log.read_text()
        family, files = server.family(), belongings(server)
        assert files
        server.process.kill()
        await eventually(lambda: not alive(family), "every process has ended")
        await eventually(lambda: not any(path.exists() for path in files), "sockets and shared memory are gone")
        await eventually(lambda: called(stand_in_daemon).endswith("quit\n"), "the daemon is told to end")


def test_a_daemon_that_the_user_has_started_is_left_alone(
    stand_in_daemon: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PIPES, str(tmp_path))
    with service_if_possible(tmp_path) as service:
        assert service is None
    assert not stand_in_daemon.exists()


@pytest.mark.parametrize(
    ("flags", "users_own", "decoders", "shared"),
    [([], False, 2, True), (["--mps", "False"], False, 1, False), ([], True, 1, False)],
    ids=["MPS", "no MPS", "the user's daemon"],
)
def test_a_large_card_has_two_decode_processes_where_the_service_runs(
    stand_in_daemon: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    users_own: bool,
    decoders: int,
    shared: bool,
) -> None:
    monkeypatch.setattr("server.processes.supervisor.memory_of_gpus", lambda: [LARGE_CARD])
    if users_own:
        monkeypatch.setenv(PIPES, str(tmp_path))
    with surroundings(read(flags, {})[0], "test") as (_, placement, service):
        assert placement.decoders == decoders
        assert (service is not None) == shared
