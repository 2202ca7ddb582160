"""What of a recording becomes a voice: its speech without the silence around it, if it can say its transcript."""

import base64
import unicodedata
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.test_audio import tone, wav
from vllm_cosyvoice.checkpoint import open_model
from vllm_cosyvoice.failure import InputError
from vllm_cosyvoice.preparation import Preparation
from vllm_cosyvoice.recording import Recording
from vllm_cosyvoice.voice import AudioError, TranscriptError, VoiceDirectory, VoiceEncoder
from vllm_cosyvoice.voice.prompt import prompt_part
from vllm_cosyvoice.voice.transcript import syllables

RATE = 16_000
BUILT_IN = ["default", "slt", "rms", "awb"]


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


def noise(seconds: float, level: float) -> np.ndarray:
    """White noise, `level` dB of full scale."""
    draw = np.random.default_rng(0).standard_normal(round(seconds * RATE)) * 10 ** (level / 20)
    return draw.astype(np.float32)


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> VoiceEncoder:
    return VoiceEncoder(open_model(tiny_model), threads=1)


# silence


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_well_cut_recording_is_used_to_its_last_sample(name: str) -> None:
    samples, rate, transcript = VoiceDirectory().load(name)
    assert np.array_equal(prompt_part(samples, rate, transcript), samples)


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize(("before", "behind"), [(0, 1), (3, 0), (20, 30)])
@pytest.mark.parametrize("room", [None, -75.0])
def test_silence_around_the_speech_is_cut(name: str, before: int, behind: int, room: float | None) -> None:
    """Digital silence, or that of a quiet room."""
    speech, rate, transcript = VoiceDirectory().load(name)
    samples = np.concatenate([silence(before), speech, silence(behind)])
    if room is not None:
        samples += noise(len(samples) / RATE, room)
    part = prompt_part(samples, rate, transcript)
    start = before * rate
    loud = np.flatnonzero(np.abs(speech) > 0.05 * np.abs(speech).max())
    assert np.isin(samples[start + loud[0] : start + loud[-1]], part).all()
    assert len(speech) - 0.25 * rate <= len(part) <= len(speech) + 0.35 * rate


def test_a_soft_onset_before_the_first_loud_sound_stays() -> None:
    breath, vowel = noise(0.2, -60), tone(2, RATE)
    part = prompt_part(np.concatenate([silence(2), breath, vowel, breath, silence(2)]), RATE, "")
    assert np.concatenate([breath, vowel, breath]).tobytes() in part.tobytes()
    assert len(part) == pytest.approx(2.5 * RATE, abs=0.05 * RATE)


@pytest.mark.parametrize("level", [-50.0, -35.0, -25.0])
def test_noise_or_music_that_goes_on_keeps_a_recording_whole(level: float) -> None:
    music = 10 ** (level / 20) * tone(9, RATE, amplitude=1.4, frequency=261.6)
    speech = np.concatenate([silence(3), VoiceDirectory().load("slt")[0] * 0.5, silence(1)])
    for background in (music, noise(9, level)):
        assert len(prompt_part(speech + background, RATE, "")) == 9 * RATE


