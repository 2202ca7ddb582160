"""Who may ask a server, and what its operators learn: keys, CORS, load, the log, /metrics over several workers."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from selenium.webdriver.common.by import By
from starlette.testclient import WebSocketDenialResponse

from server.addresses import Addresses, RunDirectory
from server.arguments import PUBLIC_PATHS, parse
from server.channel import Channel
from server.http.app import create
from server.http.pipeline import Pipeline
from server.http.websocket import Connections
from server.metrics import HELP
from tests.browser import chromium, wait
from tests.server_process import BODY, ServerProcess, error_of, eventually, exactly, running_server, wait_until

KEYS = ("sesame", "open-sesame")
BEARER = {"Authorization": f"Bearer {KEYS[1]}"}
PAGE = "https://app.example"
SECRET_TEXT = "Nobody may read this sentence in a log."


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[Addresses]:
    with RunDirectory(Path("/tmp"), 1) as run_directory:
        yield Addresses("ipc:///tmp/", run_directory.path)


@pytest.fixture
async def app(address: Addresses, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """An http worker's app, with the keys, and with the flags that the test names; no stage is up."""
    channel = Channel(address.new("http"), b"s" * 32)
    flags = ["--model_dir", "m", "--api_key", ",".join(KEYS), *getattr(request, "param", ())]
    arguments, _ = parse(flags, {})
    yield create(Pipeline(channel), Connections(4, 60), "m", arguments)
    channel.close()


