"""Steps of vLLM that read prompts, as one CUDA graph each, where `DecodeStep` fits.

vLLM's breakable graphs leave attention out, as most of its attention backends plan a step on the host. This costs the
host more time than the GPU takes for the step. `ATTENTION` plans nothing: its kernels find the requests of a step in
buffers on the GPU, which vLLM pads for as many requests as a graph can have. So a graph may contain them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from vllm.config import CUDAGraphMode
from vllm.forward_context import get_forward_context

ATTENTION = "TRITON_ATTN"  # vLLM's attention backend on a GPU; its cache has keys and values side by side


@contextmanager
def in_one_graph(tokens: int) -> Iterator[None]:
    """Leave attention in a graph that vLLM captures in this context, for any requests that have `tokens` in all.

    vLLM captures it with a batch of short queries. For these, `ATTENTION` might choose a kernel that takes no others.
    """
    context = get_forward_context()
    mode = context.cudagraph_runtime_mode
    plans = list((context.attn_metadata or {}).values())
    longest = [plan.max_query_len for plan in plans]
    for plan in plans:
        plan.max_query_len = tokens
    if mode == CUDAGraphMode.PIECEWISE:
        context.cudagraph_runtime_mode = CUDAGraphMode.FULL  # in which vLLM breaks no graph
    try:
        yield
    finally:
        context.cudagraph_runtime_mode = mode
        for plan, length in zip(plans, longest, strict=True):
            plan.max_query_len = length