def test_clicks_in_the_silence_are_no_speech() -> None:
    click = silence(2)
    click[RATE : RATE + RATE // 100] = 0.9
    part = prompt_part(np.concatenate([click, tone(2, RATE), click]), RATE, "")
    assert len(part) == pytest.approx(2.5 * RATE, abs=0.05 * RATE)


def test_an_offset_of_the_microphone_is_no_sound() -> None:
    samples = np.concatenate([silence(2), tone(2, RATE), silence(2)]) + np.float32(0.1)
    assert len(prompt_part(samples, RATE, "")) == pytest.approx(2.5 * RATE, abs=0.05 * RATE)


def test_the_limits_are_those_of_what_is_left() -> None:
    assert len(prompt_part(np.concatenate([silence(9), tone(29, RATE), silence(9)]), RATE, "")) < 30 * RATE
    with pytest.raises(AudioError, match="longer than 30 s without the silence at its ends"):
        prompt_part(np.concatenate([silence(2), tone(30, RATE), silence(2)]), RATE, "")
    with pytest.raises(AudioError, match=r"0\.80 s long without the silence at its ends.*at least 1 s"):
        prompt_part(np.concatenate([silence(2), tone(0.3, RATE), silence(2)]), RATE, "")


def test_a_recording_without_speech_is_refused() -> None:
    clicks = silence(3)
    clicks[::RATE] = 0.9
    with pytest.raises(AudioError, match="no speech, only silence and clicks"):
        prompt_part(clicks, RATE, "")


def test_a_voice_is_the_same_with_silence_around_it(encoder: VoiceEncoder) -> None:
    speech = np.concatenate([silence(0.3), tone(3, RATE), silence(0.2)])
    voice = encoder.encode(speech, RATE, "")
    surrounded = encoder.encode(np.concatenate([silence(5), speech, silence(10)]), RATE, "")
    assert np.array_equal(surrounded.speech_tokens, voice.speech_tokens)
    assert np.array_equal(surrounded.mel, voice.mel)
    assert np.array_equal(surrounded.embedding, voice.embedding)


def test_what_is_converted_keeps_its_pauses(encoder: VoiceEncoder) -> None:
    samples = np.concatenate([silence(1), tone(2, RATE), silence(1)])
    assert len(encoder.speech_tokens(samples, RATE)) == 100


# the transcript


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("… — !?", 0),
        ("The cat sat.", 3),
        ("BBC", 1),
        ("I made a beautiful naïve example", 9),
        ("你好，世界。", 4),
        ("𠮷野家", 3),
        ("こんにちは", 5),
        ("안녕하세요", 5),
        (unicodedata.normalize("NFD", "안녕하세요"), 5),
        ("1995", 4),
        ("３日", 2),
        ("Привет, мир", 3),
        ("Ça va très bien, señor Müller", 8),
        ("今天 weather 很好", 6),
    ],
)
def test_syllables_are_counted_in_every_script(text: str, count: int) -> None:
    assert syllables(text) == count


SIXTEEN_WORDS = VoiceDirectory().load("slt")[2]


@pytest.mark.parametrize(
    "transcript",
    [SIXTEEN_WORDS, "我今天早上去公园散步的时候看见一只小猫", "きのうはともだちといっしょにえいがをみました"],
)
def test_a_transcript_that_nobody_could_say_in_the_time_is_refused(transcript: str) -> None:
    with pytest.raises(TranscriptError, match=r"about \d+ syllables, too many for a recording of 1\.0 s"):
        prompt_part(tone(1, RATE), RATE, transcript)
    prompt_part(tone(3, RATE), RATE, transcript)


def test_silence_gives_a_transcript_no_time() -> None:
    recording = np.concatenate([silence(10), tone(1, RATE), silence(10)])
    with pytest.raises(TranscriptError, match=r"recording of 1\.5 s"):
        prompt_part(recording, RATE, 2 * SIXTEEN_WORDS)


def test_the_fastest_speech_is_believed() -> None:
    prompt_part(tone(10, RATE), RATE, "ba " * 140)  # as fast as the fastest talkers on record


def test_the_field_that_is_wrong_is_named(tiny_model: Path, tmp_path: Path) -> None:
    second = wav(tone(1))
    (tmp_path / "anna.wav").write_bytes(second)
    (tmp_path / "anna.txt").write_text(SIXTEEN_WORDS)
    preparation = Preparation(open_model(tiny_model), tmp_path)
    for ask in (preparation.voice, lambda recording: preparation.register("Berta", recording)):
        with pytest.raises(InputError, match="syllables") as refused:
            ask(Recording(second, SIXTEEN_WORDS))
        assert refused.value.param == "ref_text"
    with pytest.raises(InputError, match=r"The voice 'anna' can't be used\. The transcript has") as refused:
        preparation.voice("anna")
    assert refused.value.param == "voice"


async def test_the_speech_route_names_the_field(client: httpx.AsyncClient) -> None:
    recording = base64.b64encode(wav(tone(1))).decode()
    body = {"model": "tts-1", "voice": "", "input": "Hello.", "ref_text": SIXTEEN_WORDS}
    answer = await client.post("/v1/audio/speech", json=body | {"ref_audio": f"data:audio/wav;base64,{recording}"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "ref_text"


async def test_lighttts_refuses_it_as_it_refuses_a_recording(client: httpx.AsyncClient) -> None:
    form = {"tts_text": "Hello.", "prompt_text": SIXTEEN_WORDS}
    answer = await client.post("/inference_zero_shot", data=form, files={"prompt_wav": ("a.wav", wav(tone(1)))})
    assert answer.status_code == 400
    assert "syllables" in answer.json()["message"]
