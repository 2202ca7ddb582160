"""The estimator over packed rows: about 340 fused kernels per step.

Each tensor holds all frames twice: first with the condition, then without, see `Estimator`.
"""

from itertools import chain
from typing import NamedTuple, cast

import torch
from torch import Tensor

from vllm_cosyvoice.flow.cuda.kernels import Layer, Tail, attention, euler_step, first_block, linear, norm_mish
from vllm_cosyvoice.flow.cuda.launch_shapes import LaunchShapes
from vllm_cosyvoice.flow.cuda.memory import StepMemory
from vllm_cosyvoice.flow.cuda.weights import (
    conv_and_shortcut,
    folded,
    in_order,
    layer,
    norm,
    padded_inputs,
    padded_outputs,
)
from vllm_cosyvoice.flow.torch.estimator import Condition, Estimator, Resnet, Stage, Transformer


class Call(NamedTuple):
    """Arguments that all kernels of a call share."""

    positions: Tensor  # int32 [frames], each frame's position in its row
    tiles: Tensor  # int32 [tiles, 7], see `SolverTable`
    shapes: LaunchShapes
    memory: StepMemory


class Frames(NamedTuple):
    """Frames between two transformers, [2 · frames, channels], and their sums, which the next norm needs."""

    x: Tensor
    sums: Tensor


class PackedTransformer:
    """Attention, then feed-forward: five kernels."""

    def __init__(self, module: Transformer, data_type: torch.dtype) -> None:
        self.heads = module.heads
        self.qkv = folded(module.norm1, module.qkv, data_type)
        self.out = layer(module.out, data_type)
        self.feed_in = folded(module.norm2, module.feed_in, data_type)
        self.feed_out = layer(module.feed_out, data_type)
        self.ahead: Tensor | None = None  # weights of later kernels, which attention prefetches into the L2 cache

    @property
    def layers(self) -> list[Layer]:
        """The layers in order of use."""
        return [self.qkv, self.out, self.feed_in, self.feed_out]

    def __call__(self, frames: Frames, call: Call, tail: Tail | None) -> Frames:
        """Compute the frames after the block; `tail`: see `linear`."""
        positions, shapes = call.positions, call.shapes
        qkv, _ = linear(frames.x, positions, self.qkv, shapes.qkv, sums=frames.sums)
        attended = attention(
            qkv, call.tiles, self.heads, shapes.attention, halves=2, pages=call.memory.pages(), ahead=self.ahead
        )
        x, sums = linear(attended, positions, self.out, shapes.out, residual=frames.x)
        hidden, _ = linear(x, positions, self.feed_in, shapes.feed_in, sums=sums, activation="gelu")
        return Frames(*linear(hidden, positions, self.feed_out, shapes.feed_out, residual=x, tail=tail))


class PackedResnet:
    """Two causal convolutions with the time added in between, and a shortcut: four kernels."""

    def __init__(self, module: Resnet, data_type: torch.dtype) -> None:
        self.conv1, self.conv2 = conv_and_shortcut(module, data_type), layer(module.conv2, data_type)
        self.norm1, self.norm2 = norm(module.norm1), norm(module.norm2)

    @property
    def layers(self) -> list[Layer]:
        """The layers in order of use."""
        return [self.conv1, self.conv2]

    def __call__(self, x: Tensor, time: Tensor, call: Call) -> Frames:
        """Compute the frames from x [2 · frames, inputs] and `time` [channels]."""
        shapes = call.shapes
        channels = len(self.conv2.bias)
        both, _ = linear(x, call.positions, self.conv1, shapes.conv, newest_from=channels)
        hidden, _ = norm_mish(
            both[:, :channels], call.positions, self.norm1, shapes.norm_mish, time, call.memory.tail()
        )
        return finish(self, hidden, both[:, channels:], call)


class PackedFirstResnet:
    """The first residual block, the only one that sees x and the condition."""

    def __init__(self, module: Resnet, data_type: torch.dtype) -> None:
        self.conv1, self.shortcut = (padded_inputs(layer(part, data_type)) for part in (module.conv1, module.shortcut))
        self.conv2 = layer(module.conv2, data_type)
        self.norm1, self.norm2 = norm(module.norm1), norm(module.norm2)

    def __call__(self, x: Tensor, condition: Condition, time: Tensor, call: Call) -> Frames:
        """Compute the frames from x [frames, 80] float32 and `time` [channels]."""
        hidden, shortcut = first_block(
            x,
            call.positions,
            self.conv1,
            self.norm1,
            time,
            self.shortcut,
            condition,
            call.shapes.step,
            call.memory.tail(),
        )
        return finish(self, hidden, shortcut, call)


