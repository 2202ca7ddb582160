"""The velocity of the flow: a U-Net of causal convolutions and transformers, all at the frame rate.

All tensors are [rows, frames, channels], padded on the right. The convolutions look back only and attention is masked,
so the content of the padding never affects a real frame and needs no masking itself.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vllm_cosyvoice.config import MEL_BINS, FlowConfig
from vllm_cosyvoice.nn.layers import FrameConv

CONDITION_CHANNELS = 3 * MEL_BINS  # mu, speaker, prompt mel
TIME_DIM = MEL_BINS + CONDITION_CHANNELS


class Condition(NamedTuple):
    """Terms that the condition adds in the first residual block at every step, each [rows, frames, channels]."""

    hidden: Tensor
    shortcut: Tensor

    def of_rows(self, rows: slice) -> "Condition":
        """The terms of these rows."""
        return Condition(self.hidden[rows], self.shortcut[rows])


class Resnet(nn.Module):
    """Two causal convolutions, with the time added in between, and a shortcut."""

    def __init__(self, inputs: int, channels: int, time_dim: int) -> None:
        super().__init__()
        self.conv1 = FrameConv(inputs, channels, 3, left=2)
        self.norm1 = nn.LayerNorm(channels)
        self.time = nn.Linear(time_dim, channels)
        self.conv2 = FrameConv(channels, channels, 3, left=2)
        self.norm2 = nn.LayerNorm(channels)
        self.shortcut = nn.Linear(inputs, channels)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """[rows, frames, inputs] to [rows, frames, channels]; `time` [channels] is from `Estimator.times`."""
        return self.join(self.conv1(x), self.shortcut(x), time)

    def join(self, hidden: Tensor, shortcut: Tensor, time: Tensor) -> Tensor:
        """Compute the block's output from the output `hidden` of the first convolution and from the shortcut.

        Both are [rows, frames, channels].
        """
        hidden = F.mish(self.norm1(hidden)) + time
        hidden = F.mish(self.norm2(self.conv2(hidden)))
        return hidden + shortcut


class Transformer(nn.Module):
    """Attention, then feed-forward, each on the normed input."""

    def __init__(self, channels: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.norm1 = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * heads * head_dim, bias=False)
        self.out = nn.Linear(heads * head_dim, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.feed_in = nn.Linear(channels, 4 * channels)
        self.feed_out = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Input and output are [rows, frames, channels]; `mask` is added to the scores, see `masks`."""
        rows, frames, _ = x.shape
        qkv = self.qkv(self.norm1(x)).view(rows, frames, 3, self.heads, self.head_dim)
        query, key, value = qkv.transpose(1, 3).unbind(2)
        attended = F.scaled_dot_product_attention(query, key, value, mask)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        x = x + self.feed_out(F.gelu(self.feed_in(self.norm2(x))))
        return x


class Stage(nn.Module):
    """A residual block followed by transformers."""

    def __init__(self, config: FlowConfig, inputs: int) -> None:
        super().__init__()
        channels = config.estimator_channels
        self.resnet = Resnet(inputs, channels, 4 * channels)
        self.transformers = nn.ModuleList(
            Transformer(channels, config.estimator_heads, config.estimator_head_dim)
            for _ in range(config.estimator_blocks)
        )

    def forward(self, x: Tensor, time: Tensor, mask: Tensor | None) -> Tensor:
        """[rows, frames, inputs] to [rows, frames, channels]."""
        return self.attend(self.resnet(x, time), mask)

    def attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Apply only the transformers. Input and output are [rows, frames, channels]."""
        for transformer in self.transformers:
            x = transformer(x, mask)
        return x


class Estimator(nn.Module):
    """Computes the velocities at x with and without the condition, for classifier-free guidance."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        channels = config.estimator_channels
        self.time_in = nn.Linear(TIME_DIM, 4 * channels)
        self.time_out = nn.Linear(4 * channels, 4 * channels)
        # The first block's convolutions over [x, condition] are split into one over x and one over the condition,
        # because only x changes from step to step. Without the condition, the second term is zero.
        self.condition_conv = FrameConv(CONDITION_CHANNELS, channels, 3, left=2, bias=False)
        self.condition_shortcut = nn.Linear(CONDITION_CHANNELS, channels, bias=False)
        self.down = Stage(config, MEL_BINS)
        self.down_conv = FrameConv(channels, channels, 3, left=2)
        self.mid = nn.ModuleList(Stage(config, channels) for _ in range(config.estimator_mid_stages))
        self.up = Stage(config, 2 * channels)
        self.up_conv = FrameConv(channels, channels, 3, left=2)
        self.final_conv = FrameConv(channels, channels, 3, left=2)
        self.final_norm = nn.LayerNorm(channels)
        self.final_proj = nn.Linear(channels, MEL_BINS)

    def times(self, times: Tensor) -> Tensor:
        """Embed `times` [n] as the terms that the stages add: [n, stages, channels]."""
        half = TIME_DIM // 2
        rates = torch.exp(torch.arange(half, device=times.device) * (-math.log(10_000) / (half - 1)))
        angles = 1000 * times[:, None] * rates
        embedded = torch.cat([angles.sin(), angles.cos()], dim=-1).to(self.time_in.weight.dtype)
        embedded = F.mish(self.time_out(F.silu(self.time_in(embedded))))
        stages = [self.down, *self.mid, self.up]
        return torch.stack([stage.resnet.time(embedded) for stage in stages], dim=1)

    def condition(self, mu: Tensor, speaker: Tensor, prompt_mel: Tensor) -> Condition:
        """Precompute the condition's terms from mu and prompt_mel [rows, frames, 80] and speaker [rows, 80]."""
        speaker = speaker[:, None].expand_as(mu)
        channels = torch.cat([mu, speaker, prompt_mel], dim=-1).to(self.condition_conv.weight.dtype)
        return Condition(self.condition_conv(channels), self.condition_shortcut(channels))

    def forward(self, x: Tensor, condition: Condition, time: Tensor, mask: Tensor | None) -> Tensor:
        """Compute the velocities [2 · rows, frames, 80]: first all rows with the condition, then all without.

        Args:
            x: [rows, frames, 80].
            time: [stages, channels], one step's row of `times`.
            mask: [2 · rows, 1, frames, frames], attention mask, see `masks`.
        """
        resnet = self.down.resnet
        hidden, shortcut = resnet.conv1(x), resnet.shortcut(x)
        hidden = torch.cat([hidden + condition.hidden, hidden])
        shortcut = torch.cat([shortcut + condition.shortcut, shortcut])
        x = skip = self.down.attend(resnet.join(hidden, shortcut, time[0]), mask)
        x = self.down_conv(x)
        for stage, stage_time in zip(self.mid, time[1:-1], strict=True):
            x = stage(x, stage_time, mask)
        x = self.up_conv(self.up(torch.cat([x, skip], dim=-1), time[-1], mask))
        velocity: Tensor = self.final_proj(F.mish(self.final_norm(self.final_conv(x))))
        return velocity
