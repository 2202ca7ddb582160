"""The flow on a GPU: packed rows, fused kernels, one CUDA graph per call size for the encoder and one for the solver.

Rows are not padded to equal length, attention never builds a matrix of all pairs of frames, and no call waits for the
device. Weights, operands of matrix products and the frames between kernels have the dtype `data_type` (bfloat16). Sums
inside kernels, norms, softmax, x and its steps, and all code around encoder and estimator use float32, because errors
there would add up over the steps.
"""

import logging
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from vllm_cosyvoice.config import CHUNK_FRAMES, FRAMES_PER_TOKEN, LOOKAHEAD_TOKENS, MEL_BINS
from vllm_cosyvoice.flow.cache import FlowCache
from vllm_cosyvoice.flow.cuda.dit import PackedDiT
from vllm_cosyvoice.flow.cuda.memory import FlowMemory, PagedState, PageLayout, StepMemory, gpu_budget
from vllm_cosyvoice.flow.cuda.packing import (
    GAP,
    NOTHING,
    EncoderRow,
    EncoderTable,
    SolverRow,
    SolverTable,
    fill_encoder,
    fill_solver,
    gap,
    length,
    most_rows,
)
from vllm_cosyvoice.flow.cuda.unet import PackedUNet
from vllm_cosyvoice.flow.euler import STEPS
from vllm_cosyvoice.flow.row import FlowRow
from vllm_cosyvoice.flow.torch.dit_flow import DiTFlow
from vllm_cosyvoice.flow.torch.flow import Flow
from vllm_cosyvoice.gpu.cuda_graphs import CudaGraphs
from vllm_cosyvoice.gpu.device import GIB, Gpu
from vllm_cosyvoice.limits import MAX_TOKENS
from vllm_cosyvoice.nn.padding import packed_groups

log = logging.getLogger(__name__)

# Frames per call. From 1024 to 7168, calls have at most an eighth of padding.
SIZES: tuple[int, ...] = (
    *(64, *range(128, 512, 64), *range(512, 2048, 128), *range(2048, 4096, 256), *range(4096, 7168, 512)),
    *(7168, 8192, 12_288, 16_384),
)
# Captured first, so that calls run as sizes of at most about twice their frames.
FIRST_SIZES = (128, 256, 512, 1024, 2048, 4096, 7168, 16_384)
PADDING_WORTH_A_CAPTURE = 80_000  # frames: an H200 takes 0.02 ms for one, and 0.4 s to capture a size


class Network(Protocol):
    """The encoder and the estimator of one flow, over packed rows."""

    silence: int  # the id after a row's last token, see `fill_encoder`
    best_frames: int  # the most frames of a solver's call of several rows
    condition_widths: Sequence[int]  # of the tensors of `condition`
    page_layout: PageLayout

    def queries(self, frames: int) -> int:
        """Number of queries in an attention tile of a call of `frames`."""

    def condition(self, table: EncoderTable, speakers: Tensor, prompts: Tensor) -> Sequence[Tensor]:
        """Precompute what all steps share, each tensor [frames, width].

        `speakers` and `prompts` are those of each frame, [frames, 80].
        """

    def step(
        self,
        number: int,
        x: Tensor,
        size: float,
        condition: Sequence[Tensor],
        table: SolverTable,
        memory: StepMemory,
    ) -> None:
        """Take the solver's step `number`: move x [frames, 80] float32 by `size` along the guided velocity."""


class Kept(NamedTuple):
    """Where the chunks of a row that a call finishes are kept."""

    start: int  # their first frame
    state: PagedState


