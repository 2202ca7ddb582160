"""The results of a batch: `manifest.jsonl` in its directory, one line per audio file."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import msgspec

from vllm_cosyvoice.batch.line import Line
from vllm_cosyvoice.voice.feature_file import write_whole

NAME = "manifest.jsonl"


class Entry(Line, frozen=True, kw_only=True):
    """A line that was spoken, and its result."""

    model: str
    file: str  # relative to the manifest
    seconds: float

    @classmethod
    def of(cls, line: Line, model: str, file: str, seconds: float) -> "Entry":
        """Create the entry for `line`."""
        return cls(**msgspec.structs.asdict(line), model=model, file=file, seconds=seconds)


class Manifest:
    """The entries in a directory. Each is written to disk as soon as it is added, so a killed run loses none.

    Use it in a `with` statement.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self._entries = _read(self._path)
        self._write()  # the last line of a killed run may be incomplete
        self._file = self._path.open("ab", buffering=0)

    def __enter__(self) -> "Manifest":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def has(self, line: Line, model: str, file: str) -> bool:
        """Whether `line` was spoken with the same options and its file exists."""
        entry = self._entries.get(line.id)
        return (
            entry is not None
            and entry == Entry.of(line, model, file, entry.seconds)
            and (self._path.parent / file).is_file()
        )

    def add(self, entry: Entry) -> None:
        """Add `entry` after its file was written; it replaces an earlier entry with the same id."""
        self._entries[entry.id] = entry
        self._file.write(_encoded(entry))

    def sort(self, ids: Sequence[str]) -> None:
        """Sort the entries in the order of `ids`, after entries with other ids. Do not call `add` afterwards."""
        rank = {line_id: number for number, line_id in enumerate(ids)}
        self._entries = dict(sorted(self._entries.items(), key=lambda item: rank.get(item[0], -1)))
        self._write()

    def _write(self) -> None:
        write_whole(self._path, b"".join(map(_encoded, self._entries.values())))


def _encoded(entry: Entry) -> bytes:
    return msgspec.json.encode(entry) + b"\n"


def _read(path: Path) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for content in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            entry = msgspec.json.decode(content, type=Entry)
        except (ValueError, UnicodeDecodeError):
            continue
        entries[entry.id] = entry
    return entries
