"""CosyVoice2 text to speech on vLLM.

`Synthesizer` is the way in: text to audio in one process. The modules beneath it can be used alone.
"""

from multiprocessing import current_process
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm_cosyvoice.synthesizer import Synthesizer

__all__ = ["Synthesizer", "register"]

ARCHITECTURE = "CosyVoice2ForCausalLM"


def register() -> None:
    """Make CosyVoice2's language model known to vLLM, which calls this in each of its processes (entry point)."""
    from vllm import ModelRegistry

    from vllm_cosyvoice.parent_watch import end_with_parent

    ModelRegistry.register_model(ARCHITECTURE, f"vllm_cosyvoice.language_model:{ARCHITECTURE}")
    if current_process().name.startswith("EngineCore"):
        end_with_parent()  # left alone, vLLM's engine outlives a parent that was killed, and keeps its GPU memory


def __getattr__(name: str) -> object:
    if name != "Synthesizer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Late, so that what imports a part of this package does not pay for PyTorch and vLLM.
    from vllm_cosyvoice.synthesizer import Synthesizer

    return Synthesizer
