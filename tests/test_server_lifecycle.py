"""What an operator relies on: keys, limits, the log; the dead are restarted; stopping finishes what is in flight."""

import asyncio
import base64
import contextlib
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import httpx2
import psutil
import pytest
from openai import APIConnectionError, AsyncOpenAI, AuthenticationError, InternalServerError, RateLimitError
from prometheus_client.parser import text_string_to_metric_families
from selenium.webdriver.common.by import By
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from server.http.websocket import SECONDS_TO_TAKE
from server.processes.supervisor import SECONDS_BETWEEN_PINGS
from server.ws.session import SECONDS_FOR_CONFIG
from tests.browser import chromium, wait
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
from tests.stream_client import CLOSE_REFUSED, CLOSE_RESTARTING, PRESET, WORDS, calling, deaf, spaced, unconfigured
from tests.test_audio import tone, wav
from vllm_cosyvoice.config import SAMPLES_PER_TOKEN

BYTES_PER_TOKEN = 2 * SAMPLES_PER_TOKEN
ENGINE = "VLLM::EngineCore"
KEYS = ("open-sesame", "a-second-key")
MOST_WEBSOCKETS = 4  # of each http worker
PATIENCE = 8  # seconds that a WebSocket's client may be silent
SECRET_TEXT = "Nobody may read this sentence in a log."


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with narrow limits, which is not ready yet."""
    directory = tmp_path_factory.mktemp("server")
    (directory / "keys").write_text("\n".join(KEYS))
    flags = ["--httpserver_workers", "2", "--encode_process_num", "2", "--gpt_paral_num", "2", "--zmq_mode", "tcp://"]
    flags += ["--api_key_file", str(directory / "keys"), "--voices_dir", str(directory)]
    flags += ["--max_websockets", str(MOST_WEBSOCKETS), "--websocket_timeout", str(PATIENCE)]
    with running_server(tiny_model, directory / "log", *flags, key=KEYS[1]) as running:
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
        for path, status in (("/liveness", 200), ("/readiness", 503), ("/healthz", 503)):
            assert (await client.get(path)).status_code == status, path
    await eventually(server.healthy, "the server is healthy")
    await eventually(server.ready, "all of its processes are there")


# Keys and the log


async def test_openais_client_needs_the_key(server: ServerProcess) -> None:
    async with server.openai() as client:
        assert (await speak(client, 20)).content
        with pytest.raises(AuthenticationError) as refused:
            await speak(client.with_options(api_key="wrong"), 20)
    assert refused.value.code == "invalid_api_key"


async def speak(openai: AsyncOpenAI, tokens: int, **fields: Any) -> httpx2.Response:
    """What OpenAI's client gets."""
    return (await openai.audio.speech.create(**BODY | fields, extra_body=exactly(tokens))).response


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


async def test_the_log_has_one_line_for_each_request_and_no_secrets(server: ServerProcess) -> None:
    async with server.client() as client:
        body = BODY | exactly(50) | {"input": SECRET_TEXT}
        whole = await client.post("/v1/audio/speech?key=in-the-query", json=body)
        unknown = await client.post("/v1/audio/speech", json=BODY | {"voice": "nobody"})
    async with server.speaking(500) as left:
        pass
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
    for process in server.family():
        assert not any(key in argument for key in KEYS for argument in process.cmdline())


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


# Limits


async def test_more_than_it_can_hold_is_refused_and_the_rest_is_spoken(server: ServerProcess) -> None:
    async with server.openai() as client:
        results = await asyncio.gather(
            *(speak(client, 150, stream_format=("audio", "sse")[number % 2]) for number in range(24)),
            return_exceptions=True,
        )
    spoken = [result for result in results if isinstance(result, httpx2.Response)]
    refused = [result for result in results if isinstance(result, RateLimitError)]
    assert len(spoken) + len(refused) == 24
    assert refused
    assert len(spoken) >= 10, "two at a time and eight waiting"
    plain = [answer for answer in spoken if answer.headers["content-type"] == "audio/pcm"]
    assert all(len(answer.content) == 150 * BYTES_PER_TOKEN for answer in plain)
    for error in refused:
        assert (error.code, error.type) == ("overloaded", "rate_limit_error")
        assert int(error.response.headers["retry-after"]) > 0
        assert error.response.headers["x-should-retry"] == "true"
    await eventually(
        lambda: (
            counted(server, "answers_total", route="/v1/audio/speech", outcome="refused", status="429") == len(refused)
        ),
        "those who were refused are counted, whichever worker answered",
    )
    await eventually(server.idle, "nothing is left of the requests")


