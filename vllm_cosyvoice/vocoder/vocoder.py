"""The vocoder as a whole: mel to audio, rows of different lengths at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from vllm_cosyvoice.config import SAMPLES_PER_FRAME, VocoderConfig
from vllm_cosyvoice.layers import load
from vllm_cosyvoice.vocoder.f0 import F0Predictor
from vllm_cosyvoice.vocoder.generator import Generator
from vllm_cosyvoice.vocoder.loading import vocoder_weights
from vllm_cosyvoice.vocoder.source import HarmonicSource
from vllm_cosyvoice.vocoder.spectrum import Spectrum


@dataclass(frozen=True, eq=False)
class VocoderRow:
    """One row of a call."""

    mel: Tensor  # [frames, 80] float32
    phase: Tensor  # [harmonics] float64 cycles, the source's phase at the centre of the frame before frame `at`
    at: int
    noise_start: int  # which sample of the noise table is the first of `mel`


class Vocoder(nn.Module):
    """Mel to audio, in float32."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.f0 = F0Predictor(config.f0_channels)
        self.source = HarmonicSource(config)
        self.generator = Generator(config)

    @classmethod
    def from_state(
        cls, config: VocoderConfig, state: Mapping[str, Tensor], device: torch.device | str = "cpu"
    ) -> "Vocoder":
        """A vocoder with the tensors of `hift.pt`.

        Raises:
            ValueError: a tensor is missing, unknown or of another shape than `config` says.
        """
        with torch.device("meta"):
            vocoder = cls(config)
        load(vocoder, vocoder_weights(state), "vocoder").to(device=device, dtype=torch.float32)
        vocoder.source.draw_noise()
        vocoder.generator.spectrum = Spectrum(config.n_fft, config.hop_length, device)
        return vocoder

    @torch.inference_mode()
    def forward(self, rows: Sequence[VocoderRow]) -> tuple[Tensor, Tensor]:
        """The audio of all rows, in one call.

        Returns:
            audio [rows, samples] float32 in ±0.99, of which the first 480 · frames are a row's own;
            phases [rows, frames, harmonics] float64, the source's phase at the centre of every frame.
        """
        mel = pad_sequence([row.mel for row in rows], batch_first=True)
        frames = [len(row.mel) for row in rows]
        numbers = [frames, [row.at for row in rows], [row.noise_start for row in rows]]
        lengths, at, noise_starts = torch.tensor(numbers).to(mel.device)

        valid = (torch.arange(mel.shape[1], device=mel.device) < lengths[:, None]).float()
        f0 = self.f0(mel, valid)
        advances, phases = self.source.phases(f0, torch.stack([row.phase for row in rows]), at)
        noise = self.source.noise_at(noise_starts, mel.shape[1] * SAMPLES_PER_FRAME)
        source = self.source(f0, advances, phases, noise)
        audio = self.generator(mel, source, lengths, ragged=min(frames) < max(frames))
        return audio, phases
