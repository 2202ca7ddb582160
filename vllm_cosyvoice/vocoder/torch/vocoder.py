"""The complete vocoder: converts mel to audio, for rows of different lengths at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from vllm_cosyvoice.config import SAMPLES_PER_FRAME, VocoderConfig
from vllm_cosyvoice.nn.layers import load
from vllm_cosyvoice.nn.padding import padded_groups
from vllm_cosyvoice.vocoder.source import HarmonicSource, Source
from vllm_cosyvoice.vocoder.torch.f0 import F0Predictor
from vllm_cosyvoice.vocoder.torch.generator import Generator
from vllm_cosyvoice.vocoder.torch.loading import vocoder_weights
from vllm_cosyvoice.vocoder.torch.spectrum import Spectrum


@dataclass(frozen=True, eq=False)
class VocoderRow:
    """One row of a call. All of `mel` is input, the frames from `at` to `end` - 1 are output."""

    mel: Tensor  # [frames, 80] float32
    phase: Tensor  # [harmonics] float64 cycles, the source's phase at the centre of the frame before frame `at`
    at: int
    end: int
    noise_start: int  # index in the noise table of the first sample of `mel`


class PaddedRows:
    """The rows of a call, padded to equal length. Attributes are on the rows' device."""

    def __init__(self, rows: Sequence[VocoderRow]) -> None:
        numbers = [(len(row.mel), row.at, row.end - 1, row.noise_start) for row in rows]
        self.rows = rows
        self.mel = pad_sequence([row.mel for row in rows], batch_first=True)
        self.phase = torch.stack([row.phase for row in rows])
        self.lengths, self.at, self._last, self._noise_starts = torch.tensor(numbers).to(self.mel.device).unbind(1)

    def noise(self, source: Source) -> Tensor:
        """The noise [rows, 480 · frames] of all samples."""
        return source.noise_at(self._noise_starts, self.mel.shape[1] * SAMPLES_PER_FRAME)

    def spoken(self, audio: Tensor, phases: Tensor) -> tuple[list[Tensor], Tensor]:
        """The part of `audio` [rows, 480 · frames] that each row speaks, and the `phases` at the end of it."""
        spoken = [slice(row.at * SAMPLES_PER_FRAME, row.end * SAMPLES_PER_FRAME) for row in self.rows]
        pieces = [samples[piece] for samples, piece in zip(audio, spoken, strict=True)]
        return pieces, phases[torch.arange(len(self.rows), device=phases.device), self._last]


class Vocoder(nn.Module):
    """Converts mel to audio, in float32."""

    context = 20  # frames; the receptive field is 19.75 frames on either side, 5 of them due to the pitch
    # Frames at the end of the mel whose audio waits for more mel. With full-size seeded weights, the frame before a
    # joint differs from one-shot audio by -31 dB at 8, -50 dB at 10, -71 dB at 12 and -93 dB at 14 if the pitch is
    # steady, and by -15, -24, -40 and -59 dB if it leaps by a fifth from frame to frame. At 16 it differs by -92 dB or
    # less in both cases, so joints need no cross-fade. Holding back does not delay the first audio, it only shortens
    # the first piece.
    hold_back = 16

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.f0 = F0Predictor(config.f0_channels)
        self.source = HarmonicSource(config)
        self.generator = Generator(config)

    @classmethod
    def from_state(
        cls, config: VocoderConfig, state: Mapping[str, Tensor], device: torch.device | str = "cpu"
    ) -> "Vocoder":
        """Create a vocoder from the tensors of `hift.pt`.

        Raises:
            ValueError: a tensor is missing, unknown or has another shape than in `config`.
        """
        with torch.device("meta"):
            vocoder = cls(config)
        load(vocoder, vocoder_weights(state), "vocoder").to(device=device, dtype=torch.float32)
        vocoder.source.draw_noise()
        vocoder.generator.spectrum = Spectrum(config.n_fft, config.hop_length, device)
        return vocoder

    def groups(self, lengths: Sequence[int]) -> list[list[int]]:
        """Group rows into calls, by index: rows of similar `lengths` (in frames) share one call."""
        return padded_groups(lengths, self.source.noise.device)

    @torch.inference_mode()
    def forward(self, rows: Sequence[VocoderRow]) -> tuple[list[Tensor], Tensor]:
        """Compute the audio of all rows in one call.

        Returns:
            The audio of each row, [480 · (end - at)] float32 in ±0.99, and the phases [rows, harmonics] float64 of the
            source at the centre of the last frame spoken.
        """
        padded = PaddedRows(rows)
        mel, lengths = padded.mel, padded.lengths
        frames = [len(row.mel) for row in rows]
        valid = (torch.arange(mel.shape[1], device=mel.device) < lengths[:, None]).float()
        f0 = self.f0(mel, valid)
        advances, phases = self.source.phases(f0, padded.phase, padded.at)
        source = self.source(f0, advances, phases, padded.noise(self.source))
        audio = self.generator(mel, source, lengths, ragged=min(frames) < max(frames))
        return padded.spoken(audio, phases)
