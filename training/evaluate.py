"""Does the model say the words, and in whose voice? Sentences that training never saw, heard by pocketsphinx.

    python -m training.evaluate [--model_dir DIR] [--out DIR] [--development] [--seeds 0 1 2 3]

Speaks each with each preset voice, whole, in chunks and word by word, and prints the share of wrong words, syllables a
second, and whether speaker embedding and pitch are nearest to the voice asked for. `--teacher` judges flite instead.
Two trainings are compared by the `--development` sentences, so that the twenty held out remain what is judged by.
tests/test_intelligibility.py judges by ten of them through a server, which is quicker.
"""

import argparse
import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from training.corpus import PRESETS, pitch
from training.flite import VOWELS, speak
from training.phone_errors import edits
from training.sentences import DEVELOPMENT, HELD_OUT
from training.texts import plain
from vllm_cosyvoice import Synthesizer
from vllm_cosyvoice.audio_file import audio_file
from vllm_cosyvoice.checkpoint import ModelDirectory, open_model
from vllm_cosyvoice.config import DEMO_MODEL, FRAME_RATE, PROMPT_SAMPLE_RATE, SAMPLE_RATE
from vllm_cosyvoice.sampling import SamplingOptions
from vllm_cosyvoice.voice import VoiceDirectory, VoiceEncoder
from vllm_cosyvoice.voice.audio import resample

Speaker = Callable[[str, str], np.ndarray]  # text and voice → float32 at 24 kHz


def word_errors(said: str, heard: str) -> int:
    """The fewest words to insert, drop and replace that turn `heard` into `said`."""
    return edits(plain(said).split(), plain(heard).split())


class Listener:
    """pocketsphinx with the English model of its package."""

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        self._decoder = Decoder(samprate=PROMPT_SAMPLE_RATE, loglevel="FATAL")

    def transcribe(self, samples: np.ndarray) -> str:
        """The words in float32 `samples` [n] at 24 kHz."""
        heard = resample(torch.from_numpy(samples), SAMPLE_RATE, PROMPT_SAMPLE_RATE).numpy()
        self._decoder.start_utt()
        self._decoder.process_raw(pcm(heard).tobytes(), full_utt=True)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        return hypothesis.hypstr if hypothesis else ""


def syllables(text: str) -> int:
    """By flite's pronunciation."""
    done = subprocess.run(["flite", "-ps", "-t", text, "-o", "none"], capture_output=True, text=True, check=True)
    return sum(phone in VOWELS for phone in done.stdout.split())


