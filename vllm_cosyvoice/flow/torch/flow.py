"""The complete flow: converts rows of speech tokens to rows of mel, for many requests at once."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vllm_cosyvoice.config import (
    CHUNK_FRAMES,
    CHUNK_TOKENS,
    FRAMES_PER_TOKEN,
    LOOKAHEAD_TOKENS,
    MEL_BINS,
    SPEAKER_DIM,
    DiTFlowConfig,
    FlowConfig,
)
from vllm_cosyvoice.flow.cache import FlowCache, StreamMemory
from vllm_cosyvoice.flow.euler import time_grid
from vllm_cosyvoice.flow.noise import noise_table
from vllm_cosyvoice.flow.row import FlowRow
from vllm_cosyvoice.flow.tensorrt.interface import LONGEST, FrameMask
from vllm_cosyvoice.flow.torch.dit import Attention, DiT
from vllm_cosyvoice.flow.torch.encoder import Encoder
from vllm_cosyvoice.flow.torch.estimator import Estimator, Transformer
from vllm_cosyvoice.flow.torch.loading import flow_weights
from vllm_cosyvoice.flow.torch.masks import attention_mask
from vllm_cosyvoice.flow.torch.token_encoder import TokenEncoder
from vllm_cosyvoice.limits import MAX_TOKENS
from vllm_cosyvoice.nn.context import WHOLE, Context, PieceContext, PieceState
from vllm_cosyvoice.nn.layers import load
from vllm_cosyvoice.nn.padding import padded_groups

if TYPE_CHECKING:
    from vllm_cosyvoice.flow.tensorrt.runtime import TensorRTEstimator


class TorchState:
    """What these flows remember of finished chunks: the states of encoder and condition, then those of each step."""

    def __init__(self, passes: list[PieceState]) -> None:
        self.passes = passes
        self.frames = FRAMES_PER_TOKEN * passes[0].tokens
        self.nbytes = sum(part.nbytes for state in passes for part in (*state.inputs, *state.keys_values))


class FlowMatching(nn.Module):
    """Converts speech tokens to mel. Encoder and estimator use the dtype `data_type`, all else uses float32.

    Encoder and estimator are those of a subclass, which makes them from the sizes `config`.
    """

    encoder: Encoder | TokenEncoder
    estimator: Estimator | DiT
    noise: Tensor  # [15000, 80], see `noise_table`
    step_times: Tensor  # [steps, …], see the estimator's `times`
    step_sizes: list[float]
    frame_bytes: int  # of the estimator's keys and values of one frame at all steps, with and without the condition
    engine: "TensorRTEstimator | None" = None  # replaces the estimator
    cache: FlowCache | None = None  # for the memories of streams

    def __init__(self, config: FlowConfig | DiTFlowConfig) -> None:
        super().__init__()
        self.guidance = config.guidance
        self.speaker_proj = nn.Linear(SPEAKER_DIM, MEL_BINS)

    @staticmethod
    def weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert `state`, with the names and shapes of `flow.pt`, to this module's state dict."""
        raise NotImplementedError

    def mu(
        self,
        tokens: Tensor,
        counts: Tensor,
        spoken: int,
        mask: Tensor | None,
        frame_mask: Tensor | None,
        context: Context = WHOLE,
    ) -> Tensor:
        """Compute the estimator's condition mu [rows, 2 · spoken, 80] float32; the arguments are those of `Encoder`."""
        raise NotImplementedError

    @classmethod
    def from_state(
        cls,
        config: FlowConfig | DiTFlowConfig,
        state: Mapping[str, Tensor],
        device: torch.device | str = "cpu",
        data_type: torch.dtype = torch.float32,
    ) -> Self:
        """Create a flow from the tensors of `flow.pt`.

        Raises:
            ValueError: a tensor is missing, unknown or has another shape than in `config`.
        """
        with torch.device("meta"):
            flow = cls(config)
        load(flow, cls.weights(state), "flow").to(device=device, dtype=torch.float32)
        grid = time_grid()
        flow.step_sizes = [after - before for before, after in pairwise(grid)]
        flow.step_times = flow.estimator.times(torch.tensor(grid[:-1], device=device)).to(data_type)
        flow.noise = noise_table().to(device)
        flow.encoder.to(data_type)
        flow.estimator.to(data_type)
        layers = [part for part in flow.estimator.modules() if isinstance(part, Transformer | Attention)]
        keys_values = sum(2 * layer.heads * layer.head_dim for layer in layers)
        flow.frame_bytes = 2 * len(flow.step_sizes) * keys_values * data_type.itemsize
        return flow

    @torch.inference_mode()
    def speaker(self, embedding: Tensor) -> Tensor:
        """Project a speaker embedding [192] to the estimator's speaker condition [80]."""
        vector: Tensor = self.speaker_proj(F.normalize(embedding.to(self.noise), dim=0))
        return vector

    def groups(self, lengths: Sequence[int]) -> list[list[int]]:
        """Group rows into calls, by index: rows of similar `lengths` (in frames) share one call."""
        return padded_groups(lengths, self.noise.device)

    @torch.inference_mode()
    def forward(self, rows: Sequence[FlowRow]) -> list[Tensor]:
        """Compute the mel of each row's frames that are not remembered, without its prompt, [frames, 80] float32.

        Rows of streams with a memory are computed one by one, all others in one solve.

        Raises:
            ValueError: a row has nothing to speak or is longer than `MAX_TOKENS`.
        """
        spoken = [row.spoken for row in rows]
        if not 0 < min(spoken) <= max(spoken) <= MAX_TOKENS:
            raise ValueError(f"a row must speak 1 to {MAX_TOKENS} tokens, prompt included, not {spoken}")
        memories = [self._memory(row) for row in rows]
        together = [row for row, memory in zip(rows, memories, strict=True) if memory is None]
        mels = iter(self._solve_together(together) if together else [])
        return [
            next(mels) if memory is None else self._solve_rest(row, memory)
            for row, memory in zip(rows, memories, strict=True)
        ]

    @torch.inference_mode()
    def remember_prompt(self, row: FlowRow) -> None:
        """Compute and remember the finished chunks of the prompt of `row`, which need not have any speech yet."""
        memory = self._memory(row)
        if memory and memory.lacks_prompt:
            tokens = memory.prompt_frames // FRAMES_PER_TOKEN
            self._solve_prompt(row, memory, [PieceContext(tokens) for _ in range(1 + len(self.step_sizes))])

    def _memory(self, row: FlowRow) -> StreamMemory | None:
        """The memory that `row` is computed with, if it has one.

        With a memory, the keys and values of all layers and steps are needed at once, without one only those of one
        layer at a time. So a row for which they are too many is computed without one from then on.
        """
        memory = row.memory
        if memory and FRAMES_PER_TOKEN * row.spoken * self.frame_bytes > memory.cache.budget:
            memory.close()
        return None if memory is None or memory.closed else memory

    def _solve_rest(self, row: FlowRow, memory: StreamMemory) -> Tensor:
        """Compute the mel of one row's frames that are not remembered, without its prompt, and remember finished ones.

        The finished chunks of the prompt are a piece of their own, and the rest is another. So they have the same
        shapes whether or not the prompt is remembered, and the mel is the same bit for bit.
        """
        known = cast("list[TorchState]", memory.states())
        contexts = [
            PieceContext(row.spoken, [state.passes[index] for state in known])
            for index in range(1 + len(self.step_sizes))
        ]
        start, end = sum(state.frames for state in known), FRAMES_PER_TOKEN * row.spoken
        if start < memory.prompt_frames:
            self._solve_prompt(row, memory, contexts)
            start = memory.prompt_frames
        mel = self._solve_piece(row, start, end, contexts)
        if row.look_ahead == LOOKAHEAD_TOKENS and end % CHUNK_FRAMES == 0:
            memory.keep(start, TorchState([context.state() for context in contexts]))
        return mel[max(0, len(row.prompt_mel) - start) :]

    def _solve_prompt(self, row: FlowRow, memory: StreamMemory, contexts: list[PieceContext]) -> None:
        """Compute and remember the finished chunks of a row's prompt."""
        self._solve_piece(row, 0, memory.prompt_frames, contexts)
        memory.keep(0, TorchState([context.state() for context in contexts]))

    def _solve_piece(self, row: FlowRow, start: int, end: int, contexts: list[PieceContext]) -> Tensor:
        """Compute the mel of the frames `start` to `end` of a row, [frames, 80].

        The contexts are those of a `TorchState`, of the frames before; afterwards, they include the piece.
        """
        device, data_type = self.noise.device, self.step_times.dtype
        first, last = start // FRAMES_PER_TOKEN, end // FRAMES_PER_TOKEN  # in tokens
        for context in contexts:
            context.begin(last - first)
        tokens = torch.tensor([row.tokens[first : last + LOOKAHEAD_TOKENS]], device=device)
        mask = frame_mask = None
        if end > start // CHUNK_FRAMES * CHUNK_FRAMES + CHUNK_FRAMES:
            length, chunk = torch.tensor([[last], [CHUNK_TOKENS]], device=device)
            mask = attention_mask(length, chunk, last, data_type, first)
            frame_mask = attention_mask(FRAMES_PER_TOKEN * length, FRAMES_PER_TOKEN * chunk, end, data_type, start)
        counts = torch.tensor([tokens.shape[1]], device=device)
        mu = self.mu(tokens, counts, last - first, mask, frame_mask, contexts[0])
        prompt_mel = torch.zeros_like(mu)
        in_prompt = row.prompt_mel[start:end]
        prompt_mel[0, : len(in_prompt)] = in_prompt
        condition: Any = self.estimator.condition(mu, row.speaker[None], prompt_mel, start, contexts[0])
        x = self.noise[None, start:end]
        for time, size, context in zip(self.step_times, self.step_sizes, contexts[1:], strict=True):
            x = self._step(x, size, self.estimator(x.to(time.dtype), condition, time, frame_mask, context))
        return x[0]

    def _solve_together(self, rows: Sequence[FlowRow]) -> list[Tensor]:
        """Compute the mel of each row after its prompt, [frames, 80] float32, in one solve for all rows."""
        device = self.noise.device
        spoken = [row.spoken for row in rows]
        longest = max(spoken)
        tokens = torch.zeros(len(rows), max(len(row.tokens) for row in rows), dtype=torch.long)
        for row, ids in zip(rows, tokens, strict=True):
            ids[: len(row.tokens)] = torch.tensor(row.tokens)
        token_counts = [len(row.tokens) for row in rows]
        chunk_sizes = [CHUNK_TOKENS if row.chunk_mask else longest for row in rows]
        counts, lengths, chunks = torch.tensor([token_counts, spoken, chunk_sizes]).to(device)

        mask = frame_mask = pair_mask = None
        if any(row.chunk_mask for row in rows) or min(spoken) < longest:
            mask = attention_mask(lengths, chunks, longest, self.step_times.dtype)
            frame_lengths, frame_chunks = (FRAMES_PER_TOKEN * numbers.repeat(2) for numbers in (lengths, chunks))
            pair_mask = attention_mask(frame_lengths, frame_chunks, FRAMES_PER_TOKEN * longest, self.step_times.dtype)
            frame_mask = pair_mask[: len(rows)]

        mu = self.mu(tokens.to(device), counts, longest, mask, frame_mask)
        prompt_mel = torch.zeros_like(mu)
        for index, row in enumerate(rows):
            prompt_mel[index, : len(row.prompt_mel)] = row.prompt_mel
        solve_mask: Tensor | FrameMask | None = pair_mask
        if self.engine is not None and FRAMES_PER_TOKEN * longest <= LONGEST:
            solve_mask = FrameMask(*(FRAMES_PER_TOKEN * torch.stack([lengths, chunks]).int()))
        mel = self.solve(mu, torch.stack([row.speaker for row in rows]), prompt_mel, solve_mask)
        return [mel[index, len(row.prompt_mel) : FRAMES_PER_TOKEN * row.spoken] for index, row in enumerate(rows)]

    def solve(self, mu: Tensor, speaker: Tensor, prompt_mel: Tensor, mask: Tensor | FrameMask | None) -> Tensor:
        """Integrate from noise to mel with Euler steps and classifier-free guidance: [rows, frames, 80] float32.

        Shapes do not depend on values and nothing waits for the device, so it can be captured in a CUDA graph.

        Args:
            mu: [rows, frames, 80], speaker: [rows, 80], prompt_mel: [rows, frames, 80], zero after the prompt.
            mask: [2 · rows, 1, frames, frames], see `masks`, or None if all frames see each other.
        """
        rows, frames, _ = mu.shape
        condition: Any = self.estimator.condition(mu, speaker, prompt_mel)
        x = self.noise[:frames].expand(rows, -1, -1)
        for time, size in zip(self.step_times, self.step_sizes, strict=True):
            if isinstance(mask, FrameMask):
                assert self.engine is not None
                velocities = self.engine(x.to(time.dtype), condition, time, mask)
            else:
                velocities = self.estimator(x.to(time.dtype), condition, time, mask)
            x = self._step(x, size, velocities)
        return x

    def _step(self, x: Tensor, size: float, velocities: Tensor) -> Tensor:
        """Take a step with classifier-free guidance from the estimator's `velocities`."""
        guided, free = velocities.float().chunk(2)
        return x + size * torch.lerp(free, guided, 1 + self.guidance)


class Flow(FlowMatching):
    """CosyVoice2's flow: a transformer encodes the tokens, a U-Net estimates the velocity."""

    encoder: Encoder
    estimator: Estimator
    weights = staticmethod(flow_weights)

    def __init__(self, config: FlowConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(config)
        self.encoder_proj = nn.Linear(config.width, MEL_BINS)
        self.estimator = Estimator(config)

    def mu(
        self,
        tokens: Tensor,
        counts: Tensor,
        spoken: int,
        mask: Tensor | None,
        frame_mask: Tensor | None,
        context: Context = WHOLE,
    ) -> Tensor:
        """See `FlowMatching.mu`."""
        hidden = self.encoder(tokens, counts, spoken, mask, frame_mask, context)
        mu: Tensor = self.encoder_proj(hidden.float())
        return mu
