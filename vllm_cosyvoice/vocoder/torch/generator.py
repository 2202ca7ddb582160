"""The waveform generator: converts mel and source to audio.

Tensors are [rows, channels, time]. Convolutions look both ways, so the padding of shorter rows is set to zero before
each of them: the result of a row does not depend on the other rows.
"""

from math import log

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vllm_cosyvoice.config import MEL_BINS, SAMPLES_PER_FRAME, VocoderConfig
from vllm_cosyvoice.vocoder.torch.spectrum import Spectrum

OUTER_KERNEL = 7
OUTER_SLOPE = 0.01  # of the leaky ReLU before the last convolution
MAX_LOG_MAGNITUDE = log(100.0)  # clamped before the exponential, whose gradient becomes NaN when it overflows


class Snake(nn.Module):
    """x + sin²(αx) / α (Ziyin et al. 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(channels, 1))
        self.inverse = nn.Parameter(torch.empty(channels, 1))  # 1 / (alpha + 1e-9), computed once, see `loading`

    def forward(self, x: Tensor) -> Tensor:
        """Input and output are [rows, channels, time]; zero stays zero."""
        return torch.addcmul(x, (x * self.alpha).sin_().square_(), self.inverse)


class ResBlock(nn.Module):
    """Pairs of convolutions, the first of each pair dilated. The output of each pair is added to its input."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.kernel = kernel

        def conv(dilation: int) -> nn.Conv1d:
            padding = (kernel - 1) * dilation // 2
            return nn.Conv1d(channels, channels, kernel, dilation=dilation, padding=padding)

        self.convs1 = nn.ModuleList(conv(dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(conv(1) for _ in dilations)
        self.activations1 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.activations2 = nn.ModuleList(Snake(channels) for _ in dilations)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """Input and output are [rows, channels, time]; the output is masked by `valid` [rows, 1, time], if given."""
        pairs = zip(self.activations1, self.convs1, self.activations2, self.convs2, strict=True)
        for snake1, conv1, snake2, conv2 in pairs:
            x = x + _keep(conv2(snake2(_keep(conv1(snake1(x)), valid))), valid)
        return x


class Generator(nn.Module):
    """Converts mel and source to audio: upsampling convolutions, with the source's spectrum added at every rate."""

    spectrum: Spectrum

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.slope, self.limit = config.leaky_slope, config.audio_limit
        self.rates = config.upsample_rates
        channels = [config.base_channels >> stage for stage in range(len(self.rates) + 1)]
        bins = config.n_fft + 2
        self.conv_pre = nn.Conv1d(MEL_BINS, channels[0], OUTER_KERNEL, padding=OUTER_KERNEL // 2)
        self.ups, self.source_downs, self.source_resblocks, self.resblocks = (nn.ModuleList() for _ in range(4))
        remaining = SAMPLES_PER_FRAME // config.hop_length
        for stage, (rate, kernel) in enumerate(zip(self.rates, config.upsample_kernels, strict=True)):
            inputs, outputs = channels[stage : stage + 2]
            self.ups.append(nn.ConvTranspose1d(inputs, outputs, kernel, rate, padding=(kernel - rate) // 2))
            remaining //= rate
            down_kernel = 2 * remaining if remaining > 1 else 1
            self.source_downs.append(nn.Conv1d(bins, outputs, down_kernel, remaining, padding=remaining // 2))
            source_kernel = config.source_resblock_kernels[stage]
            self.source_resblocks.append(ResBlock(outputs, source_kernel, config.source_resblock_dilations))
            for body_kernel in config.resblock_kernels:
                self.resblocks.append(ResBlock(outputs, body_kernel, config.resblock_dilations))
        self.branches = len(config.resblock_kernels)
        self.conv_post = nn.Conv1d(channels[-1], bins, OUTER_KERNEL, padding=OUTER_KERNEL // 2)

    def forward(self, mel: Tensor, source: Tensor, lengths: Tensor, ragged: bool) -> Tensor:
        """Compute the audio [rows, 480 · frames] in ±0.99; it is undefined after a row's end.

        Args:
            mel: [rows, frames, 80], 0 in the padding.
            source: [rows, 480 · frames].
            lengths: [rows], frames of each row.
            ragged: whether rows differ in length.
        """
        source_spectrum = self.spectrum.analyse(source, lengths * SAMPLES_PER_FRAME)
        spectrum_ends = lengths * (SAMPLES_PER_FRAME // self.spectrum.hop) + 1
        valid_spectrum = _valid(spectrum_ends, source_spectrum)
        if ragged:
            source_spectrum = source_spectrum * valid_spectrum

        x, ends = self.conv_pre(mel.transpose(1, 2)), lengths
        valid = _valid(ends, x) if ragged else None
        for stage, rate in enumerate(self.rates):
            x, ends = self.ups[stage](F.leaky_relu(_keep(x, valid), self.slope)), ends * rate
            if stage == len(self.rates) - 1:  # a centred spectrum has one frame more
                x, ends = F.pad(x, (1, 0), mode="reflect"), ends + 1
            valid = _valid(ends, x) if ragged else None
            excitation = _keep(self.source_downs[stage](source_spectrum), valid)
            x = _keep(x, valid) + self.source_resblocks[stage](excitation, valid)
            blocks = self.resblocks[stage * self.branches : (stage + 1) * self.branches]
            x = torch.stack([block(x, valid) for block in blocks]).mean(0)

        post = self.conv_post(F.leaky_relu(x, OUTER_SLOPE))
        return synthesise(self.spectrum, post, valid_spectrum[:, 0]).clamp(-self.limit, self.limit)


def synthesise(spectrum: Spectrum, post: Tensor, valid: Tensor) -> Tensor:
    """Compute the signal [rows, (frames - 1) · hop] from the frames where `valid` [rows, frames] is 1.

    `post` [rows, n_fft + 2, frames] has log-magnitudes, then what the sine makes phases of.
    """
    magnitude, phase = post.chunk(2, dim=1)
    magnitude, phase = magnitude.clamp(max=MAX_LOG_MAGNITUDE).exp(), phase.sin()
    return spectrum.synthesise(torch.cat([magnitude * phase.cos(), magnitude * phase.sin()], dim=1), valid)


def _valid(ends: Tensor, x: Tensor) -> Tensor:
    """A mask [rows, 1, time], 1 before each row's end and 0 after it."""
    return (torch.arange(x.shape[-1], device=x.device) < ends[:, None])[:, None].to(x.dtype)


def _keep(x: Tensor, valid: Tensor | None) -> Tensor:
    return x if valid is None else x * valid
