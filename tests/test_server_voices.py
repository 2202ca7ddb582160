"""Voices over http: registered through one of four http workers they are everyone's; hostile uploads are refused."""

import asyncio
import base64
import io
import random
import zipfile
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from aiohttp import web
from openai import AsyncOpenAI, BadRequestError, ConflictError, NotFoundError

from server.http.guards import LARGEST_UPLOAD
from tests.server_process import BODY, ServerProcess, error_of, eventually, exactly
from tests.test_audio import encoded, tone, wav
from tests.test_reference_audio import listening
from vllm_cosyvoice.config import SAMPLES_PER_TOKEN

BYTES_PER_TOKEN = 2 * SAMPLES_PER_TOKEN
ATTEMPTS = 24  # enough, each on a connection of its own, to reach all http workers


async def speak(server: ServerProcess, fields: dict[str, object], tokens: int = 10) -> httpx.Response:
    """One request on a connection of its own."""
    async with server.client() as client:
        return await client.post("/v1/audio/speech", json=BODY | exactly(tokens) | fields)


async def register(
    client: httpx.AsyncClient, data: bytes, name: str = "Hostile", filename: str = "a.wav", **fields: str
) -> httpx.Response:
    form = {"name": name, "consent": "cons_1"} | fields
    return await client.post("/v1/audio/voices", data=form, files={"audio_sample": (filename, data)})


# The life of a voice


async def test_a_voice_registered_through_openais_client_is_everyones_at_once(
    server: ServerProcess, openai: AsyncOpenAI
) -> None:
    voice = await openai.audio.voices.create(
        name="Anna",
        audio_sample=("anna.flac", encoded(tone(2), 24_000, "flac", "flac")),
        consent="cons_1234",
        extra_body={"ref_text": "It is a tone."},
    )
    assert (voice.id, voice.name, voice.object, voice.type) == ("Anna", "Anna", "audio.voice", "audio_sample")
    assert voice.created_at > 1_700_000_000
    names = ["Anna", {"id": "Anna"}] * (ATTEMPTS // 2)
    answers = await asyncio.gather(*(speak(server, {"voice": name}) for name in names))
    assert {(answer.status_code, len(answer.content)) for answer in answers} == {(200, 10 * BYTES_PER_TOKEN)}

    deleted = await openai.audio.voices.delete("Anna")
    assert (deleted.id, deleted.deleted, deleted.object) == ("Anna", True, "audio.voice.deleted")
    answers = await asyncio.gather(*(speak(server, {"voice": "Anna"}) for _ in range(ATTEMPTS)))
    assert {answer.status_code for answer in answers} == {400}
    assert error_of(answers[0])["param"] == "voice"


async def test_the_list_has_openais_shape_and_open_webuis(server: ServerProcess, client: httpx.AsyncClient) -> None:
    (await register(client, wav(tone(2)), "Listed")).raise_for_status()

    async def listing() -> dict[str, Any]:
        async with server.client() as own:
            answer: dict[str, Any] = (await own.get("/v1/audio/voices")).json()
            return answer

    first, *others = await asyncio.gather(*(listing() for _ in range(ATTEMPTS)))
    assert all(other == first for other in others)
    assert first["object"] == "list"
    assert {"id": "Listed", "name": "Listed"} in first["voices"]
    assert [voice["id"] for voice in first["data"]] == [voice["id"] for voice in first["voices"]]
    assert {"default", "中文女"} <= {voice["id"] for voice in first["data"]}  # built in, and the model's own
    for voice in first["data"]:
        assert voice["object"] == "audio.voice"
        assert isinstance(voice["created_at"], int)
    (await client.delete("/v1/audio/voices/Listed")).raise_for_status()


async def test_a_name_belongs_to_one_voice_until_it_is_deleted(openai: AsyncOpenAI) -> None:
    retrying = openai.with_options(max_retries=2)
    await openai.audio.voices.create(name="Once", audio_sample=wav(tone(2)), consent="c")
    with pytest.raises(ConflictError, match="already") as taken:
        await retrying.audio.voices.create(name="Once", audio_sample=wav(tone(3)), consent="c")
    assert taken.value.response.headers["x-should-retry"] == "false"
    assert taken.value.param == "name"
    await openai.audio.voices.delete("Once")
    with pytest.raises(NotFoundError, match="no voice 'Once'"):
        await openai.audio.voices.delete("Once")
    with pytest.raises(ConflictError, match="can't be deleted"):
        await openai.audio.voices.delete("default")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("alloy", "--voice_aliases"),  # OpenAI's
        ("narrator", "'English male'"),  # the server's own table
        ("default", "choose another name"),
        ("slt", "choose another name"),
        ("中文女", "choose another name"),
    ],
)
async def test_a_name_that_means_a_voice_already_cannot_be_registered(
    openai: AsyncOpenAI, name: str, says: str
) -> None:
    with pytest.raises(ConflictError) as refused:
        await openai.audio.voices.create(name=name, audio_sample=wav(tone(2)), consent="c")
    assert refused.value.param == "name"
    assert says in refused.value.message
    assert "delete it first" not in refused.value.message


