"""Environment variables and threads of processes that run vLLM or the decoder."""

import os

# Must be set before vLLM is imported on a GPU. It enables CUDA graphs for steps that read prompts, without
# torch.compile. Without these graphs, such a step takes several times as long.
BEFORE_IMPORT = {"VLLM_USE_BREAKABLE_CUDAGRAPH": "1"}

# Per process, on a CPU. With more, the language model and the decoder wait for each other's threads, and if another
# program keeps a core busy, speech takes ten times as long.
THREADS = max(1, len(os.sched_getaffinity(0)) // 2)
