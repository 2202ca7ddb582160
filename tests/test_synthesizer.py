"""The engine in one process: real vLLM, real networks, a tiny random model."""

import asyncio
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.test_audio import tone
from vllm_cosyvoice import Synthesizer
from vllm_cosyvoice.config import SAMPLE_RATE, SAMPLES_PER_TOKEN
from vllm_cosyvoice.failure import Failure, InputError
from vllm_cosyvoice.llm.generator import EngineOptions
from vllm_cosyvoice.sampling import SamplingOptions
from vllm_cosyvoice.text.front_end import SILENCE

TWO_SECONDS = SamplingOptions(seed=1, min_tokens=50, max_tokens=50)
LONG_TEXT = "One more sentence that goes on for a good while, with many words in it, so that it fills a segment. " * 6


def loudness(audio: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(audio, dtype=np.float64))))


def remembered(synthesizer: Synthesizer) -> int:
    return synthesizer._engine._decode.numbers()["flow_cache_bytes"]


def test_speech_has_25_tokens_a_second_and_is_not_silent(synthesizer: Synthesizer) -> None:
    audio = synthesizer.speak("Hello world.", sampling=TWO_SECONDS)
    assert audio.dtype == np.int16
    assert len(audio) == 50 * SAMPLES_PER_TOKEN == 2 * SAMPLE_RATE
    assert loudness(audio) > 100


def test_text_without_words_is_silence(synthesizer: Synthesizer) -> None:
    said_whole, streamed = synthesizer.speak("…!?"), np.concatenate(list(synthesizer.stream(".")))
    arriving = np.concatenate(list(synthesizer.stream_text([" ", ".", "。"])))
    for audio in (said_whole, streamed, arriving):
        np.testing.assert_array_equal(audio, np.zeros(round(SILENCE * SAMPLE_RATE), np.int16))
    for speak in (synthesizer.stream, lambda text: synthesizer.stream_text([text])):
        with pytest.raises(InputError, match="nothing to speak"):
            list(speak(" "))


def test_a_stream_begins_early_and_says_all(synthesizer: Synthesizer) -> None:
    options = SamplingOptions(seed=1, min_tokens=200, max_tokens=200)
    chunks = list(synthesizer.stream("Hello world.", sampling=options))
    assert len(chunks) > 1
    assert 0 < len(chunks[0]) < 2 * SAMPLE_RATE
    assert sum(map(len, chunks)) == 200 * SAMPLES_PER_TOKEN


def test_a_seed_repeats_the_same_samples(synthesizer: Synthesizer) -> None:
    first, again = (synthesizer.speak("Hello world.", sampling=TWO_SECONDS) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_whole_speech_remembers_its_voice(synthesizer: Synthesizer) -> None:
    before, voice = remembered(synthesizer), synthesizer.clone(tone(3.0), SAMPLE_RATE, "A tone.")
    synthesizer.speak("Hello world.", voice, sampling=TWO_SECONDS)
    assert remembered(synthesizer) > before


def test_with_full_attention_nothing_is_remembered_and_no_engine_leaves_a_file(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = EngineOptions(max_total_token_num=8192)
    with tempfile.TemporaryDirectory() as directory:
        monkeypatch.setattr(tempfile, "tempdir", directory)
        with Synthesizer(tiny_model, engine=options, full_attention=True) as synthesizer:
            synthesizer.speak("Hello world.", sampling=TWO_SECONDS)
            assert remembered(synthesizer) == 0
            assert any(Path(directory).iterdir()), "vLLM's sockets"
        assert not any(Path(directory).iterdir())


def test_a_seed_goes_with_a_prompt_of_any_length(synthesizer: Synthesizer) -> None:
    # On a CPU a seeded prompt that is read in two steps, which are of 2048 tokens, would be the end of vLLM's engine.
    audio = synthesizer.speak("Hello world.", instructions="Speak happily. " * 400, sampling=TWO_SECONDS)
    assert len(audio) == 2 * SAMPLE_RATE


def test_long_text_is_spoken_whole(synthesizer: Synthesizer) -> None:
    pieces = synthesizer._engine.preparation.segments(LONG_TEXT, synthesizer._engine.preparation.voice("default"))
    assert len(pieces) > 1
    audio = synthesizer.speak(LONG_TEXT, sampling=TWO_SECONDS)
    assert len(audio) == len(pieces) * 50 * SAMPLES_PER_TOKEN


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({}, id="zero-shot"),
        pytest.param({"cross_lingual": True}, id="cross-lingual"),
        pytest.param({"instructions": "Speak happily."}, id="instruct"),
        pytest.param({"voice": "中文女"}, id="preset speaker"),
    ],
)
def test_every_mode_speaks_and_differs_from_another(synthesizer: Synthesizer, arguments: dict[str, str]) -> None:
    plain = synthesizer.speak("Hello world.", cross_lingual="cross_lingual" not in arguments, sampling=TWO_SECONDS)
    audio = synthesizer.speak("Hello world.", sampling=TWO_SECONDS, **arguments)  # type: ignore[arg-type]  # kinds vary
    assert len(audio) == len(plain)
    assert loudness(audio) > 100
    assert not np.array_equal(audio, plain)


