"""The complete vocoder: converts mel to audio, for rows of different lengths at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from vllm_cosyvoice.config import SAMPLES_PER_FRAME, VocoderConfig
from vllm_cosyvoice.nn.layers import load
from vllm_cosyvoice.nn.padding import padded_groups
from vllm_cosyvoice.vocoder.source import HarmonicSource
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


class Vocoder(nn.Module):
    """Converts mel to audio, in float32."""

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
        mel = pad_sequence([row.mel for row in rows], batch_first=True)
        frames = [len(row.mel) for row in rows]
        numbers = [(len(row.mel), row.at, row.end - 1, row.noise_start) for row in rows]
        lengths, at, last, noise_starts = torch.tensor(numbers).to(mel.device).unbind(1)

        valid = (torch.arange(mel.shape[1], device=mel.device) < lengths[:, None]).float()
        f0 = self.f0(mel, valid)
        advances, phases = self.source.phases(f0, torch.stack([row.phase for row in rows]), at)
        noise = self.source.noise_at(noise_starts, mel.shape[1] * SAMPLES_PER_FRAME)
        source = self.source(f0, advances, phases, noise)
        audio = self.generator(mel, source, lengths, ragged=min(frames) < max(frames))
        spoken = [slice(row.at * SAMPLES_PER_FRAME, row.end * SAMPLES_PER_FRAME) for row in rows]
        pieces = [samples[piece] for samples, piece in zip(audio, spoken, strict=True)]
        return pieces, phases[torch.arange(len(rows), device=mel.device), last]
