"""What makes vLLM know this model: the plugin that it loads in each of its processes (see `pyproject.toml`)."""

from multiprocessing import current_process

ARCHITECTURE = "CosyVoice2ForCausalLM"
RENDERER = "cosyvoice2"  # vLLM chooses a renderer by `tokenizer_mode`


def register() -> None:
    """Tell vLLM this model's classes."""
    from vllm import ModelRegistry
    from vllm.renderers.registry import RENDERER_REGISTRY

    from vllm_cosyvoice.llm.model import CosyVoice2ForCausalLM
    from vllm_cosyvoice.llm.parent_watch import end_with_parent

    # The class, not its name: by a name vLLM would start another process of its own, only to look at the class.
    ModelRegistry.register_model(ARCHITECTURE, CosyVoice2ForCausalLM)
    RENDERER_REGISTRY.register(RENDERER, "vllm_cosyvoice.llm.renderer", "TokenRenderer")
    if current_process().name.startswith("EngineCore"):
        end_with_parent()  # left alone, vLLM's engine outlives a parent that was killed, and keeps its GPU memory
