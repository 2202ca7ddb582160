"""Graphs of steps that read prompts: what they contain, and that their attention computes what PyTorch's does."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from tests.interpreter import DEVICE, runs_here

pytest.importorskip("triton")
from vllm.compilation.breakable_cudagraph import BreakableCUDAGraphCapture, eager_break_during_capture
from vllm.config import CUDAGraphMode
from vllm.forward_context import ForwardContext, get_forward_context, override_forward_context
from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM

from vllm_cosyvoice.llm.decode_step import DecodeStep
from vllm_cosyvoice.llm.model import CosyVoice2ForCausalLM
from vllm_cosyvoice.llm.prompt_step import in_one_graph

NONE, PIECEWISE, FULL = CUDAGraphMode.NONE, CUDAGraphMode.PIECEWISE, CUDAGraphMode.FULL
BLOCK, HEAD, HEADS, GROUP = 16, 64, 2, 7
MOST_REQUESTS = 10


def context(mode: CUDAGraphMode, longest: int) -> ForwardContext:
    """Of a step of two layers, whose longest query has `longest` tokens."""
    plan = SimpleNamespace(max_query_len=longest)
    return ForwardContext({}, {"first": plan, "second": plan}, {}, cudagraph_runtime_mode=mode)


@pytest.mark.parametrize(
    ("mode", "captures", "longest", "ran"),
    [
        (NONE, False, 1, ["modules", "fused"]),  # before a capture of either kind
        (NONE, True, 1, ["fused"]),  # a graph of a decode step
        (PIECEWISE, True, 1, ["modules"]),  # a graph of prompts
        (PIECEWISE, True, 2, ["modules"]),
        (NONE, False, 2, ["modules"]),
    ],
)
def test_a_warm_up_runs_all_that_may_be_captured_next(
    mode: CUDAGraphMode, captures: bool, longest: int, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []

    def modules(*_: object) -> Tensor:
        inside = get_forward_context()
        assert inside.cudagraph_runtime_mode == (FULL if mode == PIECEWISE else mode)
        assert [plan.max_query_len for plan in inside.attn_metadata.values()] == [8, 8]
        done.append("modules")
        return torch.zeros(8)

    def fused(*_: object) -> Tensor:
        done.append("fused")
        return torch.ones(8)

    monkeypatch.setattr(Qwen2ForCausalLM, "forward", modules)
    monkeypatch.setattr(DecodeStep, "__call__", fused)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: captures)
    model = object.__new__(CosyVoice2ForCausalLM)
    torch.nn.Module.__init__(model)
    model._decode_step = DecodeStep(None, 0.0)
    with override_forward_context(context(mode, longest)):
        hidden = model.forward(torch.zeros(8), torch.zeros(8))
        after = get_forward_context()
        assert after.cudagraph_runtime_mode == mode
        assert [plan.max_query_len for plan in after.attn_metadata.values()] == [longest, longest]
    assert done == ran
    assert bool(hidden[0]) == (ran[-1] == "fused")


def test_vllm_breaks_no_graph_of_a_whole_step(monkeypatch: pytest.MonkeyPatch) -> None:
    broken: list[object] = []
    capture = SimpleNamespace(_capturing=True, add_eager=broken.append)
    monkeypatch.setattr(BreakableCUDAGraphCapture._tls, "active", capture, raising=False)
    monkeypatch.setenv("VLLM_USE_BREAKABLE_CUDAGRAPH", "1")
    attend = eager_break_during_capture(lambda: "attended")
    with override_forward_context(context(PIECEWISE, 1)):
        attend()
        assert len(broken) == 1, "as vLLM would otherwise do"
        with in_one_graph(8):
            assert attend() == "attended"
    assert len(broken) == 1


# Per request: tokens before this step, and of it.
MIXED = [(0, 9), (20, 1), (18, 5), (0, 1), (40, 1)]


@runs_here
@pytest.mark.parametrize(("tokens", "requests"), [(24, MIXED), (24, [(0, 24)]), (8, [(3, 4), (33, 1)]), (1, [(17, 1)])])
@torch.inference_mode()
def test_a_graph_attends_for_all_requests_that_it_may_have(tokens: int, requests: list[tuple[int, int]]) -> None:
    """With fewer of them, and fewer tokens, than in its capture."""
    from vllm.v1.attention.ops.triton_unified_attention import unified_attention

    torch.manual_seed(0)
    data_type, most = (torch.bfloat16, 2e-2) if DEVICE == "cuda" else (torch.float32, 1e-5)
    rows = min(tokens, MOST_REQUESTS)
    with torch.device(DEVICE):
        query = torch.randn(tokens, HEADS * GROUP, HEAD, dtype=data_type)
        cells = torch.randn(8 * rows, HEADS, BLOCK, 2 * HEAD, dtype=data_type)
        keys, values = cells.transpose(1, 2).chunk(2, dim=-1)
        table = torch.randperm(8 * rows).view(rows, 8).int()
        out = torch.full_like(query, 7.0)
        lengths = [before + now for before, now in requests]
        ends = torch.tensor([0, *[now for _, now in requests]]).cumsum(0).tolist()
        padding = rows - len(requests)
        scratch = torch.empty(64, HEADS * GROUP, 16, HEAD)
        unified_attention(
            q=query,
            k=keys,
            v=values,
            out=out,
            cu_seqlens_q=torch.tensor([*ends, *padding * [ends[-1]]]).int(),
            max_seqlen_q=tokens,
            seqused_k=torch.tensor([*lengths, *padding * [0]]).int(),
            max_seqlen_k=1,  # of the capture
            softmax_scale=HEAD**-0.5,
            causal=True,
            window_size=(-1, -1),
            block_table=table,
            softcap=0,
            q_descale=None,
            k_descale=torch.ones(rows, HEADS),
            v_descale=torch.ones(rows, HEADS),
            seq_threshold_3D=64,
            num_par_softmax_segments=16,
            softmax_segm_output=scratch,
            softmax_segm_max=scratch[..., 0].contiguous(),
            softmax_segm_expsum=scratch[..., 0].contiguous(),
        )
    for row, (before, now) in enumerate(requests):
        where = [(int(table[row, at // BLOCK]), at % BLOCK) for at in range(before + now)]

        def of(cache: Tensor, where: Any = where) -> Tensor:
            return torch.stack([cache[cell] for cell in where], 1).repeat_interleave(GROUP, 0)

        seen = torch.ones(now, before + now, dtype=torch.bool, device=DEVICE).tril(before)
        place = slice(ends[row], ends[row + 1])
        expected = scaled_dot_product_attention(query[place].transpose(0, 1), of(keys), of(values), seen)
        torch.testing.assert_close(out[place], expected.transpose(0, 1), atol=most, rtol=most)
    assert (out[ends[-1] :] == 7.0).all(), "padding is left alone"
