"""The velocity of CosyVoice3's flow: a diffusion transformer (DiT, Peebles & Xie 2023) at the frame rate.

All tensors are [rows, frames, channels], padded on the right. The convolutions look back only and attention is masked,
so the content of the padding never affects a real frame and needs no masking itself.

The time only modulates: it gives each norm its weight and bias, and each residual branch its gate. All frames and rows
of a step share these terms, so the terms of the solver's ten times are constants of the model. With them, `Modulation`,
which holds 43 % of the weights, is no longer needed.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vllm_cosyvoice.config import MEL_BINS, DiTFlowConfig

CONDITION_CHANNELS = 3 * MEL_BINS  # prompt mel, mu, speaker
TIME_DIM = 256
NORM_EPS = 1e-6
POSITION_KERNEL = 31
POSITION_GROUPS = 16
ROTARY_BASE = 10_000
BLOCK_TERMS = 6  # bias and weight of the norm and gate, of attention, then of feed-forward
FINAL_TERMS = 2  # weight and bias of the last norm


class Condition(NamedTuple):
    """What is the same at every step."""

    hidden: Tensor  # [rows, frames, width], the condition's term of the input projection
    rotation: Tensor  # [frames, head_dim / 2, 2] float32, see `rotations`

    def of_rows(self, rows: slice) -> "Condition":
        """The condition of these rows."""
        return Condition(self.hidden[rows], self.rotation)


class Modulation(nn.Module):
    """Computes the terms that the time gives to the blocks and to the last norm."""

    def __init__(self, config: DiTFlowConfig) -> None:
        super().__init__()
        width = config.width
        self.time_in = nn.Linear(TIME_DIM, width)
        self.time_out = nn.Linear(width, width)
        self.blocks = nn.ModuleList(nn.Linear(width, BLOCK_TERMS * width) for _ in range(config.blocks))
        self.final = nn.Linear(width, FINAL_TERMS * width)

    def forward(self, times: Tensor) -> Tensor:
        """Convert `times` [n] to the terms [n, 6 · blocks + 2, width]."""
        half = TIME_DIM // 2
        rates = torch.exp(torch.arange(half, device=times.device) * (-math.log(10_000) / (half - 1)))
        angles = 1000 * times[:, None] * rates
        embedded = torch.cat([angles.sin(), angles.cos()], dim=-1).to(self.time_in.weight.dtype)
        embedded = F.silu(self.time_out(F.silu(self.time_in(embedded))))
        terms = torch.cat([linear(embedded) for linear in (*self.blocks, self.final)], dim=-1)
        terms = terms.view(len(times), -1, embedded.shape[-1])
        scales = torch.zeros(terms.shape[1], 1, device=times.device)  # scales are relative to one
        scales[1:-FINAL_TERMS:3] = scales[-FINAL_TERMS] = 1
        return terms + scales


class PositionConv(nn.Module):
    """Two grouped causal convolutions, which tell frames their relative positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(width, width, POSITION_KERNEL, groups=POSITION_GROUPS)
        self.conv2 = nn.Conv1d(width, width, POSITION_KERNEL, groups=POSITION_GROUPS)

    def forward(self, x: Tensor) -> Tensor:
        """Input and output are [rows, frames, width]."""
        x = x.transpose(1, 2)
        for conv in (self.conv1, self.conv2):
            x = F.mish(conv(F.pad(x, (POSITION_KERNEL - 1, 0))))
        return x.transpose(1, 2)


