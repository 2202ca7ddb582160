"""The teacher: Debian's flite, which says when each phone ends."""

import shutil
import subprocess
import tempfile
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PHONES = (
    *(
        "pau",
        "aa",
        "ae",
        "ah",
        "ao",
        "aw",
        "ax",
        "ay",
        "b",
        "ch",
        "d",
        "dh",
        "eh",
        "er",
        "ey",
        "f",
        "g",
        "hh",
        "ih",
        "iy",
    ),
    *("jh", "k", "l", "m", "n", "ng", "ow", "oy", "p", "r", "s", "sh", "t", "th", "uh", "uw", "v", "w", "y", "z", "zh"),
)
VOWELS = frozenset(["aa", "ae", "ah", "ao", "aw", "ax", "ay", "eh", "er", "ey", "ih", "iy", "ow", "oy", "uh", "uw"])
VOICED = VOWELS | frozenset(["b", "d", "dh", "g", "jh", "l", "m", "n", "ng", "r", "v", "w", "y", "z", "zh"])


@dataclass(frozen=True, eq=False)
class Spoken:
    """One text, spoken."""

    samples: np.ndarray  # float32 [n] in [−1, 1]
    rate: int
    phones: list[tuple[int, float]]  # index in PHONES, and the second at which it ends


def speak(text: str, voice: str, slower: float = 1.0) -> Spoken:
    """`text` by flite's `voice`, `slower` times as long.

    Raises:
        RuntimeError: flite is missing or fails.
    """
    if shutil.which("flite") is None:
        raise RuntimeError("flite is missing: apt-get install flite")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "speech.wav"
        command = [
            "flite",
            "-voice",
            voice,
            "--setf",
            f"duration_stretch={slower}",
            "-psdur",
            "-t",
            text,
            "-o",
            str(path),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or not path.exists():
            raise RuntimeError(f"flite can't speak {text!r} as {voice}: {done.stderr.strip()}")
        with wave.open(str(path)) as file:
            rate, samples = file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), np.int16)
    phones = [(PHONES.index(name), float(end)) for name, end in (part.split(":") for part in done.stdout.split())]
    return Spoken(samples.astype(np.float32) / 32768, rate, phones)
