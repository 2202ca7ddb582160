"""The plugin that registers our models with vLLM, which loads it in each of its processes (see `pyproject.toml`)."""

from multiprocessing import current_process

# Names of the classes of `llm.model`.
COSYVOICE2_ARCHITECTURE = "CosyVoice2ForCausalLM"
COSYVOICE3_ARCHITECTURE = "CosyVoice3ForCausalLM"
RENDERER = "cosyvoice2"  # vLLM chooses a renderer by `tokenizer_mode`


def register() -> None:
    """Register our classes with vLLM."""
    from vllm import ModelRegistry
    from vllm.renderers.registry import RENDERER_REGISTRY

    from vllm_cosyvoice.llm.model import CosyVoice2ForCausalLM, CosyVoice3ForCausalLM
    from vllm_cosyvoice.llm.parent_watch import end_with_parent

    # Register the classes, not their names: vLLM would start another process just to inspect a class given by name.
    ModelRegistry.register_model(COSYVOICE2_ARCHITECTURE, CosyVoice2ForCausalLM)
    ModelRegistry.register_model(COSYVOICE3_ARCHITECTURE, CosyVoice3ForCausalLM)
    RENDERER_REGISTRY.register(RENDERER, "vllm_cosyvoice.llm.renderer", "TokenRenderer")
    if current_process().name.startswith("EngineCore"):
        end_with_parent()  # otherwise vLLM's engine outlives a killed parent and keeps its GPU memory