class Attention(nn.Module):
    """Self-attention whose first head sees positions, by rotation; the other heads see none."""

    def __init__(self, width: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.qkv = nn.Linear(width, 3 * heads * head_dim)
        self.out = nn.Linear(heads * head_dim, width)

    def forward(self, x: Tensor, rotation: Tensor, mask: Tensor | None) -> Tensor:
        """Input and output are [rows, frames, width]; `mask` is added to the scores, see `masks`."""
        rows, frames, _ = x.shape
        qkv = self.qkv(x).view(rows, frames, 3, self.heads, self.head_dim).transpose(1, 3)
        qkv[:, 0, :2] = rotated(qkv[:, 0, :2], rotation)
        query, key, value = qkv.unbind(2)
        attended = F.scaled_dot_product_attention(query, key, value, mask)
        out: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """Attention, then feed-forward, each on the modulated norm of its input and gated."""

    def __init__(self, config: DiTFlowConfig) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.heads, config.head_dim)
        self.feed_in = nn.Linear(config.width, config.feed_forward)
        self.feed_out = nn.Linear(config.feed_forward, config.width)

    def forward(self, x: Tensor, time: Tensor, rotation: Tensor, mask: Tensor | None) -> Tensor:
        """Input and output are [rows, frames, width]; `time` [6, width] are the block's terms of `Modulation`."""
        bias1, weight1, gate1, bias2, weight2, gate2 = time
        x = torch.addcmul(x, gate1, self.attention(modulated_norm(x, weight1, bias1), rotation, mask))
        hidden = F.gelu(self.feed_in(modulated_norm(x, weight2, bias2)), approximate="tanh")
        return torch.addcmul(x, gate2, self.feed_out(hidden))


class DiT(nn.Module):
    """Computes the velocities at x with and without the condition, for classifier-free guidance."""

    def __init__(self, config: DiTFlowConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.modulation = Modulation(config)
        # The projection of [x, condition] is split into one of x and one of the condition, because only x changes from
        # step to step. Without the condition, the second term is zero.
        self.input_proj = nn.Linear(MEL_BINS, config.width)
        self.condition_proj = nn.Linear(CONDITION_CHANNELS, config.width, bias=False)
        self.position = PositionConv(config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.output_proj = nn.Linear(config.width, MEL_BINS)

    def times(self, times: Tensor) -> Tensor:
        """Convert `times` [n] to the terms [n, 6 · blocks + 2, width] that they give to blocks and last norm."""
        terms: Tensor = self.modulation(times)
        return terms

    def condition(self, mu: Tensor, speaker: Tensor, prompt_mel: Tensor) -> Condition:
        """Precompute what all steps share from mu and prompt_mel [rows, frames, 80] and speaker [rows, 80]."""
        channels = torch.cat([prompt_mel, mu, speaker[:, None].expand_as(mu)], dim=-1)
        hidden = self.condition_proj(channels.to(self.condition_proj.weight.dtype))
        return Condition(hidden, rotations(mu.shape[1], self.head_dim, mu.device))

    def forward(self, x: Tensor, condition: Condition, time: Tensor, mask: Tensor | None) -> Tensor:
        """Compute the velocities [2 · rows, frames, 80]: first all rows with the condition, then all without.

        Args:
            x: [rows, frames, 80].
            time: [6 · blocks + 2, width], one step's row of `times`.
            mask: [2 · rows, 1, frames, frames], attention mask, see `masks`.
        """
        x = self.input_proj(x)
        x = torch.cat([x + condition.hidden, x])
        x = x + self.position(x)
        block_times = time[:-FINAL_TERMS].view(len(self.blocks), BLOCK_TERMS, -1)
        for block, block_time in zip(self.blocks, block_times, strict=True):
            x = block(x, block_time, condition.rotation, mask)
        weight, bias = time[-FINAL_TERMS:]
        velocity: Tensor = self.output_proj(modulated_norm(x, weight, bias))
        return velocity


def modulated_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Normalise x [rows, frames, width] over its channels, with weight and bias [width] from the time."""
    return F.layer_norm(x, weight.shape, weight, bias, NORM_EPS)


def rotations(frames: int, head_dim: int, device: torch.device) -> Tensor:
    """The rotation of each frame's channel pairs, [frames, head_dim / 2, 2] float32: cosine and sine.

    Pair j of frame f is turned by f · 10000^(-2j / head_dim).
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64, device=device) / head_dim
    angles = torch.arange(frames, device=device)[:, None] * ROTARY_BASE**-exponents
    return torch.stack([angles.cos(), angles.sin()], dim=-1).float()


def rotated(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn the channel pairs (0, 1), (2, 3) … of x [..., frames, head_dim] by `rotations`; the result is float32."""
    (first, second), (cos, sin) = x.reshape(*x.shape[:-1], -1, 2).unbind(-1), rotation.unbind(-1)
    return torch.stack([first * cos - second * sin, second * cos + first * sin], dim=-1).flatten(-2)
