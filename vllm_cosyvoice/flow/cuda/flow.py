"""The flow on a GPU: packed rows, fused kernels, one CUDA graph per call size.

Rows are not padded to equal length, attention never builds a matrix of all pairs of frames, and no call waits for the
device. Weights, operands of matrix products and the frames between kernels have the dtype `data_type` (bfloat16). Sums
inside kernels, norms, softmax, x and its steps, and all code around encoder and estimator use float32, because errors
there would add up over the steps.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vllm_cosyvoice.config import FRAMES_PER_TOKEN, MEL_BINS
from vllm_cosyvoice.flow.cuda.encoder import PackedEncoder, causal_taps
from vllm_cosyvoice.flow.cuda.estimator import Call, PackedEstimator
from vllm_cosyvoice.flow.cuda.launch_shapes import launch_shapes
from vllm_cosyvoice.flow.cuda.packing import PackedRow, Table, fill, most_rows, packed_tokens
from vllm_cosyvoice.flow.euler import STEPS
from vllm_cosyvoice.flow.row import FlowRow
from vllm_cosyvoice.flow.torch.estimator import Condition
from vllm_cosyvoice.flow.torch.flow import Flow
from vllm_cosyvoice.gpu.cuda_graphs import CudaGraphs
from vllm_cosyvoice.gpu.device import Gpu
from vllm_cosyvoice.limits import MAX_TOKENS
from vllm_cosyvoice.nn.padding import packed_groups

SIZES = (128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280, 1536, 1792, 2048, 2560, 3072, 4096, 5120, 6144,
         7168, 8192, 12_288, 16_384)  # frames per call  # fmt: skip
FIRST_SIZES = (256, 512, 1024, 2048, 4096, 7168, 16_384)  # captured first: at most about twice the frames of a call
BEST_SIZE = 7168  # on an H200
L2_CACHE_A_FRAME = 7314  # bytes per frame, chosen so that an H100's 50 MB suffice for `BEST_SIZE`


class PackedFlow:
    """Converts speech tokens to mel like `Flow`, for many rows of different lengths."""

    def __init__(
        self, flow: Flow, gpu: Gpu, data_type: torch.dtype = torch.bfloat16, sizes: Sequence[int] = SIZES
    ) -> None:
        """Take over the weights of `flow`, which must be in float32, on the device and without `misfits`."""
        estimator = flow.estimator
        self._flow, self._gpu = flow, gpu
        device, largest = flow.noise.device, max(sizes)
        with torch.inference_mode():
            self._encoder = PackedEncoder(flow.encoder, min(MAX_TOKENS, largest // FRAMES_PER_TOKEN), data_type)
            self._estimator = PackedEstimator(estimator, flow.guidance, data_type)
            times = flow.step_times.to(data_type)
        self._steps = list(zip(times, flow.step_sizes, strict=True))
        self._condition_conv, self._condition_shortcut = (
            part.weight.to(data_type) for part in (estimator.condition_conv, estimator.condition_shortcut)
        )
        self._numbers = torch.zeros(
            max(Table.length(size, self._queries(size)) for size in sizes), dtype=torch.int32, device=device
        )
        self._speakers = torch.zeros(most_rows(largest), MEL_BINS, device=device)
        self._prompts = torch.zeros(1 + largest, MEL_BINS, device=device)  # index 0: zeros for frames without a prompt
        self._mel = torch.zeros(largest, MEL_BINS, device=device)
        self._most_frames = best_size(sizes, gpu)  # in a call of several rows
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

    def speaker(self, embedding: Tensor) -> Tensor:
        """See `Flow.speaker`."""
        return self._flow.speaker(embedding)

    @torch.inference_mode()
    def groups(self, lengths: Sequence[int]) -> list[list[int]]:
        """Group rows into calls, by index: all rows share one call, as none is padded."""
        return packed_groups(lengths)

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
        queries = self._queries(size)
        numbers = torch.empty(Table.length(size, queries), dtype=torch.int32, pin_memory=on_gpu)
        packed = [PackedRow(row.tokens, row.spoken, len(row.prompt_mel), row.streaming) for row in rows]
        starts = fill(Table.of(numbers.numpy(), size, queries), packed, self._encoder.silence, queries)
        self._numbers[: len(numbers)].copy_(numbers, non_blocking=True)
        return starts

    def _compute(self, size: int, steps: int = STEPS) -> None:
        """Compute the mel from the input buffers. With fewer than `STEPS` steps, it is unfinished."""
        table = Table.of(self._numbers, size, self._queries(size))
        shapes = launch_shapes(size, self._gpu)
        mu = self._flow.encoder_proj(self._encoder(table, shapes))
        conditions = torch.cat([mu, self._speakers[table.row], self._prompts[table.prompt]], dim=-1)
        conditions = conditions.to(self._condition_conv.dtype)
        condition = Condition(
            causal_taps(conditions, table.frame_positions) @ self._condition_conv.T,
            conditions @ self._condition_shortcut.T,
        )
        x = self._mel[:size]
        torch.index_select(self._flow.noise, 0, table.frame_positions.clamp(min=0), out=x)
        call = Call(table.frame_positions, table.frame_tiles, shapes)
        for time, step in self._steps[:steps]:
            self._estimator.step(x, condition, time, step, call)

    def _queries(self, size: int) -> int:
        """Number of queries in an attention tile of a call of `size` frames."""
        return launch_shapes(size, self._gpu).attention.rows


def best_size(sizes: Sequence[int], gpu: Gpu) -> int:
    """The largest number of frames of a call with several rows; a single row may be longer.

    Up to this size, intermediate results stay in the L2 cache; adding more rows makes no row faster.
    """
    best = min(BEST_SIZE, gpu.l2_cache // L2_CACHE_A_FRAME)
    return max((size for size in sizes if size <= best), default=min(sizes))