def finish(resnet: PackedResnet | PackedFirstResnet, hidden: Tensor, shortcut: Tensor, call: Call) -> Frames:
    """Compute the second half of a residual block."""
    hidden, _ = linear(hidden, call.positions, resnet.conv2, call.shapes.conv)
    return Frames(*norm_mish(hidden, call.positions, resnet.norm2, call.shapes.norm_mish, shortcut))


class PackedEstimator:
    """Computes the Euler steps from x to the mel."""

    def __init__(self, module: Estimator, guidance: float, data_type: torch.dtype) -> None:
        self.guidance = guidance

        def transformers(stage: Stage) -> list[PackedTransformer]:
            return [PackedTransformer(part, data_type) for part in cast("list[Transformer]", stage.transformers)]

        self.down = PackedFirstResnet(module.down.resnet, data_type), transformers(module.down)
        self.down_conv = layer(module.down_conv, data_type)
        self.mid = [
            (PackedResnet(stage.resnet, data_type), transformers(stage)) for stage in cast("list[Stage]", module.mid)
        ]
        self.up = PackedResnet(module.up.resnet, data_type), transformers(module.up)
        self.up_conv = layer(module.up_conv, data_type)
        self.final_conv, self.final_norm = layer(module.final_conv, data_type), norm(module.final_norm)
        self.final_proj = padded_outputs(layer(module.final_proj, data_type))
        stages = [self.down, *self.mid, self.up]
        self.attentions = sum(len(transformers) for _, transformers in stages)
        self.attention_width = len(self.down[1][0].out.weight[0])
        self.convolutions = 2 * len(stages) + 2  # that see more than x: two of each stage, and those between stages
        self._fetch_ahead()

    def _fetch_ahead(self) -> None:
        """Let each attention kernel prefetch the weights used until the next attention."""
        first, transformers = self.down
        stages = [([first.conv2], transformers), *((part.layers, rest) for part, rest in (*self.mid, self.up))]
        stages[1][0].insert(0, self.down_conv)
        stages.append(([self.up_conv, self.final_conv, self.final_proj], []))
        attending = [part for _, rest in stages for part in rest]
        used = [layer for layers, rest in stages for layer in chain(layers, *(part.layers for part in rest))]
        weights = in_order([layer.weight for layer in used], [part.out.weight for part in attending])
        for part, ahead in zip(attending, weights, strict=True):
            part.ahead = ahead

    def step(self, x: Tensor, condition: Condition, time: Tensor, size: float, call: Call) -> None:
        """Move x [frames, 80] float32 by `size` along the guided velocity; `time` [stages, channels]."""

        def attend(frames: Frames, transformers: list[PackedTransformer]) -> Tensor:
            for transformer in transformers:
                frames = transformer(frames, call, call.memory.tail() if transformer is transformers[-1] else None)
            return frames.x

        def conv(x: Tensor, weights: Layer, tail: Tail | None = None) -> Tensor:
            return linear(x, call.positions, weights, call.shapes.conv, tail=tail)[0]

        first, transformers = self.down
        skip = attend(first(x, condition, time[0], call), transformers)
        hidden = conv(skip, self.down_conv, call.memory.tail())
        for number, (resnet, transformers) in enumerate(self.mid, start=1):
            hidden = attend(resnet(hidden, time[number], call), transformers)
        resnet, transformers = self.up
        hidden = attend(resnet(torch.cat([hidden, skip], dim=-1), time[-1], call), transformers)
        hidden = conv(conv(hidden, self.up_conv, call.memory.tail()), self.final_conv)
        hidden, _ = norm_mish(hidden, call.positions, self.final_norm, call.shapes.norm_mish)
        euler_step(
            hidden, call.positions, self.final_proj, x, size, self.guidance, call.shapes.step,
            call.memory.next_x(),
        )  # fmt: skip
