"""Where vLLM's steps have kernels and graphs of ours."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.config import CUDAGraphMode

pytest.importorskip("triton")
from vllm_cosyvoice.llm import engine_arguments
from vllm_cosyvoice.llm.decode_step import DecodeStep
from vllm_cosyvoice.llm.prompt_step import ATTENTION

USUAL: dict[str, Any] = {
    "dtype": torch.bfloat16,
    "cache_dtype": "auto",
    "quant_config": None,
    "lora_config": None,
    "world_size": 1,
    "cudagraph_mode": CUDAGraphMode.FULL_AND_PIECEWISE,
    "head_dim": 64,
    "attention": ATTENTION,
}


def fits(*, has_layers: bool = True, **others: Any) -> bool:
    given = USUAL | others
    config = SimpleNamespace(
        model_config=SimpleNamespace(dtype=given["dtype"]),
        cache_config=SimpleNamespace(cache_dtype=given["cache_dtype"]),
        quant_config=given["quant_config"],
        lora_config=given["lora_config"],
        parallel_config=SimpleNamespace(world_size=given["world_size"]),
        compilation_config=SimpleNamespace(cudagraph_mode=given["cudagraph_mode"]),
    )
    backend = SimpleNamespace(get_name=lambda: given["attention"])
    attention = SimpleNamespace(head_dim=given["head_dim"], attn=SimpleNamespace(attn_backend=backend))
    layer = SimpleNamespace(self_attn=attention) if has_layers else torch.nn.Identity()
    return DecodeStep.fits(config, SimpleNamespace(layers=[layer]))


def test_the_released_models_have_fused_kernels() -> None:
    assert fits()
    assert fits(dtype=torch.float16)


@pytest.mark.parametrize(
    "other",
    [
        {"dtype": torch.float32},
        {"cache_dtype": "fp8"},
        {"quant_config": "any"},
        {"lora_config": "any"},
        {"world_size": 2},
        {"world_size": 2, "has_layers": False},  # of a later stage of a pipeline
        {"cudagraph_mode": CUDAGraphMode.FULL},  # whose graphs also read prompts
        {"cudagraph_mode": CUDAGraphMode.NONE},
        {"head_dim": 128},
        {"attention": "FLASHINFER"},
    ],
    ids=str,
)
def test_others_run_as_in_vllm(other: dict[str, Any]) -> None:
    assert not fits(**other)


def test_a_step_that_fills_its_budget_has_a_graph() -> None:
    def sizes(max_num_seqs: int, batched_tokens: int) -> list[int]:
        return engine_arguments._cuda_graphs(max_num_seqs, batched_tokens)["cudagraph_capture_sizes"]  # type: ignore[return-value]

    assert sizes(50, 1000)[-2:] == [768, 1000]
    assert 50 in sizes(50, 1000)
    assert max(sizes(50, 8192)) == max(engine_arguments.GRAPH_SIZES)
