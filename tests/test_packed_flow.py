"""The GPU's flow against the padded one."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests import small_networks
from tests.cards import H200
from tests.flow_streams import Stream, difference, tokens, voice
from tests.interpreter import DEVICE, INTERPRETED, runs_here
from tests.test_flow import random_tokens
from vllm_cosyvoice.flow import DiTFlow, Flow, FlowRow, euler
from vllm_cosyvoice.flow.cuda.packing import (
    EncoderRow,
    EncoderTable,
    SolverRow,
    SolverTable,
    fill_encoder,
    fill_solver,
    length,
)
from vllm_cosyvoice.gpu.device import Gpu

pytest.importorskip("triton")


@pytest.fixture(scope="module")
def padded() -> Flow:
    """In the interpreter, with few steps from noise to mel: each runs the same kernels."""
    with pytest.MonkeyPatch.context() as patch:
        if INTERPRETED:
            patch.setattr(euler, "STEPS", 2)
        return Flow.from_state(small_networks.FLOW, small_networks.flow_state(), DEVICE)


def packed_flow(
    flow: Flow, sizes: tuple[int, ...], data_type: torch.dtype = torch.float32, cache_bytes: int = 0
) -> Any:
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
    return PackedFlow(flow, H200.gpu, data_type, sizes, cache_bytes)


@pytest.fixture(scope="module")
def packed(padded: Flow) -> Any:
    return packed_flow(padded, sizes=(64, 256))


def row(
    flow: Flow | DiTFlow, prompt: int, speech: int, *, look_ahead: int = 0, chunk_mask: bool = True, seed: int = 0
) -> FlowRow:
    tokens = random_tokens(prompt, seed) + random_tokens(speech, seed + 1)
    embedding = torch.randn(192, generator=torch.Generator().manual_seed(seed)).to(DEVICE)
    return FlowRow(
        tokens, look_ahead, small_networks.mel(2 * prompt, seed).to(DEVICE), flow.speaker(embedding), chunk_mask
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
        row(padded, 12, 16, chunk_mask=False),
        row(padded, 10, 43, look_ahead=3, seed=2),
        row(padded, 0, 1, chunk_mask=False, seed=4),
        row(padded, 0, 26, seed=6),
    ]
    assert_gives_the_padded_mel(packed, padded, rows)


@runs_here
def test_more_rows_than_one_call_takes_are_split(padded: Flow, packed: Any) -> None:
    rows = [row(padded, 0, 3, seed=seed) for seed in range(6)]  # a call of 64 frames takes 4, one of 256 takes 4, too
    assert_gives_the_padded_mel(packed, padded, rows)


@runs_here
def test_nothing_remains_of_the_call_before(padded: Flow, packed: Any) -> None:
    short = row(padded, 5, 9, chunk_mask=False)
    packed([row(padded, 12, 18, seed=3)])
    assert relative_error(packed([short])[0], padded([short])[0]) < 1e-5


@runs_here
def test_half_precision_is_within_two_percent(padded: Flow) -> None:
    assert_half_precision_is_close(padded, packed_flow)


def computed(packed: Any, call: Callable[[], Any]) -> tuple[Any, int]:
    """What `call` returns, and the number of frames that the solver computes for it."""
    frames = 0
    write = packed._write_solver_table

    def count(size: int, rows: Sequence[SolverRow]) -> Any:
        nonlocal frames
        frames += sum(row.frames - row.start for row in rows)
        return write(size, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "_write_solver_table", count)
        return call(), frames


def pages_in_use(packed: Any) -> int:
    memory = packed._memory
    assert packed.cache.nbytes == packed.cache.budget - memory._page_bytes * len(memory._free)
    pages: int = packed.cache.nbytes // memory._page_bytes
    return pages


def assert_remembers(packed: Any, padded: Flow | DiTFlow) -> None:
    """Two streams of a new voice, beside others: whatever later chunks need is computed once."""
    cache, said, other = packed.cache, voice(padded, 40), voice(padded, 0, seed=7)
    streams = [Stream(packed, said, tokens(47, seed), cache) for seed in (1, 2)]
    streams.append(Stream(packed, other, tokens(47, 3), cache))
    whole = row(padded, 12, 16, chunk_mask=False)
    for hops, frames in (((10, 10, 25), 2 * 100 + 50 + 56), ((35, 47, 47), 50 + 74 + 44 + 56)):
        rows = [stream.row(hop) for stream, hop in zip(streams, hops, strict=True)]
        mels, count = computed(packed, partial(packed, [*rows, whole]))
        assert count == frames
        for mel, stream, hop in zip(mels, streams, hops, strict=False):
            assert difference(mel, Stream(padded, stream.prompt, stream.speech).hop(hop)) < 1e-4
        assert relative_error(mels[-1], padded([whole])[0]) < 1e-5
    assert (cache.prompts, pages_in_use(packed)) == (1, 1 + 2 + 1 + 1)
    del stream, streams, rows
    assert (cache.prompts, pages_in_use(packed)) == (1, 1), "the prompt stays"
    for hop, frames in ((10, 50), (20, 70)):  # the second is an utterance that is not streamed, with the chunk mask
        late = Stream(packed, said, tokens(20, 4), cache)
        mel, count = computed(packed, partial(late.hop, hop))
        assert count == frames
        assert difference(mel, Stream(padded, said, late.speech).hop(hop)) < 1e-4


def with_pages(packed_flow: Callable[..., Any], padded: Flow | DiTFlow) -> Callable[[int], Any]:
    """Makes packed flows with a memory of so many pages."""
    layout = packed_flow(padded, (64,))._network.page_layout
    return lambda pages: packed_flow(padded, (64, 320, 512), cache_bytes=pages * layout.page_bytes(torch.float32))


@pytest.fixture(scope="module")
def remembering(padded: Flow) -> Callable[[int], Any]:
    return with_pages(packed_flow, padded)


@runs_here
def test_what_is_remembered_is_not_computed_again(padded: Flow, remembering: Callable[[int], Any]) -> None:
    assert_remembers(remembering(12), padded)


@runs_here
def test_hops_for_which_there_is_no_page_are_computed_again(padded: Flow, remembering: Callable[[int], Any]) -> None:
    """In a memory for one prompt, which makes room for another when its streams have gone."""
    packed, speech = remembering(2), tokens(40, seed=1)
    for seed, hops in ((0, (10, 35)), (7, (10,))):
        said = voice(padded, 65, seed)
        stream = Stream(packed, said, speech, packed.cache)
        packed.remember_prompt(FlowRow(said.tokens, 0, said.mel, said.speaker, True, stream.memory))
        for hop, frames in zip(hops, (50, 100), strict=False):
            mel, count = computed(packed, partial(stream.hop, hop))
            assert count == frames
            assert difference(mel, Stream(padded, said, speech).hop(hop)) < 1e-4
        del stream
    assert (packed.cache.prompts, pages_in_use(packed)) == (1, 2)


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
            flow._write_inputs([row(padded, 100, 7000, seed=2), row(padded, 100, 900, chunk_mask=False)], SIZES[-1])
            flow._write_solver_table(SIZES[-1], [SolverRow(2, 14_200, True), SolverRow(14_204, 2000, False)])
            flow._encoder.rehearse(size)
            flow._solver.rehearse(size)


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


def launches_of_calls(flow: Any) -> set[Any]:
    """The kernels of calls of all sizes."""
    graphs = (flow._encoder, flow._solver)
    return {form for part in graphs for size in part.sizes for form in launches_of(partial(part.rehearse, size))}


def test_kernels_of_all_calls_are_rehearsed(padded: Flow) -> None:
    from vllm_cosyvoice.flow.cuda.flow import SIZES, PackedFlow

    flow = PackedFlow(padded, H200.gpu, sizes=SIZES[::6])
    assert launches_of(flow.rehearse) == launches_of_calls(flow)


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
    rows = [EncoderRow([7, 8, 9, 5, 6], 2, 2, True), EncoderRow([3], 1, 0, False)]
    shapes = EncoderTable.shapes(16, 4)
    table = EncoderTable.of(torch.empty(length(shapes), dtype=torch.int32).numpy(), 16, 4)
    assert fill_encoder(table, rows, silence=-5, queries=4) == [2, 8]
    assert table.token_positions.tolist() == [-1, 0, 1, -1, 0, -1, -1, -1]
    assert table.heard[1:3].tolist() == [[7, 8, 9, 5], [8, 9, 5, 6]]
    assert table.heard[4].tolist() == [3, -5, -5, -5]
    assert table.prompt[2:6].tolist() == [1, 2, 0, 0]
    assert table.frame_tiles[:3].tolist() == [[2, 0, 2, 4, 50], [8, 0, 8, 2, 2], [0, 0, 0, 0, 0]]


def solver_table(size: int, rows: list[SolverRow], tail: int) -> tuple[list[int], SolverTable]:
    shapes = SolverTable.shapes(size, 64, chunks=4)
    table = SolverTable.of(torch.empty(length(shapes), dtype=torch.int32).numpy(), size, 64, 4)
    return fill_solver(table, rows, 64, tail), table


def test_rows_that_are_not_remembered_are_packed_alike_for_both() -> None:
    starts, table = solver_table(128, [SolverRow(2, 4, True), SolverRow(8, 2, False)], tail=30)
    assert starts == [2, 8]
    assert table.positions[:12].tolist() == [-1, -1, 0, 1, 2, 3, -1, -1, 0, 1, -1, -1]
    assert table.sources[2:6].tolist() == [2, 3, 4, 5]
    assert table.tiles[:3].tolist() == [[2, 0, 2, 4, 50, 0, 0], [8, 0, 8, 2, 2, 0, 0], [0] * 7]
    assert {*table.pages.tolist(), *table.tails.tolist()} == {-1}


def test_in_front_of_a_row_are_the_last_frames_that_are_remembered() -> None:
    rows = [SolverRow(2, 150, True, past=[5], kept=[7, -1]), SolverRow(154, 160, True, past=[5, 9], kept=[8])]
    starts, table = solver_table(256, rows, tail=3)
    assert starts == [3, 106]
    assert table.positions[:5].tolist() == [-1, -1, -1, 50, 51]
    assert table.sources[3:5].tolist() == [52, 53]
    assert table.noise[:5].tolist() == [47, 48, 49, 50, 51]
    assert table.tails[:3].tolist() == [15, 16, 17]
    assert table.tails[103:106].tolist() == [27, 28, 29]
    assert table.pages[3:103].tolist() == [7] * 50 + [-1] * 50
    assert table.tails[3:103].tolist() == [-1] * 47 + [21, 22, 23] + [-1] * 50
    assert table.pages[106:166].tolist() == [8] * 50 + [-1] * 10
    assert table.past.tolist() == [5, 5, 9, 0]
    assert table.tiles[:4].tolist() == [
        [3, 0, 3, 100, 50, 0, 50],
        [67, 64, 3, 100, 50, 0, 50],
        [106, 0, 106, 60, 50, 1, 100],
        [0] * 7,
    ]
