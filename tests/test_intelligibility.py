"""Does the demo model say the words, and in the voice that was asked for, through the server that a user starts?

Sentences that training never saw, heard by pocketsphinx. What is asked of the model is at the top. The seed is fixed,
and on one machine the same audio comes each time, however many requests are spoken at once; another processor rounds
differently and may draw other tokens, which is as if the seed were another.

If a share p of n words is wrong, its standard error is √(p (1 - p) / n): 4 points for seven sentences (n = 70) where
11 words of 100 are wrong, 6 for five where 22 are. So what is noticed here is a model that is broken or a way of
speaking that loses words, not one that is a few points worse, which `training.evaluate` tells by more sentences and
seeds.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import cache

import numpy as np
import pytest
import torch

from tests.server_process import ServerProcess, ready_server
from tests.stream_client import calling, spaced
from training.evaluate import Listener, VoiceJudge, median_pitch, pcm, prompt_recording, word_errors
from training.sentences import HELD_OUT, VOICE_TRANSCRIPT
from training.texts import plain
from vllm_cosyvoice.audio_file import audio_file
from vllm_cosyvoice.checkpoint import open_model
from vllm_cosyvoice.config import DEMO_MODEL, RELEASED_MODEL, SAMPLE_RATE
from vllm_cosyvoice.voice import load_audio

WHOLE, STREAMED, WORD_BY_WORD = "whole", "streamed", "word by word"
SYLLABLES = dict(  # of sentences, by `training.evaluate`, which needs flite
    zip(HELD_OUT[::2], (15, 15, 14, 14, 14, 12, 12, 15, 10, 11), strict=True)
)
SENTENCES = {"rms": HELD_OUT[:14:2], "awb": HELD_OUT[::4], "slt": HELD_OUT[::4]}
# The most wrong words of 100. All ways are tried with the voice that is understood best: its share varies least.
MOST_WRONG = {
    ("rms", WHOLE): 25,  # 11 were measured
    ("rms", STREAMED): 25,  # 11
    ("rms", WORD_BY_WORD): 25,  # 9
    ("awb", WHOLE): 40,  # 20
    ("slt", WHOLE): 40,  # 22
}
# How much worse than whole: three and five points are asked for. Drawing the sentences anew moves it by four points
# (two with twenty, by bootstrap), so twice that is left.
MOST_WORSE = {STREAMED: 3 + 2 * 4, WORD_BY_WORD: 5 + 2 * 4}
SLOWEST, FASTEST = 2.0, 6.0  # syllables a second
SEED = {"seed": 0}

Spoken = dict[tuple[str, str], list[np.ndarray]]  # voice and way → float32 at 24 kHz, one for each sentence


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The server that is started without a word about its model."""
    directory = tmp_path_factory.mktemp("demo")
    with ready_server(None, directory / "log", "--voices_dir", str(directory)) as ready:
        yield ready


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Pitch and features are small work, where threads on busy cores wait for each other for seconds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def voice_judge() -> VoiceJudge:
    return VoiceJudge(open_model(DEMO_MODEL))


@pytest.fixture(scope="module")
async def spoken(demo: ServerProcess) -> AsyncIterator[Spoken]:
    """All that is heard below, a voice and way at a time, its sentences at once: the quickest."""
    ways: dict[str, Callable[[ServerProcess, str, str], Awaitable[np.ndarray]]]
    ways = {WHOLE: whole, STREAMED: streamed, WORD_BY_WORD: word_by_word}
    yield {
        (voice, way): await asyncio.gather(*(ways[way](demo, text, voice) for text in SENTENCES[voice]))
        for voice, way in MOST_WRONG
    }


@pytest.fixture(scope="module")
def wrong(spoken: Spoken) -> Callable[[str, str], float]:
    """The wrong words of 100 that a voice says in a way."""
    listener = Listener()

    @cache
    def share(voice: str, way: str) -> float:
        heard = map(listener.transcribe, spoken[voice, way])
        words = sum(len(plain(text).split()) for text in SENTENCES[voice])
        return 100 * sum(map(word_errors, SENTENCES[voice], heard)) / words

    return share


