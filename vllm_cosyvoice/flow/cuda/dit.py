"""CosyVoice3's network over packed rows: its encoder, and the steps of its diffusion transformer.

A step of the released size takes 114 fused kernels; in large calls on Hopper, cuBLAS computes 66 of their products.

Each tensor of a step holds all frames twice: first with the condition, then without, see `DiT`.

A norm's weight and bias depend on the step alone. Its bias is folded into the bias of the layer behind it, once for
each step. Its weight is not folded into the layer's weight, which would have to be kept ten times: the kernel before
multiplies the frames by it when it stores them.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from vllm_cosyvoice.config import FRAMES_PER_TOKEN
from vllm_cosyvoice.flow.cuda.encoder import PackedLookAhead
from vllm_cosyvoice.flow.cuda.kernels import (
    Modulated,
    Modulation,
    Pages,
    attention,
    conditioned_input,
    gated,
    linear,
    normed_euler_step,
    position_conv,
)
from vllm_cosyvoice.flow.cuda.launch_shapes import DiTLaunchShapes, dit_launch_shapes
from vllm_cosyvoice.flow.cuda.memory import PageLayout, StepMemory
from vllm_cosyvoice.flow.cuda.packing import EncoderTable, SolverTable
from vllm_cosyvoice.flow.cuda.weights import conv_layer, in_order, layer, modulated, padded_inputs, padded_outputs
from vllm_cosyvoice.flow.torch.dit import (
    BLOCK_TERMS,
    FINAL_TERMS,
    NORM_EPS,
    POSITION_GROUPS,
    POSITION_KERNEL,
    Block,
    rotations,
)
from vllm_cosyvoice.flow.torch.dit_flow import DiTFlow
from vllm_cosyvoice.gpu.device import Gpu

BEST_FRAMES = 32  # per multiprocessor, in a call of several rows: 4096 on an H200. Estimated, not measured


class PackedBlock:
    """Attention, then feed-forward, each modulated by the time: five kernels, without cuBLAS's."""

    def __init__(self, module: Block, times: Tensor, next_weights: Tensor, data_type: torch.dtype) -> None:
        """Convert `module`.

        Args:
            times: float32 [steps, 6, width], the block's terms of `torch.dit.Modulation`.
            next_weights: float32 [steps, width], the weight of the norm after the block.
        """
        bias1, weight1, gate1, bias2, weight2, gate2 = times.unbind(1)
        inner = module.attention
        self.heads = inner.heads
        self.qkv = modulated(layer(inner.qkv, torch.float32), weight1, bias1, data_type)
        self.out = layer(inner.out, data_type)
        self.after_attention = [Modulation(*terms) for terms in zip(gate1, weight2, strict=True)]
        self.feed_in = modulated(layer(module.feed_in, torch.float32), weight2, bias2, data_type)
        self.feed_out = layer(module.feed_out, data_type)
        self.after_feed = [Modulation(*terms) for terms in zip(gate2, next_weights, strict=True)]
        self.ahead: Tensor | None = None  # weights of later kernels, which attention prefetches into the L2 cache

    @property
    def weights(self) -> list[Tensor]:
        """The weights in order of use."""
        return [part.weight for part in (self.qkv[0], self.out, self.feed_in[0], self.feed_out)]

    def __call__(
        self,
        number: int,
        frames: Modulated,
        rotation: Tensor,
        table: SolverTable,
        pages: Pages | None,
        shapes: DiTLaunchShapes,
    ) -> Modulated:
        """Compute the frames after the block, in the solver's step `number`."""
        positions = table.positions
        qkv, _ = linear(
            frames.operand, positions, self.qkv[number], shapes.qkv, sums=frames.sums, rotation=rotation, eps=NORM_EPS
        )
        attended = attention(qkv, table.tiles, self.heads, shapes.attention, halves=2, pages=pages, ahead=self.ahead)
        frames = gated(attended, positions, self.out, shapes.out, frames.x, self.after_attention[number])
        hidden, _ = linear(
            frames.operand, positions, self.feed_in[number], shapes.feed_in, sums=frames.sums,
            activation="gelu_tanh", eps=NORM_EPS,
        )  # fmt: skip
        return gated(hidden, positions, self.feed_out, shapes.feed_out, frames.x, self.after_feed[number])


