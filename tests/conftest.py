"""What several test modules share for the whole session: one tiny model, one engine and one server of it."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import torch
from openai import AsyncOpenAI
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from server.demo import free_port
from tests.server_process import ServerProcess, ready_server
from tools.random_checkpoint import TINY, write_random_checkpoint
from vllm_cosyvoice.llm.environment import THREADS

if TYPE_CHECKING:  # importing vLLM takes seconds, and most files need no engine
    from vllm_cosyvoice import Synthesizer

# Files with tests of the server or the engine below. They run in one process, so that both start once.
SHARING = {
    *("test_api_description", "test_batch", "test_benchmarks", "test_clients", "test_flow_cache", "test_long_streams"),
    *("test_playground", "test_prompt", "test_server", "test_server_batch", "test_server_compatibility"),
    *("test_server_lighttts", "test_server_speech", "test_server_text_stream", "test_server_voices", "test_shared_end"),
    *("test_synthesizer", "test_websocket_description"),
}
# The files that take longest begin first, so that no process waits for one at the end.
LONGEST = ("test_server", "test_server_lifecycle", "test_intelligibility", "test_speech_token_generator", "test_ray")
LAST = "test_shared_end"  # it ends the server and the engine that others share


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):  # tests run in several processes: their threads would wait for each other
        torch.set_num_threads(1)
        os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))  # as the server's processes, so also their engines


class SharingFilesTogether(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """The tests of a file run in one process, in their order; those of all `SHARING` files in the same one."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "sharing" if Path(file).stem in SHARING else file


@pytest.hookimpl(optionalhook=True)  # tests may run without xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> SharingFilesTogether | None:
    return SharingFilesTogether(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = {item.path.stem for item in items if _shares(item)} - SHARING
    if missing:
        raise pytest.UsageError(f"conftest.SHARING lacks {', '.join(sorted(missing))}")
    order = {file: place - len(LONGEST) for place, file in enumerate(LONGEST)}
    items.sort(key=lambda item: (item.path.stem == LAST, order.get(item.path.stem, 0)))


def _shares(item: pytest.Item) -> bool:
    """Whether a test uses the server or the engine of this file, and not one of its own module."""
    used = {"server", "synthesizer"} & set(getattr(item, "fixturenames", ()))
    return any(not hasattr(getattr(item, "module", None), name) for name in used)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with every file of the release, of small sizes and random weights."""
    directory = tmp_path_factory.mktemp("models") / "tiny"
    write_random_checkpoint(directory, TINY, seed=0)
    return directory


@pytest.fixture(scope="session")
def synthesizer(tiny_model: Path) -> "Iterator[Synthesizer]":
    """The engine in this process."""
    from vllm_cosyvoice import Synthesizer
    from vllm_cosyvoice.llm.generator import EngineOptions

    options = EngineOptions(max_total_token_num=8192, max_req_total_len=4096, max_num_seqs=64)
    with Synthesizer(tiny_model, engine=options) as synthesizer:
        yield synthesizer


@pytest.fixture(scope="session")
def port_of_recordings() -> int:
    """A port of this machine that `server` may fetch recordings from."""
    return free_port()


@pytest.fixture(scope="session")
def server(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, port_of_recordings: int
) -> Iterator[ServerProcess]:
    """The server that most tests share: four http workers, two encode processes, one engine. Leave it as it was."""
    directory = tmp_path_factory.mktemp("server")
    aliases, voices = directory / "aliases.json", directory / "voices"
    aliases.write_text('{"narrator": "English male", "lost": "nobody"}')
    voices.mkdir()
    flags = ["--httpserver_workers", "4", "--encode_process_num", "2", "--voices_dir", str(voices)]
    flags += ["--encode_paral_num", "400"]  # for a test of many sessions on a slow machine
    flags += ["--voice_aliases", str(aliases), "--ref_audio_hosts", f"127.0.0.1:{port_of_recordings}"]
    with ready_server(tiny_model, directory / "log", *flags) as ready:
        yield ready


@pytest.fixture
async def client(server: ServerProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with server.client() as client:
        yield client


@pytest.fixture
async def openai(server: ServerProcess) -> AsyncIterator[AsyncOpenAI]:
    async with server.openai() as client:
        yield client