async def test_openais_client_asks_again_and_is_served_when_there_is_room(server: ServerProcess) -> None:
    async with server.openai() as client:
        patient = client.with_options(max_retries=100)
        results = await asyncio.gather(*(speak(patient, 50) for _ in range(24)))
    assert all(len(answer.content) == 50 * BYTES_PER_TOKEN for answer in results)
    await eventually(lambda: counted(server, "retries_total") > 0, "its further attempts are counted as such")


async def test_no_more_websockets_than_allowed(server: ServerProcess) -> None:
    workers = 2
    async with contextlib.AsyncExitStack() as stack:
        with pytest.raises(InvalidStatus) as refused:
            for _ in range(workers * MOST_WEBSOCKETS + 1):
                await stack.enter_async_context(unconfigured(server))
        answer = refused.value.response
        assert answer.status_code == 429
        assert answer.headers["retry-after"]
        assert json.loads(answer.body)["error"]["code"] == "overloaded"


async def test_a_websocket_needs_the_key(server: ServerProcess) -> None:
    for path in ("/v1/audio/speech/stream", "/inference_zero_shot_bistream"):
        with pytest.raises(InvalidStatus) as refused:
            async with unconfigured(server, path, key="wrong"):
                pass
        assert refused.value.response.status_code == 401


async def test_who_says_nothing_or_does_not_listen_is_left(server: ServerProcess) -> None:
    loop = asyncio.get_running_loop()

    async def never_configured() -> float:
        begin = loop.time()
        async with unconfigured(server) as client:
            assert await client.closed() == CLOSE_REFUSED
        return loop.time() - begin

    async def silent_in_the_middle() -> float:
        begin = loop.time()
        async with calling(server) as client:
            await client.text("Good")
            assert await client.closed() == CLOSE_REFUSED
        return loop.time() - begin

    async def waiting_for_long_speech() -> None:
        async with calling(server, **exactly(1200)) as client:
            await client.text("Good")
            await client.say("input.done")
            assert len((await client.utterance()).pcm) == 1200 * BYTES_PER_TOKEN

    def given_up() -> int:
        return sum(line["method"] == "WEBSOCKET" and line["outcome"] == "left" for line in logged(server))

    begin, before = loop.time(), given_up()
    async with deaf(server, voice=PRESET, **exactly(800), speed=0.25, sample_rate=48_000):  # more than sockets hold
        seconds = await asyncio.gather(never_configured(), silent_in_the_middle(), waiting_for_long_speech())
        assert seconds[0] >= SECONDS_FOR_CONFIG
        assert seconds[1] >= PATIENCE
        await eventually(lambda: given_up() > before, "who does not listen is given up")
        assert loop.time() - begin >= SECONDS_TO_TAKE
    await eventually(server.idle, "nothing is left")


# Deaths

Call = Callable[[ServerProcess], Awaitable[str]]


async def plain(server: ServerProcess) -> str:
    async with (
        server.client() as client,
        client.stream("POST", "/v1/audio/speech", json=BODY | exactly(60)) as answer,
    ):
        if answer.status_code != 200:
            await answer.aread()
            assert answer.status_code == 503
            assert error_of(answer)["code"] == "unavailable"
            return "refused"
        assert sum([len(piece) async for piece in answer.aiter_raw()]) == 60 * BYTES_PER_TOKEN
        return "whole"


