"""Voices on disk: recordings with their transcripts, the user's own and those registered while a server runs."""

import contextlib
import hashlib
import shutil
import tempfile
import time
import unicodedata
from collections.abc import Hashable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from vllm_cosyvoice.recording import Recording, StoredVoice, Voice, registered_key
from vllm_cosyvoice.voice import feature_file
from vllm_cosyvoice.voice.audio import load_audio

BUILT_IN = Path(__file__).parents[1] / "demo_voices"
SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".m4a")  # in order of preference for recordings with the same name

FACTS = "voice.json"
RECORDING = "recording"
MOST_BYTES = 240  # of a name, so that a file name has room for a suffix
LONGEST_NAME = MOST_BYTES // 4  # characters
NAME_PUNCTUATION = " ._-'"
MOST_REGISTERED = 1000
MOST_NAMED = 30  # names in a message
UNFINISHED = ".unfinished-"  # prefix of a folder that is being written or removed; no name begins with a dot
SECONDS_TO_FINISH = 3600.0


class UnknownVoice(LookupError):
    """There is no voice of that name. The message lists the existing ones."""


class VoiceRefused(Exception):
    """The voice can't be registered or deleted. The message says why."""


class _Facts(msgspec.Struct, frozen=True):
    """The content of `voice.json`."""

    created_at: int
    transcript: str
    digest: str  # of the recording


