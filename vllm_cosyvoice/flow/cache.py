"""Remembers finished chunks, so that no hop computes a voice's prompt or the stream's earlier hops again.

With attention in chunks, a chunk of 25 tokens depends only on the tokens up to its end and the three after them. Once
these are known, the chunk's mel and all that later chunks need of it never change. The flow decides what it has to keep
of them; here, it is a state of some bytes. There are two kinds:

- The finished chunks of a prompt, which all streams of a voice share. The first hop decides how much of the prompt's
  start is left out, so a voice has up to as many states as there are first hops, and one for whole utterances.
- The chunks of a stream's own hops, which nobody else will need.

An utterance that is decoded in one go with such attention is a stream of one hop, so only prompts are kept for it.
"""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from weakref import WeakSet, finalize

import psutil

from vllm_cosyvoice.config import CHUNK_FRAMES, CHUNK_TOKENS, LOOKAHEAD_TOKENS

SHARE = 16  # a cache gets one part in this of the memory; a call needs up to as much again
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


class FlowState(Protocol):
    """What a flow keeps of some finished chunks that follow one another. Each backend has its own."""

    @property
    def frames(self) -> int:
        """Their number of frames."""
        ...

    @property
    def nbytes(self) -> int:
        """The memory that it takes."""
        ...


@dataclass(eq=False)
class _Prompt:
    state: FlowState
    streams: "WeakSet[StreamMemory]" = field(default_factory=WeakSet)  # that use it


class FlowCache:
    """The states of all prompts and streams, which take at most `budget` bytes.

    What a stream uses is kept as long as the stream. Prompts that no stream uses make room for others, the one that has
    not been used for longest first. If that is not enough, nothing more is remembered, and is computed again.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.nbytes = 0  # memory of all states
        self._prompts: OrderedDict[Hashable, _Prompt] = OrderedDict()  # last used last
        # The event loop asks what is remembered during a decode call. It is held while a state is dropped, which
        # needs it again.
        self._lock = threading.RLock()

    @property
    def prompts(self) -> int:
        """Number of prompts that are remembered."""
        return len(self._prompts)

    def frames(self, key: Hashable) -> int:
        """Number of frames that are remembered of the prompt `key`."""
        with self._lock:
            prompt = self._prompts.get(key)
            return prompt.state.frames if prompt else 0

    def prompt(self, key: Hashable, stream: "StreamMemory") -> FlowState | None:
        """Return the state of the prompt `key`, which `stream` uses from now on; None if it is not remembered."""
        with self._lock:
            prompt = self._prompts.get(key)
            if prompt is None:
                return None
            self._prompts.move_to_end(key)
            prompt.streams.add(stream)
            return prompt.state

    def keep_prompt(self, key: Hashable, state: FlowState, stream: "StreamMemory") -> None:
        """Remember a prompt that `stream` uses, if there is room."""
        with self._lock:
            if self.make_room(state.nbytes, self.budget - self.nbytes):
                self._prompts[key] = _Prompt(state, WeakSet([stream]))
                self._count(state)

    def keep(self, state: FlowState, stream: "StreamMemory") -> None:
        """Add `state` to those of `stream`, if there is room."""
        with self._lock:
            if self.make_room(state.nbytes, self.budget - self.nbytes):
                stream.own.append(state)
                self._count(state)

    def release(self, key: Hashable, stream: "StreamMemory") -> None:
        """Let go of what `stream` uses."""
        with self._lock:
            stream.own.clear()
            if key in self._prompts:
                self._prompts[key].streams.discard(stream)

    def make_room(self, size: int, free: int) -> bool:
        """Drop unused prompts until `size` bytes are free, if `free` are now; drop none if that would not be enough."""
        with self._lock:
            unused = {key: prompt.state.nbytes for key, prompt in self._prompts.items() if not prompt.streams}
            if free + sum(unused.values()) < size:
                return False
            for key, nbytes in unused.items():
                if free >= size:
                    break
                del self._prompts[key]
                free += nbytes
            return True

    def _count(self, state: FlowState) -> None:
        """Count the memory of `state` as long as it exists."""
        self.nbytes += state.nbytes
        finalize(state, self._discount, state.nbytes).atexit = False

    def _discount(self, nbytes: int) -> None:
        with self._lock:
            self.nbytes -= nbytes


class StreamMemory:
    """What is remembered of one stream. As long as this object exists, it stays so.

    Args:
        key: equal for equal prompts.
        tokens: number of tokens of the prompt.
    """

    def __init__(self, cache: FlowCache, key: Hashable, tokens: int) -> None:
        self.cache, self.key = cache, key
        self.own: list[FlowState] = []  # of its hops, in order; see `FlowCache.keep`
        self.prompt_frames = max(0, tokens - LOOKAHEAD_TOKENS) // CHUNK_TOKENS * CHUNK_FRAMES  # of finished chunks
        self.closed = False  # nothing more is remembered

    @property
    def frames(self) -> int:
        """Number of frames, from the start of the prompt, that are remembered now."""
        if self.closed:
            return 0
        own = sum(state.frames for state in self.own)
        return own + (self.cache.frames(self.key) if self.prompt_frames else 0)

    @property
    def lacks_prompt(self) -> bool:
        """Whether the prompt has finished chunks that are not remembered, but could be."""
        return not self.closed and self.frames < self.prompt_frames

    def states(self) -> list[FlowState]:
        """What is remembered, from the start of the prompt on."""
        if self.closed or not self.prompt_frames:
            return list(self.own)
        prompt = self.cache.prompt(self.key, self)
        return [] if prompt is None else [prompt, *self.own]

    def keep(self, start: int, state: FlowState) -> None:
        """Remember `state`, whose first frame is `start`, if there is room for it and all before it is remembered.

        A prompt's finished chunks have a state of their own.
        """
        if self.closed or start != self.frames:
            return
        if start < self.prompt_frames:
            self.cache.keep_prompt(self.key, state, self)
        else:
            self.cache.prompt(self.key, self)  # which another stream of the same call may have remembered
            self.cache.keep(state, self)

    def close(self) -> None:
        """Forget everything, and remember nothing more."""
        self.cache.release(self.key, self)
        self.closed = True


def default_budget() -> int:
    """Bytes for a cache in the memory of this machine, or of its container if that has a limit."""
    memory: int = psutil.virtual_memory().total
    with contextlib.suppress(OSError, ValueError):  # there is no container, or it has no limit
        memory = min(memory, int(CONTAINER_LIMIT.read_text()))
    return memory // SHARE
