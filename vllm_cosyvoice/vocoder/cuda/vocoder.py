"""The vocoder on a GPU: windows of many streams packed on one time axis, computed by one CUDA graph.

A spare frame follows each window, and holds the part of the spectrum beyond the frames. So the source and the inverse
transform are computed as for one long row. Convolutions look further: they read zeros outside a window.

All inputs of a call are in buffers at fixed addresses, so one graph per total number of frames is enough, regardless of
the windows' lengths.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vllm_cosyvoice.config import MEL_BINS, SAMPLES_PER_FRAME
from vllm_cosyvoice.gpu.cuda_graphs import CudaGraphs
from vllm_cosyvoice.gpu.device import Gpu
from vllm_cosyvoice.nn.padding import packed_groups
from vllm_cosyvoice.vocoder.cuda.convolution import CHANNEL_MULTIPLE, Windows
from vllm_cosyvoice.vocoder.cuda.excitation import HarmonicExcitation, StaircaseExcitation
from vllm_cosyvoice.vocoder.cuda.generator import PackedGenerator
from vllm_cosyvoice.vocoder.source import NOISE_SAMPLES
from vllm_cosyvoice.vocoder.torch.causal_vocoder import CausalVocoder
from vllm_cosyvoice.vocoder.torch.generator import MAX_LOG_MAGNITUDE
from vllm_cosyvoice.vocoder.torch.vocoder import Vocoder, VocoderRow

# Frames, including spare ones; the largest holds a window of `stream.LONGEST_WINDOW`.
SIZES = (32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
FIELDS = 5  # numbers per frame: row, start, end, at, noise start


class PackedVocoder:
    """A `Vocoder` or `CausalVocoder` whose generator has float16 convolutions.

    Its pitch, source and spectrum keep the precision that they have there.
    """

    def __init__(self, vocoder: Vocoder | CausalVocoder, gpu: Gpu, sizes: Sequence[int] = SIZES) -> None:
        self._gpu = gpu
        self.context, self.hold_back = vocoder.context, vocoder.hold_back
        self.source = vocoder.source
        self._excitation = (
            StaircaseExcitation(vocoder) if isinstance(vocoder, CausalVocoder) else HarmonicExcitation(vocoder)
        )
        self._spectrum = vocoder.generator.spectrum
        bins = self._spectrum.n_fft + 2
        self._analysis = F.pad(self._spectrum.analysis, (0, -bins % CHANNEL_MULTIPLE))
        self._limit = vocoder.generator.limit
        self.generator = PackedGenerator(vocoder.generator)
        device = self.source.noise.device
        frames, harmonics = max(sizes), self.source.harmonics
        self._spare = torch.zeros(1, MEL_BINS, device=device)
        self._mel = torch.zeros(frames, MEL_BINS, device=device)
        self._numbers = torch.zeros((FIELDS + 1) * frames, dtype=torch.int32, device=device)
        self._start_phases = torch.zeros(frames, harmonics, dtype=torch.float64, device=device)
        self._phases = torch.zeros(frames, harmonics, dtype=torch.float64, device=device)
        self._audio = torch.zeros(frames * SAMPLES_PER_FRAME, device=device)
        self._graphs = CudaGraphs("vocoder", self._write_no_rows, self._compute, sizes, device)

    def rehearse(self) -> None:
        """Launch every kernel that a call of any size uses, for `compiling`."""
        for size in self._graphs.sizes:
            self._graphs.rehearse(size)

    def capture(self) -> None:
        """Capture the CUDA graphs of all sizes, so that later calls have almost no launch overhead."""
        self._graphs.capture(self._graphs.sizes)

    def groups(self, lengths: Sequence[int]) -> list[list[int]]:
        """Group rows into calls, by index: all rows share one call, as none is padded."""
        return packed_groups(lengths)

    @torch.inference_mode()
    def __call__(self, rows: Sequence[VocoderRow]) -> tuple[list[Tensor], Tensor]:
        """Compute the audio of all rows in as few graph replays as possible, without waiting for the device.

        Returns:
            See `Vocoder.forward`.

        Raises:
            ValueError: a row is longer than the largest size.
        """
        audio: list[Tensor] = []
        phases: list[Tensor] = []
        for group in self._groups(rows):
            pieces, last_phases = self._speak(group)
            audio += pieces
            phases.append(last_phases)
        return audio, phases[0] if len(phases) == 1 else torch.cat(phases)

    def _groups(self, rows: Sequence[VocoderRow]) -> list[list[VocoderRow]]:
        groups: list[list[VocoderRow]] = []
        free = 0
        for row in rows:
            frames = len(row.mel) + 1
            if frames > free:
                groups.append([])
                free = self._graphs.sizes[-1]
            groups[-1].append(row)
            free -= frames
        return groups

    def _speak(self, rows: Sequence[VocoderRow]) -> tuple[list[Tensor], Tensor]:
        frames = np.array([len(row.mel) for row in rows])
        starts = np.cumsum(frames + 1) - (frames + 1)
        used = int(starts[-1] + frames[-1] + 1)
        size = self._graphs.size_for(used)

        at = starts + [row.at for row in rows]
        noise = (np.array([row.noise_start for row in rows]) - starts * SAMPLES_PER_FRAME) % NOISE_SAMPLES
        of_rows = np.stack([np.arange(len(rows)), starts, starts + frames, at, noise])
        numbers = np.zeros(FIELDS * size + len(rows), np.int32)
        numbers[: FIELDS * size].reshape(FIELDS, size)[:, :used] = np.repeat(of_rows, frames + 1, axis=1)
        numbers[FIELDS * size :] = starts + [row.end - 1 for row in rows]
        staged = torch.from_numpy(numbers)
        if self._numbers.is_cuda:
            staged = staged.pin_memory()  # a new block, which is not reused before it has been read
        self._numbers[: len(numbers)].copy_(staged, non_blocking=True)
        torch.cat([piece for row in rows for piece in (row.mel, self._spare)], out=self._mel[:used])
        torch.stack([row.phase for row in rows], out=self._start_phases[: len(rows)])

        self._graphs.run(size)
        audio = self._audio[: used * SAMPLES_PER_FRAME].clone()
        first = at * SAMPLES_PER_FRAME
        last = (starts + [row.end for row in rows]) * SAMPLES_PER_FRAME
        pieces = [audio[begin:end] for begin, end in zip(first.tolist(), last.tolist(), strict=True)]
        return pieces, self._phases[self._numbers[FIELDS * size : len(numbers)]]

    def _write_no_rows(self, size: int) -> None:
        self._numbers[: FIELDS * size].zero_()

    def _compute(self, size: int) -> None:
        """Compute the audio and phases of the first `size` frames of the buffers."""
        row, start, end, at, noise_start = self._numbers[: FIELDS * size].view(FIELDS, size)
        frame = torch.arange(size, device=start.device)
        windows = Windows(start, end, self._gpu)
        mel = self._mel[:size].masked_fill(~windows.inside[:, None], 0)

        f0 = self._excitation.pitch(mel, windows)
        advances = self.source.advances(f0)
        sums = advances.cumsum(0)
        phases = (sums - (sums - advances)[at] + self._start_phases[row]) % 1
        self._phases[:size] = phases
        noise = self.source.noise_at(noise_start + frame * SAMPLES_PER_FRAME, SAMPLES_PER_FRAME)
        source = self._excitation.source(f0, advances, phases, noise.flatten(), windows)

        spectrum = self._analysed(source.view(size, SAMPLES_PER_FRAME), spare=(frame == end)[:, None])
        spectrum = self.generator(mel.half(), spectrum.half(), windows)
        audio = self._synthesised(spectrum, end)
        self._audio[: len(audio)] = audio

    def _analysed(self, source: Tensor, spare: Tensor) -> Tensor:
        """Compute the spectrum of each window, mirrored at both ends, [frames · spectrum rate, padded bins].

        The mirror images are written to the `spare` frames [frames, 1] of the source [frames, 480].
        """
        half = self._spectrum.n_fft // 2
        before, after = source[:, 1 : half + 1].flip(1), source[:, -half - 1 : -1].flip(1)
        source[1:, :half] = torch.where(spare[1:], after[:-1], source[1:, :half])
        source[:-1, -half:] = torch.where(spare[:-1], before[1:], source[:-1, -half:])
        signal = torch.cat([before[0], source.flatten(), source.new_zeros(half)])
        return signal.unfold(0, self._spectrum.n_fft, self._spectrum.hop)[:-1] @ self._analysis

    def _synthesised(self, spectrum: Tensor, end: Tensor) -> Tensor:
        """Synthesise log-magnitudes and phases [frames · spectrum rate, padded bins], without the last few samples."""
        bins = self._spectrum.n_fft // 2 + 1
        magnitude, phase = spectrum[:, :bins].clamp(max=MAX_LOG_MAGNITUDE).exp(), spectrum[:, bins : 2 * bins].sin()
        spectrum = torch.cat([magnitude * phase.cos(), magnitude * phase.sin()], dim=1)
        rate = len(spectrum) // len(end)
        position = torch.arange(len(spectrum), device=end.device).view(-1, rate)
        valid = (position <= end[:, None] * rate).float().view(1, -1)
        return self._spectrum.synthesise(spectrum.T[None], valid)[0].clamp(-self._limit, self._limit)
