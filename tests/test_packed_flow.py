"""The GPU's flow against the padded one."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests import small_networks
from tests.cards import H200
from tests.interpreter import DEVICE, INTERPRETED, run_again, runs_elsewhere, runs_here
from tests.test_flow import random_tokens
from vllm_cosyvoice.flow import DiTFlow, Flow, FlowRow, euler
from vllm_cosyvoice.flow.cuda.packing import PackedRow, Table, fill, packed_tokens
from vllm_cosyvoice.gpu.device import Gpu

pytest.importorskip("triton")


@runs_elsewhere
def test_in_the_interpreter() -> None:
    run_again(__file__)


@pytest.fixture(scope="module")
def padded() -> Flow:
    """In the interpreter, with few steps from noise to mel: each runs the same kernels."""
    with pytest.MonkeyPatch.context() as patch:
        if INTERPRETED:
            patch.setattr(euler, "STEPS", 3)
        return Flow.from_state(small_networks.FLOW, small_networks.flow_state(), DEVICE)


def packed_flow(flow: Flow, sizes: tuple[int, ...], data_type: torch.dtype = torch.float32) -> Any:
    """A packed flow, cut in large tiles for the interpreter, which takes its time by the program."""
    from vllm_cosyvoice.flow.cuda import unet
    from vllm_cosyvoice.flow.cuda.flow import PackedFlow
    from vllm_cosyvoice.flow.cuda.kernels import Shape
    from vllm_cosyvoice.flow.cuda.launch_shapes import LaunchShapes

    if INTERPRETED:

        def large(frames: int, gpu: Gpu) -> LaunchShapes:
            linear, attention = Shape(min(512, 2 * frames), 128, 128, 4, 1), Shape(64, 64, 0, 4, 1)
            return LaunchShapes(linear, linear, linear, linear, linear, attention, attention, linear, linear)

        unet.launch_shapes = large  # type: ignore[attr-defined, assignment]
    return PackedFlow(flow, H200.gpu, data_type, sizes)


@pytest.fixture(scope="module")
def packed(padded: Flow) -> Any:
    return packed_flow(padded, sizes=(64, 256))


def row(
    flow: Flow | DiTFlow, prompt: int, speech: int, *, look_ahead: int = 0, streaming: bool = True, seed: int = 0
) -> FlowRow:
    tokens = random_tokens(prompt, seed) + random_tokens(speech, seed + 1)
    embedding = torch.randn(192, generator=torch.Generator().manual_seed(seed)).to(DEVICE)
    return FlowRow(
        tokens, look_ahead, small_networks.mel(2 * prompt, seed).to(DEVICE), flow.speaker(embedding), streaming
    )


def relative_error(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape
    return float((actual - expected).norm() / expected.norm())


def assert_gives_the_padded_mel(packed: Any, padded: Flow | DiTFlow, rows: list[FlowRow]) -> None:
    for mel, expected in zip(packed(rows), padded(rows), strict=True):
        assert relative_error(mel, expected) < 1e-5


def assert_half_precision_is_close(padded: Flow | DiTFlow, packed_flow: Callable[..., Any]) -> None:
    data_type = torch.bfloat16 if DEVICE == "cuda" else torch.float16  # the interpreter has no bfloat16
    one = row(padded, 5, 20)
    mel = packed_flow(padded, (64,), data_type)([one])[0]
    assert 1e-4 < relative_error(mel, padded([one])[0]) < 2e-2


@runs_here
def test_rows_of_all_kinds_give_what_each_gives_padded(padded: Flow, packed: Any) -> None:
    rows = [
        row(padded, 12, 16, streaming=False),
        row(padded, 10, 43, look_ahead=3, seed=2),
        row(padded, 0, 1, streaming=False, seed=4),
        row(padded, 0, 26, seed=6),
    ]
    assert_gives_the_padded_mel(packed, padded, rows)


@runs_here
def test_more_rows_than_one_call_takes_are_split(padded: Flow, packed: Any) -> None:
    rows = [row(padded, 0, 3, seed=seed) for seed in range(6)]  # a call of 64 frames takes 4, one of 256 takes 4, too
    assert_gives_the_padded_mel(packed, padded, rows)


@runs_here
def test_nothing_remains_of_the_call_before(padded: Flow, packed: Any) -> None:
    short = row(padded, 5, 9, streaming=False)
    packed([row(padded, 12, 18, seed=3)])
    assert relative_error(packed([short])[0], padded([short])[0]) < 1e-5


@runs_here
def test_half_precision_is_within_two_percent(padded: Flow) -> None:
    assert_half_precision_is_close(padded, packed_flow)


@runs_here
def test_attention_fetches_what_is_used_until_the_next(packed: Any) -> None:
    estimator = packed._network.estimator
    stages = [estimator.down, *estimator.mid, estimator.up]
    attending = [transformer for _, transformers in stages for transformer in transformers]
    for transformer, following in pairwise(attending):
        own = [layer.weight.flatten() for layer in (transformer.out, transformer.feed_in, transformer.feed_out)]
        ahead = transformer.ahead.split([*map(len, own), len(transformer.ahead) - sum(map(len, own))])
        assert all(torch.equal(*pair) for pair in zip(ahead, own, strict=False))
        assert torch.equal(ahead[-1][-following.qkv.weight.numel() :], following.qkv.weight.flatten())


@runs_here
def test_a_row_that_is_too_long_is_refused(padded: Flow, packed: Any) -> None:
    with pytest.raises(ValueError, match="split the call"):
        packed([row(padded, 0, 200)])


def test_a_rehearsal_reads_nothing_of_the_call_before(padded: Flow) -> None:
    """PyTorch refuses an index that is out of range; kernels, which would not, do not run here."""
    from vllm_cosyvoice.flow.cuda.flow import SIZES, PackedFlow
    from vllm_cosyvoice.gpu.kernel_launch import diverted

    flow = PackedFlow(padded, H200.gpu, torch.float32)
    with torch.inference_mode(), diverted(lambda *_, **__: None):
        for size in SIZES:
            flow._upload([row(padded, 100, 7000, seed=2), row(padded, 100, 900, streaming=False)], SIZES[-1])
            flow._graphs.rehearse(size)


def launches_of(compute: Callable[[], object]) -> set[Any]:
    """The kernels that `compute` launches, each with its constants; none runs."""
    from vllm_cosyvoice.gpu.kernel_launch import diverted

    forms: set[Any] = set()

    def take(kernel: Any, grid: Any, *arguments: Any, **options: Any) -> None:
        constants = (argument for argument in arguments if isinstance(argument, int | str))
        forms.add((kernel, *constants, *options.items()))

    with diverted(take):
        compute()
    return forms


def test_kernels_of_all_calls_are_rehearsed(padded: Flow) -> None:
    from vllm_cosyvoice.flow.cuda.flow import SIZES, PackedFlow

    flow = PackedFlow(padded, H200.gpu, sizes=SIZES[::6])
    computed = [launches_of(partial(flow._graphs.rehearse, size)) for size in SIZES[::6]]
    assert launches_of(flow.rehearse) == set().union(*computed)


@runs_here
@pytest.mark.skipif(DEVICE == "cpu", reason="there are no CUDA graphs without a GPU")
def test_captured_is_what_is_computed(padded: Flow) -> None:
    """In whatever order sizes are captured and used; and compiling beforehand changes nothing."""
    from vllm_cosyvoice.gpu.kernel_launch import compiling

    rows = [row(padded, 10, 43, look_ahead=3), row(padded, 0, 26, seed=6)]
    flow = packed_flow(padded, (64, 128, 256, 512), torch.bfloat16)
    with compiling():
        flow.rehearse()
    computed = flow(rows)
    flow.capture()
    more = True
    while more:
        for first, second in zip(computed, flow(rows), strict=True):
            assert torch.equal(first, second)
        more = flow.capture_next()


@runs_here
def test_a_convolution_never_looks_across_rows() -> None:
    from vllm_cosyvoice.flow.cuda.kernels import Layer, Shape, linear

    generator = torch.Generator().manual_seed(0)
    positions = torch.tensor([-1, -1, 0, 1, 2, -1, -1, 0, 1], dtype=torch.int32)
    x = torch.randn(9, 32, generator=generator) * (positions >= 0)[:, None]
    weight, bias = torch.randn(16, 96, generator=generator), torch.randn(16, generator=generator)
    out, _ = linear(
        x.to(DEVICE), positions.to(DEVICE), Layer(weight.to(DEVICE), bias.to(DEVICE)), Shape(16, 16, 32, 4, 1)
    )
    for row in (slice(2, 5), slice(7, 9)):
        kernel = weight.view(16, 3, 32).transpose(1, 2)
        expected = F.conv1d(F.pad(x[row].T, (2, 0)), kernel, bias).T
        assert torch.allclose(out[row].cpu(), expected, atol=1e-4)
    assert not out[positions < 0].any()


def test_packing_leaves_a_token_in_front_of_each_row() -> None:
    rows = [PackedRow([7, 8, 9, 5, 6], 2, 2, True), PackedRow([3], 1, 0, False)]
    table = Table.of(torch.empty(Table.length(16, 4), dtype=torch.int32).numpy(), 16, 4)
    assert fill(table, rows, silence=-5, queries=4) == [2, 8]
    assert packed_tokens([2, 1]) == 5
    assert table.token_positions.tolist() == [-1, 0, 1, -1, 0, -1, -1, -1]
    assert table.heard[1:3].tolist() == [[7, 8, 9, 5], [8, 9, 5, 6]]
    assert table.heard[4].tolist() == [3, -5, -5, -5]
    assert table.prompt[2:6].tolist() == [1, 2, 0, 0]
    assert table.frame_tiles[:3].tolist() == [[2, 0, 2, 4, 50], [8, 0, 8, 2, 2], [0, 0, 0, 0, 0]]
