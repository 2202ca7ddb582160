"""Does the model say the words, and in whose voice? Twenty sentences that training never saw, heard by pocketsphinx.

    python -m training.evaluate --model_dir DIR [--out DIR]

Speaks each with each preset voice, whole, in chunks and word by word, and prints the share of wrong words, syllables a
second, and whether speaker embedding and pitch are nearest to the voice asked for. `--teacher` judges flite instead.
"""

import argparse
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from training.corpus import PRESETS, pitch
from training.export import VOICES, write_wav
from training.flite import VOWELS, speak
from training.phone_errors import edits
from training.sentences import HELD_OUT
from training.texts import plain
from vllm_cosyvoice import Synthesizer
from vllm_cosyvoice.config import PROMPT_SAMPLE_RATE, SAMPLE_RATE
from vllm_cosyvoice.sampling import SamplingOptions
from vllm_cosyvoice.voice import Voice
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
        self._decoder.process_raw((heard * 32767).clip(-32768, 32767).astype(np.int16).tobytes(), full_utt=True)
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
    f0 = pitch(heard, len(heard) * 50 // PROMPT_SAMPLE_RATE)
    return float(f0[f0 > 0].median()) if (f0 > 0).any() else 0.0


def judge(
    speaker: Speaker, embed: Callable[[np.ndarray], np.ndarray] | None, out: Path | None, mode: str
) -> list[dict[str, object]]:
    """One line a voice."""
    listener = Listener()
    teacher = {voice: [_teacher(text, voice) for text in HELD_OUT[:4]] for voice in PRESETS}
    pitches = {voice: median_pitch(np.concatenate(samples)) for voice, samples in teacher.items()}
    centres = {}
    if embed:
        centres = {voice: np.mean([embed(each) for each in samples], 0) for voice, samples in teacher.items()}
    lines: list[dict[str, object]] = []
    for voice in PRESETS:
        errors = words = by_pitch = by_embedding = 0
        rates = []
        for index, text in enumerate(HELD_OUT):
            samples = speaker(text, voice)
            heard = listener.transcribe(samples)
            wrong = word_errors(text, heard)
            print(f"{mode} {voice} {index:2d} {wrong} wrong: {heard}", flush=True)
            errors, words = errors + wrong, words + len(plain(text).split())
            rates.append(syllables(text) / (len(samples) / SAMPLE_RATE))
            own_pitch = median_pitch(samples)
            by_pitch += min(pitches, key=lambda name: abs(np.log((own_pitch + 1) / pitches[name]))) == voice
            if embed:
                own = embed(samples)
                by_embedding += max(centres, key=lambda name: _cosine(own, centres[name])) == voice
            if out:
                write_wav(out / f"{mode}-{voice}-{index:02d}.wav", torch.from_numpy(samples), SAMPLE_RATE)
        lines.append(
            {
                "mode": mode,
                "voice": voice,
                "word_error_rate": round(errors / words, 4),
                "syllables_per_second": [round(min(rates), 2), round(float(np.median(rates)), 2), round(max(rates), 2)],
                "right_pitch": by_pitch,
                "right_embedding": by_embedding if embed else None,
            }
        )
        print(json.dumps(lines[-1]), flush=True)
    return lines


def main() -> None:
    """Judge a model directory, or the teacher."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description="Judge the demo model.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model_dir", type=Path)
    what.add_argument("--teacher", action="store_true", help="judge flite itself: what the best model would get")
    parser.add_argument("--out", type=Path, help="keep the audio and the figures here")
    arguments = parser.parse_args()
    out: Path | None = arguments.out
    if out:
        out.mkdir(parents=True, exist_ok=True)
    lines = judge(_teacher, None, out, "teacher") if arguments.teacher else _judge_model(arguments.model_dir, out)
    if out:
        (out / "figures.json").write_text(json.dumps(lines, indent=1), encoding="utf-8")


def _judge_model(model: Path, out: Path | None) -> list[dict[str, object]]:
    options = SamplingOptions(seed=0)
    with Synthesizer(model, voices_dir=model / VOICES) as synthesizer:

        def whole(text: str, voice: str) -> np.ndarray:
            return _float(synthesizer.speak(text, voice, sampling=options))

        def chunks(text: str, voice: str) -> np.ndarray:
            return _float(np.concatenate(list(synthesizer.stream(text, voice, sampling=options))))

        def words(text: str, voice: str) -> np.ndarray:
            return _float(np.concatenate(list(synthesizer.stream_text(_words(text), voice, sampling=options))))

        def embed(samples: np.ndarray) -> np.ndarray:
            voice: Voice = synthesizer.clone(samples, SAMPLE_RATE)
            return voice.embedding

        modes = {"whole": whole, "chunks": chunks, "words": words}
        return [line for mode, speaker in modes.items() for line in judge(speaker, embed, out, mode)]


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
