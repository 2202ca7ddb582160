"""Engine arguments of vLLM for CosyVoice's language models."""

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
from vllm_cosyvoice.llm.prompt_step import ATTENTION
from vllm_cosyvoice.llm.registration import RENDERER

SAMPLING = "vllm_cosyvoice.llm.repetition_aware_sampling:RepetitionAwareSampling"
SCHEDULER = "vllm_cosyvoice.llm.scheduler.SpeechScheduler"
WORKER = "vllm_cosyvoice.llm.multi_step.SpeechWorker"
# Step sizes in tokens that get their own CUDA graph; other steps use the next larger one.
GRAPH_SIZES = (
    *(1, 2, 4, *range(8, 65, 8), *range(80, 129, 16), *range(160, 257, 32), *range(320, 513, 64)),
    *(640, 768, *range(1024, 2049, 256)),
)
ANY_SHARE = 0.01  # of the memory; as the KV cache size is given in bytes, vLLM only checks that this share is free


@dataclass(frozen=True)
class EngineOptions:
    """Capacity, dtype and seed of vLLM's engine."""

    data_type: str = "auto"  # dtype of weights and KV cache; auto: bfloat16 on a GPU, float32 on a CPU
    max_total_token_num: int = 65_536  # capacity of the KV cache in tokens, for all requests together
    max_req_total_len: int = 32_768  # tokens of one request, prompt and speech; limited by the model and the cache
    max_num_seqs: int = 50  # concurrent requests
    max_num_batched_tokens: int | None = None  # tokens per step; None: as many as fit into a CUDA graph, on a GPU
    gpu_memory_utilization: float | None = None  # share of GPU memory that must be free at the start; None: no check
    seed: int = 0  # for requests without a seed


def engine_arguments(
    model: ModelDirectory, options: EngineOptions, max_length: int, **others: object
) -> AsyncEngineArgs:
    """Build vLLM's engine arguments for `options` and requests of up to `max_length` tokens.

    others: vLLM arguments that override ours, for benchmarks. Another attention backend than ours that plans steps on
        the host, such as FlashInfer, needs `STEPS_AT_ONCE` 1.
    """
    load_general_plugins()
    if model.family.architecture not in ModelRegistry.get_supported_archs():
        raise RuntimeError(
            f"vLLM does not find this package's plugin, {model.family.architecture}: install the package "
            "(pip install -e .), and leave VLLM_PLUGINS unset or add cosyvoice2 to it"
        )
    on_cpu = current_platform.is_cpu()
    # vLLM's V2 model runner does less work on the host per step. It needs a GPU and samples with our `model_state`.
    os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0" if on_cpu else "1"
    # FlashInfer would compile its sampler with nvcc at startup, which is useless: we draw the tokens.
    os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")
    if not on_cpu:
        os.environ.update(BEFORE_IMPORT)  # for a spawned engine process
    if on_cpu:
        # Run the worker in the engine's process: on two cores, startup takes a third of the time, a step two thirds.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    data_type = options.data_type
    if data_type == "auto":
        data_type = "float32" if on_cpu else "bfloat16"
    # With small blocks, the turns of a text stream share more of their prefix; 32 is the smallest fast size on a CPU.
    block_size = 32 if on_cpu else 16
    batched_tokens = options.max_num_batched_tokens
    if on_cpu:
        # On a CPU, chunked prefill of a request with a seed crashes vLLM's engine. Without chunked prefill, vLLM needs
        # steps that fit the longest prompt.
        batched_tokens = max(batched_tokens or 0, max_length)
    else:
        batched_tokens = batched_tokens or max(GRAPH_SIZES[-1], options.max_num_seqs)  # larger steps have no graph
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
        attention_backend=None if on_cpu else ATTENTION,
        enforce_eager=on_cpu,
        compilation_config={} if on_cpu else _cuda_graphs(options.max_num_seqs, batched_tokens),
        max_logprobs=-1,  # unlimited, for direct users of the engine
        logprobs_mode="raw_logits",
        disable_log_stats=True,
        logits_processors=[SAMPLING] if on_cpu else None,
        scheduler_cls=SCHEDULER,
        worker_cls="auto" if on_cpu else WORKER,
    )
    return replace(arguments, **others)


def _cuda_graphs(max_num_seqs: int, batched_tokens: int) -> dict[str, object]:
    """vLLM's compilation settings: CUDA graphs only, as torch.compile adds 17 s to a cold start and gains nothing.

    Steps in which requests only generate have graphs of their own, as their kernels take one token of each request.
    """
    most = min(batched_tokens, GRAPH_SIZES[-1])
    sizes = sorted({size for size in (*GRAPH_SIZES, max_num_seqs, batched_tokens) if size <= most})
    return {
        "mode": CompilationMode.NONE,
        "cudagraph_mode": "FULL_AND_PIECEWISE",
        "cudagraph_capture_sizes": sizes,
    }


def _kv_bytes(config: LanguageModelConfig, data_type: str) -> int:
    """Bytes of KV cache per token."""
    itemsize: int = getattr(torch, data_type).itemsize
    return config.kv_numbers * itemsize
