"""Speech tokens to hidden frames: a transformer at the token rate, then one at the frame rate.

All tensors are [rows, positions, channels]. Rows are padded on the right; everything but the attention, which has
a mask, and the look-ahead, which is given zeros, looks back only, so padding never reaches what is kept.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vllm_cosyvoice.config import FRAMES_PER_TOKEN, LOOKAHEAD_TOKENS, FlowConfig
from vllm_cosyvoice.nn.layers import FrameConv


class Embed(nn.Module):
    """Linear and norm, scaled by √width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.scale = math.sqrt(width)

    def forward(self, x: Tensor) -> Tensor:
        """[rows, positions, width], the same out."""
        embedded: Tensor = self.norm(self.linear(x)) * self.scale
        return embedded


class LookAhead(nn.Module):
    """Lets each position hear the next three."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = FrameConv(width, width, LOOKAHEAD_TOKENS + 1, right=LOOKAHEAD_TOKENS)
        self.conv2 = FrameConv(width, width, 3, left=2)

    def forward(self, x: Tensor, length: int) -> Tensor:
        """The first `length` positions; those behind are heard only."""
        ahead: Tensor = self.conv2(F.leaky_relu(self.conv1(x)[:, :length]))
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
        self._distance_keys: Tensor | None = None  # for all distances up to `_reach`; serving never changes the weights
        self._reach = 0

    def distance_keys(self, length: int) -> Tensor:
        """Keys [heads, head_dim, 2 · length - 1] of the distances length - 1 … -(length - 1)."""
        if self._distance_keys is None or self._reach < length or torch.is_grad_enabled():
            self._reach = max(128, 1 << (length - 1).bit_length())
            weight = self.position.weight
            distances = torch.arange(self._reach - 1, -self._reach, -1, dtype=torch.float64, device=weight.device)
            keys = self.position(sinusoids(distances, weight.shape[1]).to(weight.dtype))
            self._distance_keys = keys.view(-1, self.heads, self.head_dim).permute(1, 2, 0).contiguous()
        return self._distance_keys[..., self._reach - length : self._reach + length - 1]

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """[rows, length, width], the same out; `mask` is added to the scores, see `masks`."""
        rows, length, width = x.shape
        query, key, value = self.qkv(x).view(rows, length, 3, self.heads, self.head_dim).unbind(2)
        scores = (query + self.position_bias).transpose(1, 2) @ self.distance_keys(length)
        # Query i meets key j at distance i - j, in column length - 1 - i + j: rows one step shorter line the keys up.
        by_row, by_head, by_query, _ = scores.stride()
        bias = scores.as_strided((*scores.shape[:3], length), (by_row, by_head, by_query - 1, 1), length - 1)
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

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """[rows, positions, width], the same out."""
        x = x + self.attention(self.norm1(x), mask)
        x = x + self.feed_out(F.silu(self.feed_in(self.norm2(x))))
        return x


class Encoder(nn.Module):
    """Speech tokens to hidden frames, two a token."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        width, block = config.width, (config.width, config.heads, config.feed_forward)
        self.token_embedding = nn.Embedding(config.token_vocab_size, width)
        self.embed = Embed(width)
        self.look_ahead = LookAhead(width)
        self.blocks = nn.ModuleList(Block(*block) for _ in range(config.blocks))
        self.up_conv = FrameConv(width, width, 5, left=4)
        self.up_embed = Embed(width)
        self.up_blocks = nn.ModuleList(Block(*block) for _ in range(config.up_blocks))
        self.norm = nn.LayerNorm(width)

    def forward(
        self, tokens: Tensor, heard: Tensor, spoken: int, mask: Tensor | None, frame_mask: Tensor | None
    ) -> Tensor:
        """Hidden frames [rows, 2 · spoken, width].

        Args:
            tokens: [rows, at least spoken], each row's tokens, the ones it only looks ahead to behind the others.
            heard: [rows], how many of `tokens` there are in each row; what follows is padding.
            spoken: how many tokens the longest row speaks.
            mask, frame_mask: what attention adds at the token and at the frame rate, see `masks`.
        """
        x = self.embed(self.token_embedding(tokens.clamp(min=0)))
        x = x * (torch.arange(tokens.shape[1], device=tokens.device) < heard[:, None])[..., None]
        x = self.look_ahead(x, spoken)
        for block in self.blocks:
            x = block(x, mask)
        x = self.up_embed(self.up_conv(x.repeat_interleave(FRAMES_PER_TOKEN, dim=1)))
        for block in self.up_blocks:
            x = block(x, frame_mask)
        hidden: Tensor = self.norm(x)
        return hidden


def sinusoids(distances: Tensor, width: int) -> Tensor:
    """[n, width], channel 2k the sine and 2k + 1 the cosine of distance · 10000^(-2k / width)."""
    rates = 10_000 ** (-torch.arange(0, width, 2, dtype=distances.dtype, device=distances.device) / width)
    angles = distances[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
