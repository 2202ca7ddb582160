"""What the flow remembers: it saves work, never changes the audio, and stays within its budget."""

import gc
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from openai import AsyncOpenAI
from torch import Tensor

from server.arguments import ArgumentsError, read
from tests import small_networks
from tests.flow_streams import Stream, difference, tokens, voice
from tests.server_process import BODY, ServerProcess, exactly
from tests.test_audio import tone, wav
from vllm_cosyvoice.config import CHUNK_FRAMES, CHUNK_TOKENS, FRAMES_PER_TOKEN, SAMPLES_PER_TOKEN
from vllm_cosyvoice.decode.hops import FIRST_HOPS
from vllm_cosyvoice.decode.utterance import FlowPrompt, Utterance
from vllm_cosyvoice.flow import DiTFlow, Flow, FlowRow, euler
from vllm_cosyvoice.flow import cache as cache_module
from vllm_cosyvoice.flow.cache import FlowCache, StreamMemory, default_budget
from vllm_cosyvoice.vocoder import VocoderStream

PLENTY = 1 << 30
SAME = 1e-5  # float32, in another order
ROUNDING = 30  # of int16: the hops of two requests may end elsewhere


@pytest.fixture(scope="module", params=[Flow, DiTFlow])
def flow(request: pytest.FixtureRequest) -> Flow | DiTFlow:
    """With few steps from noise to mel, which are all alike."""
    config = small_networks.FLOW if request.param is Flow else small_networks.DIT_FLOW
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(euler, "STEPS", 3)
        opened: Flow | DiTFlow = request.param.from_state(config, small_networks.flow_state(config))
    return opened


class Computed:
    """Counts the frames that the estimator computes at the first step."""

    def __init__(self, flow: Flow | DiTFlow) -> None:
        self.frames = 0
        self._step = flow.step_times[0]

    def count(self, module: torch.nn.Module, inputs: tuple[Tensor, object, Tensor]) -> None:
        if torch.equal(inputs[2], self._step):
            self.frames += inputs[0].shape[0] * inputs[0].shape[1]

    def take(self) -> int:
        frames, self.frames = self.frames, 0
        return frames


@pytest.fixture
def computed(flow: Flow | DiTFlow) -> Iterator[Computed]:
    counter = Computed(flow)
    hook = flow.estimator.register_forward_pre_hook(counter.count)
    yield counter
    hook.remove()


@pytest.mark.parametrize("prompt", [0, 20, 30, 65, 90], ids="a prompt of {} tokens".format)
def test_hops_give_what_they_give_when_nothing_is_remembered(flow: Flow | DiTFlow, prompt: int) -> None:
    cache, said = FlowCache(PLENTY), voice(flow, prompt)
    speech = tokens(111, seed=1)
    first = -prompt % CHUNK_TOKENS or CHUNK_TOKENS
    expected = Stream(flow, said, speech)
    for _ in range(2):
        stream = Stream(flow, said, speech, cache)
        for spoken in (first, first + CHUNK_TOKENS, first + 3 * CHUNK_TOKENS, len(speech)):
            if spoken <= len(speech):
                assert difference(stream.hop(spoken), expected.hop(spoken)) < SAME


def test_a_stream_whose_voice_is_remembered_gives_the_same_bits(flow: Flow | DiTFlow) -> None:
    cache, said, speech = FlowCache(PLENTY), voice(flow, 90), tokens(80, seed=1)
    hops = (10, 35, len(speech))
    first, second = ([stream.hop(hop) for hop in hops] for stream in (Stream(flow, said, speech, cache) for _ in "ab"))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_prompt_can_be_computed_before_there_is_speech(flow: Flow | DiTFlow, computed: Computed) -> None:
    said, speech = voice(flow, 90), tokens(40, seed=1)
    early = Stream(flow, said, speech, FlowCache(PLENTY))
    for _ in range(2):
        flow.remember_prompt(FlowRow(said.tokens, 0, said.mel, said.speaker, True, early.memory))
    assert computed.take() == 150
    heard = early.hop(10)
    assert computed.take() == 50
    assert torch.equal(heard, Stream(flow, said, speech, FlowCache(PLENTY)).hop(10))


