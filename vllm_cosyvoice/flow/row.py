"""Input of a flow."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from vllm_cosyvoice.flow.cache import StreamMemory


@dataclass(frozen=True, eq=False)
class FlowRow:
    """One row of a solve."""

    tokens: Sequence[int]  # prompt, then speech, then look-ahead
    look_ahead: int  # how many of `tokens`, at the end, are look-ahead only; 0 if no more tokens will come
    prompt_mel: Tensor  # [frames, 80] float32, two frames per prompt token
    speaker: Tensor  # [80], see `Flow.speaker`
    chunk_mask: bool  # attention in chunks of 25 tokens, so that frames do not change when tokens are added
    memory: StreamMemory | None = None  # what is remembered of the stream; None: nothing, as of a row without chunks

    @property
    def spoken(self) -> int:
        """Number of tokens that become mel, including the prompt."""
        return len(self.tokens) - self.look_ahead
