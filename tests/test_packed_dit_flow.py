"""CosyVoice3's flow on a GPU against the padded one; `test_packed_flow` has what it shares with CosyVoice2's."""

import gc
import weakref
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tests import small_networks
from tests.cards import H200
from tests.interpreter import DEVICE, INTERPRETED, runs_here
from tests.test_packed_flow import (
    assert_gives_the_padded_mel,
    assert_half_precision_is_close,
    assert_remembers,
    launches_of,
    launches_of_calls,
    row,
    with_pages,
)
from vllm_cosyvoice.flow import DiTFlow, euler
from vllm_cosyvoice.gpu.device import Gpu

pytest.importorskip("triton")

CONFIG = small_networks.PACKED_DIT_FLOW


@pytest.fixture(scope="module")
def padded() -> DiTFlow:
    """In the interpreter, with few steps from noise to mel: each runs the same kernels."""
    with pytest.MonkeyPatch.context() as patch:
        if INTERPRETED:
            patch.setattr(euler, "STEPS", 2)
        return DiTFlow.from_state(CONFIG, small_networks.flow_state(CONFIG), DEVICE)


@pytest.fixture(autouse=True)
def exact_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The padded flow's, on a GPU."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def packed_flow(
    flow: DiTFlow, sizes: tuple[int, ...], data_type: torch.dtype = torch.float32, cache_bytes: int = 0
) -> Any:
    """A packed flow, cut in large tiles for the interpreter, which takes its time by the program."""
    from triton import next_power_of_2

    from vllm_cosyvoice.flow.cuda import dit
    from vllm_cosyvoice.flow.cuda.flow import PackedFlow
    from vllm_cosyvoice.flow.cuda.kernels import Shape
    from vllm_cosyvoice.flow.cuda.launch_shapes import DiTLaunchShapes

    if INTERPRETED:

        def large(frames: int, gpu: Gpu) -> DiTLaunchShapes:
            linear, attention = Shape(min(512, 2 * frames), 128, 128, 4, 1), Shape(64, 64, 0, 4, 1)
            position = Shape(next_power_of_2(2 * frames), 0, 0, 4, 1)  # it takes longest, in one tile
            return DiTLaunchShapes(linear, linear, linear, linear, attention, linear, position, linear)

        dit.dit_launch_shapes = large  # type: ignore[attr-defined, assignment]
    return PackedFlow(flow, H200.gpu, data_type, sizes, cache_bytes)


@pytest.fixture(scope="module")
def packed(padded: DiTFlow) -> Any:
    return packed_flow(padded, sizes=(64, 256))


@runs_here
def test_rows_of_all_kinds_give_what_each_gives_padded(padded: DiTFlow, packed: Any) -> None:
    rows = [
        row(padded, 12, 16, chunk_mask=False),
        row(padded, 10, 43, look_ahead=3, seed=2),
        row(padded, 0, 1, chunk_mask=False, seed=4),
        row(padded, 0, 27, seed=6),
    ]
    assert_gives_the_padded_mel(packed, padded, rows)


@runs_here
def test_half_precision_is_within_two_percent(padded: DiTFlow) -> None:
    assert_half_precision_is_close(padded, packed_flow)


@runs_here
def test_a_position_convolution_never_looks_across_rows() -> None:
    from vllm_cosyvoice.flow.cuda.kernels import Layer, Shape, position_conv

    generator = torch.Generator().manual_seed(0)
    lengths, groups, taps = (40, 9), 2, 31
    positions = torch.tensor([-1, *range(lengths[0]), -1, *range(lengths[1])], dtype=torch.int32)
    x = torch.randn(2, len(positions), 32, generator=generator)  # also between rows
    kernel, bias = torch.randn(32, 16, taps, generator=generator) / 20, torch.randn(32, generator=generator)
    layer = Layer(kernel.transpose(1, 2).flatten(1).contiguous().to(DEVICE), bias.to(DEVICE))
    out = position_conv(x.flatten(0, 1).to(DEVICE), positions.to(DEVICE), layer, groups, Shape(16, 0, 0, 4, 1))
    halves = out.x.cpu().view_as(x)
    for frames in (slice(1, 1 + lengths[0]), slice(2 + lengths[0], len(positions))):
        inputs = F.pad(x[:, frames].transpose(1, 2), (taps - 1, 0))
        expected = F.mish(F.conv1d(inputs, kernel, bias, groups=groups)).transpose(1, 2)
        assert torch.allclose(halves[:, frames], expected, atol=1e-5)


@runs_here
def test_cublas_may_compute_the_product() -> None:
    from vllm_cosyvoice.flow.cuda.kernels import Layer, Modulation, Shape, gated, linear, sums_of
    from vllm_cosyvoice.flow.torch.dit import rotations

    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(DEVICE)

    positions = torch.tensor([-1, *range(40), -1, *range(5)], dtype=torch.int32, device=DEVICE)
    x, residual = random(2 * len(positions), 64), random(2 * len(positions), 96)
    layer, modulation = Layer(random(96, 64), random(96), random(96)), Modulation(random(96), random(96))
    rotation = rotations(40, 16, torch.device(DEVICE))
    results = []
    for depth in (32, 0):
        shape = Shape(32, 32, depth, 4, 1)
        queries, _ = linear(x, positions, layer, shape, sums=sums_of(x), rotation=rotation)
        hidden, _ = linear(x, positions, layer, shape, activation="gelu_tanh")
        results.append((queries, hidden, *gated(x, positions, layer, shape, residual, modulation)))
    for fused, separate in zip(*results, strict=True):
        assert torch.allclose(fused, separate, rtol=1e-4, atol=1e-4)


@runs_here
def test_what_is_remembered_is_not_computed_again(padded: DiTFlow) -> None:
    assert_remembers(with_pages(packed_flow, padded)(12), padded)


@runs_here
def test_attention_fetches_what_is_used_until_the_next(packed: Any) -> None:
    for block, following in pairwise(packed._network.blocks):
        own, used = block.weights[1:], sum(weight.numel() for weight in block.weights[1:])
        assert torch.equal(block.ahead[:used], torch.cat([weight.flatten() for weight in own]))
        assert torch.equal(block.ahead[used:], following.weights[0].flatten())


def test_kernels_of_all_calls_are_rehearsed(padded: DiTFlow) -> None:
    from vllm_cosyvoice.flow.cuda.flow import PackedFlow

    sizes = (128, 640, 2560)  # with small tiles, with large ones, and with cuBLAS's products
    flow = PackedFlow(padded, H200.gpu, sizes=sizes)
    assert launches_of(flow.rehearse) == launches_of_calls(flow)


def test_float32_weights_are_not_kept() -> None:
    """They would take 0.7 GB at the released size."""
    from vllm_cosyvoice.flow.cuda.flow import PackedFlow

    flow = DiTFlow.from_state(CONFIG, small_networks.flow_state(CONFIG))
    estimator = weakref.ref(flow.estimator)
    packed = PackedFlow(flow, H200.gpu, sizes=(64,))
    del flow
    gc.collect()
    assert estimator() is None
    assert packed.speaker(torch.ones(192)).shape == (80,)
