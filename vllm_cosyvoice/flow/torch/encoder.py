"""Converts speech tokens to hidden frames: a transformer at the token rate, then one at the frame rate.

All tensors are [rows, positions, channels], padded on the right. Attention is masked, the look-ahead sees zeros in
place of padding, and all other layers look back only, so padding never affects real positions.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vllm_cosyvoice.config import FRAMES_PER_TOKEN, LOOKAHEAD_TOKENS, FlowConfig
from vllm_cosyvoice.nn.context import WHOLE, Context
from vllm_cosyvoice.nn.layers import FrameConv

DISTANCES = 128  # computed at a time, so that the keys of a distance do not depend on how far the others reach


class Embed(nn.Module):
    """Linear layer and norm, scaled by √width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.scale = math.sqrt(width)

    def forward(self, x: Tensor) -> Tensor:
        """Input and output are [rows, positions, width]."""
        embedded: Tensor = self.norm(self.linear(x)) * self.scale
        return embedded


class LookAhead(nn.Module):
    """Lets each position see the next three."""

    def __init__(self, width: int, inner_width: int) -> None:
        super().__init__()
        self.conv1 = FrameConv(width, inner_width, LOOKAHEAD_TOKENS + 1, right=LOOKAHEAD_TOKENS)
        self.conv2 = FrameConv(inner_width, width, 3, left=2)

    def forward(self, x: Tensor, length: int, context: Context) -> Tensor:
        """Compute the first `length` positions; later ones serve as look-ahead only."""
        ahead: Tensor = self.conv2(F.leaky_relu(self.conv1(x)[:, :length]), context)
        return x[:, :length] + ahead


class RelativeAttention(nn.Module):
    """Self-attention by content and by distance (Dai et al. 2019, Transformer-XL, section 3.3)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.qkv = nn.Linear(width, 3 * width)
        self.position = nn.Linear(width, width, bias=False)
        self.content_bias = nn.Parameter(torch.empty(heads, self.head_dim))
        self.position_bias = nn.Parameter(torch.empty(heads, self.head_dim))
        self.out = nn.Linear(width, width)
        self._distance_keys: Tensor | None = None  # cached for distances up to `_reach`; serving keeps weights constant
        self._reach = 0

    def distance_keys(self, length: int, past: int = 0) -> Tensor:
        """The keys for the distances from `length` positions to themselves and to the `past` ones before them.

        Their shape is [heads, head_dim, past + 2 · length - 1], for the distances past + length - 1 … -(length - 1).
        """
        reach = past + length
        if self._distance_keys is None or self._reach < reach or torch.is_grad_enabled():
            self._reach = max(DISTANCES, 1 << (reach - 1).bit_length())
            weight = self.position.weight
            distances = torch.arange(self._reach - 1, -self._reach, -1, dtype=torch.float64, device=weight.device)
            encoded = sinusoids(distances, weight.shape[1]).to(weight.dtype)
            keys = torch.cat(
                [self.position(encoded[at : at + DISTANCES]) for at in range(0, 2 * self._reach, DISTANCES)]
            )
            self._distance_keys = keys.view(-1, self.heads, self.head_dim).permute(1, 2, 0).contiguous()
        return self._distance_keys[..., self._reach - reach : self._reach + length - 1]

    def forward(self, x: Tensor, mask: Tensor | None, context: Context) -> Tensor:
        """Input and output are [rows, length, width]; `mask` is added to the scores, see `masks`."""
        rows, length, width = x.shape
        qkv = self.qkv(x).view(rows, length, 3, self.heads, self.head_dim)
        query = qkv[:, :, 0]
        key, value = context.keys_values(qkv[:, :, 1:]).unbind(2)
        reach = key.shape[1]
        scores = (query + self.position_bias).transpose(1, 2) @ self.distance_keys(length, reach - length)
        # The score of query i of this piece and key j is in column length - 1 - i + j. A row stride shorter by one
        # aligns the columns by key.
        by_row, by_head, by_query, _ = scores.stride()
        bias = scores.as_strided((*scores.shape[:3], reach), (by_row, by_head, by_query - 1, 1), length - 1)
        bias = bias / math.sqrt(self.head_dim)
        attended = F.scaled_dot_product_attention(
            (query + self.content_bias).transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            bias if mask is None else bias + mask,
        )
        out: Tensor = self.out(attended.transpose(1, 2).reshape(rows, length, width))
        return out


class Block(nn.Module):
    """Attention, then feed-forward, each on the normed input."""

    def __init__(self, width: int, heads: int, feed_forward: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-12)
        self.attention = RelativeAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-12)
        self.feed_in = nn.Linear(width, feed_forward)
        self.feed_out = nn.Linear(feed_forward, width)

    def forward(self, x: Tensor, mask: Tensor | None, context: Context) -> Tensor:
        """Input and output are [rows, positions, width]."""
        x = x + self.attention(self.norm1(x), mask, context)
        x = x + self.feed_out(F.silu(self.feed_in(self.norm2(x))))
        return x


class Encoder(nn.Module):
    """Converts speech tokens to hidden frames, two per token."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        width, block = config.width, (config.width, config.heads, config.feed_forward)
        self.token_embedding = nn.Embedding(config.token_vocab_size, width)
        self.embed = Embed(width)
        self.look_ahead = LookAhead(width, width)
        self.blocks = nn.ModuleList(Block(*block) for _ in range(config.blocks))
        self.up_conv = FrameConv(width, width, 5, left=4)
        self.up_embed = Embed(width)
        self.up_blocks = nn.ModuleList(Block(*block) for _ in range(config.up_blocks))
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        tokens: Tensor,
        counts: Tensor,
        spoken: int,
        mask: Tensor | None,
        frame_mask: Tensor | None,
        context: Context = WHOLE,
    ) -> Tensor:
        """Compute the hidden frames [rows, 2 · spoken, width].

        Args:
            tokens: [rows, at least spoken], each row's tokens followed by its look-ahead tokens.
            counts: [rows], the number of `tokens` in each row, look-ahead included; the rest is padding.
            spoken: the number of tokens of the longest row, without look-ahead.
            mask, frame_mask: attention masks at the token rate and at the frame rate, see `masks`.
            context: what earlier pieces of the row left behind.
        """
        x = self.embed(self.token_embedding(tokens.clamp(min=0)))
        x = x * (torch.arange(tokens.shape[1], device=tokens.device) < counts[:, None])[..., None]
        x = self.look_ahead(x, spoken, context)
        for block in self.blocks:
            x = block(x, mask, context)
        x = self.up_embed(self.up_conv(x.repeat_interleave(FRAMES_PER_TOKEN, dim=1), context))
        for block in self.up_blocks:
            x = block(x, frame_mask, context)
        hidden: Tensor = self.norm(x)
        return hidden


def sinusoids(distances: Tensor, width: int) -> Tensor:
    """Encode distances as [n, width]: channel 2k is the sine, 2k + 1 the cosine of distance · 10000^(-2k / width)."""
    rates = 10_000 ** (-torch.arange(0, width, 2, dtype=distances.dtype, device=distances.device) / width)
    angles = distances[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
