"""HiFT: mel to 24 kHz audio, whole or in pieces that join without a seam."""

from vllm_cosyvoice.vocoder.stream import VocoderStream, Window, speak
from vllm_cosyvoice.vocoder.vocoder import Vocoder, VocoderRow

__all__ = ["Vocoder", "VocoderRow", "VocoderStream", "Window", "speak"]
