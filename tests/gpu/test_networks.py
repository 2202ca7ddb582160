"""The released sizes on a GPU: what the fused kernels compute is what the plain networks do."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests import small_networks
from tests.flow_streams import Stream, tokens, voice
from tests.seeded_weights import seeded_state
from tests.test_flow import random_tokens
from vllm_cosyvoice.checkpoint.layout import flow_layout
from vllm_cosyvoice.config import CausalVocoderConfig, DiTFlowConfig, FlowConfig
from vllm_cosyvoice.flow import DiTFlow, Flow, FlowRow
from vllm_cosyvoice.gpu.device import Gpu
from vllm_cosyvoice.vocoder import CausalVocoder, VocoderStream, speak

DEVICE = "cuda"


@pytest.fixture(autouse=True)
def exact_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain networks'."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(scope="module", params=[FlowConfig(), DiTFlowConfig()], ids=["cosyvoice2", "cosyvoice3"])
def plain(request: pytest.FixtureRequest) -> Flow | DiTFlow:
    config: FlowConfig | DiTFlowConfig = request.param
    flow_class = DiTFlow if isinstance(config, DiTFlowConfig) else Flow
    return flow_class.from_state(config, seeded_state(flow_layout(config)), DEVICE)


def row(flow: Flow | DiTFlow, prompt: int, speech: int, *, chunk_mask: bool) -> FlowRow:
    tokens = random_tokens(prompt, 0) + random_tokens(speech, speech)
    embedding = torch.randn(192, generator=torch.Generator().manual_seed(speech)).to(DEVICE)
    return FlowRow(tokens, 0, small_networks.mel(2 * prompt).to(DEVICE), flow.speaker(embedding), chunk_mask)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


@pytest.mark.parametrize("data_type", [torch.bfloat16, torch.float16])
def test_the_packed_flow_is_the_plain_one(
    plain: Flow | DiTFlow, data_type: torch.dtype, figure: Callable[[str], None]
) -> None:
    from vllm_cosyvoice.flow.cuda.flow import PackedFlow

    rows = [
        row(plain, 125, 100, chunk_mask=False),
        row(plain, 50, 75, chunk_mask=True),
        row(plain, 0, 30, chunk_mask=True),
        row(plain, 125, 500, chunk_mask=False),  # alone and together in the largest size, whose layout is another
    ]
    packed = PackedFlow(plain, Gpu.of(DEVICE), data_type, sizes=(512, 1024, 3072))
    packed.capture()
    alone = [relative_error(packed([one])[0], plain([one])[0]) for one in rows]
    together = [relative_error(*pair) for pair in zip(packed(rows), plain(rows), strict=True)]
    name = type(plain).__name__
    figure(f"packed {name} against plain, {data_type}: {max(alone):.2%} alone, {max(together):.2%} together")
    assert max(*alone, *together) < 2e-2


def test_the_packed_flow_remembers(plain: Flow | DiTFlow, figure: Callable[[str], None]) -> None:
    """In CUDA graphs, for streams of two voices in one call after the other."""
    from vllm_cosyvoice.flow.cuda.flow import PackedFlow

    packed = PackedFlow(plain, Gpu.of(DEVICE), sizes=(512, 1024, 3072), cache_bytes=4 << 30)
    packed.capture()
    first, second = voice(plain, 90), voice(plain, 65, seed=7)
    packed.remember_prompt(
        FlowRow(first.tokens, 0, first.mel, first.speaker, True, Stream(packed, first, [], packed.cache).memory)
    )
    streams = [
        Stream(packed, said, tokens(111, seed), packed.cache) for seed, said in enumerate((first, first, second))
    ]
    pieces: list[list[Tensor]] = [[] for _ in streams]
    for hop in (10, 60, 111):
        for mel, of_stream in zip(packed([stream.row(hop) for stream in streams]), pieces, strict=True):
            of_stream.append(mel)
    assert [stream.memory and stream.memory.frames for stream in streams] == [300, 300, 250]
    wholes = [Stream(plain, stream.prompt, stream.speech).hop(111) for stream in streams]
    errors = [relative_error(torch.cat(of_stream), whole) for of_stream, whole in zip(pieces, wholes, strict=True)]
    figure(f"packed {type(plain).__name__} that remembers, against plain: {max(errors):.2%}")
    assert max(errors) < 2e-2


def test_the_packed_causal_vocoder_is_the_plain_one(figure: Callable[[str], None]) -> None:
    from vllm_cosyvoice.vocoder.cuda.vocoder import PackedVocoder

    config = CausalVocoderConfig()
    plain = CausalVocoder.from_state(config, small_networks.vocoder_state(config), DEVICE)
    packed = PackedVocoder(plain, Gpu.of(DEVICE), sizes=(64, 192, 512))
    packed.capture()
    rows = [replace(one, mel=one.mel.to(DEVICE), phase=one.phase.to(DEVICE)) for one in small_networks.ragged_rows()]
    (expected, exact_phases), (audio, phases) = plain(rows), packed(rows)
    errors = [relative_error(*pair) for pair in zip(audio, expected, strict=True)]

    mel = small_networks.mel(400).to(DEVICE)
    joined = []
    for hops in ([400], [50, 50, 100, 200]):
        stream = VocoderStream(packed)
        pieces: list[Tensor] = []
        for index, piece in enumerate(torch.split(mel, hops)):
            stream.push(piece)
            pieces += speak(packed, [stream], [stream.window(last=index == len(hops) - 1)])
        joined.append(torch.cat(pieces))
    whole, streamed = joined
    joint_error = relative_error(streamed, whole)
    figure(f"packed causal vocoder against plain: {max(errors):.2%}; its streams against the whole: {joint_error:.3%}")
    assert max(errors) < 2e-2
    assert (phases - exact_phases).abs().max() < 1e-9
    assert joint_error < 1e-2
