"""Converts speech tokens to CosyVoice3's mu: an embedding that has seen the next three tokens, and no attention."""

import torch
from torch import Tensor, nn

from vllm_cosyvoice.config import FRAMES_PER_TOKEN, MEL_BINS, DiTFlowConfig
from vllm_cosyvoice.flow.torch.encoder import LookAhead
from vllm_cosyvoice.nn.context import WHOLE, Context


class TokenEncoder(nn.Module):
    """Converts speech tokens to mu, two equal frames per token."""

    def __init__(self, config: DiTFlowConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.token_vocab_size, MEL_BINS)
        self.look_ahead = LookAhead(MEL_BINS, config.look_ahead_width)

    def forward(self, tokens: Tensor, counts: Tensor, spoken: int, context: Context = WHOLE) -> Tensor:
        """Compute mu [rows, 2 · spoken, 80].

        Args:
            tokens: [rows, at least spoken], each row's tokens followed by its look-ahead tokens.
            counts: [rows], the number of `tokens` in each row, look-ahead included; the rest is padding.
            spoken: the number of tokens of the longest row, without look-ahead.
            context: what earlier pieces of the row left behind.
        """
        x = self.token_embedding(tokens.clamp(min=0))
        x = x * (torch.arange(tokens.shape[1], device=tokens.device) < counts[:, None])[..., None]
        mu: Tensor = self.look_ahead(x, spoken, context).repeat_interleave(FRAMES_PER_TOKEN, dim=1)
        return mu
