"""LightTTS's clients get what they always got, by the requests its own scripts send."""

import asyncio
from pathlib import Path

import httpx
import pytest

from tests.server_process import ServerProcess, eventually
from tests.test_audio import encoded, tone, wav
from vllm_cosyvoice.config import SAMPLE_RATE, SAMPLES_PER_TOKEN
from vllm_cosyvoice.text import TextFrontEnd
from vllm_cosyvoice.text.front_end import SILENCE

BYTES_PER_TOKEN = 2 * SAMPLES_PER_TOKEN
PROMPT = wav(tone(2), 24_000)
FORM = {"tts_text": "The sun rose over the hills.", "prompt_text": "It is a tone."}


async def speak(client: httpx.AsyncClient, prompt: bytes = PROMPT, **fields: str) -> httpx.Response:
    files = {"prompt_wav": ("prompt.wav", prompt)}
    return await client.post("/inference_zero_shot", data=FORM | fields, files=files)


def whole_tokens(answer: httpx.Response, tiny_model: Path) -> int:
    """Speech tokens in an answer of PCM, once it is known that so many may be."""
    assert answer.status_code == 200, answer.text
    tokens, rest = divmod(len(answer.content), BYTES_PER_TOKEN)
    text = len(TextFrontEnd(tiny_model / "CosyVoice-BlankEN").tokens(FORM["tts_text"]))
    assert rest == 0
    assert 2 * text <= tokens <= 20 * text
    return tokens


@pytest.mark.parametrize("stream", ["False", "True", "false", "true", "0", "1"])  # requests sends Python's words
async def test_the_answer_is_headerless_pcm_without_a_content_type(
    client: httpx.AsyncClient, tiny_model: Path, stream: str
) -> None:
    answer = await speak(client, stream=stream, tts_model_name="default")
    whole_tokens(answer, tiny_model)
    assert not answer.content.startswith(b"RIFF")
    assert "content-type" not in answer.headers
    assert answer.headers["transfer-encoding"] == "chunked"


async def test_every_field_but_the_first_three_may_be_left_out(client: httpx.AsyncClient, tiny_model: Path) -> None:
    whole_tokens(await speak(client), tiny_model)


@pytest.mark.parametrize(("container", "codec"), [("flac", "flac"), ("mp3", "libmp3lame"), ("ogg", "libopus")])
async def test_the_prompt_may_be_of_any_format(
    client: httpx.AsyncClient, tiny_model: Path, container: str, codec: str
) -> None:
    whole_tokens(await speak(client, encoded(tone(2), 24_000, container, codec)), tiny_model)


async def test_streamed_audio_comes_before_the_last_of_it(client: httpx.AsyncClient) -> None:
    long = {"tts_text": " ".join(["The sun rose over the hills of the town."] * 8), "stream": "true"}
    form, files = FORM | long, {"prompt_wav": PROMPT}
    async with client.stream("POST", "/inference_zero_shot", data=form, files=files) as answer:
        assert answer.status_code == 200
        pieces = [len(piece) async for piece in answer.aiter_raw()]
    assert len(pieces) > 3


async def test_speed_works_for_complete_audio_only(client: httpx.AsyncClient) -> None:
    refused = await speak(client, stream="true", speed="1.5")
    assert refused.status_code == 400
    assert set(refused.json()) == {"message"}
    assert (await speak(client, speed="1.5")).status_code == 200
    assert (await speak(client, stream="true", speed="1.0")).status_code == 200


async def test_errors_are_lighttts_own(client: httpx.AsyncClient) -> None:
    without_file = await client.post("/inference_zero_shot", data=FORM)
    without_text = await client.post(
        "/inference_zero_shot", data={"prompt_text": "x"}, files={"prompt_wav": ("a.wav", PROMPT)}
    )
    for answer, status, word in (
        (without_file, 422, "prompt_wav"),
        (without_text, 422, "tts_text"),
        (await speak(client, speed="fast"), 422, "speed"),
        (await speak(client, speed="0"), 422, "speed"),
        (await speak(client, speed="nan"), 422, "speed"),
        (await speak(client, stream="perhaps"), 422, "stream"),
        (await speak(client, tts_model_name="CosyVoice9"), 400, "tts_model_name"),
        (await speak(client, b"no audio"), 400, "can't be decoded"),
        (await speak(client, wav(tone(31))), 400, "longer than 30 s"),
        (await speak(client, wav(tone(31)), stream="true"), 400, "longer than 30 s"),
        (await speak(client, tts_text=" "), 417, "nothing to speak"),
        (await speak(client, tts_text=" ", stream="true"), 417, "nothing to speak"),
        (await speak(client, bytes(10 << 20 | 1)), 413, "10 MiB"),
        (await speak(client, tts_text="a" * 4097), 422, "--max_input_chars"),
    ):
        assert answer.status_code == status, answer.text
        assert set(answer.json()) == {"message"}
        assert word in answer.json()["message"]
        assert answer.headers["x-request-id"].startswith("req_")


async def test_what_hung_lighttts_does_no_harm(server: ServerProcess, client: httpx.AsyncClient) -> None:
    """There, a voice whose first request failed or left was never encoded, and whoever used it next waited for ever."""
    prompt = wav(tone(2.5))
    assert (await speak(client, prompt, tts_text=" ")).status_code == 417
    silence = await speak(client, prompt, tts_text="...")
    assert (silence.status_code, len(silence.content)) == (200, round(2 * SAMPLE_RATE * SILENCE))
    assert (await speak(client, prompt, tts_model_name="nobody's")).status_code == 400
    for patience in (0.001, 0.01, 0.1):
        async with server.client() as leaving:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(patience):
                    await speak(leaving, prompt, tts_text="A text of several words. " * 100)
    answers = await asyncio.gather(*(speak(client, prompt) for _ in range(4)))
    assert {answer.status_code for answer in answers} == {200}
    await eventually(server.idle, "nothing is left of the requests")


async def test_the_probes_and_the_models(client: httpx.AsyncClient) -> None:
    for method in ("GET", "POST"):
        models = await client.request(method, "/query_tts_model")
        assert (models.status_code, models.json()) == (200, {"tts_models": ["CosyVoice2"]})
    for path, word in (
        ("/healthz", {"message": "Ok"}),
        ("/liveness", {"status": "ok"}),
        ("/readiness", {"status": "ok"}),
    ):
        answer = await client.get(path)
        assert (answer.status_code, answer.json()) == (200, word)
