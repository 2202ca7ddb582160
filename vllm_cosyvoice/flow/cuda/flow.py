"""The flow on a GPU: packed rows, fused kernels, one CUDA graph per call size.

Rows are not padded to equal length, attention never builds a matrix of all pairs of frames, and no call waits for the
device. Weights, operands of matrix products and the frames between kernels have the dtype `data_type` (bfloat16). Sums
inside kernels, norms, softmax, x and its steps, and all code around encoder and estimator use float32, because errors
there would add up over the steps.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from vllm_cosyvoice.config import FRAMES_PER_TOKEN, MEL_BINS
from vllm_cosyvoice.flow.cuda.dit import PackedDiT
from vllm_cosyvoice.flow.cuda.packing import PackedRow, Table, fill, most_rows, packed_tokens
from vllm_cosyvoice.flow.cuda.unet import PackedUNet
from vllm_cosyvoice.flow.euler import STEPS
from vllm_cosyvoice.flow.row import FlowRow
from vllm_cosyvoice.flow.torch.dit_flow import DiTFlow
from vllm_cosyvoice.flow.torch.flow import Flow
from vllm_cosyvoice.gpu.cuda_graphs import CudaGraphs
from vllm_cosyvoice.gpu.device import Gpu
from vllm_cosyvoice.limits import MAX_TOKENS
from vllm_cosyvoice.nn.padding import packed_groups

SIZES = (128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280, 1536, 1792, 2048, 2560, 3072, 4096, 5120, 6144,
         7168, 8192, 12_288, 16_384)  # frames per call  # fmt: skip
FIRST_SIZES = (256, 512, 1024, 2048, 4096, 7168, 16_384)  # captured first: at most about twice the frames of a call


class Network(Protocol):
    """The encoder and the estimator of one flow, over packed rows."""

    silence: int  # the id after a row's last token, see `fill`
    best_frames: int  # the most frames of a call of several rows

    def queries(self, frames: int) -> int:
        """Number of queries in an attention tile of a call of `frames`."""

    def condition(self, table: Table, speakers: Tensor, prompts: Tensor) -> Any:  # noqa: ANN401 - the network's own
        """Precompute what all steps share; `speakers` and `prompts` are those of each frame, [frames, 80]."""

    def step(self, number: int, x: Tensor, size: float, condition: Any, table: Table) -> None:  # noqa: ANN401
        """Take the solver's step `number`: move x [frames, 80] float32 by `size` along the guided velocity."""