async def events(server: ServerProcess) -> str:
    body = BODY | exactly(60) | {"stream_format": "sse"}
    async with server.client() as client, client.stream("POST", "/v1/audio/speech", json=body) as answer:
        if answer.status_code != 200:
            assert answer.status_code == 503
            return "refused"
        last, size = {"type": ""}, 0
        try:
            async for line in answer.aiter_lines():
                if line:
                    last = json.loads(line.removeprefix("data: "))
                    size += len(base64.b64decode(last.get("audio", "")))
        except httpx.TransportError:
            assert last["type"] != "speech.audio.done"
            raise
        assert (last["type"], size) == ("speech.audio.done", 60 * BYTES_PER_TOKEN)
        return "whole"


async def lighttts(server: ServerProcess) -> str:
    form = {"tts_text": "The sun rose over the hills.", "prompt_text": "It is a tone.", "stream": "True"}
    async with server.client() as client:
        answer = await client.post("/inference_zero_shot", data=form, files={"prompt_wav": wav(tone(2))})
    if answer.status_code != 200:
        assert answer.status_code == 503
        assert "again" in answer.json()["message"] or "up" in answer.json()["message"]
        return "refused"
    assert answer.content
    assert len(answer.content) % BYTES_PER_TOKEN == 0
    return "whole"


async def text_stream(server: ServerProcess) -> str:
    async with calling(server, **exactly(60)) as client:
        await client.text(*spaced(WORDS))
        await client.say("input.done")
        heard = await client.utterance()
    for event in heard.events:
        if event["type"] == "error":
            assert event["code"] == "unavailable"
            return "broken" if event.get("partial_audio") else "refused"
    assert len(heard.pcm) == 60 * BYTES_PER_TOKEN
    return "whole"


BROKEN = (httpx.TransportError, ConnectionClosed, InvalidHandshake, ConnectionError)
CALLS: tuple[Call, ...] = (plain, events, lighttts, text_stream)


async def keep_calling(server: ServerProcess, call: Call, enough: asyncio.Event, outcomes: "Counter[str]") -> None:
    """Call until told to stop; every call has to end, one way or the other."""
    while not enough.is_set():
        try:
            outcomes[await call(server)] += 1
        except BROKEN:
            outcomes["broken"] += 1
        await asyncio.sleep(1)  # to leave something of a small machine for what starts again


@contextlib.asynccontextmanager
async def under_load(server: ServerProcess) -> AsyncIterator["Counter[str]"]:
    """Callers of all kinds, who never stop; what became of their calls."""
    outcomes: Counter[str] = Counter()
    enough = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for call in CALLS:
            tasks.create_task(keep_calling(server, call, enough, outcomes))
        try:
            yield outcomes
        finally:
            enough.set()


@pytest.mark.parametrize("victims", [("decode-0",), ("generate-0", "encode-0"), (ENGINE,)])
async def test_what_dies_is_restarted_and_what_it_held_fails_at_once(
    server: ServerProcess, victims: tuple[str, ...]
) -> None:
    async with under_load(server) as outcomes:
        async with server.speaking(6000) as answer:
            processes = [server.named(name) for name in victims]
            for process in processes:
                process.kill()
            with pytest.raises(httpx.RemoteProtocolError):
                async for _ in answer.extensions["body"]:
                    pass
        await eventually(lambda: not server.healthy(), "the death is noticed")
        async with server.openai() as openai:
            with pytest.raises(InternalServerError) as refused:
                await speak(openai, 20)
        assert (refused.value.status_code, refused.value.code) == (503, "unavailable")
        await eventually(server.healthy, "it is up again")
        whole = outcomes["whole"]
        await eventually(lambda: outcomes["whole"] >= whole + 2 * len(CALLS), "everybody is served again")
    await eventually(server.idle, "nothing of the failed requests is left")
    assert "Exception in ASGI" not in server.log.read_text(), "a line for each request says it all"
    assert alive(processes) == []


@pytest.mark.parametrize("victim", ["decode-0", "generate-0"])
async def test_what_hangs_is_restarted_and_what_it_held_fails(server: ServerProcess, victim: str) -> None:
    async with server.speaking(6000) as answer:
        process = server.named(victim)
        process.suspend()
        await eventually(lambda: not server.healthy(), "it is noticed")
        with pytest.raises(httpx.RemoteProtocolError):
            async for _ in answer.extensions["body"]:
                pass
    await eventually(server.healthy, "it is up again")
    await eventually(server.idle, "nothing of the failed request is left")
    assert alive([process]) == []
    assert f"{victim} hangs" in server.log.read_text()