async def test_people_with_any_name_can_be_registered_and_deleted(openai: AsyncOpenAI, server: ServerProcess) -> None:
    for name in ("小明", "Zoë O'Neill", "a.b-c_d"):
        voice = await openai.audio.voices.create(name=name, audio_sample=wav(tone(2)), consent="c")
        assert (await speak(server, {"voice": voice.id})).status_code == 200
        assert (await openai.audio.voices.delete(voice.id)).id == name


async def test_what_a_registration_lacks_is_named(client: httpx.AsyncClient) -> None:
    no_file = await client.post("/v1/audio/voices", data={"name": "A", "audio_sample": "text"})
    assert (no_file.status_code, error_of(no_file)["param"]) == (400, "audio_sample")
    assert "must be a file" in error_of(no_file)["message"]
    no_name = await client.post("/v1/audio/voices", files={"audio_sample": wav(tone(2))})
    assert (no_name.status_code, error_of(no_name)["param"]) == (400, "name")
    described = await register(client, wav(tone(2)), type="prompt", prompt="A deep voice.")
    assert (described.status_code, error_of(described)["param"]) == (400, "type")
    as_json = await client.post("/v1/audio/voices", json={"name": "A"})
    assert as_json.status_code == 400
    error_of(as_json)


# Hostile uploads


def float_wav(samples: np.ndarray, rate: int = 24_000) -> bytes:
    """32-bit float WAV."""
    data = samples.astype("<f4").tobytes()
    header = b"RIFF" + (36 + len(data)).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    header += (3).to_bytes(2, "little") + (1).to_bytes(2, "little") + rate.to_bytes(4, "little")
    header += (rate * 4).to_bytes(4, "little") + (4).to_bytes(2, "little") + (32).to_bytes(2, "little")
    return header + b"data" + len(data).to_bytes(4, "little") + data


def claiming(data: bytes, offset: int, value: int, size: int = 4) -> bytes:
    """`data` with a number of its header changed."""
    return data[:offset] + value.to_bytes(size, "little") + data[offset + size :]


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.wav", bytes(1 << 26))
    return file.getvalue()


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "two hours in 100 kB": (
        lambda: encoded(np.zeros(7200 * 8000, np.float32), 8000, "flac", "flac"),
        "longer than 60 s",
    ),
    "a zip bomb": (zipped, "can't be decoded"),
    "a picture": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(1000), "can't be decoded"),
    "a text": (lambda: b"This is not audio. " * 100, "can't be decoded"),
    "a playlist of our files": (lambda: PLAYLIST, "can't be decoded"),
    "a list of our files": (lambda: b"ffconcat version 1.0\nfile /etc/passwd\n", "can't be decoded"),
    "nothing": (lambda: b"", "can't be decoded"),
    "no samples": (lambda: wav(tone(0)), "empty"),
    "too short": (lambda: wav(tone(0.5)), "at least 1 s"),
    "a claim of 2 GB": (lambda: claiming(wav(tone(0.5)), 40, 2**31 - 1), "at least 1 s"),
    "silence": (lambda: wav(tone(2) * 0), "silent"),
    "not a number": (lambda: float_wav(tone(2) * np.nan), "not finite"),
    "one infinite sample": (lambda: float_wav(np.append(tone(2), np.inf)), "not finite"),
    "out of scale": (lambda: float_wav(tone(2) * 1e30), "scale them"),
    "4 GHz": (lambda: claiming(wav(tone(2)), 24, 2**32 - 1), ""),
    "0 Hz": (lambda: claiming(wav(tone(2)), 24, 0), ""),
    "65535 channels": (lambda: claiming(wav(tone(2)), 22, 65535, 2), ""),
    "half an mp3 header": (lambda: encoded(tone(2), 24_000, "mp3", "libmp3lame")[:100], ""),
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_hostile_uploads_are_refused_with_a_reason(
    server: ServerProcess, client: httpx.AsyncClient, kind: str
) -> None:
    make, reason = HOSTILE[kind]
    data = make()
    assert len(data) < LARGEST_UPLOAD
    processes = {process.pid for process in server.family()}
    answer = await register(client, data)
    assert (answer.status_code, error_of(answer)["param"]) == (400, "audio_sample")
    assert reason in error_of(answer)["message"]
    assert {process.pid for process in server.family()} == processes
    inline = await speak(server, {"ref_audio": "data:;base64," + base64.b64encode(data).decode()})
    assert (inline.status_code, error_of(inline)["param"]) == (400, "ref_audio")
    assert "Hostile" not in (await client.get("/v1/audio/voices")).text