def test_only_what_is_new_is_computed(flow: Flow | DiTFlow, computed: Computed) -> None:
    cache, said, speech = FlowCache(PLENTY), voice(flow, 90), tokens(100, seed=1)
    for expected in ([200, 100, 80], [50, 100, 80]):
        stream = Stream(flow, said, speech, cache)
        for spoken, frames in zip((10, 60, 100), expected, strict=True):
            memory = stream.memory
            assert memory
            assert FRAMES_PER_TOKEN * (90 + spoken) - memory.frames == frames, "what the schedule reckons with"
            stream.hop(spoken)
            assert computed.take() == frames


def test_the_last_chunk_of_a_prompt_waits_for_its_look_ahead(flow: Flow | DiTFlow, computed: Computed) -> None:
    """It reads three tokens of the speech, so each stream computes it."""
    cache = FlowCache(PLENTY)
    for prompt, frames in ((77, 100), (78, 50)):
        said = voice(flow, prompt)
        for seed in (1, 2):
            Stream(flow, said, tokens(40, seed), cache).hop(100 - prompt)
        computed.frames -= 200  # of the first stream
        assert computed.take() == frames


def test_streams_of_one_voice_in_one_call_share_its_prompt(flow: Flow | DiTFlow, computed: Computed) -> None:
    cache, said = FlowCache(PLENTY), voice(flow, 90)
    streams = [Stream(flow, said, tokens(40, seed), cache) for seed in range(3)]
    other = replace(Stream(flow, said, tokens(40, 9)).row(40), chunk_mask=False)
    mels = flow([streams[0].row(10), other, *(stream.row(10) for stream in streams[1:])])
    assert computed.take() == 200 + 260 + 2 * 50
    assert cache.prompts == 1
    rows = [Stream(flow, said, stream.speech).row(10) for stream in streams]
    for mel, row in zip(mels, [rows[0], other, *rows[1:]], strict=True):
        assert difference(mel, flow([row])[0]) < SAME


def test_each_voice_and_each_part_of_it_is_remembered_by_itself(flow: Flow | DiTFlow) -> None:
    cache, said, speech = FlowCache(PLENTY), voice(flow, 90), tokens(40, seed=1)
    Stream(flow, said, speech, cache).hop(10)
    for other, hop in ((voice(flow, 90, seed=5), 10), (said.without_head(5), 15)):
        heard = Stream(flow, other, speech, cache).hop(hop)
        assert difference(heard, Stream(flow, other, speech).hop(hop)) < SAME


def test_a_voice_has_one_state_for_each_first_hop(flow: Flow | DiTFlow) -> None:
    cache, said, speech = FlowCache(PLENTY), voice(flow, 100), tokens(40, seed=1)
    for _ in range(2):
        for hop in FIRST_HOPS:
            Stream(flow, said.without_head(hop % CHUNK_TOKENS), speech, cache).hop(hop)
    assert cache.prompts == len(FIRST_HOPS)