class Piece:
    """The part of a row that a call computes: what is not remembered."""

    def __init__(self, row: FlowRow) -> None:
        self.row = row
        known = cast("list[PagedState]", row.memory.states() if row.memory else [])
        self.past = [page for state in known for page in state.pages]
        self.start, self.end = CHUNK_FRAMES * len(self.past), FRAMES_PER_TOKEN * row.spoken
        self.kept: list[Kept] = []

    @property
    def frames(self) -> int:
        """Number of frames to compute."""
        return self.end - self.start

    def finished(self) -> Iterator[tuple[int, int, Hashable]]:
        """What could be kept: the first frame and the end of the prompt's chunks, with a key, and of the row's own."""
        memory, start = self.row.memory, self.start
        if memory is None or memory.closed:
            return
        if start < memory.prompt_frames:
            yield start, memory.prompt_frames, memory.key
            start = memory.prompt_frames
        if start < self.end and self.row.look_ahead == LOOKAHEAD_TOKENS and self.end % CHUNK_FRAMES == 0:
            yield start, self.end, None

    def keep(self) -> None:
        """Remember the chunks that are kept."""
        for start, state in self.kept:
            assert self.row.memory is not None
            self.row.memory.keep(start, state)

    def solver_row(self, source: int) -> SolverRow:
        """The row of the solver's table; `source`: the row's first frame in the encoder's call."""
        pages = [NOTHING] * (self.frames // CHUNK_FRAMES)
        for start, state in self.kept:
            first = (start - self.start) // CHUNK_FRAMES
            pages[first : first + len(state.pages)] = state.pages
        return SolverRow(source, self.end, self.row.chunk_mask, self.past, pages)


class PackedFlow:
    """Converts speech tokens to mel like `Flow` and `DiTFlow`, for many rows of different lengths."""

    def __init__(
        self,
        flow: Flow | DiTFlow,
        gpu: Gpu,
        data_type: torch.dtype = torch.bfloat16,
        sizes: Sequence[int] = SIZES,
        cache_bytes: int | None = 0,
        others: int = 0,
        decoders: int = 1,
    ) -> None:
        """Take over the weights of `flow`, which must be in float32, on the device and without `misfits`.

        cache_bytes: memory for what all `decoders` remember; 0: nothing is remembered; None: see `gpu_budget`.
        others, decoders: see `gpu_budget`.

        Raises:
            GpuMemoryError: that memory is not free.
        """
        self._noise, self._speaker_proj, self._step_sizes = flow.noise, flow.speaker_proj, flow.step_sizes
        device, largest = flow.noise.device, max(sizes)
        longest = min(MAX_TOKENS, largest // FRAMES_PER_TOKEN)
        self._network: Network
        with torch.inference_mode():
            if isinstance(flow, DiTFlow):
                self._network = PackedDiT(flow, gpu, longest, data_type)
            else:
                self._network = PackedUNet(flow, gpu, longest, data_type)
        layout = self._network.page_layout
        page_bytes = layout.page_bytes(data_type)
        cache_bytes = gpu_budget(device, page_bytes, wanted=cache_bytes, others=others, decoders=decoders)
        self._memory = FlowMemory(layout, cache_bytes, data_type, device) if cache_bytes else None
        log.info("The flow remembers chunks in %.1f GiB of memory.", cache_bytes / GIB)
        self._tail = layout.tail
        self._most_chunks = largest // CHUNK_FRAMES  # that are remembered, in a call
        self._encoder_numbers, self._solver_numbers = (
            torch.zeros(max(length(shapes(size)) for size in sizes), dtype=torch.int32, device=device)
            for shapes in (self._encoder_shapes, self._solver_shapes)
        )
        self._speakers = torch.zeros(most_rows(largest), MEL_BINS, device=device)
        self._prompts = torch.zeros(1 + largest, MEL_BINS, device=device)  # index 0: zeros for frames without a prompt
        self._conditions = [
            torch.zeros(largest, width, dtype=data_type, device=device) for width in self._network.condition_widths
        ]
        self._mel = torch.zeros(largest, MEL_BINS, device=device)
        self._most_frames = best_size(sizes, self._network.best_frames)  # in a solver's call of several rows
        self._encoder = CudaGraphs("flow's encoder", self._write_encoder_table, self._encode, sizes, device)
        self._solver = CudaGraphs("flow", self._write_solver_table, self._solve, sizes, device)

    @property
    def cache(self) -> FlowCache | None:
        """What is remembered, if anything is."""
        return self._memory.cache if self._memory else None

    @torch.inference_mode()
    def rehearse(self) -> None:
        """Launch every kernel that a call of any size uses, for `compiling`."""
        for size in self._solver.sizes:
            self._encoder.rehearse(size)
            self._write_solver_table(size)
            self._solve(size, steps=1)

    def capture(self) -> None:
        """Capture the CUDA graphs of `FIRST_SIZES`, so that later calls have almost no launch overhead."""
        sizes = {self._solver.sizes[-1], *FIRST_SIZES}.intersection(self._solver.sizes)
        self._encoder.capture(sizes)
        self._solver.capture(sizes)

    def capture_next(self) -> bool:
        """Capture the next size, if one is left, and return whether more are left.

        Until a size is captured, its calls run as the next larger captured size.
        """
        self._encoder.capture_next()
        return self._solver.capture_next()

    @property
    def capture_is_due(self) -> bool:
        """Whether calls have lost several times as much time, because a size is missing, as its capture takes."""
        return self._solver.padding > PADDING_WORTH_A_CAPTURE

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
        """Compute the mel of each row's frames that are not remembered, without its prompt, [frames, 80] float32.

        There are as few solves as possible.

        Raises:
            ValueError: a row has nothing to speak or is too long.
        """
        spoken = [row.spoken for row in rows]
        if not 0 < min(spoken) <= max(spoken) <= MAX_TOKENS:
            raise ValueError(f"a row must speak 1 to {MAX_TOKENS} tokens, prompt included, not {spoken}")
        return [mel for group in self._groups(rows) for mel in self._call(group)]

    def remember_prompt(self, row: FlowRow) -> None:
        """Compute and remember the finished chunks of the prompt of `row`, which need not have any speech yet."""
        memory = row.memory
        if memory and memory.lacks_prompt:
            tokens = row.tokens[: memory.prompt_frames // FRAMES_PER_TOKEN + LOOKAHEAD_TOKENS]
            prompt_mel = row.prompt_mel[: memory.prompt_frames]
            self([replace(row, tokens=tokens, look_ahead=LOOKAHEAD_TOKENS, prompt_mel=prompt_mel)])

    def _groups(self, rows: Sequence[FlowRow]) -> Iterator[list[Piece]]:
        group: list[Piece] = []
        for piece in map(Piece, rows):
            if group and not self._fits([*group, piece]):
                yield group
                group = []
            group.append(piece)
        yield group

    def _fits(self, pieces: Sequence[Piece]) -> bool:
        encoder, solver = self._frames(pieces)
        return encoder <= self._encoder.sizes[-1] and solver <= self._most_frames

    def _frames(self, pieces: Sequence[Piece]) -> tuple[int, int]:
        """The least numbers of frames of the encoder's and of the solver's call for `pieces`."""
        sizes = [size for size in self._solver.sizes if most_rows(size) >= len(pieces)]
        smallest = min(sizes, default=self._solver.sizes[-1] + 1)
        encoder = sum(GAP + piece.end for piece in pieces)
        solver = sum(gap(piece.past, self._tail) + piece.frames for piece in pieces)
        return max(encoder, smallest), max(solver, smallest)

    def _call(self, pieces: Sequence[Piece]) -> list[Tensor]:
        self._find_room(pieces)
        encoder_frames, frames = self._frames(pieces)
        encoder_size, size = self._encoder.size_for(encoder_frames), self._solver.size_for(frames)
        sources = self._write_inputs([piece.row for piece in pieces], encoder_size)
        self._encoder.run(encoder_size)
        rows = [piece.solver_row(source) for piece, source in zip(pieces, sources, strict=True)]
        starts = self._write_solver_table(size, rows)
        self._solver.run(size)
        for piece in pieces:
            piece.keep()
        mel = self._mel[:frames].clone()
        return [
            mel[start + max(0, len(piece.row.prompt_mel) - piece.start) : start + piece.frames]
            for start, piece in zip(starts, pieces, strict=True)
        ]

    def _find_room(self, pieces: Sequence[Piece]) -> None:
        """Take pages for the chunks that this call finishes, and only once for a prompt of several rows."""
        if self._memory is None:
            return
        prompts: set[Hashable] = set()
        for piece in pieces:
            for start, end, prompt in piece.finished():
                if prompt is not None and prompt in prompts:
                    continue
                state = self._memory.take((end - start) // CHUNK_FRAMES)
                if state is None:
                    break  # what follows could not be used
                piece.kept.append(Kept(start, state))
                prompts.add(prompt)

    def _write_inputs(self, rows: Sequence[FlowRow], size: int) -> list[int]:
        """Copy the inputs of `rows` into the buffers that the encoder reads; return each row's first frame."""
        starts = self._write_encoder_table(size, rows)
        torch.stack([row.speaker for row in rows], out=self._speakers[: len(rows)])
        prompts = [row.prompt_mel for row in rows]
        torch.cat(prompts, out=self._prompts[1 : 1 + sum(map(len, prompts))])
        return starts

    def _encoder_shapes(self, size: int) -> list[tuple[int, ...]]:
        return EncoderTable.shapes(size, self._network.queries(size))

    def _solver_shapes(self, size: int) -> list[tuple[int, ...]]:
        return SolverTable.shapes(size, self._network.queries(size), self._most_chunks)

    def _write_encoder_table(self, size: int, rows: Sequence[FlowRow] = ()) -> list[int]:
        queries = self._network.queries(size)
        numbers = self._staging(self._encoder_shapes(size))
        packed = [EncoderRow(row.tokens, row.spoken, len(row.prompt_mel), row.chunk_mask) for row in rows]
        starts = fill_encoder(EncoderTable.of(numbers.numpy(), size, queries), packed, self._network.silence, queries)
        self._encoder_numbers[: len(numbers)].copy_(numbers, non_blocking=True)
        return starts

    def _write_solver_table(self, size: int, rows: Sequence[SolverRow] = ()) -> list[int]:
        queries = self._network.queries(size)
        numbers = self._staging(self._solver_shapes(size))
        table = SolverTable.of(numbers.numpy(), size, queries, self._most_chunks)
        starts = fill_solver(table, rows, queries, self._tail)
        self._solver_numbers[: len(numbers)].copy_(numbers, non_blocking=True)
        return starts

    def _staging(self, shapes: Sequence[tuple[int, ...]]) -> Tensor:
        """A buffer on the host for arrays of `shapes`, from which a copy to the device does not wait."""
        return torch.empty(length(shapes), dtype=torch.int32, pin_memory=self._mel.is_cuda)

    def _encode(self, size: int) -> None:
        """Compute the condition of all frames from the input buffers."""
        table = EncoderTable.of(self._encoder_numbers, size, self._network.queries(size))
        condition = self._network.condition(table, self._speakers[table.row], self._prompts[table.prompt])
        for kept, new in zip(self._conditions, condition, strict=True):
            kept[:size] = new

    def _solve(self, size: int, steps: int = STEPS) -> None:
        """Compute the mel from the condition. With fewer than `STEPS` steps, it is unfinished."""
        table = SolverTable.of(self._solver_numbers, size, self._network.queries(size), self._most_chunks)
        condition = [part[table.sources] for part in self._conditions]
        x = self._mel[:size]
        torch.index_select(self._noise, 0, table.noise, out=x)
        for number, step_size in enumerate(self._step_sizes[:steps]):
            memory = self._memory.at(number, table) if self._memory else StepMemory(table)
            self._network.step(number, x, step_size, condition, table, memory)


def best_size(sizes: Sequence[int], best_frames: int) -> int:
    """The largest number of frames of a call with several rows; a single row may be longer."""
    return max((size for size in sizes if size <= best_frames), default=min(sizes))