async def test_a_recording_has_ten_mebibytes_at_most(client: httpx.AsyncClient) -> None:
    padded = wav(tone(2)) + bytes(LARGEST_UPLOAD)
    accepted = await register(client, padded[:LARGEST_UPLOAD], "Largest")
    assert accepted.status_code == 200
    (await client.delete("/v1/audio/voices/Largest")).raise_for_status()
    for size in (LARGEST_UPLOAD + 1, 2 * LARGEST_UPLOAD):
        refused = await register(client, (padded * 2)[:size])
        assert refused.status_code == 413
        error_of(refused)
    elsewhere = await client.post("/v1/audio/voices/Anna", content=bytes(2 << 20))
    assert elsewhere.status_code in (405, 413)


async def test_a_body_that_claims_two_gigabytes_is_not_waited_for(server: ServerProcess) -> None:
    for path in ("/v1/audio/voices", "/v1/audio/voice-conversion", "/v1/audio/speech"):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {2 << 30}\r\n".encode())
        writer.write(b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n")
        async with asyncio.timeout(30):
            assert (await reader.readline()).split()[1] == b"413"
        writer.close()


@pytest.mark.parametrize("filename", ["../../../etc/passwd", "/etc/passwd", "a\\..\\b.wav", "x" * 3000, "a.html"])
async def test_the_name_of_an_uploaded_file_means_nothing(client: httpx.AsyncClient, filename: str) -> None:
    answer = await register(client, wav(tone(2)), "Harmless", filename)
    assert answer.status_code == 200, answer.text
    (await client.delete("/v1/audio/voices/Harmless")).raise_for_status()


TRAVERSALS = ["..", "../secret", "..\\secret", "/etc/passwd", "a/../../b", ".hidden", "a\x7fb", "x" * 300, "a\u202eb"]


@pytest.mark.parametrize("name", TRAVERSALS)
async def test_names_that_would_leave_the_directory_are_refused(
    server: ServerProcess, client: httpx.AsyncClient, name: str
) -> None:
    answer = await register(client, wav(tone(2)), name)
    assert (answer.status_code, error_of(answer)["param"]) == (400, "name")
    for voice in (name, {"id": name}):
        spoken = await speak(server, {"voice": voice})
        assert (spoken.status_code, error_of(spoken)["param"]) == (400, "voice")
    for path in (quote(name), "".join(f"%{byte:02x}" for byte in name.encode())):
        deleted = await client.delete(f"/v1/audio/voices/{path}")
        assert deleted.status_code in (404, 405), path
        error_of(deleted)


# A voice for one request


async def test_a_recording_sent_along_is_the_voice(server: ServerProcess, openai: AsyncOpenAI) -> None:
    recording = wav(tone(3, frequency=150.0))
    inline = "data:audio/wav;base64," + base64.b64encode(recording).decode()
    sent = await speak(server, {"ref_audio": inline, "ref_text": "It is a tone.", "voice": "default"})
    without_voice = await speak(server, {"ref_audio": inline, "ref_text": "It is a tone.", "voice": None})
    cross_lingual = await speak(server, {"ref_audio": inline})
    await openai.audio.voices.create(
        name="Same", audio_sample=recording, consent="c", extra_body={"ref_text": "It is a tone."}
    )
    registered = await speak(server, {"voice": "Same"})
    await openai.audio.voices.delete("Same")
    for answer in (sent, without_voice, cross_lingual, registered):
        assert (answer.status_code, len(answer.content)) == (200, 10 * BYTES_PER_TOKEN)
    assert apart(sent, registered) < 0.01
    assert apart(sent, without_voice) < 0.01
    assert apart(sent, cross_lingual) > 0.1


async def test_ref_audio_is_fetched_from_listed_hosts_only(server: ServerProcess, port_of_recordings: int) -> None:
    asked: list[str] = []

    async def recordings(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(body=wav(tone(2)))

    async with listening(recordings, port_of_recordings) as host, listening(recordings) as other:
        fetched = await speak(server, {"ref_audio": f"http://{host}/anna.wav"})
        assert (fetched.status_code, len(fetched.content)) == (200, 10 * BYTES_PER_TOKEN)
        for url in (f"http://{other}/a", f"http://localhost:{port_of_recordings}/a", f"http://{host}@{other}/a"):
            refused = await speak(server, {"ref_audio": url})
            assert (refused.status_code, error_of(refused)["param"]) == (400, "ref_audio")
    assert asked == ["/anna.wav"]


# Voice conversion


async def convert(client: httpx.AsyncClient, audio: bytes, **fields: object) -> httpx.Response:
    files = {"audio": ("a.wav", audio)} | {name: data for name, data in fields.items() if isinstance(data, bytes)}
    form = {"response_format": "pcm"} | {name: data for name, data in fields.items() if isinstance(data, str)}
    return await client.post("/v1/audio/voice-conversion", data=form, files=files)


async def test_a_recording_is_spoken_again_in_another_voice(client: httpx.AsyncClient) -> None:
    source = wav(tone(3))
    by_name = await convert(client, source, voice="default")
    assert (by_name.status_code, len(by_name.content)) == (200, 75 * BYTES_PER_TOKEN)
    preset = await convert(client, source, voice="中文女")
    assert len(preset.content) == 75 * BYTES_PER_TOKEN
    by_recording = await convert(client, source, ref_audio=wav(tone(2, frequency=150.0)))
    assert len(by_recording.content) == 75 * BYTES_PER_TOKEN
    assert apart(by_name, by_recording) > 0.1
    as_openai_would = await convert(client, source, voice="default", response_format="mp3")
    assert as_openai_would.headers["content-type"] == "audio/mpeg"
    faster = await convert(client, source, voice="default", speed="2")
    assert len(faster.content) == pytest.approx(75 * BYTES_PER_TOKEN / 2, rel=0.05)


async def test_what_is_wrong_with_a_conversion_is_named(client: httpx.AsyncClient) -> None:
    good, short = wav(tone(2)), wav(tone(0.2))
    for answer, param in (
        (await convert(client, short, voice="default"), "audio"),
        (await convert(client, good, ref_audio=short), "ref_audio"),
        (await convert(client, good, voice="nobody"), "voice"),
        (await convert(client, good), "voice"),
        (await convert(client, good, voice="default", ref_audio=good), "voice"),
        (await convert(client, good, voice="default", speed="5"), "speed"),
        (await convert(client, good, voice="default", speed="nan"), "speed"),
        (await convert(client, good, voice="default", response_format="midi"), "response_format"),
    ):
        assert (answer.status_code, error_of(answer)["param"]) == (400, param)


async def test_a_caller_who_leaves_a_conversion_leaves_nothing(server: ServerProcess) -> None:
    async def leave() -> None:
        async with server.client() as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(random.uniform(0.001, 0.1)):
                    await convert(client, wav(tone(29)), voice="default")

    await asyncio.gather(*(leave() for _ in range(20)))
    await eventually(server.idle, "nothing is left of the requests")


# Whose voice it is


def apart(one: httpx.Response, other: httpx.Response) -> float:
    """How much two answers of PCM differ, as a share of their sound."""
    first, second = (np.frombuffer(answer.content, "<i2").astype(float) for answer in (one, other))
    return float(np.linalg.norm(first - second) / np.hypot(np.linalg.norm(first), np.linalg.norm(second)))


async def test_nobody_hears_anothers_voice(server: ServerProcess, client: httpx.AsyncClient) -> None:
    recordings = {f"Voice {number}": wav(tone(2, frequency=100.0 * 1.5**number)) for number in range(6)}
    for name, recording in recordings.items():
        (await register(client, recording, name)).raise_for_status()
    alone = {name: await speak(server, {"voice": name}, tokens=5) for name in recordings}
    nearest = [apart(alone[one], alone[other]) for one in alone for other in alone if one != other]
    assert min(nearest) > 0.1  # they can be told apart

    chances = random.Random(0)
    turns = asyncio.Semaphore(32)

    async def ask(name: str) -> None:
        inline = "data:;base64," + base64.b64encode(recordings[name]).decode()
        fields: dict[str, object] = {"voice": name} if chances.random() < 0.7 else {"ref_audio": inline}
        async with turns:
            answer = await speak(server, fields, tokens=5)
        assert answer.status_code == 200, answer.text
        heard = min(alone, key=lambda other: apart(answer, alone[other]))
        assert heard == name

    await asyncio.gather(*(ask(chances.choice(list(recordings))) for _ in range(64)))
    for name in recordings:
        (await client.delete(f"/v1/audio/voices/{name}")).raise_for_status()
    await eventually(server.idle, "nothing is left of the requests")


async def test_a_voice_that_is_deleted_while_it_speaks_goes_on(server: ServerProcess, openai: AsyncOpenAI) -> None:
    await openai.audio.voices.create(name="Brief", audio_sample=wav(tone(2)), consent="c")
    async with server.client() as client:
        body = BODY | exactly(200) | {"voice": "Brief"}
        async with client.stream("POST", "/v1/audio/speech", json=body) as answer:
            pieces = answer.aiter_raw()
            first = await anext(pieces)
            await openai.audio.voices.delete("Brief")
            rest = b"".join([piece async for piece in pieces])
    assert len(first + rest) == 200 * BYTES_PER_TOKEN
    with pytest.raises(BadRequestError, match="no voice 'Brief'"):
        await openai.audio.speech.create(model="tts-1", input="Hello.", voice="Brief", response_format="pcm")