class PackedFlow:
    """Converts speech tokens to mel like `Flow` and `DiTFlow`, for many rows of different lengths."""

    def __init__(
        self, flow: Flow | DiTFlow, gpu: Gpu, data_type: torch.dtype = torch.bfloat16, sizes: Sequence[int] = SIZES
    ) -> None:
        """Take over the weights of `flow`, which must be in float32, on the device and without `misfits`."""
        self._noise, self._speaker_proj, self._step_sizes = flow.noise, flow.speaker_proj, flow.step_sizes
        device, largest = flow.noise.device, max(sizes)
        longest = min(MAX_TOKENS, largest // FRAMES_PER_TOKEN)
        self._network: Network
        with torch.inference_mode():
            if isinstance(flow, DiTFlow):
                self._network = PackedDiT(flow, gpu, longest, data_type)
            else:
                self._network = PackedUNet(flow, gpu, longest, data_type)
        self._numbers = torch.zeros(
            max(Table.length(size, self._network.queries(size)) for size in sizes), dtype=torch.int32, device=device
        )
        self._speakers = torch.zeros(most_rows(largest), MEL_BINS, device=device)
        self._prompts = torch.zeros(1 + largest, MEL_BINS, device=device)  # index 0: zeros for frames without a prompt
        self._mel = torch.zeros(largest, MEL_BINS, device=device)
        self._most_frames = best_size(sizes, self._network.best_frames)  # in a call of several rows
        self._graphs = CudaGraphs(self._write_table, self._compute, sizes, device)

    @torch.inference_mode()
    def rehearse(self) -> None:
        """Launch every kernel that a call of any size uses, for `compiling`."""
        for size in self._graphs.sizes:
            self._write_table(size)
            self._compute(size, steps=1)

    def capture(self) -> None:
        """Capture the CUDA graphs of `FIRST_SIZES`, so that later calls have almost no launch overhead."""
        largest = self._graphs.sizes[-1]
        self._graphs.capture({largest, *FIRST_SIZES}.intersection(self._graphs.sizes))

    def capture_next(self) -> bool:
        """Capture the next size, if one is left, and return whether more are left.

        Until a size is captured, its calls run as the next larger captured size.
        """
        return self._graphs.capture_next()

    @torch.inference_mode()
    def speaker(self, embedding: Tensor) -> Tensor:
        """See `Flow.speaker`."""
        vector: Tensor = self._speaker_proj(F.normalize(embedding.to(self._noise), dim=0))
        return vector

    def groups(self, lengths: Sequence[int]) -> list[list[int]]:
        """Group rows into calls, by index: all rows share one call, as none is padded."""
        return packed_groups(lengths)

    @torch.inference_mode()
    def __call__(self, rows: Sequence[FlowRow]) -> list[Tensor]:
        """Compute the mel of each row after its prompt, [frames, 80] float32, in as few solves as possible.

        Raises:
            ValueError: a row has nothing to speak or is too long.
        """
        spoken = [row.spoken for row in rows]
        if not 0 < min(spoken) <= max(spoken) <= MAX_TOKENS:
            raise ValueError(f"a row must speak 1 to {MAX_TOKENS} tokens, prompt included, not {spoken}")
        return [mel for group in self._groups(rows) for mel in self._solve(group)]

    def _groups(self, rows: Sequence[FlowRow]) -> Iterator[list[FlowRow]]:
        group: list[FlowRow] = []
        for row in rows:
            if group and self._frames([*group, row]) > self._most_frames:
                yield group
                group = []
            group.append(row)
        yield group

    def _frames(self, rows: Sequence[FlowRow]) -> int:
        """The least number of frames of a call that holds `rows`."""
        frames = FRAMES_PER_TOKEN * packed_tokens([row.spoken for row in rows])
        sizes = [size for size in self._graphs.sizes if most_rows(size) >= len(rows)]
        smallest_size = min(sizes, default=self._graphs.sizes[-1] + 1)
        return max(frames, smallest_size)

    def _solve(self, rows: Sequence[FlowRow]) -> list[Tensor]:
        frames = self._frames(rows)
        size = self._graphs.size_for(frames)
        starts = self._upload(rows, size)
        self._graphs.run(size)
        mel = self._mel[:frames].clone()
        return [
            mel[start + len(row.prompt_mel) : start + FRAMES_PER_TOKEN * row.spoken]
            for start, row in zip(starts, rows, strict=True)
        ]

    def _upload(self, rows: Sequence[FlowRow], size: int) -> list[int]:
        """Copy the inputs of `rows` into the buffers that the graph of `size` reads; return each row's first frame."""
        starts = self._write_table(size, rows)
        torch.stack([row.speaker for row in rows], out=self._speakers[: len(rows)])
        prompts = [row.prompt_mel for row in rows]
        torch.cat(prompts, out=self._prompts[1 : 1 + sum(map(len, prompts))])
        return starts

    def _write_table(self, size: int, rows: Sequence[FlowRow] = ()) -> list[int]:
        on_gpu = self._mel.is_cuda
        queries = self._network.queries(size)
        numbers = torch.empty(Table.length(size, queries), dtype=torch.int32, pin_memory=on_gpu)
        packed = [PackedRow(row.tokens, row.spoken, len(row.prompt_mel), row.streaming) for row in rows]
        starts = fill(Table.of(numbers.numpy(), size, queries), packed, self._network.silence, queries)
        self._numbers[: len(numbers)].copy_(numbers, non_blocking=True)
        return starts

    def _compute(self, size: int, steps: int = STEPS) -> None:
        """Compute the mel from the input buffers. With fewer than `STEPS` steps, it is unfinished."""
        table = Table.of(self._numbers, size, self._network.queries(size))
        condition = self._network.condition(table, self._speakers[table.row], self._prompts[table.prompt])
        x = self._mel[:size]
        torch.index_select(self._noise, 0, table.frame_positions.clamp(min=0), out=x)
        for number, step_size in enumerate(self._step_sizes[:steps]):
            self._network.step(number, x, step_size, condition, table)


def best_size(sizes: Sequence[int], best_frames: int) -> int:
    """The largest number of frames of a call with several rows; a single row may be longer."""
    return max((size for size in sizes if size <= best_frames), default=min(sizes))