class PackedDiT:
    """The encoder and the estimator of a `DiTFlow`."""

    def __init__(self, flow: DiTFlow, gpu: Gpu, longest: int, data_type: torch.dtype) -> None:
        """`longest`: number of tokens in the longest row."""
        module, times = flow.estimator, flow.step_times
        self._gpu, self._guidance = gpu, flow.guidance
        self._encoder = PackedLookAhead(flow.encoder.token_embedding.weight, flow.encoder.look_ahead, data_type)
        self._condition_proj = module.condition_proj.weight.to(data_type)
        self._rotation = rotations(FRAMES_PER_TOKEN * longest, module.head_dim, times.device)
        self._input_proj = padded_inputs(layer(module.input_proj, data_type))
        self._position1, self._position2 = (
            conv_layer(conv, data_type) for conv in (module.position.conv1, module.position.conv2)
        )
        blocks = cast("list[Block]", module.blocks)
        block_times = times[:, :-FINAL_TERMS].view(len(times), len(blocks), BLOCK_TERMS, -1).unbind(1)
        last_weights, last_biases = times[:, -FINAL_TERMS:].unbind(1)
        # The weight of each block's first norm, then of the last norm.
        self._first_weights, *next_weights = (*(terms[:, 1] for terms in block_times), last_weights)
        self.blocks = [
            PackedBlock(*of_block, data_type) for of_block in zip(blocks, block_times, next_weights, strict=True)
        ]
        output = padded_outputs(layer(module.output_proj, torch.float32))
        self._output_proj = modulated(output, last_weights, last_biases, data_type)
        self._fetch_ahead()
        width = len(self._condition_proj)
        self.condition_widths: Sequence[int] = (width,)
        self.page_layout = PageLayout(
            steps=len(times),
            attentions=len(blocks),
            attention_width=len(self.blocks[0].out.weight[0]),
            convolutions=2,
            convolution_width=width,
            tail=POSITION_KERNEL - 1,
        )
        self.silence = self._encoder.silence
        self.best_frames = BEST_FRAMES * gpu.multiprocessors

    def _fetch_ahead(self) -> None:
        """Let each attention kernel prefetch the weights used until the next attention."""
        used = [weight for block in self.blocks for weight in block.weights]
        weights = in_order([*used, self._output_proj[0].weight], [block.out.weight for block in self.blocks])
        for block, ahead in zip(self.blocks, weights, strict=True):
            block.ahead = ahead

    def queries(self, frames: int) -> int:
        """See `Network.queries`."""
        return dit_launch_shapes(frames, self._gpu).attention.rows

    def condition(self, table: EncoderTable, speakers: Tensor, prompts: Tensor) -> list[Tensor]:
        """See `Network.condition`."""
        mu = self._encoder(table).float()[:, None].expand(-1, FRAMES_PER_TOKEN, -1).flatten(0, 1)
        conditions = torch.cat([prompts, mu, speakers], dim=-1).to(self._condition_proj.dtype)
        return [conditions @ self._condition_proj.T]

    def step(
        self,
        number: int,
        x: Tensor,
        size: float,
        condition: Sequence[Tensor],
        table: SolverTable,
        memory: StepMemory,
    ) -> None:
        """See `Network.step`."""
        shapes, positions = dit_launch_shapes(len(x), self._gpu), table.positions
        hidden = conditioned_input(x, positions, self._input_proj, condition[0], shapes.input, memory.tail())
        frames = position_conv(hidden, positions, self._position1, POSITION_GROUPS, shapes.position, tail=memory.tail())
        frames = position_conv(
            frames.x, positions, self._position2, POSITION_GROUPS, shapes.position,
            residual=hidden, norm_weight=self._first_weights[number],
        )  # fmt: skip
        for block in self.blocks:
            frames = block(number, frames, self._rotation, table, memory.pages(), shapes)
        normed_euler_step(frames, self._output_proj[number], x, size, self._guidance, shapes.step, NORM_EPS)
