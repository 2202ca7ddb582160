"""What an app answers when the wait is over: for stages that say nothing, and for a body that stops arriving."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from openai import AsyncOpenAI, InternalServerError
from starlette.types import ASGIApp, Receive, Scope, Send

from server.app import create
from server.arguments import parse
from server.http.websocket import Connections
from server.processes.addresses import Addresses, RunDirectory
from server.processes.channel import Channel
from server.processes.engine import StagedEngine
from server.processes.messages import StageUp
from server.served_model import ServedModel
from tests.server_process import BODY, error_of
from tests.test_audio import tone, wav

RECORDING = wav(tone(2))
PATIENCE = 0.1  # seconds
MODEL = ServedModel(Path("m"), "m", "CosyVoice2")
SECONDS = 30.0  # that a test may take


@pytest.fixture
async def app() -> AsyncIterator[ASGIApp]:
    """The app of an impatient http worker; its encoder is up and says nothing."""
    with RunDirectory(Path("/tmp"), 1) as run_directory:
        addresses = Addresses("ipc:///tmp/", run_directory.path)
        channel = Channel(addresses.new("http"), b"s" * 32)
        pipeline = StagedEngine(channel, PATIENCE)
        pipeline.handle(StageUp("encode", "encode-0", addresses.new("encode")))
        arguments, _ = parse(["--model_dir", "m"], {})
        served = create(pipeline, Connections(4, 60), MODEL, arguments)

        async def bounded(scope: Scope, receive: Receive, send: Send) -> None:
            async with asyncio.timeout(SECONDS):
                await served(scope, receive, send)

        yield bounded
        assert pipeline.numbers()["requests"] == 0
        channel.close()


@pytest.fixture
async def client(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as made:
        yield made


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("POST", "/v1/audio/speech", {"json": BODY}),
        ("POST", "/v1/audio/speech", {"json": BODY | {"stream_format": "sse"}}),
        ("POST", "/v1/audio/speech", {"json": BODY | {"stream": False}}),
        ("POST", "/v1/audio/voice-conversion", {"data": {"voice": "default"}, "files": {"audio": RECORDING}}),
        ("GET", "/v1/audio/voices", {}),
        ("POST", "/v1/audio/voices", {"data": {"name": "Anna"}, "files": {"audio_sample": RECORDING}}),
        ("DELETE", "/v1/audio/voices/Anna", {}),
    ],
)
async def test_what_no_stage_answers_in_time_ends_with_504(
    client: httpx.AsyncClient, method: str, path: str, content: dict[str, Any]
) -> None:
    answer = await client.request(method, path, **content)
    assert answer.status_code == 504
    assert (error_of(answer)["type"], error_of(answer)["code"]) == ("server_error", "timeout")


async def test_lighttts_clients_are_told_in_their_form(client: httpx.AsyncClient) -> None:
    form = {"tts_text": "Good morning.", "prompt_text": "It is a tone."}
    answer = await client.post("/inference_zero_shot", data=form, files={"prompt_wav": RECORDING})
    assert answer.status_code == 504
    assert f"{PATIENCE} s" in answer.json()["message"]


async def test_openais_client_raises_what_it_raises_for_servers_that_fail(app: ASGIApp) -> None:
    http_client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app))
    async with AsyncOpenAI(
        base_url="http://server/v1", api_key="any", max_retries=0, http_client=http_client
    ) as openai:
        with pytest.raises(InternalServerError) as error:
            await openai.audio.speech.create(model="tts-1", voice="default", input="Good morning.")
    assert (error.value.status_code, error.value.code, error.value.type) == (504, "timeout", "server_error")


@pytest.mark.parametrize("path", ["/v1/audio/speech", "/v1/audio/voices"])
async def test_a_body_that_stops_arriving_is_not_waited_for(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr("server.http.guards.SECONDS_TO_SEND", 0.1)

    async def body() -> AsyncIterator[bytes]:
        yield b"--b"
        await asyncio.Event().wait()

    kinds = {"/v1/audio/speech": "application/json", "/v1/audio/voices": "multipart/form-data; boundary=b"}
    answer = await client.post(path, content=body(), headers={"content-type": kinds[path]})
    assert answer.status_code == 408
    assert "stopped arriving" in error_of(answer)["message"]


async def test_who_has_sent_it_all_may_be_silent(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.http.guards.SECONDS_TO_SEND", PATIENCE / 4)
    assert (await client.post("/v1/audio/speech", json=BODY)).status_code == 504, "it has waited for the answer"


async def test_a_slow_body_is_waited_for(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.http.guards.SECONDS_TO_SEND", 1.0)

    async def body() -> AsyncIterator[bytes]:
        for piece in (b"{", b'"model":', b'"tts-1"', b"}"):
            await asyncio.sleep(0.4)
            yield piece

    answer = await client.post("/v1/audio/speech", content=body(), headers={"content-type": "application/json"})
    assert (answer.status_code, error_of(answer)["param"]) == (400, "input")
