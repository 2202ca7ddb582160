"""The decode loop with a real decoder of small networks."""

import asyncio
import gc
import math
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests import small_networks
from tests.server_process import eventually
from tests.utterances import begun
from vllm_cosyvoice.checkpoint import ModelDirectory
from vllm_cosyvoice.config import CHUNK_TOKENS, LOOKAHEAD_TOKENS, SAMPLES_PER_TOKEN, ModelConfig
from vllm_cosyvoice.decode.batching import CostEstimate
from vllm_cosyvoice.decode.decoder import SpeechDecoder
from vllm_cosyvoice.decode.hops import FIRST_HOPS
from vllm_cosyvoice.decode.loop import DecodeLoop, Work
from vllm_cosyvoice.decode.playback import Playback
from vllm_cosyvoice.decode.utterance import FlowPrompt, Utterance
from vllm_cosyvoice.voice import Voice

SECONDS = 60.0


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> SpeechDecoder:
    path: Path = tmp_path_factory.mktemp("model")
    torch.save(small_networks.flow_state(), path / "flow.pt")
    torch.save(small_networks.vocoder_state(), path / "hift.pt")
    config = ModelConfig(flow=small_networks.FLOW, vocoder=small_networks.VOCODER)
    return SpeechDecoder(ModelDirectory(path, config), "cpu")


@pytest.fixture(scope="module")
def prompt(decoder: SpeechDecoder) -> FlowPrompt:
    return decoder.prompt(Voice.preset("", np.ones(192, np.float32)))


class Hearers:
    """Who is delivered what, and in which order."""

    def __init__(self, loop: DecodeLoop) -> None:
        self.loop = loop
        self.utterances: dict[str, Utterance] = {}
        self.order: list[str] = []
        self.pieces: dict[str, list[np.ndarray]] = {}
        self.ended: dict[str, Exception | None] = {}
        self.came = asyncio.Event()

    def add(self, key: str, utterance: Utterance) -> None:
        self.utterances[key] = utterance
        self.pieces[key] = []
        self.loop.add(utterance, lambda piece: self.deliver(key, piece))

    def push(self, key: str, tokens: list[int], *, last: bool) -> None:
        self.loop.push(self.utterances[key], tokens, last=last)

    def drop(self, key: str) -> None:
        self.loop.drop(self.utterances[key])

    def deliver(self, key: str, piece: np.ndarray | Exception | None) -> None:
        if isinstance(piece, np.ndarray):
            self.order.append(key)
            self.pieces[key].append(piece)
        else:
            assert key not in self.ended
            self.ended[key] = piece
        self.came.set()

    async def until(self, pieces: int = 0, ended: int = 0) -> None:
        async with asyncio.timeout(SECONDS):
            while len(self.order) < pieces or len(self.ended) < ended:
                self.came.clear()
                await self.came.wait()

    def tokens(self, key: str) -> float:
        return sum(len(piece) for piece in self.pieces[key]) / SAMPLES_PER_TOKEN


