"""Steps of vLLM in which requests only generate, with `FusedDecode` instead of vLLM's modules."""

from functools import cached_property
from typing import Any

import torch
from vllm.config import CUDAGraphMode, VllmConfig
from vllm.forward_context import get_forward_context

from vllm_cosyvoice.gpu.device import Gpu
from vllm_cosyvoice.gpu.kernel_launch import compiling
from vllm_cosyvoice.llm.decode_kernels import Cache
from vllm_cosyvoice.llm.fused_decode import MOST_REQUESTS, DecoderLayer, FusedDecode
from vllm_cosyvoice.llm.prompt_step import ATTENTION

HEAD_WIDTHS = (32, 64)  # other Qwen2 models have 128, for which the kernels have no layouts


class DecodeStep:
    """The decoder of a model for such a step, on a GPU, within a CUDA graph."""

    @staticmethod
    def fits(config: VllmConfig, model: Any) -> bool:  # noqa: ANN401 - mypy does not follow vLLM
        """Whether an engine has such steps: plain weights, one GPU, a KV cache that the kernels know.

        Their CUDA graphs must be for nothing else.
        """
        if config.parallel_config.world_size > 1:
            return False  # and another stage of a pipeline may have the first layer
        attention = model.layers[0].self_attn
        return (
            attention.head_dim in HEAD_WIDTHS
            and config.model_config.dtype in (torch.bfloat16, torch.float16)
            and config.cache_config.cache_dtype == "auto"
            and config.quant_config is None
            and config.lora_config is None
            and config.compilation_config.cudagraph_mode.separate_routine()
            and attention.attn.attn_backend.get_name() == ATTENTION
        )

    def __init__(self, model: Any, eps: float) -> None:  # noqa: ANN401
        """`model`: vLLM's Qwen2Model, whose weights may be loaded later; `eps`: of its norms."""
        self._model, self._eps = model, eps

    def takes(self, tokens: int) -> bool:
        """Whether the step that vLLM runs now is one: one token of each request, and not a graph of another kind."""
        context = get_forward_context()
        if tokens > MOST_REQUESTS or context.cudagraph_runtime_mode == CUDAGraphMode.PIECEWISE:
            return False
        plans = context.attn_metadata
        return isinstance(plans, dict) and next(iter(plans.values())).max_query_len == 1

    def __call__(self, input_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Run the step: hidden states, [requests, width]."""
        plans = get_forward_context().attn_metadata

        def cache_of(number: int) -> Cache:
            plan = plans[self._model.layers[number].self_attn.attn.layer_name]
            return self._cache(number, plan.slot_mapping, plan.block_table, plan.seq_lens)

        x = self._model.embed_tokens(input_ids)
        hidden: torch.Tensor = self._model.norm(self._fused(x, positions, cache_of))
        return hidden

    def compile(self) -> None:
        """Compile the kernels for steps of all sizes in parallel; the KV cache must exist."""
        weight = self._model.norm.weight
        with compiling():
            for requests in self._fused.sizes:
                places = torch.zeros(requests, dtype=torch.int64, device=weight.device)
                table = torch.zeros(requests, 16, dtype=torch.int32, device=weight.device)
                cache = self._cache(0, places, table, table.new_zeros(requests))
                self._fused(weight.new_zeros(requests, len(weight)), places, lambda _: cache)  # noqa: B023 - called here

    def _cache(self, number: int, slots: torch.Tensor, table: torch.Tensor, lengths: torch.Tensor) -> Cache:
        attention = self._model.layers[number].self_attn
        keys, values = attention.attn.kv_cache.transpose(1, 2).split(attention.head_dim, dim=-1)
        return Cache(keys, values, slots, table, lengths)

    @cached_property
    def _fused(self) -> FusedDecode:
        layers = [
            DecoderLayer(
                layer.self_attn.qkv_proj.weight,
                layer.self_attn.qkv_proj.bias,
                layer.self_attn.o_proj.weight,
                layer.mlp.gate_up_proj.weight,
                layer.mlp.down_proj.weight,
            )
            for layer in self._model.layers
        ]
        attention = self._model.layers[0].self_attn
        gpu = Gpu.of(attention.qkv_proj.weight.device)
        return FusedDecode(layers, attention.rotary_emb.cos_sin_cache, attention.scaling, self._eps, gpu)
