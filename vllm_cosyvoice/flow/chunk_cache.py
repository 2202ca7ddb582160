"""Remembers finished chunks of streams, so that no hop computes a voice's prompt or an earlier hop again.

With attention in chunks, a chunk of 25 tokens depends only on the tokens up to its end and the three after them. Once
these are known, the chunk's mel and all that later chunks need of it never change. So a chunk is looked up by a digest
of everything it depends on, like a block of vLLM's prefix cache: streams of one voice share the chunks of its prompt, a
changed voice has other chunks, and a stream finds the chunks of its own earlier hops.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakSet

import psutil
import torch

from vllm_cosyvoice.config import CHUNK_FRAMES, CHUNK_TOKENS, LOOKAHEAD_TOKENS

SHARE = 16  # a cache gets one part in this of the memory; a call needs up to as much again
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


class ChunkState(Protocol):
    """What a flow remembers of a chunk. Each backend has its own."""

    @property
    def nbytes(self) -> int:
        """The memory it takes."""
        ...


@dataclass(eq=False)
class _Entry:
    state: Any
    bytes: int
    users: "WeakSet[StreamChunks]" = field(default_factory=WeakSet)


class ChunkCache:
    """The states of finished chunks, of at most `budget` bytes together.

    A chunk in use by a stream is never dropped: if all of them are, new chunks are not remembered, and the next hop
    computes them again. The others make room: first those of speech, which hardly anybody will ask for again, then those
    of the prompts that have not been used for longest.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.bytes = 0
        self._speech: OrderedDict[bytes, _Entry] = OrderedDict()  # both begin with the chunk to be dropped first
        self._prompts: OrderedDict[bytes, _Entry] = OrderedDict()
        self._lock = threading.Lock()  # the event loop counts, while the decode thread looks up and keeps

    def __len__(self) -> int:
        return len(self._speech) + len(self._prompts)

    def count(self, keys: Sequence[bytes]) -> int:
        """Count the `keys` up to the first that is not remembered."""
        with self._lock:
            missing = (at for at, key in enumerate(keys) if key not in self._prompts and key not in self._speech)
            return next(missing, len(keys))

    def use(self, keys: Sequence[bytes], user: "StreamChunks") -> list[Any]:
        """Return the states of `keys` up to the first that is not remembered. `user` uses them as long as it exists."""
        with self._lock:
            states = []
            for key in keys:
                entry = self._prompts.get(key) or self._speech.get(key)
                if entry is None:
                    break
                entry.users.add(user)
                states.append(entry.state)
            self._refresh(keys)
            return states

    def keep(
        self, keys: Sequence[bytes], states: Sequence[ChunkState], user: "StreamChunks", *, prompt_chunks: int
    ) -> None:
        """Remember, as far as there is room, the `states` of the last of `keys`; `user` uses them.

        The first `prompt_chunks` of `keys` are those of a prompt.
        """
        first = len(keys) - len(states)
        with self._lock:
            for chunk, state in enumerate(states, first):
                size = state.nbytes
                if not self._make_room(size):
                    break  # the chunks behind it are of no use without it
                entries = self._prompts if chunk < prompt_chunks else self._speech
                entries[keys[chunk]] = _Entry(state, size, WeakSet([user]))
                self.bytes += size
            self._refresh(keys)

    def release(self, keys: Sequence[bytes], user: "StreamChunks") -> None:
        """Have `user` use `keys` no longer."""
        with self._lock:
            for key in keys:
                if entry := self._prompts.get(key) or self._speech.get(key):
                    entry.users.discard(user)

    def _refresh(self, keys: Sequence[bytes]) -> None:
        """Have `keys` dropped last; among them the last first, because a chunk is of no use without those before it."""
        for key in reversed(keys):
            for entries in (self._prompts, self._speech):
                if key in entries:
                    entries.move_to_end(key)

    def _make_room(self, size: int) -> bool:
        while self.bytes + size > self.budget:
            if not (self._drop(self._speech) or self._drop(self._prompts)):
                return False
        return True

    def _drop(self, entries: "OrderedDict[bytes, _Entry]") -> bool:
        """Drop the first chunk that is not in use, if there is one."""
        for key, entry in entries.items():
            if not entry.users:
                del entries[key]
                self.bytes -= entry.bytes
                return True
        return False


class StreamChunks:
    """The chunks of one stream. While this object exists, the stream uses all of them that the cache has."""

    def __init__(self, cache: ChunkCache) -> None:
        self.cache = cache
        self._keys: list[bytes] = []  # of the finished chunks
        self._prompt_chunks = 0
        self.closed = False  # nothing more is remembered for it

    @property
    def remembered(self) -> int:
        """Number of frames, from the start of the prompt, that need not be computed."""
        return CHUNK_FRAMES * self.cache.count(self._keys)

    def close(self) -> None:
        """Use no chunk any more."""
        self.cache.release(self._keys, self)
        self._keys, self.closed = [], True

    def states(self) -> list[Any]:
        """The states of the stream's chunks up to the first that is not remembered."""
        return self.cache.use(self._keys, self)

    def keep(self, first: int, states: Sequence[ChunkState]) -> None:
        """Remember the `states` of finished chunks, from the chunk `first` on, as far as there is room."""
        keys = self._keys[: first + len(states)]
        self.cache.keep(keys, states, self, prompt_chunks=self._prompt_chunks)

    def extend(self, tokens: Sequence[int], prompt_mel: torch.Tensor, speaker: torch.Tensor) -> None:
        """Add what is known of the stream now: all its tokens so far, its prompt's mel and its speaker.

        Args:
            tokens: prompt, then speech, then look-ahead; they begin with those of the last time.
            prompt_mel: [frames, 80], speaker: [80], see `FlowRow`.
        """
        self._prompt_chunks = finished_chunks(len(prompt_mel) * CHUNK_TOKENS // CHUNK_FRAMES)
        previous = self._keys[-1] if self._keys else _bytes(speaker)
        for chunk in range(len(self._keys), finished_chunks(len(tokens))):
            start, frame = CHUNK_TOKENS * chunk, CHUNK_FRAMES * chunk
            read = torch.tensor(tokens[start : start + CHUNK_TOKENS + LOOKAHEAD_TOKENS])
            digest = hashlib.blake2b(previous, digest_size=16)
            digest.update(_bytes(read))
            digest.update(_bytes(prompt_mel[frame : frame + CHUNK_FRAMES]))
            previous = digest.digest()
            self._keys.append(previous)


def finished_chunks(tokens: int) -> int:
    """Number of chunks that `tokens` determine: those whose look-ahead is among them."""
    return max(0, tokens - LOOKAHEAD_TOKENS) // CHUNK_TOKENS


def default_budget() -> int:
    """Bytes for a cache in the memory of this machine, or of its container if that has a limit."""
    memory: int = psutil.virtual_memory().total
    try:
        memory = min(memory, int(CONTAINER_LIMIT.read_text()))
    except (OSError, ValueError):
        pass  # there is no container, or no limit
    return memory // SHARE


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.cpu().contiguous().numpy().tobytes()
