"""Voices on disk: recordings with what they say, the user's own and those registered while a server runs."""

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
SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".m4a")  # of two recordings with one name the first in this order counts

FACTS = "voice.json"
RECORDING = "recording"
MOST_BYTES = 240  # of a name, so that it makes a file name with a suffix
LONGEST_NAME = MOST_BYTES // 4  # characters
NAME_PUNCTUATION = " ._-'"
MOST_REGISTERED = 1000
MOST_NAMED = 30  # in a message
UNFINISHED = ".unfinished-"  # a folder that is being written, or removed; no name begins with a dot
SECONDS_TO_FINISH = 3600.0


class UnknownVoice(LookupError):
    """No voice of that name; the message lists those that exist."""


class VoiceRefused(Exception):
    """What is in the directory already forbids to register or delete that voice; the message says why."""


class _Facts(msgspec.Struct, frozen=True):
    """What `voice.json` says."""

    created_at: int
    transcript: str
    digest: str  # of the recording


class VoiceDirectory:
    """The built-in voices and those of the user's directory, which win over built-in ones of the same name.

    A voice NAME of the user's own is a pair of files, `NAME.wav` (or another of `SUFFIXES`) and `NAME.txt` with its
    transcript, UTF-8. A registered one is a folder NAME: `voice.json`, the recording as it was sent, and the features
    that each model that used it made of it. Folders appear and vanish whole, and the directory is read at every call,
    so any number of processes may share it, and voices may come and go while they run.
    """

    def __init__(self, path: Path | None = None) -> None:
        """`path`: the user's directory, if any. Raises NotADirectoryError when it is not one."""
        if path is not None and not path.is_dir():
            raise NotADirectoryError(f"{path} is not a directory: create it, or name the one that holds your voices.")
        self._path = path
        self._pairs = (BUILT_IN,) if path is None else (path, BUILT_IN)

    def names(self) -> list[str]:
        """Names of all voices, sorted."""
        return sorted({voice.name for voice in self.voices()})

    def voices(self) -> list[StoredVoice]:
        """All voices, by name."""
        found: dict[str, StoredVoice] = {}
        for directory in reversed(self._pairs):
            for recording in directory.iterdir():
                if recording.suffix in SUFFIXES and recording.with_suffix(".txt").is_file():
                    with contextlib.suppress(FileNotFoundError):
                        found[recording.stem] = StoredVoice(recording.stem, int(recording.stat().st_mtime))
        for name in self._registered():
            if facts := self._facts(name):
                found[name] = StoredVoice(name, facts.created_at)
        return sorted(found.values(), key=lambda voice: voice.name)

    def load(self, name: str) -> tuple[np.ndarray, int, str]:
        """Samples (float32 mono [n]), sample rate and transcript of the voice `name`.

        Raises UnknownVoice, or AudioError when the recording can't be used.
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
        """Changes when the voice does; None if there is no such voice."""
        if facts := self._facts(name):
            return facts
        try:
            files = self._pair(name) or ()
            return tuple((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files) or None
        except FileNotFoundError:  # it has just been deleted
            return None

    def features(self, name: str, model: str) -> Voice | None:
        """What `model`'s networks heard in the registered voice `name`, if that has been kept for this recording."""
        facts = self._facts(name)
        if self._path is None or facts is None:
            return None
        found = feature_file.read(self._path / name / _feature_file(model, facts))
        key = registered_key(facts.digest, facts.transcript)
        return Voice(facts.transcript, *found, key) if found else None

    def keep_features(self, name: str, version: Hashable, model: str, voice: Voice) -> None:
        """Keep what `model` made of that `version` of `name`; only registered voices have a place for it."""
        if self._path is not None and isinstance(version, _Facts):
            feature_file.write(self._path / name / _feature_file(model, version), voice)

    def register(self, name: str, recording: Recording, model: str, voice: Voice) -> StoredVoice:
        """Keep `recording`, and what `model` made of it, as `name`.

        Raises ValueError for a name that can't be one, VoiceRefused for one that is taken, and OSError when the disk
        refuses.
        """
        check_name(name)
        if self._path is None:
            raise VoiceRefused("There is no directory for voices: start with one to register voices.")
        if name in self.names():
            raise _taken(name) if self._facts(name) else _comes_with_the_server(name, "choose another name")
        if len(self._registered()) >= MOST_REGISTERED:
            raise VoiceRefused(f"There are {MOST_REGISTERED} registered voices already: delete some that are not used.")
        digest = hashlib.blake2b(recording.data, digest_size=16).hexdigest()
        facts = _Facts(int(time.time()), recording.transcript.strip(), digest)
        folder = self._unfinished()
        try:
            feature_file.write_whole(folder / RECORDING, recording.data)
            feature_file.write(folder / _feature_file(model, facts), voice)
            feature_file.write_whole(folder / FACTS, msgspec.json.format(msgspec.json.encode(facts)))
            try:
                folder.rename(self._path / name)  # refused by the kernel when another process was faster
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
        """A folder of our own beside the voices. Those that killed processes left long ago go."""
        assert self._path is not None
        for left in self._path.glob(f"{UNFINISHED}*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > SECONDS_TO_FINISH:
                    shutil.rmtree(left, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=self._path))

    def _registered(self) -> list[str]:
        """Names of folders that hold a voice."""
        if self._path is None:
            return []
        return [facts.parent.name for facts in self._path.glob(f"[!.]*/{FACTS}")]

    def _facts(self, name: str) -> _Facts | None:
        """What is known of the registered voice `name`; None when there is none, or its folder is damaged."""
        if self._path is None or not _is_file_name(name):
            return None
        try:
            return msgspec.json.decode((self._path / name / FACTS).read_bytes(), type=_Facts)
        except (OSError, msgspec.MsgspecError):
            return None

    def _pair(self, name: str) -> tuple[Path, Path] | None:
        """Recording and transcript of `name`; None if there are none."""
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
    """What to say to somebody who asks for `name` where there are `names`."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"There is no voice {name[:LONGEST_NAME]!r}. Voices here: {', '.join(names[:MOST_NAMED])}{more}."


def check_name(name: str) -> None:
    """Raise ValueError unless `name` may be a registered voice's."""
    letters = all(unicodedata.category(letter)[0] in "LMN" or letter in NAME_PUNCTUATION for letter in name)
    if not (0 < len(name) <= LONGEST_NAME and letters and name[0].isalnum() and name == name.strip()):
        raise ValueError(
            f"{name[: 2 * LONGEST_NAME]!r} can't be a voice's name: use up to {LONGEST_NAME} letters, digits, spaces "
            "and . _ - ', with a letter or digit first."
        )


def _taken(name: str) -> VoiceRefused:
    return VoiceRefused(f"There is a voice {name!r} already: delete it first, or choose another name.")


def _comes_with_the_server(name: str, consequence: str) -> VoiceRefused:
    return VoiceRefused(f"{name!r} was not registered but comes with the server: {consequence}.")


def _is_file_name(name: str) -> bool:
    """Whether joining `name` to a directory stays in it, and the kernel takes it."""
    return name.isprintable() and "/" not in name and not name.startswith(".") and 0 < len(name.encode()) <= MOST_BYTES


def _feature_file(model: str, facts: _Facts) -> str:
    return f"{model}-{facts.digest}.safetensors"
