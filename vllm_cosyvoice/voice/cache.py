"""Voices in memory. Each is made once, however many ask for it at the same time, and nobody else waits for it."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future

from vllm_cosyvoice.recording import Voice


class VoiceCache:
    """Keeps `capacity` voices; the least recently used goes first. Its methods may run in several threads at once."""

    def __init__(self, capacity: int) -> None:
        self.hits = 0
        self.misses = 0
        self._capacity = capacity
        self._lock = threading.Lock()
        self._voices: OrderedDict[Hashable, tuple[Hashable, Future[Voice]]] = OrderedDict()

    def get(self, key: Hashable, version: Hashable) -> Voice | None:
        """The voice of that `key`, if it is here, made, and of that `version`."""
        with self._lock:
            found, future = self._voices.get(key, (None, None))
            if future is None or found != version or not future.done() or future.exception():
                return None
            self.hits += 1
            self._voices.move_to_end(key)
            return future.result()

    def get_or_make(self, key: Hashable, version: Hashable, make: Callable[[], Voice]) -> Voice:
        """As `get`, but waits for a voice that is being made, and makes one that is not there."""
        with self._lock:
            found, future = self._voices.get(key, (None, None))
            makes = future is None or found != version
            if future is None or makes:
                self.misses += 1
                future = Future()
                self._voices[key] = version, future
            else:
                self.hits += 1
            self._voices.move_to_end(key)
            while len(self._voices) > self._capacity:
                self._voices.popitem(last=False)
        if makes:
            self._make(key, future, make)
        return future.result()

    def _make(self, key: Hashable, future: "Future[Voice]", make: Callable[[], Voice]) -> None:
        try:
            future.set_result(make())
        except BaseException as error:
            with self._lock:  # the next who asks tries again
                if self._voices.get(key, (None, None))[1] is future:
                    del self._voices[key]
            future.set_exception(error)