class FirstCall:
    """Holds up the first decode call in its thread; `let_go` has it return its audio, or raise `error`."""

    def __init__(self, decoder: SpeechDecoder, monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> None:
        self._decode = decoder.decode
        self._error = error
        self._begun = threading.Event()
        self._may_end = threading.Event()
        monkeypatch.setattr(decoder, "decode", self._held)

    async def begun(self) -> None:
        assert await asyncio.to_thread(self._begun.wait, SECONDS)

    def let_go(self) -> None:
        self._may_end.set()

    def _held(self, work: list[Work]) -> list[np.ndarray]:
        if self._begun.is_set():
            return self._decode(work)
        self._begun.set()
        assert self._may_end.wait(SECONDS)
        if self._error:
            raise self._error
        return self._decode(work)


@pytest.fixture(params=[None, RuntimeError("A decode call failed.")], ids=["a call", "a failing call"])
def first_call(
    decoder: SpeechDecoder, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[FirstCall]:
    call = FirstCall(decoder, monkeypatch, request.param)
    yield call
    call.let_go()


@pytest.fixture
async def hearers(decoder: SpeechDecoder, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hearers]:
    """Of a decoder that has no backlog, however busy this machine is."""
    monkeypatch.setattr("vllm_cosyvoice.decode.batching.LONGEST_BACKLOG", math.inf)
    loop = DecodeLoop(decoder, max_rows=1)
    running = asyncio.create_task(loop.run())
    yield Hearers(loop)
    assert not running.done(), running
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert loop._utterances == {}


def test_a_first_hop_lasts_until_the_next_chunk_has_arrived_and_been_decoded(
    decoder: SpeechDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def push(utterance: Utterance, tokens: int, at: float) -> None:
        monkeypatch.setattr("vllm_cosyvoice.decode.loop.time", SimpleNamespace(monotonic=lambda: at))
        loop.push(utterance, [1] * tokens, last=False)

    loop, utterance = DecodeLoop(decoder), Utterance()
    loop.add(utterance, lambda piece: None)
    assert loop.first_hop == CHUNK_TOKENS, "nothing is known"
    loop._cost.learn(300, 0.05)
    assert loop.first_hop == FIRST_HOPS[0], "a call takes 0.05 s, and the chunk no time"
    for tokens, at in [(1, 0.0), (4, 0.012), (4, 0.024), (4, 5.0)]:
        push(utterance, tokens, at)
    assert loop.first_hop == 12, "the chunk takes 0.075 s; once, the language model had to wait for text"
    utterance.hops = 2
    for at in (6.0, 7.0, 8.0, 9.0, 10.0):
        push(utterance, 8, at)
    assert loop.first_hop == 12, "later tokens come in larger groups"
    monkeypatch.setattr(SpeechDecoder, "remembers", property(lambda _: False))
    assert loop.first_hop == 17, "it may wait for two more calls and one and a half more chunks"
    monkeypatch.undo()
    loop.add(Utterance(), lambda piece: None)
    assert loop.first_hop == 17, "the same for one that has company"
    for _ in range(12):
        loop.add(Utterance(), lambda piece: None)
    assert loop.first_hop == 21, "a chunk of each of 13 who wait takes 0.108 s"
    loop.add(Utterance(streaming=False), lambda piece: None)
    loop.add(Utterance(playback=Playback(Playback())), lambda piece: None)
    assert loop.first_hop == 21, "nobody waits for these two"


async def test_first_audio_of_all_comes_before_more_of_one(
    hearers: Hearers, decoder: SpeechDecoder, prompt: FlowPrompt
) -> None:
    for key in "abc":
        hearers.add(key, begun(decoder, prompt))
        hearers.push(key, [1] * 100, last=True)
    await hearers.until(ended=3)
    assert hearers.order[:3] == list("abc")
    assert sorted(hearers.order) == list("aabbcc")
    assert {key: hearers.tokens(key) for key in "abc"} == dict.fromkeys("abc", 100)


async def test_what_is_wanted_as_a_whole_goes_after_those_who_listen(
    hearers: Hearers, decoder: SpeechDecoder, prompt: FlowPrompt
) -> None:
    hearers.add("whole", begun(decoder, prompt, streaming=False))
    hearers.push("whole", [1] * 60, last=True)
    hearers.add("listened to", begun(decoder, prompt))
    hearers.push("listened to", [1] * 30, last=False)
    await hearers.until(pieces=2)
    assert hearers.order == ["listened to", "whole"]
    assert hearers.ended == {"whole": None}
    hearers.push("listened to", [1] * 30, last=True)
    await hearers.until(ended=2)
    assert hearers.tokens("listened to") == 60


async def test_an_unfinished_stream_is_decoded_on_when_its_audio_runs_out(
    hearers: Hearers, decoder: SpeechDecoder, prompt: FlowPrompt
) -> None:
    """By the clock: no token comes any more."""
    hearers.add("a", begun(decoder, prompt))
    hearers.push("a", [1] * 60, last=False)
    await hearers.until(pieces=2)
    assert hearers.ended == {}
    hearers.drop("a")


class Sizes:
    """Call sizes of a decoder, of which some are not captured. A CPU has none."""

    def __init__(self, decoder: SpeechDecoder, monkeypatch: pytest.MonkeyPatch, missing: int) -> None:
        self.missing, self.due = missing, False
        monkeypatch.setattr(decoder, "capture_next", self.capture_next)
        monkeypatch.setattr(SpeechDecoder, "capture_is_due", property(lambda _: self.due))

    def capture_next(self) -> bool:
        self.missing -= 1
        self.due = False
        return self.missing > 0


@pytest.fixture
def sizes(hearers: Hearers, decoder: SpeechDecoder, monkeypatch: pytest.MonkeyPatch) -> Sizes:
    """Nine sizes are missing, and the loop captures them without a pause."""
    monkeypatch.setattr("vllm_cosyvoice.decode.loop.PAUSE", 0.0)
    return Sizes(decoder, monkeypatch, missing=9)


async def test_sizes_are_captured_while_nobody_waits_for_first_audio_or_when_it_pays(
    hearers: Hearers, decoder: SpeechDecoder, prompt: FlowPrompt, sizes: Sizes
) -> None:
    hearers.add("a", begun(decoder, prompt))
    await asyncio.sleep(0.1)
    hearers.push("a", [1], last=False)
    await asyncio.sleep(0.1)
    assert sizes.missing == 9
    sizes.due = True
    hearers.push("a", [1] * 99, last=True)
    await hearers.until(ended=1)
    assert sizes.missing == 8
    await eventually(lambda: sizes.missing == 0, "nobody waits")


async def test_a_size_is_not_captured_shortly_before_a_hop_is_due(
    hearers: Hearers, decoder: SpeechDecoder, prompt: FlowPrompt, sizes: Sizes
) -> None:
    hearers.add("a", begun(decoder, prompt))
    hearers.push("a", [1] * (2 * CHUNK_TOKENS + LOOKAHEAD_TOKENS), last=False)
    await hearers.until(pieces=2)
    assert sizes.missing == 9
    hearers.drop("a")


async def test_a_request_waits_for_one_capture_at_most(
    hearers: Hearers, decoder: SpeechDecoder, prompt: FlowPrompt, sizes: Sizes, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, begun_before = asyncio.get_running_loop(), begun(decoder, prompt)

    def request() -> None:
        hearers.add("a", begun_before)
        hearers.push("a", [1] * 30, last=True)
        asked.set()

    def capture_next() -> bool:
        if sizes.missing == 9:
            loop.call_soon_threadsafe(request)
            assert asked.wait(SECONDS)
        return sizes.capture_next()

    asked = threading.Event()
    monkeypatch.setattr(decoder, "capture_next", capture_next)
    monkeypatch.setattr("vllm_cosyvoice.decode.loop.SECONDS_TO_CAPTURE", SECONDS)  # so that no deadline is so far away
    await hearers.until(pieces=1)
    assert sizes.missing == 8
    await hearers.until(ended=1)


async def test_a_caller_who_asks_again_at_once_does_not_wait_for_the_capture_of_a_size(
    hearers: Hearers, decoder: SpeechDecoder, prompt: FlowPrompt, sizes: Sizes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vllm_cosyvoice.decode.loop.PAUSE", SECONDS)
    for key in "abc":
        hearers.add(key, begun(decoder, prompt))
        hearers.push(key, [1] * 30, last=True)
        await hearers.until(ended=len(hearers.utterances))
        await asyncio.sleep(0.1)
    assert sizes.missing == 9
    monkeypatch.setattr("vllm_cosyvoice.decode.loop.PAUSE", 0.1)
    hearers.add("d", begun(decoder, prompt))
    hearers.push("d", [1] * 30, last=True)
    await eventually(lambda: sizes.missing == 0, "the caller has gone")


async def test_a_later_segment_is_decoded_once(hearers: Hearers, decoder: SpeechDecoder, prompt: FlowPrompt) -> None:
    first = begun(decoder, prompt)
    hearers.add("first", first)
    second = Utterance(playback=Playback(first.playback))
    hearers.add("second", decoder.begin(second, prompt, first_hop=None))
    hearers.push("second", [1] * 40, last=False)
    hearers.push("first", [1] * 200, last=True)
    await hearers.until(ended=1)
    assert hearers.order == ["first", "first"]
    hearers.push("second", [1] * 60, last=True)
    await hearers.until(ended=2)
    assert hearers.order == ["first", "first", "second"]


async def test_a_stream_that_was_full_before_it_was_added_is_decoded(
    hearers: Hearers, decoder: SpeechDecoder, prompt: FlowPrompt
) -> None:
    utterance = begun(decoder, prompt)
    utterance.push([1] * 20)
    utterance.finish()
    hearers.add("a", utterance)
    await hearers.until(ended=1)
    assert hearers.tokens("a") == 20


async def test_an_utterance_waits_for_its_voice(hearers: Hearers, decoder: SpeechDecoder, prompt: FlowPrompt) -> None:
    hearers.add("a", Utterance())
    hearers.push("a", [1] * 20, last=True)
    hearers.add("b", begun(decoder, prompt))
    hearers.push("b", [1] * 20, last=True)
    await hearers.until(ended=1)
    assert hearers.order == ["b"]
    hearers.loop.begin(hearers.utterances["a"], prompt, CHUNK_TOKENS)
    await hearers.until(ended=2)
    assert hearers.tokens("a") == 20


@pytest.mark.parametrize(("longest", "hops"), [(math.inf, 2), (2.0, 4)], ids=["fast", "slow"])
async def test_the_last_hop_is_bounded_where_it_would_take_long(
    hearers: Hearers,
    decoder: SpeechDecoder,
    prompt: FlowPrompt,
    monkeypatch: pytest.MonkeyPatch,
    longest: float,
    hops: int,
) -> None:
    """As on a CPU, where the rest of a long utterance in one call would be half a minute of silence."""
    monkeypatch.setattr("vllm_cosyvoice.decode.batching.LONGEST_BACKLOG", longest)
    monkeypatch.setattr(CostEstimate, "seconds", lambda estimate, frames: frames / 300)
    hearers.add("a", begun(decoder, prompt))
    hearers.push("a", [1] * 600, last=True)
    await hearers.until(ended=1)
    assert hearers.tokens("a") == 600
    assert hearers.utterances["a"].hops == hops, "to 25, (75, 225,) and 600 tokens"


@pytest.mark.parametrize(("listeners", "hops"), [(1, 2), (3, 3)])
async def test_last_hops_are_bounded_when_many_listeners_wait(
    hearers: Hearers,
    decoder: SpeechDecoder,
    prompt: FlowPrompt,
    monkeypatch: pytest.MonkeyPatch,
    listeners: int,
    hops: int,
) -> None:
    """The rest of each utterance would be decoded quickly, but not the rest of all."""
    monkeypatch.setattr("vllm_cosyvoice.decode.batching.LONGEST_BACKLOG", 3.0)
    monkeypatch.setattr(CostEstimate, "seconds", lambda estimate, frames: frames / 300)
    for key in range(listeners):
        hearers.add(str(key), begun(decoder, prompt))
        hearers.push(str(key), [1] * 300, last=True)
    await hearers.until(ended=listeners)
    heard = [utterance.hops for utterance in hearers.utterances.values()]
    assert heard == listeners * [hops], "to 25, (75,) and 300 tokens"


async def test_a_new_voice_is_computed_while_the_first_tokens_are_generated(
    hearers: Hearers, decoder: SpeechDecoder
) -> None:
    draws = np.random.default_rng(7)
    tokens, mel = draws.integers(0, 6561, 80).astype(np.int32), draws.normal(size=(160, 80)).astype(np.float32)
    prompt = decoder.prompt(Voice("", tokens, mel, np.ones(192, np.float32), ""))
    first = begun(decoder, prompt)
    memory = first.memory
    assert memory
    hearers.add("first", first)
    await eventually(lambda: memory.frames == memory.prompt_frames, "the prompt is remembered")
    assert first.hops == 0, "no token has come yet"
    assert begun(decoder, prompt).memory.frames == memory.frames > 0  # type: ignore[union-attr]
    hearers.push("first", [1] * 20, last=True)
    await hearers.until(ended=1)
    assert hearers.tokens("first") == 20


async def test_nothing_is_delivered_for_what_was_dropped(
    hearers: Hearers, decoder: SpeechDecoder, prompt: FlowPrompt
) -> None:
    for key in "ab":
        hearers.add(key, begun(decoder, prompt))
        hearers.push(key, [1] * 60, last=key == "b")
    hearers.drop("a")
    hearers.push("a", [1], last=True)
    await hearers.until(ended=1)
    assert (hearers.order, hearers.ended) == (["b", "b"], {"b": None})


async def test_what_was_dropped_takes_no_memory_of_the_flow(
    hearers: Hearers, decoder: SpeechDecoder, prompt: FlowPrompt
) -> None:
    gc.collect()
    before = decoder.flow_cache_bytes
    hearers.add("a", begun(decoder, prompt))
    hearers.push("a", [1] * 60, last=False)
    await hearers.until(pieces=1)
    assert decoder.flow_cache_bytes > before
    hearers.drop("a")
    del hearers.utterances["a"]
    await eventually(lambda: decoder.flow_cache_bytes <= before, "its hops are forgotten")


async def test_nothing_is_delivered_for_what_is_dropped_during_its_decode_call(
    hearers: Hearers, decoder: SpeechDecoder, prompt: FlowPrompt, first_call: FirstCall
) -> None:
    hearers.add("dropped", begun(decoder, prompt))
    hearers.push("dropped", [1] * 20, last=True)
    await first_call.begun()
    hearers.drop("dropped")
    hearers.add("next", begun(decoder, prompt))
    hearers.push("next", [1] * 20, last=True)
    first_call.let_go()
    await hearers.until(ended=1)
    assert (hearers.order, hearers.ended) == (["next"], {"next": None})


async def test_an_error_ends_its_streams_and_no_others(
    hearers: Hearers, decoder: SpeechDecoder, prompt: FlowPrompt
) -> None:
    broken = begun(decoder, prompt)
    broken.prompt = FlowPrompt("broken", [1] * 50, prompt.mel, prompt.speaker[:3])
    hearers.add("broken", broken)
    hearers.add("good", begun(decoder, prompt))
    for key in ("broken", "good"):
        hearers.push(key, [1] * 20, last=True)
    await hearers.until(ended=2)
    assert isinstance(hearers.ended["broken"], RuntimeError)
    assert hearers.ended["good"] is None
    assert hearers.tokens("good") == 20
