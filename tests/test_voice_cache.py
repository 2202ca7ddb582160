"""The cache of voices: each is made once, and none waits for another."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from vllm_cosyvoice.voice import Voice
from vllm_cosyvoice.voice.cache import VoiceCache


def voice(name: str) -> Voice:
    return Voice.preset(name, np.zeros(192, np.float32))


def never() -> Voice:
    raise AssertionError("it is made again")


def test_a_voice_is_made_once_for_all_who_ask_meanwhile() -> None:
    cache, begun, go = VoiceCache(2), threading.Event(), threading.Event()

    def make() -> Voice:
        begun.set()
        assert go.wait(10)
        return voice("a")

    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(cache.get_or_make, "a", 1, make)
        assert begun.wait(10)
        others = [threads.submit(cache.get_or_make, "a", 1, never) for _ in range(3)]
        assert cache.get("a", 1) is None, "it is not there yet"
        assert cache.get_or_make("b", 1, lambda: voice("b")).key == voice("b").key, "another does not wait"
        go.set()
        assert {future.result(10).key for future in (first, *others)} == {voice("a").key}
    assert (cache.hits, cache.misses) == (3, 2)


def test_another_version_is_made_anew_and_the_least_recently_used_goes_first() -> None:
    cache = VoiceCache(2)
    for name in ("a", "b"):
        cache.get_or_make(name, 1, lambda: voice("old"))
    cache.get_or_make("a", 2, lambda: voice("new"))
    assert cache.get_or_make("a", 2, never).key == voice("new").key
    cache.get_or_make("c", 1, lambda: voice("c"))
    assert cache.get("b", 1) is None
    assert cache.get("a", 2) is not None
    assert cache.get("a", 1) is None


def test_a_failure_reaches_who_asked_and_the_next_tries_again() -> None:
    cache = VoiceCache(2)

    def fail() -> Voice:
        raise ValueError("too quiet")

    with pytest.raises(ValueError, match="too quiet"):
        cache.get_or_make("a", 1, fail)
    assert cache.get("a", 1) is None
    assert cache.get_or_make("a", 1, lambda: voice("a")).key == voice("a").key
