"""The excitation: harmonics of the pitch and noise, one value a sample."""

import math

import torch
from torch import Tensor, nn

from vllm_cosyvoice.config import SAMPLE_RATE, SAMPLES_PER_FRAME, VocoderConfig

NOISE_SAMPLES = 1 << 20  # the noise repeats after 44 s
SEED_STRIDE = 2_654_435_761  # Knuth's multiplier: neighbouring seeds start far apart in the noise


class HarmonicSource(nn.Module):
    """Sines at the pitch's multiples where there is pitch, noise elsewhere, mixed into one signal.

    The phase is known at the centre of each frame and linear between centres; the half frames at both ends of an
    utterance, which have one centre only, keep its phase. Phases count cycles, in float64 modulo 1: a float32 sum
    would drift.

    Nine harmonics with independent noise of one variance, mixed with weights w, carry the noise of a single channel
    ‖w‖ times as loud, so only that one is drawn. It is read from a fixed table by absolute position: the audio of a
    stream does not depend on where it is cut.
    """

    noise: Tensor  # [NOISE_SAMPLES]

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.harmonics = config.harmonics + 1
        self.amplitude = config.sine_amplitude
        self.voiced_noise = config.noise_amplitude
        self.unvoiced_noise = config.sine_amplitude / 3
        self.voiced_threshold = config.voiced_threshold
        self.mix = nn.Linear(self.harmonics, 1)

    def draw_noise(self) -> None:
        """Make the noise table, the same on every device."""
        noise = torch.randn(NOISE_SAMPLES, generator=torch.Generator().manual_seed(0))
        self.noise = noise.to(self.mix.weight.device)

    def noise_at(self, first: Tensor, samples: int) -> Tensor:
        """Noise [rows, samples] from the positions `first` [rows] on."""
        positions = first[:, None] + torch.arange(samples, device=first.device)
        return self.noise[positions % NOISE_SAMPLES]

    def advances(self, f0: Tensor) -> Tensor:
        """How far each harmonic gets from one frame centre to the next: float64 cycles, [rows, frames, harmonics]."""
        multiples = torch.arange(1, self.harmonics + 1, dtype=torch.float64, device=f0.device)
        return SAMPLES_PER_FRAME * (f0.double()[..., None] * (multiples / SAMPLE_RATE) % 1)

    def phases(self, f0: Tensor, phase: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        """How far each harmonic gets from one frame centre to the next, and its phase there.

        Args:
            f0: Hz, [rows, frames].
            phase: [rows, harmonics] float64, the phase at the centre before frame `at` [rows].

        Returns:
            advances and phases, [rows, frames, harmonics] float64 cycles; the phases modulo 1.
        """
        advances = self.advances(f0)
        sums = advances.cumsum(1)
        rows = torch.arange(len(f0), device=f0.device)
        return advances, (sums - (sums - advances)[rows, at][:, None] + phase[:, None]) % 1

    def forward(self, f0: Tensor, advances: Tensor, phases: Tensor, noise: Tensor) -> Tensor:
        """The source, [rows, 480 · frames] float32, of unit-variance `noise` of the same shape."""
        rows, frames, _ = phases.shape
        half = SAMPLES_PER_FRAME // 2
        centre_distance = (torch.arange(SAMPLES_PER_FRAME, device=f0.device) + 0.5) / SAMPLES_PER_FRAME - 0.5
        still = advances.new_zeros(rows, 1, self.harmonics)
        before = torch.cat([still, advances[:, 1:]], dim=1).float()[..., None]
        after = torch.cat([advances[:, 1:], still], dim=1).float()[..., None]
        moved = torch.cat([before * centre_distance[:half], after * centre_distance[half:]], dim=-1)
        sines = moved.add_(phases.float()[..., None]).mul_(2 * math.pi).sin_()  # [rows, frames, harmonics, samples]

        voiced = (f0 > self.voiced_threshold).float()[..., None]
        weight = self.mix.weight
        tone = self.amplitude * voiced * (weight @ sines).squeeze(2)
        loudness = weight.norm() * (self.unvoiced_noise + (self.voiced_noise - self.unvoiced_noise) * voiced)
        mixed = tone + loudness * noise.view(rows, frames, SAMPLES_PER_FRAME) + self.mix.bias
        source: Tensor = mixed.tanh_().flatten(1)
        return source
