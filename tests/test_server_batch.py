"""`POST /v1/audio/speech/batch`: many texts at once, each spoken or refused by itself."""

import asyncio
import base64
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.openai.batch import MOST_ITEMS, TEXTS
from tests.server_process import ServerProcess, error_of, eventually, exactly
from tests.test_audio import tone, wav
from vllm_cosyvoice.config import SAMPLE_RATE, SAMPLES_PER_TOKEN
from vllm_cosyvoice.text import TextFrontEnd
from vllm_cosyvoice.text.front_end import SILENCE

BYTES_PER_TOKEN = 2 * SAMPLES_PER_TOKEN
WAV_HEADER = 44  # bytes
LONGEST = 4096  # characters of a text


async def speak(client: httpx.AsyncClient, *items: object, **common: object) -> httpx.Response:
    return await client.post("/v1/audio/speech/batch", json={"voice": "default", "items": items} | common)


async def results(client: httpx.AsyncClient, *items: object, **common: object) -> list[dict[str, Any]]:
    answer = await speak(client, *items, **common)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["id"] == answer.headers["x-request-id"]
    assert [result["index"] for result in body["results"]] == list(range(len(items)))
    succeeded = sum(result["status"] == "success" for result in body["results"])
    assert (body["total"], body["succeeded"], body["failed"]) == (len(items), succeeded, len(items) - succeeded)
    found: list[dict[str, Any]] = body["results"]
    return found


def audio_of(result: dict[str, Any]) -> bytes:
    return base64.b64decode(result["audio_data"], validate=True)


async def test_items_take_the_batchs_fields_and_have_their_own(client: httpx.AsyncClient, tiny_model: Path) -> None:
    first, second, third = await results(
        client,
        {"input": "Good morning."},
        {"input": "Good night.", "response_format": "mp3", "voice": {"id": "slt"}, **exactly(20)},
        {"input": "Noon.", "response_format": "pcm", "speed": None, "sample_rate": 48_000},
        speed=2.0,
        **exactly(30),
    )
    assert first["media_type"] == "audio/wav"
    assert len(audio_of(first)) == WAV_HEADER + 15 * BYTES_PER_TOKEN
    assert int.from_bytes(audio_of(first)[40:44], "little") == 15 * BYTES_PER_TOKEN
    assert second["media_type"] == "audio/mpeg"
    assert (third["media_type"], len(audio_of(third))) == ("audio/pcm", 30 * BYTES_PER_TOKEN)
    read = len(TextFrontEnd(tiny_model / "CosyVoice-BlankEN").tokens("Good night."))
    assert second["usage"] == {"input_tokens": read, "output_tokens": 20, "total_tokens": read + 20}


async def test_a_bad_item_does_not_fail_the_others(client: httpx.AsyncClient) -> None:
    bad = [
        ({"input": " "}, "nothing to speak"),
        ({"input": "Hello.", "voice": "nobody"}, "no voice 'nobody'"),
        ({"input": "Hello.", "speed": 9}, "speed"),
        ({"input": "Hello.", "model": "gpt-9"}, "gpt-9"),
        ({"input": "Hello.", "response_format": "opus", "sample_rate": 44_100}, "sample rates"),
        ({"input": "a" * (LONGEST + 1)}, "4096"),
        ({"input": "Hello.", "ref_audio": "data:audio/wav;base64,AAAA"}, "recording"),
        ({"voice": "slt"}, "input is missing"),
        ("Hello.", "JSON object"),
        (None, "JSON object"),
    ]
    spoken, silent, *refused = await results(
        client, {"input": "Hello."}, {"input": "."}, *(item for item, _ in bad), response_format="pcm", **exactly(10)
    )
    assert len(audio_of(spoken)) == 10 * BYTES_PER_TOKEN
    assert audio_of(silent) == bytes(round(2 * SAMPLE_RATE * SILENCE))
    for result, (_, says) in zip(refused, bad, strict=True):
        assert set(result) == {"index", "status", "error"}
        assert says in result["error"]


async def test_a_recording_speaks_for_all_items_but_those_with_a_voice(client: httpx.AsyncClient) -> None:
    recording = {"ref_audio": "data:audio/wav;base64," + base64.b64encode(wav(tone(2))).decode(), "ref_text": "A tone."}
    text = {"input": "Hello.", **exactly(10)}
    cloned, again, named, alone = [
        audio_of(result)
        for result in await results(
            client, text, text, text | {"voice": "slt"}, text, **recording, response_format="pcm"
        )
    ]
    assert cloned == again == alone
    assert named == audio_of((await results(client, text, voice="slt", response_format="pcm"))[0]) != cloned


async def test_a_batch_is_an_item_many_times(client: httpx.AsyncClient) -> None:
    text = {"input": "Hello.", **exactly(10), "response_format": "pcm"}
    spoken = await results(client, *[text] * MOST_ITEMS)
    assert {len(audio_of(result)) for result in spoken} == {10 * BYTES_PER_TOKEN}


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({}, "items", "missing"),
        ({"items": []}, "items", "1 item"),
        ({"items": {"input": "Hello."}}, "items", "list"),
        ({"items": [{"input": "Hello."}] * (MOST_ITEMS + 1)}, "items", str(MOST_ITEMS)),
        ({"items": [{"input": "a" * LONGEST}] * TEXTS + [{"input": "a"}]}, "items", str(TEXTS * LONGEST)),
        ({"items": [{"input": "Hello."}], "speed": 9}, "speed", "4"),
        ({"items": [{"input": "Hello."}], "ref_audio": "nonsense"}, "ref_audio", "data:"),
    ],
)
async def test_what_is_wrong_with_the_batch_is_named(
    client: httpx.AsyncClient, body: dict[str, object], param: str, says: str
) -> None:
    answer = await client.post("/v1/audio/speech/batch", json={"voice": "default"} | body)
    assert answer.status_code == 400, answer.text
    assert error_of(answer)["param"] == param
    assert says in error_of(answer)["message"]


async def test_leaving_ends_the_work_on_all_items(server: ServerProcess) -> None:
    def running() -> int:
        return server.numbers()["segments"]["generate-0"]

    async with server.client() as client:
        asking = asyncio.create_task(speak(client, *[{"input": "Hello."}] * 5, **exactly(6000)))
        await eventually(lambda: running() == 5, "all items are being spoken")
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    await eventually(server.idle, "every stage is free again")
