"""The decode loop with a real decoder of small networks."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import small_networks
from vllm_cosyvoice.checkpoint import ModelDirectory
from vllm_cosyvoice.config import CHUNK_TOKENS, SAMPLES_PER_TOKEN, ModelConfig
from vllm_cosyvoice.decode.decoder import DecodeStream, FlowPrompt, SpeechDecoder
from vllm_cosyvoice.decode.loop import DecodeLoop
from vllm_cosyvoice.decode.schedule import Listener
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
        self.order: list[str] = []
        self.pieces: dict[str, list[np.ndarray]] = {}
        self.ended: dict[str, Exception | None] = {}
        self.came = asyncio.Event()

    def add(self, key: str, stream: DecodeStream, listener: Listener | None = None) -> None:
        self.pieces[key] = []
        self.loop.add(key, stream, lambda piece: self.deliver(key, piece), listener)

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

    def _held(self, streams: list[DecodeStream]) -> list[np.ndarray]:
        if self._begun.is_set():
            return self._decode(streams)
        self._begun.set()
        assert self._may_end.wait(SECONDS)
        if self._error:
            raise self._error
        return self._decode(streams)


@pytest.fixture(params=[None, RuntimeError("A decode call failed.")], ids=["a call", "a failing call"])
def first_call(
    decoder: SpeechDecoder, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[FirstCall]:
    call = FirstCall(decoder, monkeypatch, request.param)
    yield call
    call.let_go()


@pytest.fixture
async def hearers(decoder: SpeechDecoder) -> AsyncIterator[Hearers]:
    loop = DecodeLoop(decoder, max_rows=1)
    running = asyncio.create_task(loop.run())
    yield Hearers(loop)
    assert not running.done(), running
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert len(loop) == 0


def test_a_first_hop_is_a_chunk_until_calls_are_known_to_be_short(decoder: SpeechDecoder) -> None:
    loop = DecodeLoop(decoder)
    assert loop.first_hop == CHUNK_TOKENS
    loop._cost.learn(300, 0.05)
    assert loop.first_hop == 16, "6 calls are 0.3 s"


async def test_first_audio_of_all_comes_before_more_of_one(
    hearers: Hearers, decoder: SpeechDecoder, prompt: FlowPrompt
) -> None:
    for key in "abc":
        hearers.add(key, decoder.open(prompt))
        hearers.loop.push(key, [1] * 100, last=True)
    await hearers.until(ended=3)
    assert hearers.order[:3] == list("abc")
    assert sorted(hearers.order) == list("aabbcc")
    assert {key: hearers.tokens(key) for key in "abc"} == dict.fromkeys("abc", 100)


async def test_what_is_wanted_as_a_whole_goes_after_those_who_listen(
    hearers: Hearers, decoder: SpeechDecoder, prompt: FlowPrompt
) -> None:
    hearers.add("whole", decoder.open(prompt, streaming=False))
    hearers.loop.push("whole", [1] * 60, last=True)
    hearers.add("listened to", decoder.open(prompt))
    hearers.loop.push("listened to", [1] * 30, last=False)
    await hearers.until(pieces=2)
    assert hearers.order == ["listened to", "whole"]
    assert hearers.ended == {"whole": None}
    hearers.loop.push("listened to", [1] * 30, last=True)
    await hearers.until(ended=2)
    assert hearers.tokens("listened to") == 60


async def test_an_unfinished_stream_is_decoded_on_when_its_audio_runs_out(
    hearers: Hearers, decoder: SpeechDecoder, prompt: FlowPrompt
) -> None:
    """By the clock: no token comes any more."""
    hearers.add("a", decoder.open(prompt))
    hearers.loop.push("a", [1] * 60, last=False)
    await hearers.until(pieces=2)
    assert hearers.ended == {}
    hearers.loop.drop("a")


async def test_a_later_segment_is_decoded_once(hearers: Hearers, decoder: SpeechDecoder, prompt: FlowPrompt) -> None:
    first = Listener()
    hearers.add("first", decoder.open(prompt), first)
    hearers.add("second", decoder.open(prompt, first_hop=None), Listener(first))
    hearers.loop.push("second", [1] * 40, last=False)
    hearers.loop.push("first", [1] * 200, last=True)
    await hearers.until(ended=1)
    assert hearers.order == ["first", "first"]
    hearers.loop.push("second", [1] * 60, last=True)
    await hearers.until(ended=2)
    assert hearers.order == ["first", "first", "second"]


async def test_a_stream_that_was_full_before_it_was_added_is_decoded(
    hearers: Hearers, decoder: SpeechDecoder, prompt: FlowPrompt
) -> None:
    stream = decoder.open(prompt)
    stream.push([1] * 20)
    stream.finish()
    hearers.add("a", stream)
    await hearers.until(ended=1)
    assert hearers.tokens("a") == 20


async def test_nothing_is_delivered_for_what_was_dropped(
    hearers: Hearers, decoder: SpeechDecoder, prompt: FlowPrompt
) -> None:
    for key in "ab":
        hearers.add(key, decoder.open(prompt))
        hearers.loop.push(key, [1] * 20, last=True)
    hearers.loop.drop("a")
    hearers.loop.push("a", [1], last=True)
    await hearers.until(ended=1)
    assert (hearers.order, hearers.ended) == (["b"], {"b": None})


async def test_nothing_is_delivered_for_what_is_dropped_during_its_decode_call(
    hearers: Hearers, decoder: SpeechDecoder, prompt: FlowPrompt, first_call: FirstCall
) -> None:
    hearers.add("dropped", decoder.open(prompt))
    hearers.loop.push("dropped", [1] * 20, last=True)
    await first_call.begun()
    hearers.loop.drop("dropped")
    hearers.add("next", decoder.open(prompt))
    hearers.loop.push("next", [1] * 20, last=True)
    first_call.let_go()
    await hearers.until(ended=1)
    assert (hearers.order, hearers.ended) == (["next"], {"next": None})


async def test_a_decode_call_delivers_nothing_to_a_later_stream_of_the_same_key(
    hearers: Hearers, decoder: SpeechDecoder, prompt: FlowPrompt, first_call: FirstCall
) -> None:
    hearers.add("a", decoder.open(prompt))
    hearers.loop.push("a", [1] * 20, last=True)
    await first_call.begun()
    hearers.loop.drop("a")
    hearers.add("a", decoder.open(prompt, streaming=False))
    hearers.loop.push("a", [1] * 30, last=True)
    first_call.let_go()
    await hearers.until(ended=1)
    assert (hearers.order, hearers.ended) == (["a"], {"a": None})
    assert hearers.tokens("a") == 30


async def test_an_error_ends_its_streams_and_no_others(
    hearers: Hearers, decoder: SpeechDecoder, prompt: FlowPrompt
) -> None:
    broken = decoder.open(prompt)
    broken.prompt = FlowPrompt([1] * 50, prompt.mel, prompt.speaker[:3])
    hearers.add("broken", broken)
    hearers.add("good", decoder.open(prompt))
    for key in ("broken", "good"):
        hearers.loop.push(key, [1] * 20, last=True)
    await hearers.until(ended=2)
    assert isinstance(hearers.ended["broken"], RuntimeError)
    assert hearers.ended["good"] is None
    assert hearers.tokens("good") == 20
