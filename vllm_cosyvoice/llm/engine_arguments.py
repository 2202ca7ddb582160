"""How vLLM's engine is set up for CosyVoice2's language model."""

import os
from dataclasses import dataclass, replace

import torch
from vllm import ModelRegistry
from vllm.config import CompilationMode
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.platforms import current_platform
from vllm.plugins import load_general_plugins

from vllm_cosyvoice.checkpoint import ModelDirectory
from vllm_cosyvoice.config import LanguageModelConfig
from vllm_cosyvoice.llm.environment import BEFORE_IMPORT
from vllm_cosyvoice.llm.registration import ARCHITECTURE, RENDERER

SAMPLING = "vllm_cosyvoice.llm.repetition_aware_sampling:RepetitionAwareSampling"
# Tokens of a step that have a CUDA graph of their own; a step between two of them takes the larger one.
GRAPH_SIZES = (
    *(1, 2, 4, *range(8, 65, 8), *range(80, 129, 16), *range(160, 257, 32), *range(320, 513, 64)),
    *(640, 768, 1024),
)
ANY_SHARE = 0.01  # of the memory; with the KV cache given in bytes vLLM only checks that this much is free


@dataclass(frozen=True)
class EngineOptions:
    """How much vLLM's engine takes and holds."""

    data_type: str = "auto"  # of weights and KV cache; auto: bfloat16 on a GPU, float32 on a CPU
    max_total_token_num: int = 65_536  # tokens that the KV cache holds, of all requests together
    max_req_total_len: int = 32_768  # prompt and speech of one request; cut to what the model and the cache allow
    max_num_seqs: int = 50  # requests that generate at the same time
    max_num_batched_tokens: int | None = None  # tokens of one step; None: vLLM's default
    gpu_memory_utilization: float | None = None  # share of the GPU that must be free at the start; None: not checked
    seed: int = 0  # for requests without a seed of their own


def engine_arguments(
    model: ModelDirectory, options: EngineOptions, max_length: int, **others: object
) -> AsyncEngineArgs:
    """vLLM's arguments for `options`, requests being `max_length` tokens at most.

    others: arguments of vLLM in place of ours, for measuring.
    """
    load_general_plugins()
    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        raise RuntimeError(
            f"vLLM does not find the plugin of this package, {ARCHITECTURE}: install the package (pip install -e .), "
            "and leave VLLM_PLUGINS unset or name cosyvoice2 in it"
        )
    on_cpu = current_platform.is_cpu()
    # vLLM's second model runner does less on the host at each step. It needs a GPU, and samples by our `model_state`.
    os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0" if on_cpu else "1"
    # FlashInfer would compile its sampler with nvcc as vLLM starts, and ours leaves vLLM's sampler nothing to draw.
    os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")
    if not on_cpu:
        os.environ.update(BEFORE_IMPORT)  # for the engine's process, if it is spawned
    if on_cpu:
        # The worker in the engine's own process: on two cores the start takes a third of the time, a step two thirds.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    data_type = options.data_type
    if data_type == "auto":
        data_type = "float32" if on_cpu else "bfloat16"
    # Small blocks let the turns of a text stream share what they have computed; 32 is the least that is fast on a CPU.
    block_size = 32 if on_cpu else 16
    batched_tokens = options.max_num_batched_tokens
    if on_cpu:
        # A prompt that is read in two steps ends vLLM's engine on a CPU if its request has a seed, so prompts are read
        # whole, which vLLM does only if the longest fits in one step.
        batched_tokens = max(batched_tokens or 0, max_length)
    blocks = -(-options.max_total_token_num // block_size) + 1  # vLLM keeps one for itself
    arguments = AsyncEngineArgs(
        model=str(model.engine_directory()),
        skip_tokenizer_init=True,
        tokenizer_mode=RENDERER,
        generation_config="vllm",
        dtype=data_type,
        seed=options.seed,
        max_model_len=max_length,
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=batched_tokens,
        enable_chunked_prefill=not on_cpu,
        block_size=block_size,
        num_gpu_blocks_override=blocks,
        kv_cache_memory_bytes=blocks * block_size * _kv_bytes(model.config.language_model, data_type),
        gpu_memory_utilization=options.gpu_memory_utilization or ANY_SHARE,
        enable_prefix_caching=True,
        enforce_eager=on_cpu,
        compilation_config={} if on_cpu else _cuda_graphs(options.max_num_seqs),
        max_logprobs=-1,  # for who drives the engine directly: the model's logits, as many as are asked for
        logprobs_mode="raw_logits",
        disable_log_stats=True,
        logits_processors=[SAMPLING] if on_cpu else None,
    )
    return replace(arguments, **others)


def _cuda_graphs(max_num_seqs: int) -> dict[str, object]:
    """vLLM's compilation settings: CUDA graphs only, since torch.compile takes 17 s of a cold start and gains nothing.

    Attention is part of the graph only in steps in which every request generates. FlashAttention 3 plans other steps by
    their longest query, and a graph would keep the plan of its capture.
    """
    sizes = sorted({*GRAPH_SIZES, min(max_num_seqs, GRAPH_SIZES[-1])})
    return {
        "mode": CompilationMode.NONE,
        "cudagraph_mode": "FULL_AND_PIECEWISE",
        "cudagraph_capture_sizes": sizes,
    }


def _kv_bytes(config: LanguageModelConfig, data_type: str) -> int:
    """Bytes of KV cache for one token."""
    head_size = config.hidden_size // config.num_heads
    itemsize: int = getattr(torch, data_type).itemsize
    return 2 * config.num_layers * config.num_kv_heads * head_size * itemsize
