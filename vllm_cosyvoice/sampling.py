"""Sampling options for speech tokens."""

from dataclasses import dataclass, fields
from typing import Self

from vllm_cosyvoice.failure import InputError
from vllm_cosyvoice.limits import MOST_SPEECH
from vllm_cosyvoice.vocabulary import SPEECH_TOKENS

SEED_LIMIT = 2**63


@dataclass(frozen=True)
class SamplingOptions:
    """Sampling options, as plain numbers that can be sent between processes. The defaults are CosyVoice2's.

    Raises:
        InputError: a value is out of range.
    """

    seed: int | None = None  # the same seed and input give the same speech
    temperature: float = 1.0  # 0 is greedy
    top_p: float = 0.8
    top_k: int = 25
    repetition_aware: bool = True  # draw again if a token repeats one of the last ten
    min_tokens: int | None = None  # speech tokens, 25 per second; None: 2 per text token
    max_tokens: int | None = None  # None: 20 per text token

    @classmethod
    def of(cls, values: object) -> Self:
        """Copy the options from `values`, which has attributes of the same names."""
        return cls(**{field.name: getattr(values, field.name) for field in fields(cls)})

    def __post_init__(self) -> None:
        """Raise InputError for a value that is out of range."""
        if self.seed is not None and not 0 <= self.seed < SEED_LIMIT:
            raise InputError("seed", f"seed must be between 0 and 2**63 - 1, not {self.seed}.")
        if not 0.0 <= self.temperature <= 2.0:
            raise InputError("temperature", f"temperature must be between 0 (greedy) and 2, not {self.temperature}.")
        if not 0.0 < self.top_p <= 1.0:
            raise InputError("top_p", f"top_p must be above 0 and at most 1, not {self.top_p}.")
        if not 1 <= self.top_k <= SPEECH_TOKENS:
            raise InputError("top_k", f"top_k must be between 1 and {SPEECH_TOKENS}, not {self.top_k}.")
        if self.min_tokens is not None and not 0 <= self.min_tokens <= MOST_SPEECH:
            raise InputError("min_tokens", f"min_tokens must be between 0 and {MOST_SPEECH}, not {self.min_tokens}.")
        least = max(1, self.min_tokens or 0)
        if self.max_tokens is not None and not least <= self.max_tokens <= MOST_SPEECH:
            message = f"max_tokens must be at least 1 and min_tokens, and at most {MOST_SPEECH}, not {self.max_tokens}."
            raise InputError("max_tokens", message)
