"""Who may ask an http worker: keys, public paths, pages of other sites. The app runs in this process, stages do not."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse
from starlette.types import Receive, Scope, Send

from server.app import create
from server.arguments import PUBLIC_PATHS, parse
from server.http.websocket import Connections
from server.processes.addresses import Addresses, RunDirectory
from server.processes.channel import Channel
from server.processes.engine import StagedEngine
from server.served_model import ServedModel
from tests.server_process import BODY, error_of

KEYS = ("sesame", "open-sesame")
BEARER = {"Authorization": f"Bearer {KEYS[1]}"}
PAGE = "https://app.example"
MODEL = ServedModel(Path("m"), "m", "CosyVoice2")


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
    yield create(StagedEngine(channel), Connections(4, 60), MODEL, arguments)
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


FORM = {"sec-fetch-site": "cross-site", "origin": PAGE}
PLAIN_FORM = {"origin": PAGE}  # to a plain-http address: browsers send no sec-fetch-site there


@pytest.mark.parametrize("form", [FORM, PLAIN_FORM])
@pytest.mark.parametrize("path", ["/v1/audio/voices", "/inference_zero_shot", "/v1/audio/speech"])
async def test_a_form_on_another_sites_page_does_nothing(
    client: httpx.AsyncClient, path: str, form: dict[str, str]
) -> None:
    answer = await client.post(path, data={"name": "x"}, headers=BEARER | form)
    assert answer.status_code == 403
    assert error_of(answer)["code"] == "cross_site"
    assert PAGE in error_of(answer)["message"]
    by_a_proxy = {"sec-fetch-site": "same-origin", "origin": "https://speech.example"}
    own_page = {"origin": str(client.base_url).rstrip("/")}
    for own in ({}, {"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}, by_a_proxy, own_page):
        assert (await client.post(path, data={"name": "x"}, headers=BEARER | own)).status_code in (400, 422)
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert (await client.get("/", headers=link)).status_code == 200


@pytest.mark.parametrize("form", [FORM, PLAIN_FORM, {"origin": "null"}])
async def test_a_websocket_of_another_sites_page_is_refused(app: Any, form: dict[str, str]) -> None:
    def connect(headers: dict[str, str]) -> int:
        with (
            pytest.raises(WebSocketDenialResponse) as refused,
            TestClient(app).websocket_connect("/v1/audio/speech/stream", headers=headers),
        ):
            pass
        return refused.value.status_code

    assert await asyncio.to_thread(connect, BEARER | form) == 403


@pytest.mark.parametrize("app", [("--cors_origins", PAGE), ("--cors_origins", "*")], indirect=True)
async def test_a_named_sites_forms_are_taken(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/audio/voices", data={"name": "x"}, headers=BEARER | FORM)
    assert (answer.status_code, error_of(answer)["param"]) == (400, "audio_sample")


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


async def ids(app: Any, headers: dict[str, str], peer: str) -> tuple[list[str], dict[str, str]]:
    """The ids on an answer, and those in the state of its request."""
    states: list[dict[str, str]] = []

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        states.append(scope.setdefault("state", {}))
        await app(scope, receive, send)

    transport = httpx.ASGITransport(watched, client=(peer, 50000))
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        answer = await client.get("/liveness", headers=headers)
    return answer.headers.get_list("x-request-id"), states[0]


@pytest.mark.parametrize("app", [("--forwarded_allow_ips", "10.1.2.3,10.9.0.0/16")], indirect=True)
async def test_the_request_id_of_a_trusted_proxy_is_kept_and_no_others(app: Any) -> None:
    sent = {"x-request-id": "edge-1"}
    for proxy in ("10.1.2.3", "10.9.8.7"):
        assert (await ids(app, sent, proxy))[0] == ["edge-1"]
    for stranger in ("10.1.2.4", "127.0.0.1", "::1"):
        (id,), _ = await ids(app, sent, stranger)
        assert id.startswith("req_")
    for unreadable in ("a b", "a\x00", "x" * 129, ""):
        (id,), _ = await ids(app, {"x-request-id": unreadable}, "10.1.2.3")
        assert id.startswith("req_")


async def test_the_stages_know_a_request_by_an_id_of_its_own_whatever_a_proxy_sends(app: Any) -> None:
    """By default the proxy is on this machine."""
    states = [(await ids(app, {"x-request-id": "twice"}, "127.0.0.1"))[1] for _ in range(2)]
    assert {state["answer_id"] for state in states} == {"twice"}
    known = {state["request_id"] for state in states}
    assert len(known) == 2
    assert all(id.startswith("twice.") for id in known), "so that logs can be searched for it"


@pytest.mark.parametrize("app", [("--forwarded_allow_ips", "10.1.2.3")], indirect=True)
@pytest.mark.parametrize(("peer", "client"), [("10.1.2.3", "192.0.2.7"), ("10.1.2.4", "10.1.2.4")])
async def test_the_log_names_the_client_that_a_trusted_proxy_tells_of(
    app: Any, caplog: pytest.LogCaptureFixture, peer: str, client: str
) -> None:
    with caplog.at_level("INFO", logger="server.requests"):
        transport = httpx.ASGITransport(app, client=(peer, 50000))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as made:
            headers = BEARER | {"x-forwarded-for": "192.0.2.7", "x-request-id": "edge-1"}
            await made.get("/v1/models", headers=headers)
    line = json.loads(caplog.messages[-1])
    assert line["client"] == client
    assert (line["request_id"] == "edge-1") == (peer == "10.1.2.3")