def test_speed_changes_the_length(synthesizer: Synthesizer) -> None:
    fast = synthesizer.speak("Hello world.", speed=2.0, sampling=TWO_SECONDS)
    streamed = np.concatenate(list(synthesizer.stream("Hello world.", speed=2.0, sampling=TWO_SECONDS)))
    assert len(fast) == len(streamed) == SAMPLE_RATE


def test_many_threads_share_the_engine(synthesizer: Synthesizer) -> None:
    lengths: dict[int, int] = {}

    def speak(number: int) -> None:
        options = SamplingOptions(seed=number, min_tokens=20 + 10 * number, max_tokens=20 + 10 * number)
        lengths[number] = len(synthesizer.speak("Hello world.", sampling=options))

    threads = [threading.Thread(target=speak, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lengths == {number: (20 + 10 * number) * SAMPLES_PER_TOKEN for number in range(6)}


def test_leaving_a_stream_ends_its_work(synthesizer: Synthesizer) -> None:
    options = SamplingOptions(seed=1, min_tokens=2000, max_tokens=2000)
    stream = synthesizer.stream("Hello world.", sampling=options)
    assert len(next(stream))
    stream.close()  # type: ignore[attr-defined]  # a generator, which the annotation does not promise
    assert len(synthesizer.speak("Hello world.", sampling=TWO_SECONDS)) == 2 * SAMPLE_RATE
    assert synthesizer._engine.segments == 0


def test_text_may_still_be_arriving(synthesizer: Synthesizer) -> None:
    first_audio = threading.Event()

    def words() -> Iterator[str]:
        # Speech begins once there are 5 text tokens for every 15 speech tokens of the voice's recording.
        yield from ["Once upon a time there was a king who had "] * 4
        assert first_audio.wait(60), "no audio came before the text ended"
        yield from ("three ", "sons.")

    options = SamplingOptions(seed=1, min_tokens=100, max_tokens=150)
    total = 0
    for chunk in synthesizer.stream_text(words(), sampling=options):
        first_audio.set()
        total += len(chunk)
    assert 100 * SAMPLES_PER_TOKEN <= total <= 150 * SAMPLES_PER_TOKEN


def test_a_cloned_voice_speaks_and_converts(synthesizer: Synthesizer) -> None:
    generator = np.random.default_rng(0)
    recording = (0.1 * generator.standard_normal(3 * SAMPLE_RATE)).astype(np.float32)
    voice = synthesizer.clone(recording, SAMPLE_RATE, "What the recording says.")
    spoken = synthesizer.speak("Hello world.", voice, sampling=TWO_SECONDS)
    assert not np.array_equal(spoken, synthesizer.speak("Hello world.", sampling=TWO_SECONDS))
    converted = synthesizer.convert(recording, SAMPLE_RATE, "default")
    assert len(converted) == pytest.approx(len(recording), abs=2 * SAMPLES_PER_TOKEN)
    assert loudness(converted) > 100


@pytest.mark.parametrize(
    ("text", "voice", "param"), [("", "default", "input"), (" \n", "default", "input"), ("Hello.", "nobody", "voice")]
)
def test_what_cannot_be_spoken_names_the_field(synthesizer: Synthesizer, text: str, voice: str, param: str) -> None:
    with pytest.raises(InputError) as error:
        synthesizer.speak(text, voice)
    assert error.value.param == param


def test_an_engine_error_reaches_the_caller(synthesizer: Synthesizer) -> None:
    with pytest.raises(InputError, match="shorter text"):
        synthesizer.speak("Hello world.", instructions="Speak happily. " * 1000, sampling=TWO_SECONDS)


def test_what_reading_the_text_raises_is_raised(synthesizer: Synthesizer) -> None:
    def words() -> Iterator[str]:
        yield "Once upon a time "
        raise ConnectionError("The chat model has left.")

    with pytest.raises(ConnectionError, match="has left"):
        list(synthesizer.stream_text(words()))


def test_who_waits_for_a_stage_that_dies_is_told(synthesizer: Synthesizer, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = synthesizer._engine
    monkeypatch.setattr(engine, "_within", type(engine._within)())
    options = SamplingOptions(seed=1, min_tokens=2000, max_tokens=2000)
    stream = synthesizer.stream("Hello world.", sampling=options)
    assert len(next(stream))

    async def die() -> None:
        raise MemoryError("no room")

    asyncio.run_coroutine_threadsafe(engine._watch("decoder", die()), synthesizer._loop).result()
    with pytest.raises(Failure, match="The decoder has died: no room"):
        list(stream)


def test_the_command_line_says_what_is_wrong_with_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vllm_cosyvoice.__main__ import main

    (tmp_path / "empty").mkdir()
    monkeypatch.setattr("sys.argv", ["vllm_cosyvoice", "Hello.", "--model_dir", str(tmp_path / "empty")])
    assert main() == 1
    assert "cosyvoice2.yaml" in capsys.readouterr().err
