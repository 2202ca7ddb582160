"""The excitation signal: harmonics of the pitch, and noise."""

import math

import torch
from torch import Tensor, nn

from vllm_cosyvoice.config import SAMPLE_RATE, SAMPLES_PER_FRAME, VocoderConfig

NOISE_SAMPLES = 1 << 20  # the noise repeats after 44 s
SEED_STRIDE = 2_654_435_761  # Knuth's multiplier, so that adjacent seeds start far apart in the noise


class Source(nn.Module):
    """The phases and the noise of the excitation signal; a subclass makes the signal of them.

    Phases are in cycles, float64 modulo 1, because a float32 sum would drift. Noise is read from a fixed table by
    absolute position, so the audio of a stream does not depend on where it is cut.
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

    def noise_at(self, first: Tensor, samples: int) -> Tensor:
        """Read noise [rows, samples], starting at the positions `first` [rows]."""
        positions = first[:, None] + torch.arange(samples, device=first.device)
        return self.noise[positions % NOISE_SAMPLES]

    def advances(self, f0: Tensor) -> Tensor:
        """Phase advance of each harmonic between frame centres: float64 cycles, [rows, frames, harmonics]."""
        multiples = torch.arange(1, self.harmonics + 1, dtype=torch.float64, device=f0.device)
        return SAMPLES_PER_FRAME * (f0.double()[..., None] * (multiples / SAMPLE_RATE) % 1)

    def phases(self, f0: Tensor, phase: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the phase advance of each harmonic between frame centres, and its phase at each centre.

        Args:
            f0: Hz, [rows, frames].
            phase: [rows, harmonics] float64, the phase at the centre before frame `at` [rows].

        Returns:
            Advances and phases, [rows, frames, harmonics] float64 cycles; the phases modulo 1.
        """
        advances = self.advances(f0)
        sums = advances.cumsum(1)
        rows = torch.arange(len(f0), device=f0.device)
        return advances, (sums - (sums - advances)[rows, at][:, None] + phase[:, None]) % 1


class HarmonicSource(Source):
    """Mixes sines at multiples of the pitch (voiced frames) and noise (unvoiced frames) into one signal.

    The phase is given at the centre of each frame and linear between centres. It is constant in the half frames at
    both ends of an utterance, which have only one centre.

    Independent noise of equal variance on nine harmonics, mixed with weights w, equals the noise of a single channel
    scaled by ‖w‖, so only one is drawn.
    """

    def draw_noise(self) -> None:
        """Draw the noise table, which is the same on every device."""
        noise = torch.randn(NOISE_SAMPLES, generator=torch.Generator().manual_seed(0))
        self.noise = noise.to(self.mix.weight.device)

    def forward(self, f0: Tensor, advances: Tensor, phases: Tensor, noise: Tensor) -> Tensor:
        """Compute the source, [rows, 480 · frames] float32. `noise` has the same shape and unit variance."""
        rows, frames, _ = phases.shape
        half = SAMPLES_PER_FRAME // 2
        centre_distance = (torch.arange(SAMPLES_PER_FRAME, device=f0.device) + 0.5) / SAMPLES_PER_FRAME - 0.5
        zero = advances.new_zeros(rows, 1, self.harmonics)
        before = torch.cat([zero, advances[:, 1:]], dim=1).float()[..., None]
        after = torch.cat([advances[:, 1:], zero], dim=1).float()[..., None]
        offsets = torch.cat([before * centre_distance[:half], after * centre_distance[half:]], dim=-1)
        sines = offsets.add_(phases.float()[..., None]).mul_(2 * math.pi).sin_()  # [rows, frames, harmonics, samples]

        voiced = (f0 > self.voiced_threshold).float()[..., None]
        weight = self.mix.weight
        tone = self.amplitude * voiced * (weight @ sines).squeeze(2)
        loudness = weight.norm() * (self.unvoiced_noise + (self.voiced_noise - self.unvoiced_noise) * voiced)
        mixed = tone + loudness * noise.view(rows, frames, SAMPLES_PER_FRAME) + self.mix.bias
        source: Tensor = mixed.tanh_().flatten(1)
        return source
