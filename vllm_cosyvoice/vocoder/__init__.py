"""HiFT: converts mel to 24 kHz audio, at once or in pieces that join seamlessly."""

from vllm_cosyvoice.vocoder.stream import AnyVocoder, VocoderStream, Window, speak
from vllm_cosyvoice.vocoder.torch.causal_vocoder import CausalVocoder
from vllm_cosyvoice.vocoder.torch.vocoder import Vocoder, VocoderRow

__all__ = ["AnyVocoder", "CausalVocoder", "Vocoder", "VocoderRow", "VocoderStream", "Window", "speak"]
