"""Every kernel that the released models launch, compiled for GPUs of all generations on a machine that has none."""

import logging
import re
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.cards import A10, A100, H200, L4, RTX_5090, Card
from tests.interpreter import INTERPRETED
from vllm_cosyvoice.checkpoint.layout import Layout, flow_layout, vocoder_layout
from vllm_cosyvoice.config import CausalVocoderConfig, DiTFlowConfig, FlowConfig, VocoderConfig
from vllm_cosyvoice.flow import DiTFlow, Flow
from vllm_cosyvoice.gpu.device import Gpu
from vllm_cosyvoice.llm import token_draw
from vllm_cosyvoice.vocabulary import HEAD_SIZE
from vllm_cosyvoice.vocoder import CausalVocoder, Vocoder

triton = pytest.importorskip("triton")
from vllm_cosyvoice.gpu.kernel_launch import compiling, launch  # noqa: E402 - needs Triton

pytestmark = pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")

# With whether they are true or false, these constants decide how much shared memory a kernel takes.
TILE = ("ROWS", "COLUMNS", "PAIRS", "DEPTH", "QUERIES", "KEYS", "PAGE", "BLOCK_M", "BLOCK_N", "BLOCK_K", "ROTATED")


class Driver:
    """Triton's driver of a GPU that is not there, so that kernels are compiled for it."""

    def __init__(self, gpu: Gpu) -> None:
        major, minor = gpu.capability
        self._architecture = 10 * major + minor

    def get_current_device(self) -> int:
        """Another one for each architecture: what is compiled is kept by device."""
        return self._architecture

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        return triton.backends.compiler.GPUTarget("cuda", self._architecture, 32)


class SharedMemoryIsLaidOutError(Exception):
    """Raised where Triton's passes have laid out shared memory."""

    def __init__(self, passes: Any) -> None:
        self.passes = passes


class Instrumentation:
    """Asked by Triton for more passes."""

    def load_dialects(self, context: Any) -> None:
        """There are no more."""

    def patch(self, place: str, passes: Any, context: Any) -> None:
        if place == "ttgpuir_to_llvmir":
            raise SharedMemoryIsLaidOutError(passes)


Names = tuple[str, str]  # of a hook, in the two places where Triton asks for it


def up_to_llvm(backend: Any = None, stages: Any = None, *_: Any) -> Names | None:
    """Triton's hook: leave out the assembler, which is slow and takes no more shared memory."""
    if stages is None:
        return "llvm", "llvm"  # in place of what was compiled completely
    stages["ptx"] = lambda source, metadata: metadata.setdefault("name", "")
    stages["cubin"] = lambda source, metadata: b""
    return None


def up_to_shared_memory(backend: Any = None, stages: Any = None, *_: Any) -> Names | None:
    """Triton's hook: also leave out the translation to LLVM, which takes longer than all before."""
    if stages is None:
        return "shared memory", "shared memory"
    translate = stages["llir"]

    def lay_out(module: Any, metadata: dict[str, Any]) -> str:
        with pytest.raises(SharedMemoryIsLaidOutError) as stopped, pytest.MonkeyPatch.context() as patch:
            patch.setattr(triton.backends.backends["nvidia"].compiler, "instrumentation", Instrumentation())
            translate(module, metadata)
        stopped.value.passes.run(module, "shared memory")
        metadata["shared"] = module.get_int_attr("ttg.shared")
        return ""

    stages["llir"] = lay_out
    return up_to_llvm(backend, stages)


@pytest.fixture(autouse=True)
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's, which has nothing compiled yet and does not optimise."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("DISABLE_LLVM_OPT", "1")
    monkeypatch.setattr(triton.knobs.runtime, "add_stages_inspection_hook", up_to_llvm)


