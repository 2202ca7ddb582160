"""The complete flow: converts rows of speech tokens to rows of mel, for many requests at once."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Self

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
from vllm_cosyvoice.flow.chunk_cache import StreamChunks, finished_chunks
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


class TorchChunk(NamedTuple):
    """What these flows remember of a finished chunk."""

    mel: Tensor  # [50, 80]
    passes: list[PieceState]  # of encoder and condition, then of the estimator at each step

    @property
    def nbytes(self) -> int:
        """The memory it takes."""
        tensors = [tensor for state in self.passes for part in state for tensor in part]
        return self.mel.nbytes + sum(tensor.nbytes for tensor in tensors)


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
        """Compute the mel of each row after its prompt, [frames, 80] float32.

        Rows that remember chunks are computed chunk by chunk, all others in one solve.

        Raises:
            ValueError: a row has nothing to speak or is longer than `MAX_TOKENS`.
        """
        spoken = [row.spoken for row in rows]
        if not 0 < min(spoken) <= max(spoken) <= MAX_TOKENS:
            raise ValueError(f"a row must speak 1 to {MAX_TOKENS} tokens, prompt included, not {spoken}")
        chunks = [self._chunks(row) for row in rows]
        together = [row for row, own in zip(rows, chunks, strict=True) if own is None]
        mels = iter(self._solve_together(together) if together else [])
        return [
            next(mels) if own is None else self._solve_in_chunks(row, own) for row, own in zip(rows, chunks, strict=True)
        ]

    def _chunks(self, row: FlowRow) -> StreamChunks | None:
        """Where `row` remembers its chunks; None if it is solved in one go.

        A row in chunks needs the keys and values of all layers and steps at once. A row for which these are too many is
        solved in one go from then on, because that needs only those of one layer at a time.
        """
        if row.chunks and FRAMES_PER_TOKEN * row.spoken * self.frame_bytes > row.chunks.cache.budget:
            row.chunks.close()
        return None if row.chunks is None or row.chunks.closed else row.chunks

    def _solve_in_chunks(self, row: FlowRow, chunks: StreamChunks) -> Tensor:
        """Compute the mel of one row after its prompt, without the chunks that are remembered.

        A chunk is a call of its own with the same shapes in any hop, so its frames are the same bit for bit, however
        the row is cut into hops and whatever is remembered.
        """
        chunks.extend(row.tokens, row.prompt_mel, row.speaker)
        known: list[TorchChunk] = chunks.states()[: row.spoken // CHUNK_TOKENS]
        steps = len(self.step_sizes)
        contexts = [
            PieceContext(row.spoken, [chunk.passes[index] for chunk in known], CHUNK_TOKENS)
            for index in range(1 + steps)
        ]
        mels, new = [chunk.mel for chunk in known], []
        last_finished = finished_chunks(len(row.tokens)) - 1
        for chunk in range(len(known), -(-row.spoken // CHUNK_TOKENS)):
            mels.append(self._solve_chunk(row, chunk, contexts))
            if chunk <= last_finished:
                new.append(TorchChunk(mels[-1], [context.state() for context in contexts]))
        chunks.keep(len(known), new)
        return torch.cat(mels)[len(row.prompt_mel) :]

    def _solve_chunk(self, row: FlowRow, chunk: int, contexts: list[PieceContext]) -> Tensor:
        """Compute the mel of one chunk, [frames, 80]; the contexts are those of a `TorchChunk`, and then hold it."""
        start = CHUNK_TOKENS * chunk
        count = min(CHUNK_TOKENS, row.spoken - start)
        frames = slice(FRAMES_PER_TOKEN * start, FRAMES_PER_TOKEN * (start + count))
        for context in contexts:
            context.begin(count)
        tokens = torch.tensor([row.tokens[start : start + count + LOOKAHEAD_TOKENS]], device=self.noise.device)
        counts = torch.tensor([tokens.shape[1]], device=self.noise.device)
        mu = self.mu(tokens, counts, count, None, None, contexts[0])
        prompt_mel = torch.zeros_like(mu)
        in_prompt = row.prompt_mel[frames]
        prompt_mel[0, : len(in_prompt)] = in_prompt
        condition: Any = self.estimator.condition(mu, row.speaker[None], prompt_mel, frames.start, contexts[0])
        x = self.noise[frames][None]
        for time, size, context in zip(self.step_times, self.step_sizes, contexts[1:], strict=True):
            x = self._step(x, size, self.estimator(x.to(time.dtype), condition, time, None, context))
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
        chunk_sizes = [CHUNK_TOKENS if row.streaming else longest for row in rows]
        counts, lengths, chunks = torch.tensor([token_counts, spoken, chunk_sizes]).to(device)

        mask = frame_mask = pair_mask = None
        if any(row.streaming for row in rows) or min(spoken) < longest:
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
