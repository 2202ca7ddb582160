"""CosyVoice2's network over packed rows: its encoder, and the steps of its U-Net."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vllm_cosyvoice.flow.cuda.encoder import PackedEncoder, causal_taps
from vllm_cosyvoice.flow.cuda.estimator import Call, PackedEstimator
from vllm_cosyvoice.flow.cuda.launch_shapes import launch_shapes
from vllm_cosyvoice.flow.cuda.memory import PageLayout, StepMemory
from vllm_cosyvoice.flow.cuda.packing import EncoderTable, SolverTable
from vllm_cosyvoice.flow.cuda.weights import TAPS
from vllm_cosyvoice.flow.torch.estimator import Condition
from vllm_cosyvoice.flow.torch.flow import Flow
from vllm_cosyvoice.gpu.device import Gpu

BEST_SIZE = 7168  # frames of a call of several rows, on an H200
L2_CACHE_A_FRAME = 7314  # bytes per frame, chosen so that an H100's 50 MB suffice for `BEST_SIZE`


class PackedUNet:
    """The encoder and the estimator of a `Flow`."""

    def __init__(self, flow: Flow, gpu: Gpu, longest: int, data_type: torch.dtype) -> None:
        """`longest`: number of tokens in the longest row."""
        self._gpu = gpu
        self._encoder, self._encoder_proj = PackedEncoder(flow.encoder, longest, data_type), flow.encoder_proj
        self.estimator = PackedEstimator(flow.estimator, flow.guidance, data_type)
        self._times = flow.step_times.to(data_type)
        self._condition_conv, self._condition_shortcut = (
            part.weight.to(data_type) for part in (flow.estimator.condition_conv, flow.estimator.condition_shortcut)
        )
        self.condition_widths: Sequence[int] = len(self._condition_conv), len(self._condition_shortcut)
        self.page_layout = PageLayout(
            steps=len(self._times),
            attentions=self.estimator.attentions,
            attention_width=self.estimator.attention_width,
            convolutions=self.estimator.convolutions,
            convolution_width=len(self._condition_conv),
            tail=TAPS - 1,
        )
        self.silence = self._encoder.look_ahead.silence
        self.best_frames = best_frames(gpu)

    def queries(self, frames: int) -> int:
        """See `Network.queries`."""
        return launch_shapes(frames, self._gpu).attention.rows

    def condition(self, table: EncoderTable, speakers: Tensor, prompts: Tensor) -> Condition:
        """See `Network.condition`."""
        mu = self._encoder_proj(self._encoder(table, launch_shapes(len(prompts), self._gpu)))
        conditions = torch.cat([mu, speakers, prompts], dim=-1).to(self._condition_conv.dtype)
        return Condition(
            causal_taps(conditions, table.frame_positions) @ self._condition_conv.T,
            conditions @ self._condition_shortcut.T,
        )

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
        call = Call(table.positions, table.tiles, launch_shapes(len(x), self._gpu), memory)
        self.estimator.step(x, Condition(*condition), self._times[number], size, call)


def best_frames(gpu: Gpu) -> int:
    """The most frames of a call of several rows.

    Up to this size, intermediate results stay in the L2 cache; adding more rows makes no row faster.
    """
    return min(BEST_SIZE, gpu.l2_cache // L2_CACHE_A_FRAME)
