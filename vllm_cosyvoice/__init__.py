"""CosyVoice2 text to speech on vLLM.

`Synthesizer` is the entry point: text to audio in one process. The modules below it can be used alone.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm_cosyvoice.synthesizer import Synthesizer

__all__ = ["Synthesizer", "__version__"]
__version__ = "0.2.0"


def __getattr__(name: str) -> object:
    if name != "Synthesizer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Import it late, so that importing a part of this package does not load PyTorch and vLLM.
    from vllm_cosyvoice.synthesizer import Synthesizer

    return Synthesizer
