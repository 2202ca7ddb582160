"""Clients besides the openai package: real ones where they install, the others by the requests that they send."""

import io
import json
import urllib.request

import aiohttp
import av
import httpx
import numpy as np
import pytest
from livekit.agents.metrics import TTSMetrics
from livekit.plugins.openai import TTS as LiveKitSpeech
from pipecat.frames.frames import ErrorFrame, TTSAudioRawFrame, TTSSpeakFrame
from pipecat.services.openai.tts import VALID_VOICES
from pipecat.services.openai.tts import OpenAITTSService as PipecatSpeech
from pipecat.tests.utils import run_test

from server.voice_aliases import VOICE_ALIASES
from tests.server_process import SLOW, ServerProcess, exactly
from vllm_cosyvoice.config import SAMPLE_RATE, TOKEN_RATE

TEXT = "The sun rose over the hills."
PADDING = 0.11  # seconds of silence that a codec may add


def seconds_of(audio: bytes) -> float:
    with av.open(io.BytesIO(audio)) as container:
        stream = container.streams.audio[0]
        samples: int = sum(frame.samples for frame in container.decode(stream))
        rate: int = stream.rate
    return samples / rate


@pytest.mark.parametrize("model", ["gpt-4o-mini-tts", "tts-1"])  # for the second, it asks for audio and not for events
async def test_livekit_speaks(server: ServerProcess, model: str) -> None:
    metrics: list[TTSMetrics] = []
    async with LiveKitSpeech(base_url=f"{server.url}/v1", api_key=server.key, model=model, voice="nova") as speech:
        speech.on("metrics_collected", metrics.append)
        speech.prewarm()
        frame = await speech.synthesize(TEXT).collect()
    assert (frame.sample_rate, frame.num_channels) == (SAMPLE_RATE, 1)
    assert np.frombuffer(frame.data, np.int16).std() > 100
    if model == "gpt-4o-mini-tts":
        assert frame.duration == pytest.approx(metrics[0].output_tokens / TOKEN_RATE, abs=PADDING)
        assert metrics[0].input_tokens > 0


async def test_pipecat_speaks(server: ServerProcess) -> None:
    assert set(VALID_VOICES) == set(VOICE_ALIASES), (
        "Pipecat refuses other names, so each of them has to be a voice here"
    )
    speech = PipecatSpeech(
        base_url=f"{server.url}/v1", api_key=server.key, settings=PipecatSpeech.Settings(model="tts-1", voice="nova")
    )
    down, up = await run_test(speech, frames_to_send=[TTSSpeakFrame(TEXT)], start_timeout=SLOW)
    assert [frame.error for frame in up if isinstance(frame, ErrorFrame)] == []
    audio = b"".join(frame.audio for frame in down if isinstance(frame, TTSAudioRawFrame))
    assert len(audio) % (2 * SAMPLE_RATE // TOKEN_RATE) == 0
    assert np.frombuffer(audio, np.int16).std() > 100


async def test_open_web_ui_finds_models_and_voices_and_speaks(server: ServerProcess) -> None:
    base = f"{server.url}/v1"
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{base}/audio/models") as answer:
            assert "tts-1" in [model["id"] for model in (await answer.json())["models"]]
        async with session.get(f"{base}/audio/voices") as answer:
            voices = {voice["id"]: voice["name"] for voice in (await answer.json())["voices"]}
            assert voices["default"] == "default"
        headers = {"Authorization": f"Bearer {server.key}", "X-OpenWebUI-User-Name": "Anna"}
        body = {"model": "tts-1", "input": TEXT, "voice": "default"}
        async with session.post(f"{base}/audio/speech", json=body, headers=headers) as answer:
            assert answer.content_type == "audio/mpeg"  # it keeps whatever comes as .mp3
            assert seconds_of(await answer.read()) > 0
        async with session.post(f"{base}/audio/speech", json=body | {"voice": "nobody"}, headers=headers) as answer:
            assert answer.status == 400
            assert "nobody" in (await answer.json())["error"]["message"]  # which it shows


async def test_silly_tavern_speaks(client: httpx.AsyncClient) -> None:
    body = {"input": TEXT, "response_format": "mp3", "voice": "onyx", "speed": 1.25, "model": "tts-1"}
    answer = await client.post("/v1/audio/speech", json=body)
    assert answer.status_code == 200
    assert seconds_of(answer.content) > 0


@pytest.mark.parametrize("extra", [{}, {"response_format": "opus"}], ids=["mp3", "opus"])
def test_home_assistants_openai_tts_speaks(server: ServerProcess, extra: dict[str, str]) -> None:
    """`extra`: what a user adds in its field for more of the body."""
    body = {"model": "tts-1", "input": TEXT, "voice": "shimmer", "response_format": "mp3", "speed": 1.0, **extra}
    request = urllib.request.Request(
        f"{server.url}/v1/audio/speech",
        data=json.dumps(body | exactly(50)).encode(),
        headers={
            "Content-Type": "application/json",
            "User-Agent": "HomeAssistant-OpenAI-TTS",
            "Authorization": f"Bearer {server.key}",
        },
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=SLOW) as answer:
        audio = b"".join(iter(lambda: answer.read(8192), b""))
    assert seconds_of(audio) == pytest.approx(50 / TOKEN_RATE, abs=PADDING)


async def test_wyoming_openai_speaks(server: ServerProcess) -> None:
    """The bridge between Home Assistant's voice pipeline and OpenAI's API: the openai package, wav, in a stream."""
    async with (
        server.openai() as openai,
        openai.audio.speech.with_streaming_response.create(
            model="tts-1", voice="default", input=TEXT, response_format="wav", speed=1.0, extra_body=exactly(50)
        ) as answer,
    ):
        audio = b"".join([piece async for piece in answer.iter_bytes(2048)])
    assert seconds_of(audio) == 50 / TOKEN_RATE