async def whole(demo: ServerProcess, text: str, voice: str, **fields: object) -> np.ndarray:
    async with demo.openai() as openai:
        answer = await openai.audio.speech.create(
            model="tts-1",
            voice=voice,
            input=text,
            response_format="wav",
            extra_body={"stream": False, **SEED, **fields},
        )
    samples, rate = load_audio(answer.content)
    assert rate == SAMPLE_RATE
    return samples


async def streamed(demo: ServerProcess, text: str, voice: str) -> np.ndarray:
    async with (
        demo.openai() as openai,
        openai.audio.speech.with_streaming_response.create(
            model="tts-1", voice=voice, input=text, response_format="pcm", extra_body=SEED
        ) as answer,
    ):
        pieces = [piece async for piece in answer.iter_bytes()]
    assert len(pieces) > 1
    return samples_of(b"".join(pieces))


async def word_by_word(demo: ServerProcess, text: str, voice: str) -> np.ndarray:
    async with calling(demo, voice=voice, temperature=1, **SEED) as client:
        await client.text(*spaced(text.split()))
        await client.say("input.done")
        return samples_of((await client.utterance()).pcm)


def samples_of(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.int16).astype(np.float32) / 32768


def test_the_log_says_who_speaks_and_how_to_get_the_released_model(demo: ServerProcess) -> None:
    log = demo.log.read_text()
    assert log.count("Using the demo model") == 1
    assert f"--model_dir {RELEASED_MODEL}" in log


@pytest.mark.parametrize(("voice", "way"), MOST_WRONG)
def test_the_words_are_understood(wrong: Callable[[str, str], float], voice: str, way: str) -> None:
    assert wrong(voice, way) <= MOST_WRONG[voice, way]


@pytest.mark.parametrize("way", MOST_WORSE)
def test_pieces_are_understood_as_well_as_the_whole(wrong: Callable[[str, str], float], way: str) -> None:
    assert wrong("rms", way) - wrong("rms", WHOLE) <= MOST_WORSE[way]


@pytest.mark.parametrize(("voice", "way"), MOST_WRONG)
def test_no_sentence_stops_early_or_runs_away(spoken: Spoken, voice: str, way: str) -> None:
    seconds = [len(samples) / SAMPLE_RATE for samples in spoken[voice, way]]
    rates = [SYLLABLES[text] / lasts for text, lasts in zip(SENTENCES[voice], seconds, strict=True)]
    assert SLOWEST <= min(rates) <= max(rates) <= FASTEST, rates


@pytest.mark.parametrize(("voice", "way"), MOST_WRONG)
def test_the_voice_that_was_asked_for_is_heard_in_every_sentence(
    spoken: Spoken, voice_judge: VoiceJudge, voice: str, way: str
) -> None:
    asked = [voice] * len(SENTENCES[voice])
    assert [voice_judge.by_pitch(samples) for samples in spoken[voice, way]] == asked
    assert [voice_judge.by_embedding(samples) for samples in spoken[voice, way]] == asked


@pytest.mark.parametrize(("name", "voice"), [("nova", "slt"), ("onyx", "rms"), ("fable", "awb")])
async def test_openais_names_speak_in_their_voices(
    demo: ServerProcess, voice_judge: VoiceJudge, name: str, voice: str
) -> None:
    samples = await whole(demo, HELD_OUT[5], name)
    assert (voice_judge.by_pitch(samples), voice_judge.by_embedding(samples)) == (voice, voice)


# Tape speeds that training knew, and that are far enough from 1 to be another person.
@pytest.mark.parametrize(("voice", "speed"), [("slt", 0.85), ("rms", 1.2), ("awb", 0.85)])
async def test_a_recording_of_somebody_else_is_spoken_like_him(
    demo: ServerProcess, voice_judge: VoiceJudge, voice: str, speed: float
) -> None:
    """Somebody else: a built-in voice as a tape at another speed plays it."""
    recording, original = prompt_recording(voice, speed), prompt_recording(voice)
    data = base64.b64encode(audio_file(pcm(recording), "wav")).decode()
    samples = await whole(
        demo, HELD_OUT[5], voice, ref_audio=f"data:audio/wav;base64,{data}", ref_text=VOICE_TRANSCRIPT
    )
    assert voice_judge.likeness(samples, recording) > voice_judge.likeness(samples, original)
    spoken, asked, own = map(median_pitch, (samples, recording, original))
    assert abs(np.log(spoken / asked)) < abs(np.log(spoken / own))