@pytest.mark.parametrize("prompt", [20, 78, 90], ids="a prompt of {} tokens".format)
def test_a_whole_utterance_with_the_chunk_mask_computes_only_what_is_not_remembered(
    flow: Flow | DiTFlow, computed: Computed, prompt: int
) -> None:
    said, speech = voice(flow, prompt), tokens(110, seed=1)
    expected = Stream(flow, said, speech).hop(110)
    computed.take()
    cache, first = FlowCache(PLENTY), FRAMES_PER_TOKEN * (prompt + 110)
    for frames in (first, first - (prompt - 3) // CHUNK_TOKENS * CHUNK_FRAMES):
        utterance = whole(said, speech, cache)
        cut = utterance.next_cut()
        assert cut
        assert utterance.frames(cut) == frames, "what the schedule reckons with"
        (mel,) = flow([utterance.flow_row(cut)])
        assert computed.take() == frames
        assert difference(mel, expected) < SAME


def whole(said: FlowPrompt, speech: list[int], cache: FlowCache) -> Utterance:
    utterance = Utterance(streaming=False)
    utterance.begin(said, cast(VocoderStream, SimpleNamespace(hold_back=0)), CHUNK_TOKENS, cache, chunk_mask=True)
    utterance.push(speech)
    utterance.finish()
    return utterance


# The budget


class SomeChunks:
    """Takes the place of a flow's state, so that a thousand of them are made at once."""

    def __init__(self, frames: int, nbytes: int = 10) -> None:
        self.frames, self.nbytes = frames, nbytes


def stream_of(cache: FlowCache, name: int, prompt: int = 78) -> StreamMemory:
    return StreamMemory(cache, name, prompt)


def speak(memory: StreamMemory, hops: int = 1) -> None:
    """Remember what a flow would: the prompt, if it is not there, and each hop."""
    if not memory.states():
        memory.keep(0, SomeChunks(memory.prompt_frames))
    for _ in range(hops):
        memory.keep(memory.frames, SomeChunks(CHUNK_FRAMES))


def test_what_a_stream_used_is_free_when_it_has_gone() -> None:
    """However it went: finished, failed or aborted, nothing has to be called."""
    cache = FlowCache(100)
    memory = stream_of(cache, 1)
    speak(memory, hops=3)
    assert (memory.frames, cache.nbytes) == (3 * CHUNK_FRAMES + 3 * CHUNK_FRAMES, 40)
    del memory
    gc.collect()
    assert (cache.prompts, cache.nbytes) == (1, 10), "the prompt stays for the next"


def test_of_a_thousand_voices_the_last_are_remembered() -> None:
    cache = FlowCache(1000)
    for name in range(1000):
        speak(stream_of(cache, name), hops=2)
        assert cache.nbytes <= cache.budget
    assert cache.prompts > 90
    assert stream_of(cache, 999).frames
    assert not stream_of(cache, 0).frames


def test_a_voice_that_is_asked_for_again_is_kept_before_others() -> None:
    cache = FlowCache(35)
    for name in (1, 2, 3, 1, 4):
        speak(stream_of(cache, name), hops=0)
    assert [bool(stream_of(cache, name).frames) for name in (1, 2, 3, 4)] == [True, False, True, True]


def test_what_is_in_use_is_never_dropped() -> None:
    cache = FlowCache(60)
    users = [stream_of(cache, name) for name in (1, 2)]
    speak(users[0], hops=2)
    speak(users[1], hops=2)
    late = stream_of(cache, 3)
    speak(late, hops=2)
    assert [memory.frames for memory in (*users, late)] == [5 * CHUNK_FRAMES] * 2 + [0]
    assert cache.nbytes == 60
    users.pop()
    speak(late)
    assert late.frames == 4 * CHUNK_FRAMES


def test_what_can_not_be_kept_drops_nothing() -> None:
    cache = FlowCache(60)
    user = stream_of(cache, 1)
    speak(user, hops=2)
    speak(stream_of(cache, 2), hops=0)
    cache.keep(SomeChunks(CHUNK_FRAMES, nbytes=40), user)
    assert stream_of(cache, 2).frames
    assert cache.nbytes == 40


def test_hops_for_which_there_is_no_room_leave_no_gap() -> None:
    cache = FlowCache(35)
    memory = stream_of(cache, 1)
    speak(memory, hops=1)
    other = stream_of(cache, 1)
    speak(other, hops=1)
    memory.keep(memory.frames, SomeChunks(CHUNK_FRAMES))  # no room
    del other
    gc.collect()
    memory.keep(memory.frames + CHUNK_FRAMES, SomeChunks(CHUNK_FRAMES))  # there is room, but not for what came before
    assert memory.frames == 4 * CHUNK_FRAMES


def test_a_prompt_that_another_stream_remembered_stays_for_the_hops_after_it() -> None:
    """As in a call of two streams that have the same new voice."""
    cache = FlowCache(60)
    first, second = stream_of(cache, 1), stream_of(cache, 1)
    first.keep(0, SomeChunks(first.prompt_frames))
    second.keep(second.prompt_frames, SomeChunks(CHUNK_FRAMES))
    del first
    gc.collect()
    for name in range(2, 9):
        speak(stream_of(cache, name), hops=0)
    assert len(second.states()) == 2


def test_streams_come_and_go_while_others_ask() -> None:
    cache, stop, errors = FlowCache(200), threading.Event(), []

    def ask() -> None:
        memories = [stream_of(cache, name) for name in range(40)]
        try:
            while not stop.is_set():
                assert all(memory.frames >= 0 for memory in memories)
        except Exception as error:
            errors.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    for name in range(400):
        speak(stream_of(cache, name % 40), hops=3)
    stop.set()
    asking.join()
    assert not errors
    assert cache.nbytes <= 200


@pytest.mark.parametrize("chunks", [0, 3, 4, 6], ids="room for {} chunks".format)
def test_any_budget_gives_the_same_mel(flow: Flow | DiTFlow, chunks: int) -> None:
    """From a budget that no row fits into, over one for the row but not for what it leaves behind, to a fitting one."""
    cache, said, speech = FlowCache(chunks * CHUNK_FRAMES * flow.frame_bytes), voice(flow, 65), tokens(85, seed=1)
    streams = [Stream(flow, said, speech, cache) for _ in range(2)]
    expected = Stream(flow, said, speech)
    for spoken in (10, 35, 60, 85):
        for stream in streams:
            assert difference(stream.hop(spoken), expected.hop(spoken)) < SAME
            assert cache.nbytes <= cache.budget


def test_a_stream_that_outgrows_the_budget_frees_it(flow: Flow | DiTFlow, computed: Computed) -> None:
    cache, said, speech = FlowCache(5 * CHUNK_FRAMES * flow.frame_bytes), voice(flow, 65), tokens(185, seed=1)
    stream = Stream(flow, said, speech, cache)
    stream.hop(10)
    assert cache.nbytes
    assert difference(stream.hop(110), Stream(flow, said, speech).hop(110)) < SAME
    assert stream.memory
    assert stream.memory.frames == 0
    del stream
    cache.keep_prompt("another", SomeChunks(1, cache.budget), stream_of(cache, 1))
    assert cache.prompts == 1, "nothing is in use any more"
    assert computed.frames


def test_the_default_is_a_share_of_the_memory_that_the_container_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(cache_module, "CONTAINER_LIMIT", limit)
    of_the_machine = default_budget()
    assert 0 < of_the_machine < 1 << 50
    limit.write_text("max\n")
    assert default_budget() == of_the_machine
    limit.write_text(f"{1 << 28}\n")
    assert default_budget() == (1 << 28) // 16


def test_the_flag_is_a_number_of_gib() -> None:
    assert read(["--flow_cache_gib", "0.5"], {})[0].flow_cache_gib == 0.5
    assert read(["--flow_cache_gib", "0"], {})[0].flow_cache_gib == 0
    for wrong in ("-1", "much", "nan", "inf"):
        with pytest.raises(ArgumentsError, match="number of GiB; use 0 to remember nothing"):
            read([f"--flow_cache_gib={wrong}"], {})


# The server


async def test_a_second_request_sounds_like_the_first(server: ServerProcess, openai: AsyncOpenAI) -> None:
    """The second finds the prompt of the voice."""
    voice = await openai.audio.voices.create(name="Remembered", audio_sample=wav(tone(3)), consent="c")
    request = BODY | {"voice": voice.name} | exactly(70)

    def remembered() -> int:
        return sum(server.numbers()["flow_cache_bytes"].values())

    before = remembered()
    heard = []
    async with server.client() as client:
        for _ in range(2):
            answer = await client.post("/v1/audio/speech", json=request)
            assert answer.status_code == 200
            heard.append(np.frombuffer(answer.content, np.int16).astype(int))
    assert len(heard[0]) == len(heard[1]) == 70 * SAMPLES_PER_TOKEN
    assert np.abs(heard[0] - heard[1]).max() <= ROUNDING
    assert remembered() != before
    await openai.audio.voices.delete(voice.name)