class VoiceDirectory:
    """The built-in voices and those of the user's directory, which override built-in ones of the same name.

    A user's own voice NAME is a pair of files, `NAME.wav` (or another of `SUFFIXES`) and `NAME.txt` with its
    transcript, UTF-8. A registered voice is a folder NAME with `voice.json`, the recording as it was sent, and the
    features computed by each model that used it. Folders are created and removed atomically, and every call reads the
    directory, so processes may share it, and voices may be added and removed while they run.
    """

    def __init__(self, path: Path | None = None) -> None:
        """`path`: the user's directory, if any. Raises NotADirectoryError if it is not a directory."""
        if path is not None and not path.is_dir():
            raise NotADirectoryError(f"{path} is not a directory: create it, or give the directory of your voices.")
        self._path = path
        self._pairs = (BUILT_IN,) if path is None else (path, BUILT_IN)

    def names(self) -> list[str]:
        """The names of all voices, sorted."""
        return sorted({voice.name for voice in self.voices()})

    def voices(self) -> list[StoredVoice]:
        """All voices, sorted by name."""
        voices: dict[str, StoredVoice] = {}
        for directory in reversed(self._pairs):
            for recording in directory.iterdir():
                if recording.suffix in SUFFIXES and recording.with_suffix(".txt").is_file():
                    with contextlib.suppress(FileNotFoundError):
                        voices[recording.stem] = StoredVoice(recording.stem, int(recording.stat().st_mtime))
        for name in self._registered():
            if facts := self._facts(name):
                voices[name] = StoredVoice(name, facts.created_at)
        return sorted(voices.values(), key=lambda voice: voice.name)

    def load(self, name: str) -> tuple[np.ndarray, int, str]:
        """Load the samples (float32 mono [n]), sample rate and transcript of the voice `name`.

        Raises UnknownVoice, or AudioError if the recording can't be used.
        """
        try:
            if self._path is not None and (facts := self._facts(name)):
                return *load_audio(self._path / name / RECORDING), facts.transcript
            if pair := self._pair(name):
                return *load_audio(pair[0]), pair[1].read_text(encoding="utf-8").strip()
        except FileNotFoundError:  # it has just been deleted
            pass
        raise self._unknown(name)

    def version(self, name: str) -> Hashable | None:
        """A value that changes when the voice changes; None if there is no such voice."""
        if facts := self._facts(name):
            return facts
        try:
            files = self._pair(name) or ()
            return tuple((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files) or None
        except FileNotFoundError:  # it has just been deleted
            return None

    def features(self, name: str, model: str) -> Voice | None:
        """The registered voice `name` with the stored features of `model`, if there are any for this recording."""
        facts = self._facts(name)
        if self._path is None or facts is None:
            return None
        features = feature_file.read(self._path / name / _feature_file(model, facts))
        key = registered_key(facts.digest, facts.transcript)
        return Voice(facts.transcript, *features, key) if features else None

    def keep_features(self, name: str, version: Hashable, model: str, voice: Voice) -> None:
        """Store the features that `model` computed for this `version` of `name`. Only for registered voices."""
        if self._path is not None and isinstance(version, _Facts):
            feature_file.write(self._path / name / _feature_file(model, version), voice)

    def register(self, name: str, recording: Recording, model: str, voice: Voice) -> StoredVoice:
        """Store `recording`, and the features that `model` computed from it, as `name`.

        Raises ValueError for an invalid name, VoiceRefused if the name is taken, and OSError if writing to disk fails.
        """
        check_name(name)
        if self._path is None:
            raise VoiceRefused("There is no directory for voices: start with one to register voices.")
        if name in self.names():
            raise _taken(name) if self._facts(name) else _comes_with_the_server(name, "choose another name")
        if len(self._registered()) >= MOST_REGISTERED:
            raise VoiceRefused(f"There are already {MOST_REGISTERED} registered voices: delete some that are not used.")
        digest = hashlib.blake2b(recording.data, digest_size=16).hexdigest()
        facts = _Facts(int(time.time()), recording.transcript.strip(), digest)
        folder = self._unfinished()
        try:
            feature_file.write_whole(folder / RECORDING, recording.data)
            feature_file.write(folder / _feature_file(model, facts), voice)
            feature_file.write_whole(folder / FACTS, msgspec.json.format(msgspec.json.encode(facts)))
            try:
                folder.rename(self._path / name)  # fails if another process was faster
            except OSError as error:
                raise _taken(name) if (self._path / name).exists() else error from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return StoredVoice(name, facts.created_at)

    def delete(self, name: str) -> StoredVoice:
        """Delete the registered voice `name`. Raises UnknownVoice, and VoiceRefused for one that was not registered."""
        facts = self._facts(name)
        if self._path is None or facts is None:
            if self._pair(name) is None:
                raise self._unknown(name)
            raise _comes_with_the_server(name, "it can't be deleted here")
        folder = self._unfinished()
        try:
            (self._path / name).rename(folder / name)
        except FileNotFoundError as error:  # another process was faster
            raise self._unknown(name) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return StoredVoice(name, facts.created_at)

    def _unfinished(self) -> Path:
        """Create a temporary folder next to the voices, and delete old ones left by killed processes."""
        assert self._path is not None
        for folder in self._path.glob(f"{UNFINISHED}*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - folder.stat().st_mtime > SECONDS_TO_FINISH:
                    shutil.rmtree(folder, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=self._path))

    def _registered(self) -> list[str]:
        """The names of folders that contain a voice."""
        if self._path is None:
            return []
        return [facts.parent.name for facts in self._path.glob(f"[!.]*/{FACTS}")]

    def _facts(self, name: str) -> _Facts | None:
        """The facts of the registered voice `name`; None if there is none or its folder is damaged."""
        if self._path is None or not _is_file_name(name):
            return None
        try:
            return msgspec.json.decode((self._path / name / FACTS).read_bytes(), type=_Facts)
        except (OSError, msgspec.MsgspecError):
            return None

    def _pair(self, name: str) -> tuple[Path, Path] | None:
        """The paths of the recording and the transcript of `name`; None if there are none."""
        if _is_file_name(name):
            for directory in self._pairs:
                transcript = directory / f"{name}.txt"
                for suffix in SUFFIXES:
                    recording = directory / f"{name}{suffix}"
                    if recording.is_file() and transcript.is_file():
                        return recording, transcript
        return None

    def _unknown(self, name: str) -> UnknownVoice:
        return UnknownVoice(no_such_voice(name, self.names()))


def no_such_voice(name: str, names: Sequence[str]) -> str:
    """The error message for an unknown voice `name`, which lists the existing `names`."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"There is no voice {name[:LONGEST_NAME]!r}. Voices here: {', '.join(names[:MOST_NAMED])}{more}."


def check_name(name: str) -> None:
    """Raise ValueError if `name` is not valid for a registered voice."""
    letters = all(unicodedata.category(letter)[0] in "LMN" or letter in NAME_PUNCTUATION for letter in name)
    if not (0 < len(name) <= LONGEST_NAME and letters and name[0].isalnum() and name == name.strip()):
        raise ValueError(
            f"{name[: 2 * LONGEST_NAME]!r} can't be a voice's name: use up to {LONGEST_NAME} letters, digits, spaces "
            "and . _ - ', starting with a letter or digit."
        )


def _taken(name: str) -> VoiceRefused:
    return VoiceRefused(f"There is already a voice {name!r}: delete it first, or choose another name.")


def _comes_with_the_server(name: str, consequence: str) -> VoiceRefused:
    return VoiceRefused(
        f"{name!r} was not registered here, so it comes with the server or is a file of `--voices_dir`: {consequence}."
    )


def _is_file_name(name: str) -> bool:
    """Whether `name` is a valid file name that stays inside its directory."""
    return name.isprintable() and "/" not in name and not name.startswith(".") and 0 < len(name.encode()) <= MOST_BYTES


def _feature_file(model: str, facts: _Facts) -> str:
    return f"{model}-{facts.digest}.safetensors"
