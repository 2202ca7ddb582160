"""Text front end: converts input text to segments to speak, and segments to tokenizer ids."""

from vllm_cosyvoice.text.arriving_tokens import ArrivingText
from vllm_cosyvoice.text.front_end import TextFrontEnd
from vllm_cosyvoice.text.pauses import Pause

__all__ = ["ArrivingText", "Pause", "TextFrontEnd"]
