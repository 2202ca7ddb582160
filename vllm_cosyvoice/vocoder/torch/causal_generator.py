"""The causal waveform generator: converts mel and source to audio, reading four frames ahead.

Tensors are [rows, channels, time]. Only the first convolution and the source's spectrum read ahead. So what later
layers compute after the end of a shorter row needs no mask: the row does not read it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vllm_cosyvoice.config import MEL_BINS, SAMPLES_PER_FRAME, VOCODER_LOOKAHEAD, CausalVocoderConfig
from vllm_cosyvoice.vocoder.torch.generator import OUTER_KERNEL, OUTER_SLOPE, Snake, synthesise
from vllm_cosyvoice.vocoder.torch.spectrum import Spectrum


class PaddedConv(nn.Conv1d):
    """A convolution of the input with `left` zeros before it and `right` zeros after it."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        left: int = 0,
        right: int = 0,
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, dilation=dilation)
        self.left, self.right = left, right

    def forward(self, x: Tensor) -> Tensor:
        """[rows, inputs, time] to [rows, outputs, as many steps as fit into left + time + right]."""
        return super().forward(F.pad(x, (self.left, self.right)))


class CausalConv(PaddedConv):
    """A convolution that keeps the length and reads nothing ahead."""

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, dilation=dilation, left=(kernel - 1) * dilation)


class CausalResBlock(nn.Module):
    """A `ResBlock` of causal convolutions."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.kernel = kernel
        self.convs1 = nn.ModuleList(CausalConv(channels, channels, kernel, dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(CausalConv(channels, channels, kernel) for _ in dilations)
        self.activations1 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.activations2 = nn.ModuleList(Snake(channels) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """Input and output are [rows, channels, time]."""
        pairs = zip(self.activations1, self.convs1, self.activations2, self.convs2, strict=True)
        for snake1, conv1, snake2, conv2 in pairs:
            x = x + conv2(snake2(conv1(snake1(x))))
        return x


class CausalGenerator(nn.Module):
    """Converts mel and source to audio: repeats frames at ever higher rates, and adds the source's spectrum at each."""

    spectrum: Spectrum

    def __init__(self, config: CausalVocoderConfig) -> None:
        super().__init__()
        self.slope, self.limit = config.leaky_slope, config.audio_limit
        self.rates = config.upsample_rates
        channels = [config.base_channels >> stage for stage in range(len(self.rates) + 1)]
        bins = config.n_fft + 2
        self.conv_pre = PaddedConv(MEL_BINS, channels[0], VOCODER_LOOKAHEAD + 1, right=VOCODER_LOOKAHEAD)
        self.ups, self.source_downs, self.source_resblocks, self.resblocks = (nn.ModuleList() for _ in range(4))
        remaining = SAMPLES_PER_FRAME // config.hop_length
        for stage, (rate, kernel) in enumerate(zip(self.rates, config.upsample_kernels, strict=True)):
            inputs, outputs = channels[stage : stage + 2]
            self.ups.append(CausalConv(inputs, outputs, kernel))
            remaining //= rate
            down_kernel = 2 * remaining if remaining > 1 else 1
            self.source_downs.append(PaddedConv(bins, outputs, down_kernel, stride=remaining, left=remaining - 1))
            source_kernel = config.source_resblock_kernels[stage]
            self.source_resblocks.append(CausalResBlock(outputs, source_kernel, config.source_resblock_dilations))
            for body_kernel in config.resblock_kernels:
                self.resblocks.append(CausalResBlock(outputs, body_kernel, config.resblock_dilations))
        self.branches = len(config.resblock_kernels)
        self.conv_post = CausalConv(channels[-1], bins, OUTER_KERNEL)

    def forward(self, mel: Tensor, source: Tensor, lengths: Tensor) -> Tensor:
        """Compute the audio [rows, 480 · frames] in ±0.99; it is undefined after a row's end.

        Args:
            mel: [rows, frames, 80], 0 in the padding.
            source: [rows, 480 · frames].
            lengths: [rows], frames of each row.
        """
        post = self.body(mel, source, lengths)
        ends = lengths * (SAMPLES_PER_FRAME // self.spectrum.hop) + 1
        valid = (torch.arange(post.shape[-1], device=post.device) < ends[:, None]).to(post.dtype)
        return synthesise(self.spectrum, post, valid).clamp(-self.limit, self.limit)

    def body(self, mel: Tensor, source: Tensor, lengths: Tensor) -> Tensor:
        """Compute log-magnitudes and phases, [rows, n_fft + 2, 120 · frames + 1], of the same as `forward`."""
        data_type = self.conv_post.weight.dtype
        source_spectrum = self.spectrum.analyse(source, lengths * SAMPLES_PER_FRAME).to(data_type)
        x = self.conv_pre(mel.transpose(1, 2).to(data_type))
        for stage, rate in enumerate(self.rates):
            x = self.ups[stage](F.leaky_relu(x, self.slope).repeat_interleave(rate, dim=2))
            if stage == len(self.rates) - 1:  # a centred spectrum has one frame more
                x = F.pad(x, (1, 0), mode="reflect")
            x = x + self.source_resblocks[stage](self.source_downs[stage](source_spectrum))
            blocks = self.resblocks[stage * self.branches : (stage + 1) * self.branches]
            x = torch.stack([block(x) for block in blocks]).mean(0)
        post: Tensor = self.conv_post(F.leaky_relu(x, OUTER_SLOPE))
        return post.to(source.dtype)
