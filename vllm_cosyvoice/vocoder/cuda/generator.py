"""The waveform generators on packed windows: the networks of `torch` with products in float16.

The input of every convolution is already activated: each convolution applies the next one's activation to its output.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from vllm_cosyvoice.config import SAMPLES_PER_FRAME
from vllm_cosyvoice.vocoder.cuda.convolution import Activation, Convolution, Taps, Windows
from vllm_cosyvoice.vocoder.torch.causal_generator import CausalConv, CausalGenerator, CausalResBlock
from vllm_cosyvoice.vocoder.torch.generator import OUTER_SLOPE, Generator, ResBlock, Snake

SUM_TYPE = torch.float16  # of residual sums; float32 gains 0.9 dB for a third more memory traffic
AnyGenerator = Generator | CausalGenerator
AnyResBlock = ResBlock | CausalResBlock


class ResBlocks:
    """Parallel residual blocks, without the end of their last pair, which depends on where they are used."""

    def __init__(self, blocks: Sequence[AnyResBlock], rate: int, extra: int) -> None:
        pairs = range(len(blocks[0].convs1))
        self.first_activation = _snakes([block.activations1[0] for block in blocks])
        self.convs1 = [_convolution([block.convs1[pair] for block in blocks], rate, extra) for pair in pairs]
        self.between = [_snakes([block.activations2[pair] for block in blocks]) for pair in pairs]
        self.convs2 = [_convolution([block.convs2[pair] for block in blocks], rate, extra) for pair in pairs[:-1]]
        self.behind = [_snakes([block.activations1[pair] for block in blocks]) for pair in pairs[1:]]
        self.last = _convolution([block.convs2[-1] for block in blocks], rate, extra, summed=True)

    def __call__(self, x: Tensor, active: Tensor, windows: Windows, into: Tensor) -> Tensor:
        """Compute all but the last convolution.

        Args:
            x: the input, one plane or one per block.
            active: the input after `first_activation`.
            into: receives the residual of the last pair, [blocks, positions, channels].

        Returns:
            The input of the last convolution.
        """
        for pair, conv2 in enumerate(self.convs2):
            hidden = self.convs1[pair](active, windows, activation=self.between[pair])
            sums = into if pair == len(self.convs2) - 1 else torch.empty_like(into)
            active = conv2(hidden, windows, residual=x, raw=sums, activation=self.behind[pair])
            x = sums
        return self.convs1[-1](active, windows, activation=self.between[-1])


class Stage:
    """One upsampling stage: upsample, add the source's spectrum, average residual blocks."""

    def __init__(self, generator: AnyGenerator, index: int, rate: int, spectrum_rate: int) -> None:
        self.is_last = index == len(generator.rates) - 1
        extra = int(self.is_last)  # one position beyond the frames, as a centred spectrum has one frame more
        down = generator.source_downs[index]
        assert isinstance(down, nn.Conv1d)
        phases = generator.rates[index]
        self.rate = rate
        up = _upsampling(generator.ups[index], phases, shift=extra)
        self.up = Convolution([up], rate=rate // phases, phases=phases, extra=(0, extra))
        self.down = Convolution([Taps.of(down)], rate=rate, stride=spectrum_rate // rate, extra=(1, extra))
        branches = generator.resblocks[index * generator.branches : (index + 1) * generator.branches]
        self.source_block = ResBlocks(_blocks([generator.source_resblocks[index]]), rate, extra)
        self.blocks = ResBlocks(_blocks(branches), rate, extra)
        self.output_activation = Activation(OUTER_SLOPE if self.is_last else generator.slope)

    def __call__(self, x: Tensor, spectrum: Tensor, windows: Windows) -> Tensor:
        """Compute the next stage's input, activated.

        Args:
            x: [1, positions / phases, inputs] float16, activated.
            spectrum: [1, frames · spectrum rate, bins] float16.
        """
        positions, channels = len(windows.starts) * self.rate, self.down.outputs
        joined = x.new_empty(2, positions, channels, dtype=SUM_TYPE)  # the source's branch and the upsampled signal
        self.up(x, windows, raw=joined[1])
        if self.is_last:  # the extra position is the first, a mirror image of the third
            first = windows.starts.long() * self.rate
            joined[1].index_copy_(0, first, joined[1].index_select(0, first + 2))
        branch = torch.empty_like(joined[:1])
        active = self.down(spectrum, windows, raw=branch, activation=self.source_block.first_activation)
        hidden = self.source_block(branch, active, windows, into=joined[:1])
        x = torch.empty_like(branch)
        activation = self.blocks.first_activation
        active = self.source_block.last(hidden, windows, residual=joined, raw=x, activation=activation)
        sums = x.new_empty(len(active), positions, channels)
        hidden = self.blocks(x, active, windows, into=sums)
        scale = 1 / len(sums)
        return self.blocks.last(hidden, windows, residual=sums, activation=self.output_activation, scale=scale)


class PackedGenerator:
    """A `Generator` or `CausalGenerator` on packed windows, with its weights."""

    def __init__(self, generator: AnyGenerator) -> None:
        spectrum_rate = SAMPLES_PER_FRAME // generator.spectrum.hop
        rates = [math.prod(generator.rates[: index + 1]) for index in range(len(generator.rates))]
        self.first = _convolution([generator.conv_pre], 1, 0)
        self.first_activation = Activation(generator.slope)
        self.stages = [Stage(generator, index, rate, spectrum_rate) for index, rate in enumerate(rates)]
        self.last = _convolution([generator.conv_post], rates[-1], 1)

    def __call__(self, mel: Tensor, spectrum: Tensor, windows: Windows) -> Tensor:
        """Compute log-magnitudes and phases, float32 [frames · spectrum rate, padded bins], 0 outside the windows.

        Args:
            mel: [frames, 80] float16.
            spectrum: the source's, [frames · spectrum rate, padded bins] float16.
        """
        x = self.first(mel[None], windows, activation=self.first_activation)
        for stage in self.stages:
            x = stage(x, spectrum[None], windows)
        result = torch.empty(1, x.shape[1], self.last.outputs, dtype=torch.float32, device=x.device)
        self.last(x, windows, raw=result)
        return result[0]


def _convolution(convs: Sequence[nn.Module], rate: int, extra: int, *, summed: bool = False) -> Convolution:
    """Combine convolutions that keep the length and have the same dilation."""
    checked = [conv for conv in convs if isinstance(conv, nn.Conv1d)]
    taps, dilation = [Taps.of(conv) for conv in checked], checked[0].dilation[0]
    return Convolution(taps, rate=rate, dilation=dilation, extra=(extra, extra), summed=summed)


def _upsampling(up: nn.Module, rate: int, shift: int) -> Taps:
    if isinstance(up, CausalConv):
        return Taps.repeated(up, rate, shift)
    assert isinstance(up, nn.ConvTranspose1d)
    return Taps.transposed(up, shift)


def _snakes(modules: Iterable[nn.Module]) -> Activation:
    snakes = [module for module in modules if isinstance(module, Snake)]
    return Activation.snake([snake.alpha[:, 0] for snake in snakes], [snake.inverse[:, 0] for snake in snakes])


def _blocks(modules: Iterable[nn.Module]) -> list[AnyResBlock]:
    """The residual blocks among `modules`, slowest first."""
    return sorted((block for block in modules if isinstance(block, AnyResBlock)), key=lambda block: -block.kernel)
