"""Input of the language model for one piece of text."""

from collections.abc import Sequence
from dataclasses import dataclass

from vllm_cosyvoice.limits import MAX_SPEECH_PER_TEXT
from vllm_cosyvoice.vocabulary import prompt_ids

MIN_SPEECH_PER_TEXT = 2


@dataclass(frozen=True)
class Segment:
    """One piece of text, ready for the language model."""

    prompt: list[int]  # ids of the joint id space, see `vocabulary`; empty for a segment of silence
    text_tokens: int  # tokens of the text to speak, without the prompt text
    min_tokens: int  # speech tokens
    max_tokens: int
    silence_before: float = 0.0  # seconds
    silence_after: float = 0.0

    @classmethod
    def of(cls, text: Sequence[int], prompt_text: Sequence[int] = (), prompt_speech: Sequence[int] = ()) -> "Segment":
        """Build the segment for `text` after `prompt_text` (tokenizer ids), continuing the tokens `prompt_speech`."""
        return cls(
            prompt=prompt_ids(text, prompt_text, prompt_speech),
            text_tokens=len(text),
            min_tokens=MIN_SPEECH_PER_TEXT * len(text),
            max_tokens=MAX_SPEECH_PER_TEXT * len(text),
        )

    @classmethod
    def silent(cls, seconds: float) -> "Segment":
        """Create the segment of silence for a text without words."""
        return cls(prompt=[], text_tokens=0, min_tokens=0, max_tokens=0, silence_before=seconds)