def median_pitch(samples: np.ndarray) -> float:
    """Hz, of float32 `samples` [n] at 24 kHz; 0 without any pitch."""
    heard = resample(torch.from_numpy(samples), SAMPLE_RATE, PROMPT_SAMPLE_RATE)
    f0 = pitch(heard, len(heard) * FRAME_RATE // PROMPT_SAMPLE_RATE)
    return float(f0[f0 > 0].median()) if (f0 > 0).any() else 0.0


def pcm(samples: np.ndarray) -> np.ndarray:
    """int16 of float32 `samples` in [−1, 1]."""
    whole: np.ndarray = (samples * 32767).round().clip(-32768, 32767).astype(np.int16)
    return whole


def prompt_recording(voice: str, speed: float = 1.0) -> np.ndarray:
    """What comes with the package for a preset voice, float32 [n] at 24 kHz, as a tape at that speed would play it."""
    samples, rate, _ = VoiceDirectory().load(voice)
    played: np.ndarray = resample(torch.from_numpy(samples), round(rate * speed), SAMPLE_RATE).numpy()
    return played


class VoiceJudge:
    """Says which preset voice is heard in float32 samples [n] at 24 kHz: the one whose recording is nearest."""

    def __init__(self, model: ModelDirectory) -> None:
        """With `model`'s speaker encoder."""
        self._encoder = VoiceEncoder(model)
        recordings = {voice: prompt_recording(voice) for voice in PRESETS}
        self._pitches = {voice: median_pitch(samples) for voice, samples in recordings.items()}
        self._embeddings = {voice: self._embed(samples) for voice, samples in recordings.items()}

    def by_pitch(self, samples: np.ndarray) -> str:
        """The nearest in median pitch, on a scale of intervals."""
        own = median_pitch(samples)
        return min(PRESETS, key=lambda voice: abs(np.log((own + 1) / (self._pitches[voice] + 1))))

    def likeness(self, samples: np.ndarray, others: np.ndarray) -> float:
        """Of the speakers of two recordings, −1 … 1."""
        return _cosine(self._embed(samples), self._embed(others))

    def by_embedding(self, samples: np.ndarray) -> str:
        """The nearest in speaker embedding, by cosine."""
        own = self._embed(samples)
        return max(PRESETS, key=lambda voice: _cosine(own, self._embeddings[voice]))

    def _embed(self, samples: np.ndarray) -> np.ndarray:
        return self._encoder.encode(samples, SAMPLE_RATE, "").embedding


def judge(
    speaker: Speaker, sentences: Sequence[str], voice_judge: VoiceJudge, out: Path | None, mode: str, seed: int = 0
) -> list[dict[str, object]]:
    """One line a voice."""
    listener = Listener()
    lines: list[dict[str, object]] = []
    for voice in PRESETS:
        errors = words = by_pitch = by_embedding = 0
        rates = []
        for index, text in enumerate(sentences):
            samples = speaker(text, voice)
            heard = listener.transcribe(samples)
            wrong = word_errors(text, heard)
            print(f"{mode} {seed} {voice} {index:2d} {wrong} wrong: {heard}", flush=True)
            errors, words = errors + wrong, words + len(plain(text).split())
            rates.append(syllables(text) / (len(samples) / SAMPLE_RATE))
            by_pitch += voice_judge.by_pitch(samples) == voice
            by_embedding += voice_judge.by_embedding(samples) == voice
            if out:
                (out / f"{mode}-{seed}-{voice}-{index:02d}.wav").write_bytes(audio_file(pcm(samples), "wav"))
        lines.append(
            {
                "mode": mode,
                "seed": seed,
                "voice": voice,
                "word_error_rate": round(errors / words, 4),
                "syllables_per_second": [round(min(rates), 2), round(float(np.median(rates)), 2), round(max(rates), 2)],
                "right_pitch": by_pitch,
                "right_embedding": by_embedding,
            }
        )
        print(json.dumps(lines[-1]), flush=True)
    return lines


def main() -> None:
    """Judge a model directory, or the teacher."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description="Judge the demo model.")
    parser.add_argument("--model_dir", type=Path, default=DEMO_MODEL)
    parser.add_argument("--teacher", action="store_true", help="judge flite itself: what the best model would get")
    parser.add_argument("--development", action="store_true", help="the forty sentences to choose by, not the twenty")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, help="keep the audio and the figures here")
    arguments = parser.parse_args()
    out: Path | None = arguments.out
    if out:
        out.mkdir(parents=True, exist_ok=True)
    voice_judge = VoiceJudge(open_model(arguments.model_dir))
    sentences = DEVELOPMENT if arguments.development else HELD_OUT
    if arguments.teacher:
        lines = judge(_teacher, sentences, voice_judge, out, "teacher")
    else:
        lines = _judge_model(arguments.model_dir, sentences, arguments.seeds, voice_judge, out)
    if out:
        (out / "figures.json").write_text(json.dumps(lines, indent=1), encoding="utf-8")


def _judge_model(
    model: Path, sentences: Sequence[str], seeds: Sequence[int], voice_judge: VoiceJudge, out: Path | None
) -> list[dict[str, object]]:
    with Synthesizer(model) as synthesizer:
        return [
            line
            for seed in seeds
            for mode, speaker in _modes(synthesizer, SamplingOptions(seed=seed)).items()
            for line in judge(speaker, sentences, voice_judge, out, mode, seed)
        ]


def _modes(synthesizer: Synthesizer, options: SamplingOptions) -> dict[str, Speaker]:
    def whole(text: str, voice: str) -> np.ndarray:
        return _float(synthesizer.speak(text, voice, sampling=options))

    def chunks(text: str, voice: str) -> np.ndarray:
        return _float(np.concatenate(list(synthesizer.stream(text, voice, sampling=options))))

    def words(text: str, voice: str) -> np.ndarray:
        return _float(np.concatenate(list(synthesizer.stream_text(_words(text), voice, sampling=options))))

    return {"whole": whole, "chunks": chunks, "words": words}


def _words(text: str) -> Iterator[str]:
    for index, word in enumerate(text.split()):
        yield f" {word}" if index else word


def _teacher(text: str, voice: str) -> np.ndarray:
    spoken = speak(text, voice)
    samples: np.ndarray = resample(torch.from_numpy(spoken.samples), spoken.rate, SAMPLE_RATE).numpy()
    return samples


def _float(samples: np.ndarray) -> np.ndarray:
    return samples.astype(np.float32) / 32768


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other) + 1e-9))


if __name__ == "__main__":
    main()