class Launch:
    """What a kernel was launched with."""

    def __init__(self, kernel: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        self.kernel, self.arguments, self.options = kernel, arguments, options

    @property
    def form(self) -> Hashable:
        """What decides about its shared memory."""
        named = dict(zip(self.kernel.arg_names, self.arguments, strict=False)) | self.options
        constants = {
            name: value
            for name, value in named.items()
            if name in TILE or isinstance(value, bool) or name not in self.kernel.arg_names
        }
        return self.kernel, *constants.items()

    def repeat(self) -> None:
        launch(self.kernel, (1,), *self.arguments, **self.options)

    def compiled(self) -> Any:
        """The kernel for the driver's GPU."""
        return self.kernel.warmup(*self.arguments, grid=(1,), **self.options)


@contextmanager
def recorded() -> Iterator[dict[Hashable, Launch]]:
    """The launches inside, one of each form; none takes place."""
    launches: dict[Hashable, Launch] = {}

    def record(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
        one = Launch(kernel, arguments, options)
        launches.setdefault(one.form, one)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton.JITFunction, "run", record)
        yield launches


def nowhere(layout: Layout) -> dict[str, Tensor]:
    """Tensors that have a shape, but no memory."""
    return {name: torch.empty(tuple(shape), device="meta") for name, shape in layout.items()}


@pytest.fixture(scope="module")
def flows() -> list[Flow | DiTFlow]:
    return [
        Flow.from_state(FlowConfig(), nowhere(flow_layout(FlowConfig())), "meta"),
        DiTFlow.from_state(DiTFlowConfig(), nowhere(flow_layout(DiTFlowConfig())), "meta"),
    ]


@pytest.fixture(scope="module")
def vocoders() -> list[Vocoder | CausalVocoder]:
    causal = CausalVocoderConfig()
    return [
        Vocoder.from_state(VocoderConfig(), nowhere(vocoder_layout(VocoderConfig())), "meta"),
        CausalVocoder.from_state(causal, nowhere(vocoder_layout(causal)), "meta"),
    ]


def draw_tokens() -> None:
    from vllm_cosyvoice.llm import token_append_kernel, token_draw_kernel

    numbers = torch.empty(4, token_draw.WORDS, dtype=torch.int32, device="meta")
    logits = torch.empty(4, HEAD_SIZE, dtype=torch.bfloat16, device="meta")
    lengths = numbers[:, 0]
    places = torch.empty(4, 1, dtype=torch.int64, device="meta")
    token_draw_kernel.draw(logits, numbers, lengths, lengths, lengths, lengths, numbers)
    token_append_kernel.append(places, places, lengths, places, lengths, numbers)


def decode_steps(gpu: Gpu, sizes: Sequence[int] = ()) -> None:
    """Of a layer of the released sizes; without `sizes`, with as many requests as give all layouts."""
    from vllm_cosyvoice.llm.decode_kernels import Cache
    from vllm_cosyvoice.llm.fused_decode import DecoderLayer, FusedDecode

    def matrix(*sizes: int) -> Tensor:
        return torch.empty(*sizes, dtype=torch.bfloat16, device="meta")

    width, hidden, head, block = 896, 4864, 64, 16
    layer = DecoderLayer(
        matrix(1152, width),
        matrix(1152),
        matrix(width, width),
        matrix(2 * hidden, width),
        matrix(width, hidden),
    )
    step = FusedDecode([layer], matrix(1000, head), head**-0.5, 1e-6, gpu)
    for requests in sizes or step.sizes:
        keys, values = matrix(10, 2, block, 2 * head).transpose(1, 2).chunk(2, dim=-1)
        numbers = torch.empty(requests, 10, dtype=torch.int32, device="meta")
        places = torch.empty(requests, dtype=torch.int64, device="meta")
        cache = Cache(keys, values, places, numbers, numbers[:, 0])
        step(matrix(requests, width), places, lambda _: cache)  # noqa: B023 - called here


def launches_on(
    card: Card, flows: list[Flow | DiTFlow], vocoders: list[Vocoder | CausalVocoder]
) -> dict[Hashable, Launch]:
    """Calls of a small, a middle and the largest size, which are laid out in all ways that there are."""
    from vllm_cosyvoice.flow.cuda import flow as packed
    from vllm_cosyvoice.vocoder.cuda import vocoder as packed_vocoder

    with recorded() as launches:
        sizes = packed.SIZES[0], 1024, packed.SIZES[-1]
        for flow, cache_bytes in product(flows, (0, 1)):  # without a memory, and with one of a page
            packed.PackedFlow(flow, card.gpu, sizes=sizes, cache_bytes=cache_bytes).rehearse()
        for vocoder in vocoders:
            packed_vocoder.PackedVocoder(
                vocoder, card.gpu, sizes=(packed_vocoder.SIZES[0], packed_vocoder.SIZES[-1])
            ).rehearse()
        draw_tokens()
        decode_steps(card.gpu)
    return launches


# Triton lays out shared memory alike for compute capabilities of one generation.
@pytest.mark.parametrize("cards", [(A100, A10, L4), (H200,), (RTX_5090,)], ids=["8", "9", "12"])
def test_every_kernel_fits_in_shared_memory(
    cards: tuple[Card, ...],
    flows: list[Flow | DiTFlow],
    vocoders: list[Vocoder | CausalVocoder],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if cards == (H200,):  # where `make test-gpu` translates them
        monkeypatch.setattr(triton.knobs.runtime, "add_stages_inspection_hook", up_to_shared_memory)
    monkeypatch.setattr(triton.runtime.driver, "_active", Driver(cards[-1].gpu))
    by_card = {card: launches_on(card, flows, vocoders) for card in cards}
    launches = {form: one for of_card in by_card.values() for form, one in of_card.items()}
    kernels = {one.kernel.fn.__name__ for one in launches.values()}
    of_the_unet = {"_norm_mish", "_first_block", "_euler_step"}
    of_the_transformer = {"_input", "_position_conv", "_normed_euler_step"}
    of_a_decode_step = {"_project", "_attend", "_add_product", "_gate", "_draw", "_append"}
    assert kernels == {"_linear", "_attention", *of_the_unet, *of_the_transformer, "_convolve", *of_a_decode_step}

    with compiling():
        for one in launches.values():
            one.repeat()
    taken = {form: one.compiled().metadata.shared for form, one in launches.items()}
    assert max(taken.values()) > 48 << 10  # or nothing was measured
    for card, of_card in by_card.items():
        assert {form: taken[form] for form in of_card if taken[form] > card.shared_memory} == {}, card.gpu.name


def test_launches_are_compiled_once_in_each_form(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from vllm_cosyvoice.flow.cuda.kernels import Norm, Shape, norm_mish

    def launch_norm(frames: int, rows: int) -> None:
        positions = torch.zeros(frames, dtype=torch.int32)
        norm_mish(torch.ones(frames, 16), positions, Norm(torch.ones(16), torch.ones(16)), Shape(rows, 0, 0, 1, 1))

    monkeypatch.setattr(triton.runtime.driver, "_active", Driver(H200.gpu))
    with caplog.at_level(logging.INFO, "vllm_cosyvoice"), compiling():
        for frames in (32, 32, 64):
            for rows in (2, 4):
                launch_norm(frames, rows)
    assert caplog.messages[-1] == "Compiled 2 of 2 GPU kernels."

    with recorded() as launches:
        launch_norm(96, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton.JITFunction, "_do_compile", lambda *_: pytest.fail("it was compiled already"))
        (one,) = launches.values()
        assert one.compiled().metadata.num_warps == 1


def test_decode_steps_of_all_sizes_are_compiled_in_advance(monkeypatch: pytest.MonkeyPatch) -> None:
    """`DecodeStep.compile` launches those of a few sizes."""
    from vllm_cosyvoice.llm.engine_arguments import GRAPH_SIZES
    from vllm_cosyvoice.llm.fused_decode import MOST_REQUESTS

    monkeypatch.setattr(triton.runtime.driver, "_active", Driver(RTX_5090.gpu))
    with compiling():
        decode_steps(RTX_5090.gpu)
    monkeypatch.setattr(triton.JITFunction, "_do_compile", lambda *_: pytest.fail("it was not compiled"))
    with compiling():
        decode_steps(RTX_5090.gpu, [size for size in GRAPH_SIZES if size <= MOST_REQUESTS])


def test_operands_of_products_have_equally_many_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton gives one too few to an operand that is also used otherwise: the next overwrites it while it is read."""
    monkeypatch.setattr(triton.runtime.driver, "_active", Driver(H200.gpu))
    with recorded() as launches:
        decode_steps(H200.gpu)
    pipelined = {}
    for one in launches.values():
        source = one.compiled().asm["ttgir"]
        if "warp_group_dot " in source:
            pipelined[one.form] = set(re.findall(r"ttg.local_alloc : \(\) -> !ttg.memdesc<(\d+)x\d+x\d+x", source))
    assert pipelined
    assert {form: buffers for form, buffers in pipelined.items() if len(buffers) != 1} == {}
