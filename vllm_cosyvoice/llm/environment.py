"""Environment variables that a process must set before it imports vLLM on a GPU."""

# Enables CUDA graphs for steps that read prompts, without torch.compile. vLLM keeps attention, whose plan changes from
# step to step, outside the graphs. Without these graphs, such a step takes twice as long.
BEFORE_IMPORT = {"VLLM_USE_BREAKABLE_CUDAGRAPH": "1"}
