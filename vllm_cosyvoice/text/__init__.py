"""Text front end: what a caller wrote → segments of text to speak → tokenizer ids."""

from vllm_cosyvoice.text.arriving_tokens import ArrivingText
from vllm_cosyvoice.text.front_end import TextFrontEnd
from vllm_cosyvoice.text.pauses import Pause

__all__ = ["ArrivingText", "Pause", "TextFrontEnd"]
