"""What clients of every kind send and expect beside the plain request: null, HEAD, HTTP/1.0, slashes, encodings."""

import asyncio
import gzip
import json

import httpx
import pytest

from server.http.speech_body import SpeechBody
from tests.server_process import BODY, ServerProcess, error_of, exactly
from vllm_cosyvoice.config import SAMPLES_PER_TOKEN

TOKENS = 10
SPOKEN = BODY | exactly(TOKENS)
BYTES = 2 * TOKENS * SAMPLES_PER_TOKEN


async def test_null_is_the_default(client: httpx.AsyncClient) -> None:
    nulls = dict.fromkeys(SpeechBody.model_fields.keys() - SPOKEN.keys())
    assert len(nulls) > 12
    plain = await client.post("/v1/audio/speech", json=SPOKEN)
    answer = await client.post("/v1/audio/speech", json=nulls | SPOKEN)
    assert answer.status_code == 200, answer.text
    assert answer.content == plain.content
    assert len(answer.content) == BYTES


@pytest.mark.parametrize("model", [{"model": None}, {}], ids=["null", "left out"])
async def test_the_served_model_speaks_when_none_is_named(client: httpx.AsyncClient, model: dict[str, None]) -> None:
    body = {name: value for name, value in SPOKEN.items() if name != "model"} | model
    answer = await client.post("/v1/audio/speech", json=body)
    assert (answer.status_code, len(answer.content)) == (200, BYTES), answer.text


@pytest.mark.parametrize("name", ["input", "voice"])
async def test_null_of_what_is_needed_is_missing(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.post("/v1/audio/speech", json=SPOKEN | {name: None})
    assert (answer.status_code, error_of(answer)["message"]) == (400, f"{name} is missing.")


@pytest.mark.parametrize("path", ["/health", "/metrics", "/v1/models", "/v1/audio/voices", "/docs", "/"])
async def test_head_is_answered_where_get_is(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.head(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == (await client.get(path)).headers["content-type"]


async def test_head_of_speech_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.head("/v1/audio/speech")).status_code == 405


async def test_a_client_of_http_1_0_gets_no_chunks(server: ServerProcess) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    body = json.dumps(SPOKEN).encode()
    head = f"POST /v1/audio/speech HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await reader.read()
    writer.close()
    head_of_answer, _, audio = answer.partition(b"\r\n\r\n")
    lines = head_of_answer.lower().split(b"\r\n")
    assert b" 200 " in lines[0]
    assert b"content-length: %d" % BYTES in lines
    assert not any(line.startswith(b"transfer-encoding") for line in lines)
    assert len(audio) == BYTES


@pytest.mark.parametrize("path", ["/v1/audio/voices/", "/v1/models/"])
async def test_a_slash_at_the_end_is_forgiven(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 307
    followed = await client.get(path, follow_redirects=True)
    assert followed.json() == (await client.get(path.removesuffix("/"))).json()


async def test_a_compressed_body_is_told_so(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    answer = await client.post("/v1/audio/speech", content=gzip.compress(json.dumps(SPOKEN).encode()), headers=headers)
    assert answer.status_code == 415
    assert "gzip" in error_of(answer)["message"]


async def test_a_body_in_another_encoding_is_told_so(client: httpx.AsyncClient) -> None:
    content = json.dumps(SPOKEN | {"input": "你好"}, ensure_ascii=False).encode("gbk")
    answer = await client.post("/v1/audio/speech", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "UTF-8" in error_of(answer)["message"]
