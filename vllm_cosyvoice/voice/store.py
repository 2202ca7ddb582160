"""Voices on disk: a recording and its transcript, side by side."""

from collections.abc import Hashable
from pathlib import Path

import numpy as np

from vllm_cosyvoice.voice.audio import load_audio

BUILT_IN = Path(__file__).parents[1] / "voices"
SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".m4a")  # of two recordings with one name the first in this order counts


class UnknownVoice(LookupError):
    """No voice of that name; the message lists those that exist."""


class VoiceDirectory:
    """The built-in voices and those of the user's directory, which win over built-in ones of the same name.

    A voice NAME is a pair of files, `NAME.wav` (or another of `SUFFIXES`) and `NAME.txt` with its transcript, UTF-8.
    The directory is read at every call, so voices may come and go while the server runs.
    """

    def __init__(self, path: Path | None = None) -> None:
        """`path`: the user's directory, if any. Raises NotADirectoryError when it is not one."""
        if path is not None and not path.is_dir():
            raise NotADirectoryError(f"{path} is not a directory: create it, or name the one that holds your voices.")
        self._directories = (BUILT_IN,) if path is None else (BUILT_IN, path)

    def names(self) -> list[str]:
        """Names of all voices, sorted."""
        return sorted(self._recordings())

    def load(self, name: str) -> tuple[np.ndarray, int, str]:
        """Samples (float32 mono [n]), sample rate and transcript of the voice `name`.

        Raises UnknownVoice, or AudioError when the recording can't be used.
        """
        recording, transcript = self._files(name)
        samples, rate = load_audio(recording)
        return samples, rate, transcript.read_text(encoding="utf-8").strip()

    def version(self, name: str) -> Hashable:
        """Changes when the voice's files do. Raises UnknownVoice."""
        files = self._files(name)
        return tuple((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files)

    def _files(self, name: str) -> tuple[Path, Path]:
        """Recording and transcript of `name`."""
        recordings = self._recordings()
        if name not in recordings:  # names are looked up, never joined to a path: none leads out of the directory
            raise UnknownVoice(f"There is no voice {name!r}. Voices here: {', '.join(sorted(recordings))}.")
        return recordings[name], recordings[name].with_suffix(".txt")

    def _recordings(self) -> dict[str, Path]:
        """Name → recording, of complete pairs only."""
        found: dict[str, Path] = {}
        for directory in self._directories:
            recordings = [path for path in directory.iterdir() if path.suffix in SUFFIXES and path.is_file()]
            recordings.sort(key=lambda path: SUFFIXES.index(path.suffix), reverse=True)
            found |= {path.stem: path for path in recordings if path.with_suffix(".txt").is_file()}
        return found