async def test_a_restart_that_fails_is_tried_again(server: ServerProcess) -> None:
    first = server.named("decode-0")

    def successor_of(process: psutil.Process) -> psutil.Process | None:
        found = server.find("decode-0")
        return found if found and found.pid != process.pid else None

    first.kill()
    second = await eventually(lambda: successor_of(first), "it is started again")
    second.kill()
    await eventually(lambda: successor_of(second) and server.healthy(), "and again")
    assert server.process.poll() is None


async def test_when_an_encoder_dies_the_other_takes_its_place_and_speech_goes_on(server: ServerProcess) -> None:
    async with under_load(server) as outcomes, server.speaking(600) as answer:
        victim = server.named("encode-1")
        victim.kill()
        whole = outcomes["whole"]
        await eventually(lambda: outcomes["whole"] >= whole + 2 * len(CALLS), "requests are served")
        assert sum([len(piece) async for piece in answer.extensions["body"]]) > 500 * BYTES_PER_TOKEN
    await eventually(server.idle, "nothing is left, and the second is there again")
    assert alive([victim]) == []


async def test_when_an_http_worker_dies_the_others_callers_do_not_notice(server: ServerProcess) -> None:
    workers = [server.named("http-0"), server.named("http-1")]
    async with contextlib.AsyncExitStack() as stack:
        answers = []
        # The first is long, so that it is not over before the worker dies.
        for other, tokens in zip(reversed(workers), (6000, 500), strict=True):
            other.suspend()  # while one is stopped, the other takes the call; soon enough it answers pings again
            asyncio.get_running_loop().call_later(SECONDS_BETWEEN_PINGS, other.resume)
            answers.append(await stack.enter_async_context(server.speaking(tokens)))
        workers[0].kill()
        with pytest.raises(httpx.TransportError):
            async for _ in answers[0].extensions["body"]:
                pass
        assert sum([len(piece) async for piece in answers[1].extensions["body"]]) > 400 * BYTES_PER_TOKEN
    await eventually(server.idle, "its successor is there, and nothing is left")
    assert alive(workers[:1]) == []


async def test_openais_client_takes_no_part_for_the_whole(server: ServerProcess) -> None:
    async with server.openai() as openai:
        before = counted(server, "audio_seconds_total")
        whole = asyncio.create_task(speak(openai, 6000, response_format="mp3"))
        await eventually(lambda: counted(server, "audio_seconds_total") > before, "it speaks")
        server.named("decode-0").kill()
        with pytest.raises(APIConnectionError):
            await whole
    await eventually(server.healthy, "the decoder is back")


# The end


async def test_sigterm_finishes_what_is_in_flight_and_leaves_nothing(server: ServerProcess) -> None:
    """The last test with this server: it ends it."""
    family, files = server.family(), belongings(server)
    assert files
    async with contextlib.AsyncExitStack() as stack:
        answer = await stack.enter_async_context(server.speaking(400))
        client = await stack.enter_async_context(calling(server, **exactly(60)))
        await client.text(*spaced(WORDS[:15]))
        await client.first_audio()
        idle = await stack.enter_async_context(calling(server))
        server.process.send_signal(signal.SIGTERM)
        assert await idle.closed() == CLOSE_RESTARTING
        await eventually(lambda: not answers(server), "no new connection is taken")
        await client.text(" The end .")
        await client.say("input.done")
        assert (await client.utterance()).kinds() == ["audio.done", "session.done"]
        assert await client.closed() == CLOSE_RESTARTING
        length = sum([len(chunk) async for chunk in answer.extensions["body"]])
        assert length > 200 * BYTES_PER_TOKEN
    await eventually(lambda: server.process.poll() is not None, "the supervisor has ended")
    assert server.process.returncode == 0
    assert alive(family) == []
    assert not [path for path in files if path.exists()]
