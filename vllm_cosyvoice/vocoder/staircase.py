"""The excitation signal of CosyVoice3: harmonics whose phase is constant within a frame, and uniform noise."""

import math

import torch
from torch import Tensor

from vllm_cosyvoice.config import SAMPLES_PER_FRAME
from vllm_cosyvoice.vocoder.source import NOISE_SAMPLES, Source

# The reference draws its noise after the noise of its flow and the initial weights of its layers, from one generator.
DRAWS_BEFORE = (
    80 * 15_000  # the flow's noise
    + 6561 * 80  # its embedding of tokens
    + (192 + 1) * 80  # its projection of the speaker
    + (80 * 4 + 1) * 512  # the convolutions that predict the pitch
    + 4 * (512 * 3 + 1) * 512
    + (512 + 1)  # their classifier
    + 9  # the start phases of the harmonics
)


class StaircaseSource(Source):
    """Mixes the sines of the harmonics (voiced frames) and noise (unvoiced frames) into one signal.

    Within a frame the sines do not move, so a tone is a staircase with 50 steps a second, as in training.

    The noise is uniform in [0, 1), independent for each harmonic. Its weighted sum over the harmonics depends on the
    position only, so it is the sum that the table holds.
    """

    def draw_noise(self) -> None:
        """Draw the noise table: for the seed 0, these are the values that the reference uses."""
        generator = torch.Generator().manual_seed(0)
        torch.rand(DRAWS_BEFORE, generator=generator)
        self.noise = self.mixed(torch.rand(NOISE_SAMPLES, self.harmonics, generator=generator))

    def mixed(self, noise: Tensor) -> Tensor:
        """The weighted sum [samples] of `noise` [samples, harmonics], as `forward` takes it."""
        weight = self.mix.weight[0]
        return noise.to(weight) @ weight

    def forward(self, f0: Tensor, phases: Tensor, noise: Tensor) -> Tensor:
        """Compute the source, [rows, 480 · frames].

        Args:
            f0: Hz, [rows, frames].
            phases: [rows, frames, harmonics] cycles, see `Source.phases`.
            noise: [rows, 480 · frames], see `mixed`.
        """
        voiced = (f0 > self.voiced_threshold).to(noise.dtype)
        sines = (2 * math.pi * phases).sin().to(noise.dtype)
        tone = self.amplitude * voiced * (sines @ self.mix.weight[0])
        loudness = self.unvoiced_noise + (self.voiced_noise - self.unvoiced_noise) * voiced
        noise = noise.view(*f0.shape, SAMPLES_PER_FRAME)
        source: Tensor = torch.addcmul(tone[..., None], loudness[..., None], noise).add_(self.mix.bias).tanh_()
        return source.flatten(1)
