"""HiFT: mel to 24 kHz audio, whole or in pieces that join without a seam."""

from vllm_cosyvoice.vocoder.stream import AnyVocoder, VocoderStream, Window, speak
from vllm_cosyvoice.vocoder.torch.vocoder import Vocoder, VocoderRow

__all__ = ["AnyVocoder", "Vocoder", "VocoderRow", "VocoderStream", "Window", "speak"]
