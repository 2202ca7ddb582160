"""What an operator relies on: overload is refused, the dead are restarted, stopping finishes what is in flight."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.server_process import (
    BODY,
    ServerProcess,
    alive,
    belongings,
    error_of,
    eventually,
    exactly,
    running_server,
    wait_until,
)
from vllm_cosyvoice.config import SAMPLES_PER_TOKEN

BYTES_PER_TOKEN = 2 * SAMPLES_PER_TOKEN
SIZES = ["--max_total_token_num", "16384", "--max_req_total_len", "8192"]
ENGINE = "VLLM::EngineCore"


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("server") / "log"
    with running_server(tiny_model, log, *SIZES, "--zmq_mode", "tcp://", "--gpt_paral_num", "2") as running:
        wait_until(lambda: running.process.poll() is not None or answers(running), "it answers at all")
        yield running


def answers(server: ServerProcess) -> bool:
    try:
        httpx.get(f"{server.url}/health", timeout=10)
    except httpx.TransportError:
        return False
    return True


async def test_until_it_is_ready_it_says_so(server: ServerProcess) -> None:
    async with server.client() as client:
        for answer in (await client.get("/health"), await client.post("/v1/audio/speech", json=BODY)):
            assert answer.status_code == 503
            assert error_of(answer)["code"] == "unavailable"
            assert int(answer.headers["retry-after"]) > 0
    await eventually(server.healthy, "the server is ready")
    assert "Ready: " in server.log.read_text()


async def test_more_than_it_can_hold_is_refused_and_the_rest_is_spoken(server: ServerProcess) -> None:
    async with server.client() as client:
        calls = [client.post("/v1/audio/speech", json=BODY | exactly(150)) for _ in range(24)]
        results = await asyncio.gather(*calls)
    spoken = [answer for answer in results if answer.status_code == 200]
    refused = [answer for answer in results if answer.status_code == 503]
    assert len(spoken) + len(refused) == 24
    assert refused
    assert len(spoken) >= 10, "two at a time and eight waiting"
    assert all(len(answer.content) == 150 * BYTES_PER_TOKEN for answer in spoken)
    assert all(error_of(answer)["code"] == "overloaded" for answer in refused)
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)


@pytest.mark.parametrize("victims", [("decode-0",), ("http-0",), ("generate-0", "encode-0"), (ENGINE,)])
async def test_what_dies_is_restarted_and_what_it_held_fails_at_once(
    server: ServerProcess, victims: tuple[str, ...]
) -> None:
    before = server.numbers()["speech_tokens_total"]["generate-0"]
    async with server.speaking(6000) as answer:
        processes = [server.named(name) for name in victims]
        for process in processes:
            process.kill()
        with pytest.raises(httpx.RemoteProtocolError):
            async for _ in answer.extensions["body"]:
                pass
    if victims != ("http-0",):  # its successor is there before the next question
        await eventually(lambda: not server.healthy(), "the death is noticed")
    await eventually(server.healthy, "it is up again")
    await eventually(server.idle, "nothing of the failed request is left")
    assert server.numbers()["speech_tokens_total"]["generate-0"] < before + 6000, "generation has stopped"
    assert alive(processes) == []
    async with server.client() as client:
        answer = await client.post("/v1/audio/speech", json=BODY | exactly(20))
    assert len(answer.content) == 20 * BYTES_PER_TOKEN


async def test_sigterm_finishes_what_is_in_flight_and_leaves_nothing(server: ServerProcess) -> None:
    """The last test with this server: it ends it."""
    family, files = server.family(), belongings(server)
    assert files
    async with server.speaking(400) as answer:
        server.process.send_signal(signal.SIGTERM)
        await eventually(lambda: not answers(server), "no new connection is taken")
        length = sum([len(chunk) async for chunk in answer.extensions["body"]])
        assert length > 200 * BYTES_PER_TOKEN
    await eventually(lambda: server.process.poll() is not None, "the supervisor has ended")
    assert server.process.returncode == 0
    assert alive(family) == []
    assert not [path for path in files if path.exists()]


async def test_killing_the_supervisor_ends_everything(tiny_model: Path, tmp_path: Path) -> None:
    with running_server(tiny_model, tmp_path / "log", *SIZES) as server:
        await eventually(
            lambda: any(p.name() == ENGINE for p in alive(server.family())), "vLLM has processes of its own"
        )
        family, files = server.family(), belongings(server)
        assert files
        server.process.kill()
        await eventually(lambda: not alive(family), "every process has ended")
        await eventually(lambda: not any(path.exists() for path in files), "sockets and shared memory are gone")
