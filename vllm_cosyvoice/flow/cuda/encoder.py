"""The token encoders over packed rows: the look-ahead, which both families have, and CosyVoice2's transformers."""

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from vllm_cosyvoice.config import FRAMES_PER_TOKEN
from vllm_cosyvoice.flow.cuda.kernels import Distances, attention, linear, sums_of
from vllm_cosyvoice.flow.cuda.launch_shapes import LaunchShapes
from vllm_cosyvoice.flow.cuda.packing import EncoderTable
from vllm_cosyvoice.flow.cuda.weights import folded, layer, plain
from vllm_cosyvoice.flow.torch.encoder import Block, Encoder, LookAhead


class PackedBlock:
    """Attention by content and distance, then feed-forward: five kernels."""

    def __init__(self, module: Block, reach: int, data_type: torch.dtype) -> None:
        """`reach`: number of positions in the longest row."""
        inner = module.attention
        self.heads, self.eps = inner.heads, module.norm1.eps
        self.qkv = folded(module.norm1, inner.qkv, data_type)
        keys = inner.distance_keys(reach).permute(2, 0, 1).to(data_type).contiguous()
        self.distances = Distances(inner.content_bias.float(), inner.position_bias.float(), keys)
        self.out = layer(inner.out, data_type)
        self.feed_in = folded(module.norm2, module.feed_in, data_type)
        self.feed_out = layer(module.feed_out, data_type)

    def __call__(
        self, x: Tensor, sums: Tensor, positions: Tensor, tiles: Tensor, shapes: LaunchShapes
    ) -> tuple[Tensor, Tensor]:
        """Takes x [positions, width] and its sums, and returns both for the output."""
        qkv, _ = linear(x, positions, self.qkv, shapes.qkv, sums=sums, eps=self.eps)
        attended = attention(qkv, tiles, self.heads, shapes.relative_attention, distances=self.distances)
        x, sums = linear(attended, positions, self.out, shapes.out, residual=x)
        hidden, _ = linear(x, positions, self.feed_in, shapes.feed_in, sums=sums, activation="silu", eps=self.eps)
        return linear(hidden, positions, self.feed_out, shapes.feed_out, residual=x)


class PackedLookAhead:
    """Embeds tokens and lets each see the next three."""

    def __init__(self, embedded: Tensor, module: LookAhead, data_type: torch.dtype) -> None:
        """`embedded`: the embedding of every token, [tokens, width]."""
        self.silence = len(embedded)  # the row after the last token: zeros
        self.embedding = F.pad(embedded, (0, 0, 0, 1)).to(data_type)
        self.conv1, self.conv2 = (plain(part, data_type) for part in (module.conv1, module.conv2))

    def __call__(self, table: EncoderTable) -> Tensor:
        """Compute the hidden tokens, [tokens, width]."""
        windows = F.embedding(table.heard, self.embedding)
        ahead = F.leaky_relu(F.linear(windows.flatten(1), *self.conv1))
        return windows[:, 0] + F.linear(causal_taps(ahead, table.token_positions), *self.conv2)


class PackedEncoder:
    """Converts speech tokens to hidden frames, two per token."""

    def __init__(self, module: Encoder, longest: int, data_type: torch.dtype) -> None:
        """`longest`: number of tokens in the longest row."""
        self.data_type = data_type
        # Token embeddings are constant, so they are precomputed.
        embedded = module.embed(module.token_embedding.weight)
        self.look_ahead = PackedLookAhead(embedded, module.look_ahead, data_type)
        self.up_linear = plain(module.up_embed.linear, data_type)
        self.blocks = [PackedBlock(block, longest, data_type) for block in cast("list[Block]", module.blocks)]
        # Frames come in equal pairs, so the convolution of kernel 5 sees three tokens: the two frames of a token are
        # two outputs of a convolution of kernel 3 over tokens.
        taps = module.up_conv.weight.reshape(len(module.up_conv.weight), module.up_conv.kernel, -1)
        even = torch.stack([taps[:, 0] + taps[:, 1], taps[:, 2] + taps[:, 3], taps[:, 4]], dim=1)
        odd = torch.stack([taps[:, 0], taps[:, 1] + taps[:, 2], taps[:, 3] + taps[:, 4]], dim=1)
        self.up_weight = torch.cat([even, odd]).flatten(1).to(data_type)
        self.up_bias = module.up_conv.bias.repeat(FRAMES_PER_TOKEN).to(data_type)
        self.up_embed = module.up_embed
        self.up_blocks = [
            PackedBlock(block, FRAMES_PER_TOKEN * longest, data_type) for block in cast("list[Block]", module.up_blocks)
        ]
        self.norm = module.norm

    def __call__(self, table: EncoderTable, shapes: LaunchShapes) -> Tensor:
        """Compute the hidden frames, [frames, width] float32."""
        x = self.look_ahead(table)
        sums = sums_of(x)
        for block in self.blocks:
            x, sums = block(x, sums, table.token_positions, table.token_tiles, shapes)
        x = F.linear(causal_taps(x, table.token_positions), self.up_weight, self.up_bias)
        x = F.linear(x.view(-1, x.shape[1] // FRAMES_PER_TOKEN), *self.up_linear)
        x = (self.up_embed.norm(x.float()) * self.up_embed.scale).to(self.data_type)
        sums = sums_of(x)
        for block in self.up_blocks:
            x, sums = block(x, sums, table.frame_positions, table.frame_tiles, shapes)
        hidden: Tensor = self.norm(x.float())
        return hidden


def causal_taps(x: Tensor, positions: Tensor) -> Tensor:
    """Concatenate each position of x [n, channels] with the two before it in its row: [n, 3 · channels], oldest first.

    Positions before the start of a row are zeros.
    """
    padded = F.pad(x, (0, 0, 2, 0))
    first, second = (padded[2 - back : len(padded) - back] * (positions >= back)[:, None] for back in (2, 1))
    return torch.cat([first, second, x], dim=-1)