@pytest.fixture
async def client(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as made:
        yield made


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer sesam",
        "Bearer sesame1",
        "Bearer sesame,open-sesame",
        "Basic sesame",
        "sesame",
    ],
)
async def test_without_one_of_the_keys_nothing_is_served(client: httpx.AsyncClient, header: str | None) -> None:
    answer = await client.get("/v1/models", headers={} if header is None else {"Authorization": header})
    assert answer.status_code == 401
    assert error_of(answer)["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert not any(key in answer.text for key in KEYS)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_each_key_opens(client: httpx.AsyncClient, key: str, scheme: str) -> None:
    assert (await client.get("/v1/models", headers={"Authorization": f"{scheme} {key}"})).status_code == 200


async def test_what_clients_ask_for_without_a_key_can_be_read_and_no_more(client: httpx.AsyncClient) -> None:
    for path in PUBLIC_PATHS:
        assert (await client.get(path)).status_code != 401, path
    refused = [
        ("POST", "/v1/audio/voices"),
        ("DELETE", "/v1/audio/voices/default"),
        ("GET", "/v1/audio/voices/"),
        ("GET", "//health"),
        ("GET", "/health/../v1/models"),
        ("GET", "/v1/audio/voices/../../models"),
        ("POST", "/health"),
        ("POST", "/inference_zero_shot"),
        ("GET", "/no/such/path"),
    ]
    for method, path in refused:
        assert (await client.request(method, f"http://server{path}")).status_code == 401, path


@pytest.mark.parametrize("app", [("--public_paths", "/health")], indirect=True)
async def test_the_public_paths_can_be_chosen(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health")).status_code == 503
    assert (await client.get("/metrics")).status_code == 401
    assert (await client.get("/")).status_code == 401


@pytest.mark.parametrize("path", ["/v1/audio/speech/stream", "/inference_zero_shot_bistream"])
async def test_websockets_ask_for_the_key_too(app: Any, path: str) -> None:
    def connect() -> int:
        with pytest.raises(WebSocketDenialResponse) as refused, TestClient(app).websocket_connect(path):
            pass
        return refused.value.status_code

    assert await asyncio.to_thread(connect) == 401


async def test_pages_of_other_sites_may_ask_only_if_they_are_named(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/models", headers=BEARER | {"Origin": PAGE})
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("app", [("--cors_origins", f"{PAGE},https://other.example")], indirect=True)
async def test_a_named_site_may_ask_with_its_key_and_sees_errors(client: httpx.AsyncClient) -> None:
    wanted = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    preflight = await client.options("/v1/audio/speech", headers={"Origin": PAGE} | wanted)
    assert preflight.status_code == 200, "browsers send no key with it"
    assert preflight.headers["access-control-allow-origin"] == PAGE
    for headers, status in ((BEARER, 200), ({}, 401)):
        answer = await client.get("/v1/models", headers=headers | {"Origin": PAGE})
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert "x-request-id" in answer.headers["access-control-expose-headers"]
    stranger = await client.get("/v1/models", headers=BEARER | {"Origin": "https://stranger.example"})
    assert "access-control-allow-origin" not in stranger.headers


async def test_what_is_not_ready_says_when_to_come_back(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/audio/speech", json=BODY, headers=BEARER)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["x-should-retry"] == "true"


async def test_the_api_is_described_with_its_errors(client: httpx.AsyncClient) -> None:
    api = (await client.get("/openapi.json")).json()
    speech = api["paths"]["/v1/audio/speech"]["post"]["responses"]
    assert speech["4XX"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Envelope"}
    assert "422" not in speech, "wrong fields are answered with 400"
    assert not {"/", "/docs"} & set(api["paths"])


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    directory = tmp_path_factory.mktemp("access")
    (directory / "keys").write_text("\n".join(KEYS))
    flags = ["--api_key_file", str(directory / "keys"), "--httpserver_workers", "2", "--gpt_paral_num", "1"]
    with running_server(tiny_model, directory / "log", *flags, "--voices_dir", str(directory)) as running:
        wait_until(running.healthy, "the server is ready")
        yield running


def counted(server: ServerProcess, name: str, **labels: str) -> float:
    """The sum over all processes."""
    text = httpx.get(f"{server.url}/metrics", timeout=60).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"cosyvoice_{name}" and labels.items() <= sample.labels.items()
    )


def logged(server: ServerProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]


async def test_openais_client_needs_the_key(server: ServerProcess) -> None:
    speech = {"model": "tts-1", "voice": "default", "input": "Hello.", "extra_body": exactly(20)}
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEYS[0]) as client:
        assert (await client.audio.speech.create(**speech)).content  # type: ignore[arg-type]  # of many types
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="wrong") as client:
        with pytest.raises(openai.AuthenticationError) as refused:
            await client.audio.speech.create(**speech)  # type: ignore[arg-type]  # of many types
    assert refused.value.code == "invalid_api_key"


async def test_too_many_are_told_to_come_back_and_counted_whoever_answers(server: ServerProcess) -> None:
    async def ask() -> httpx.Response:
        async with server.client() as client:  # a connection each, so that both workers get some
            return await client.post("/v1/audio/speech", json=BODY | exactly(100), headers=BEARER)

    before = counted(server, "first_audio_seconds_count")
    answers = await asyncio.gather(*(ask() for _ in range(16)))
    spoken = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(spoken) + len(refused) == 16
    assert spoken
    assert refused
    for answer in refused:
        assert error_of(answer)["type"] == "rate_limit_error"
        assert int(answer.headers["retry-after"]) > 0
        assert answer.headers["x-should-retry"] == "true"
    route = "/v1/audio/speech"
    await eventually(
        lambda: counted(server, "answers_total", route=route, outcome="refused", status="429") == len(refused),
        "those who were refused are counted",
    )
    await eventually(
        lambda: counted(server, "first_audio_seconds_count") == before + len(spoken),
        "those who were served are measured",
    )


async def test_the_log_has_one_line_for_each_request_and_no_secrets(server: ServerProcess) -> None:
    async with server.client() as client:
        body = BODY | exactly(50) | {"input": SECRET_TEXT}
        whole = await client.post("/v1/audio/speech?key=in-the-query", json=body, headers=BEARER)
        unknown = await client.post("/v1/audio/speech", json=BODY | {"voice": "nobody"}, headers=BEARER)
    async with (
        server.client() as client,
        client.stream("POST", "/v1/audio/speech", json=BODY | exactly(3000), headers=BEARER) as left,
    ):
        await anext(left.aiter_raw())
    ids = [answer.headers["x-request-id"] for answer in (whole, unknown, left)]

    def lines() -> list[dict[str, Any]]:
        return [line for id in ids for line in logged(server) if line["request_id"] == id]

    await eventually(lambda: len(lines()) >= 3, "all are logged")
    assert [line["request_id"] for line in lines()] == ids, "one line each"
    spoken, invalid, broken_off = lines()
    assert (spoken["status"], spoken["outcome"]) == (200, "ok")
    assert (spoken["voice"], spoken["characters"]) == ("default", len(SECRET_TEXT))
    assert spoken["audio_seconds"] == 2.0
    assert 0 < spoken["first_audio_seconds"] <= spoken["seconds"]
    assert spoken["real_time_factor"] == pytest.approx(spoken["seconds"] / 2, abs=1e-3)
    assert spoken["bytes"] == len(whole.content)
    assert (invalid["status"], invalid["outcome"]) == (400, "invalid")
    assert broken_off["outcome"] == "left"
    log = server.log.read_text()
    assert not [secret for secret in (*KEYS, SECRET_TEXT, "in-the-query") if secret in log]


def test_keys_from_a_file_are_in_no_command_line(server: ServerProcess) -> None:
    for process in (psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)):
        assert not any(key in argument for key in KEYS for argument in process.cmdline())


def test_every_number_is_explained(server: ServerProcess) -> None:
    text = httpx.get(f"{server.url}/metrics", timeout=60).text
    families = [line.split(" ")[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(families) > 20
    assert {family.removeprefix("cosyvoice_") for family in families} <= set(HELP)
    assert counted(server, "gpu_memory_used_bytes") <= counted(server, "gpu_memory_total_bytes")


def test_the_playground_asks_for_the_key(server: ServerProcess, tmp_path: Path) -> None:
    with chromium(tmp_path) as page:
        page.get(f"{server.url}/")
        wait(page, "!document.getElementById('key-field').hidden", "it asks")
        page.find_element(By.ID, "key").send_keys(KEYS[0] + "\t")
        wait(page, "document.getElementById('model').textContent !== ''", "it is let in")
        page.find_element(By.ID, "speak").click()
        wait(page, "document.body.dataset.state === 'done'", "it speaks")
        code = page.find_element(By.ID, "code").text
        assert "$OPENAI_API_KEY" in code
        assert KEYS[0] not in code
