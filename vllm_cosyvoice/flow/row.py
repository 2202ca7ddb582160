"""What a flow is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class FlowRow:
    """One row of a solve."""

    tokens: Sequence[int]  # prompt, then what is to be spoken, then the look-ahead
    look_ahead: int  # how many of `tokens`, at the end, are heard only; 0 once there are no more to come
    prompt_mel: Tensor  # [frames, 80] float32, two frames for each prompt token
    speaker: Tensor  # [80], see `Flow.speaker`
    streaming: bool  # attention in chunks of 25 tokens, so that frames stay as they are when tokens are added

    @property
    def spoken(self) -> int:
        """Tokens that become mel, the prompt's included."""
        return len(self.tokens) - self.look_ahead
