"""The plugin that registers this model with vLLM, which loads it in each of its processes (see `pyproject.toml`)."""

from multiprocessing import current_process

COSYVOICE2_ARCHITECTURE = "CosyVoice2ForCausalLM"
RENDERER = "cosyvoice2"  # vLLM chooses a renderer by `tokenizer_mode`


def register() -> None:
    """Register this model's classes with vLLM."""
    from vllm import ModelRegistry
    from vllm.renderers.registry import RENDERER_REGISTRY

    from vllm_cosyvoice.llm.model import CosyVoice2ForCausalLM
    from vllm_cosyvoice.llm.parent_watch import end_with_parent

    # Register the class, not its name: vLLM would start another process just to inspect a class given by name.
    ModelRegistry.register_model(COSYVOICE2_ARCHITECTURE, CosyVoice2ForCausalLM)
    RENDERER_REGISTRY.register(RENDERER, "vllm_cosyvoice.llm.renderer", "TokenRenderer")
    if current_process().name.startswith("EngineCore"):
        end_with_parent()  # otherwise vLLM's engine outlives a killed parent and keeps its GPU memory
