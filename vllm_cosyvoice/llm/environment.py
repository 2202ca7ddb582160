"""Environment variables of vLLM that a process needs before it imports vLLM on a GPU."""

# CUDA graphs of steps that read prompts, without torch.compile: vLLM leaves attention, whose plan changes from step to
# step, outside the graphs. Without them such a step takes twice as long.
BEFORE_IMPORT = {"VLLM_USE_BREAKABLE_CUDAGRAPH": "1"}
