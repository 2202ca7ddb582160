"""In-memory cache of voices. Concurrent requests for a voice share one computation and do not block other voices."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future

from vllm_cosyvoice.recording import Voice


class VoiceCache:
    """LRU cache of `capacity` voices. Its methods are thread-safe."""

    def __init__(self, capacity: int) -> None:
        self.hits = 0
        self.misses = 0
        self._capacity = capacity
        self._lock = threading.Lock()
        self._voices: OrderedDict[Hashable, tuple[Hashable, Future[Voice]]] = OrderedDict()

    def get(self, key: Hashable, version: Hashable) -> Voice | None:
        """The cached voice of `key` and `version`; None if it is missing or still being computed."""
        with self._lock:
            cached_version, future = self._voices.get(key, (None, None))
            if future is None or cached_version != version or not future.done() or future.exception():
                return None
            self.hits += 1
            self._voices.move_to_end(key)
            return future.result()

    def get_or_make(self, key: Hashable, version: Hashable, make: Callable[[], Voice]) -> Voice:
        """Like `get`, but wait for a voice that is being computed, and compute a missing one."""
        with self._lock:
            cached_version, future = self._voices.get(key, (None, None))
            missing = future is None or cached_version != version
            if future is None or missing:
                self.misses += 1
                future = Future()
                self._voices[key] = version, future
            else:
                self.hits += 1
            self._voices.move_to_end(key)
            while len(self._voices) > self._capacity:
                self._voices.popitem(last=False)
        if missing:
            self._make(key, future, make)
        return future.result()

    def _make(self, key: Hashable, future: "Future[Voice]", make: Callable[[], Voice]) -> None:
        try:
            future.set_result(make())
        except BaseException as error:
            with self._lock:  # remove it, so that the next request tries again
                if self._voices.get(key, (None, None))[1] is future:
                    del self._voices[key]
            future.set_exception(error)
