"""What tells the vocoder's speech from the teacher's: multi-period and multi-resolution discriminators, as HiFT has.

The losses are least squares (Mao et al. 2017) and feature matching (Larsen et al. 2016).
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from training.captured import Losses
from training.spectrum import magnitudes

PERIODS = (2, 3, 5, 7, 11)  # samples
PERIOD_CHANNELS = (1, 16, 64, 128, 256)
RESOLUTIONS = ((2048, 480), (1024, 240), (512, 120))  # window and hop, samples
SPECTRUM_CHANNELS = (1, 16, 16, 16, 16)


class Discriminator(nn.Module):
    """Two-dimensional convolutions; the last one judges, the features of the others are to match."""

    def __init__(self, channels: tuple[int, ...], kernel: tuple[int, int], stride: tuple[int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(inputs, outputs, kernel, stride, padding)) for inputs, outputs in pairwise(channels)
        )
        self.judge = weight_norm(nn.Conv2d(channels[-1], 1, (3, 1), padding=(1, 0)))

    def image(self, audio: Tensor) -> Tensor:
        """Audio [rows, samples] as [rows, 1, …, …]."""
        raise NotImplementedError

    def forward(self, audio: Tensor) -> list[Tensor]:
        """The features of each layer for audio [rows, samples], and behind them the judgement, 1 for real speech."""
        x = self.image(audio)
        features = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.1)
            features.append(x)
        return [*features, self.judge(x)]


class PeriodDiscriminator(Discriminator):
    """Hears every n-th sample (Kong et al. 2020, HiFi-GAN)."""

    def __init__(self, period: int) -> None:
        super().__init__(PERIOD_CHANNELS, (5, 1), (3, 1))
        self.period = period

    def image(self, audio: Tensor) -> Tensor:
        """[rows, 1, samples / period, period]."""
        times = audio.shape[1] // self.period
        return audio[:, : times * self.period].view(-1, 1, times, self.period)


class SpectrumDiscriminator(Discriminator):
    """Sees the log-magnitude spectrogram (Jang et al. 2021, UnivNet)."""

    def __init__(self, window: int, hop: int) -> None:
        super().__init__(SPECTRUM_CHANNELS, (9, 3), (2, 1))
        self.window, self.hop = window, hop

    def image(self, audio: Tensor) -> Tensor:
        """[rows, 1, window / 2 + 1, frames]."""
        return magnitudes(audio, self.window, self.hop).log()[:, None]


class Discriminators(nn.Module):
    """All of them."""

    def __init__(self) -> None:
        super().__init__()
        periods = [PeriodDiscriminator(period) for period in PERIODS]
        self.members = nn.ModuleList([*periods, *(SpectrumDiscriminator(*each) for each in RESOLUTIONS)])

    def forward(self, audio: Tensor) -> list[list[Tensor]]:
        """What each of them makes of audio [rows, samples]."""
        return [member(audio) for member in self.members]

    def losses(self, made: Tensor, real: Tensor) -> Losses:
        """Of generated and of real speech, [rows, samples], each the mean of all discriminators.

        `adversarial` and `feature_matching` train only what made `made`, `discriminator` only the discriminators. The
        distance of features is in units of the real ones' mean size, so that no layer outweighs another.
        """
        fixed = {name: parameter.detach() for name, parameter in self.named_parameters()}
        judged, of_made, of_real = functional_call(self, fixed, (made,)), self(made.detach()), self(real)
        adversarial = [(each[-1] - 1).square().mean() for each in judged]
        matching = [
            F.l1_loss(feature, wanted.detach()) / wanted.detach().abs().mean()
            for ours, theirs in zip(judged, of_real, strict=True)
            for feature, wanted in zip(ours[:-1], theirs[:-1], strict=True)
        ]
        told = [
            (theirs[-1] - 1).square().mean() + ours[-1].square().mean()
            for ours, theirs in zip(of_made, of_real, strict=True)
        ]
        return {
            name: torch.stack(values).mean()
            for name, values in (("adversarial", adversarial), ("feature_matching", matching), ("discriminator", told))
        }
