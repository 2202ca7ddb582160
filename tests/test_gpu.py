"""What the GPU decides: whether it is taken, and how kernels are laid out on it."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from server.processes.channel import Channel
from server.processes.process import Settings
from tests.cards import A10, A100, CARDS, H200, RTX_5090
from vllm_cosyvoice.checkpoint.layout import flow_layout
from vllm_cosyvoice.config import FlowConfig
from vllm_cosyvoice.flow import Flow
from vllm_cosyvoice.gpu.device import GIB, Gpu, GpuMemoryError, UnsupportedGpuError

pytest.importorskip("triton")


def properties(gpu: Gpu) -> SimpleNamespace:
    """As `torch.cuda.get_device_properties` has them."""
    major, minor = gpu.capability
    return SimpleNamespace(
        name=gpu.name,
        major=major,
        minor=minor,
        multi_processor_count=gpu.multiprocessors,
        L2_cache_size=gpu.l2_cache,
    )


@pytest.mark.parametrize("card", CARDS)
def test_a_gpu_is_what_its_driver_says(card: tuple[Gpu, int], monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, _ = card
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties(gpu))
    assert Gpu.of("cuda") == gpu


@pytest.mark.parametrize(("name", "capability"), [("Tesla T4", (7, 5)), ("Tesla V100-SXM2-16GB", (7, 0))])
def test_a_gpu_that_is_too_old_is_refused(
    name: str, capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = properties(Gpu(name, capability, 40, 4 << 20))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: old)
    with pytest.raises(UnsupportedGpuError) as refused:
        Gpu.of("cuda:0")
    message = str(refused.value)
    assert message.startswith(f"{name} has compute capability {capability[0]}.{capability[1]}, ")
    for advice in ("8.0 or newer (NVIDIA Ampere or later)", "CUDA_VISIBLE_DEVICES= python -m server"):
        assert advice in message


def test_the_flow_has_small_tiles_for_as_many_frames_as_fill_the_gpu_with_them() -> None:
    from vllm_cosyvoice.flow.cuda.flow import SIZES
    from vllm_cosyvoice.flow.cuda.launch_shapes import LARGE, SMALL, launch_shapes

    def largest_small(gpu: Gpu) -> int:
        return max(size for size in SIZES if launch_shapes(size, gpu).qkv[:5] == SMALL.qkv[:5])

    assert largest_small(H200.gpu) == 2048  # where they were tuned
    assert largest_small(A100.gpu) == 1664
    assert largest_small(A10.gpu) == 1152
    assert launch_shapes(SIZES[-1], H200.gpu).out[:5] == LARGE.out[:5]


def test_rows_are_put_together_as_long_as_the_l2_cache_holds_them() -> None:
    from vllm_cosyvoice.flow.cuda.flow import SIZES, best_size
    from vllm_cosyvoice.flow.cuda.unet import best_frames

    h100 = replace(H200.gpu, l2_cache=50 << 20)
    assert [best_size(SIZES, best_frames(gpu)) for gpu in (H200.gpu, h100, RTX_5090.gpu)] == [7168] * 3
    assert best_size(SIZES, best_frames(A100.gpu)) == 5632
    assert best_size(SIZES, best_frames(A10.gpu)) == 768
    assert best_size((2048, 4096), best_frames(A10.gpu)) == 2048


@pytest.mark.parametrize(
    ("total", "free", "page", "pages"),
    [
        (140, 139, 115_000_000, 512),  # an H200: enough for more than 128 streams
        (80, 79, 115_000_000, 326),  # an H100
        (80, 75, 115_000_000, 326),  # where the language model is there already
        (80, 20, 115_000_000, 93),  # which another program uses
        (24, 23, 115_000_000, 65),  # an RTX 4090
        (12, 11, 115_000_000, 9),
        (9, 9, 115_000_000, 0),  # nothing is left
        (140, 139, 3_000_000, 512),  # the demo model needs little
    ],
)
def test_the_flow_remembers_in_half_of_the_memory_that_nothing_else_needs(
    total: int, free: int, page: int, pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm_cosyvoice.flow.cuda.memory import gpu_budget

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free * GIB, total * GIB))
    assert gpu_budget(torch.device("cuda"), page, others=10 * GIB) == pages * page


def test_a_packed_flow_has_that_memory_unless_it_is_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm_cosyvoice.flow.cuda.flow import PackedFlow

    layout = flow_layout(FlowConfig())
    state = {name: torch.empty(tuple(shape), device="meta") for name, shape in layout.items()}
    flow = Flow.from_state(FlowConfig(), state, "meta")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (79 * GIB, 80 * GIB))
    usual, none, least = (
        PackedFlow(flow, H200.gpu, sizes=(64,), cache_bytes=cache_bytes, others=10 * GIB).cache
        for cache_bytes in (None, 0, 1)
    )
    assert usual is not None
    assert 34.8 * GIB < usual.budget <= 35 * GIB
    assert none is None
    assert least is not None
    assert least.budget == pytest.approx(115e6, rel=0.01)  # one page


@pytest.mark.parametrize(
    ("error", "decoders", "reason"),
    [
        (GpuMemoryError("the flow's cache needs more"), 1, r"the flow's cache needs more\.$"),
        (torch.OutOfMemoryError("CUDA"), 1, r"the GPU's memory is full: free it, or choose a smaller --flow_cache_gib"),
        (torch.OutOfMemoryError("CUDA"), 2, r"the GPU's memory is full: free it, or choose --decode_process_num 1, a"),
    ],
)
async def test_a_decoder_that_does_not_fit_ends_the_process_with_the_reason(
    error: Exception, decoders: int, reason: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from server.arguments import read
    from server.processes import decode

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(decode, "SpeechDecoder", refuse)
    monkeypatch.setattr(decode, "step", lambda *_: nullcontext())
    model = SimpleNamespace(path=tiny_model)
    settings = SimpleNamespace(name="decode-0", arguments=read([], {})[0], model=model, decoders=decoders)
    with pytest.raises(SystemExit, match=f"^decode-0: {reason}"):
        await decode.run(cast(Settings, settings), cast(Channel, None))


def test_a_larger_kv_cache_leaves_less_to_the_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    from server.arguments import read
    from vllm_cosyvoice.checkpoint import ModelDirectory
    from vllm_cosyvoice.config import ModelConfig
    from vllm_cosyvoice.decode.decoder import needed_gib

    def needed(*flags: str) -> float:
        arguments, _ = read(list(flags), {})
        model = ModelDirectory(Path(), ModelConfig())
        return needed_gib(model, arguments.max_total_token_num, arguments.gpu_memory_utilization)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (70 * GIB, 80 * GIB))
    assert needed() == pytest.approx(9.75)
    assert needed("--max_total_token_num", "262144") == pytest.approx(12.0)
    assert needed("--gpu_memory_utilization", "0.5") == pytest.approx(40.0)  # vLLM checks that this is free


@pytest.mark.parametrize(("total", "decoders"), [(24, 2), (32, 2), (32, 3), (48, 2), (80, 3), (140, 2), (140, 3)])
def test_decoders_of_a_gpu_divide_its_memory_in_whatever_order_they_start(
    total: int, decoders: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm_cosyvoice.flow.cuda.memory import DECODER_BYTES, MOST_PAGES, gpu_budget

    page, language_model, others = GIB // 10, 4 * GIB, 10 * GIB

    def budget(loaded: int) -> int:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (total * GIB - loaded, total * GIB))
        return gpu_budget(torch.device("cuda"), page, others=others, decoders=decoders)

    first = budget(0)
    assert 0 < first * decoders <= MOST_PAGES * page
    assert budget(language_model + (decoders - 1) * (DECODER_BYTES + first)) == first, "the last, or a restarted one"
    assert gpu_budget(torch.device("cuda"), page, wanted=12 * GIB, decoders=decoders) == 12 * GIB // decoders


def test_a_cache_that_does_not_fit_into_the_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm_cosyvoice.flow.cuda.memory import FlowMemory, PageLayout

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch, "zeros", full)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (6 * GIB, 24 * GIB))
    layout = PageLayout(10, 56, 512, 30, 512, 2)
    with pytest.raises(
        GpuMemoryError,
        match=r"needs [89]\.\d GiB of GPU memory, but 6\.0 GiB are free: choose a smaller flow_cache_gib",
    ):
        FlowMemory(layout, 9 * GIB, torch.bfloat16, torch.device("cuda"))


def test_kernels_are_launched_early_from_hopper_on() -> None:
    from vllm_cosyvoice.flow.cuda.launch_shapes import dit_launch_shapes, launch_shapes

    early = {
        card.gpu.name: {shape.early for shapes in (launch_shapes, dit_launch_shapes) for shape in shapes(512, card.gpu)}
        for card in CARDS
    }
    assert [name for name, found in early.items() if found == {True}] == [H200.gpu.name, RTX_5090.gpu.name]
    assert [found for found in early.values() if found != {True}] == [{False}] * 3


def test_cublas_computes_large_products_of_the_transformer_on_hopper() -> None:
    from vllm_cosyvoice.flow.cuda.flow import SIZES
    from vllm_cosyvoice.flow.cuda.launch_shapes import dit_launch_shapes

    by_cublas = {card.gpu.name for card in CARDS if dit_launch_shapes(SIZES[-1], card.gpu).qkv.depth == 0}
    assert by_cublas == {H200.gpu.name}
    assert max(size for size in SIZES if dit_launch_shapes(size, H200.gpu).qkv.depth) == 2048


def test_the_vocoder_has_large_tiles_where_there_are_two_for_each_multiprocessor() -> None:
    from vllm_cosyvoice.vocoder.cuda.convolution import tile_for

    positions = 128 * 2 * 100
    assert tile_for(128, 128, positions, H200.gpu).m == 64
    assert tile_for(128, 128, positions, A10.gpu).m == 256
    assert tile_for(128, 128, 128 * 2 * 132, H200.gpu).m == 256
