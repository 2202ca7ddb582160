"""The waveform generator on packed windows: the networks of `generator`, multiplying in float16.

Every convolution reads what is activated already, and activates what it writes for the one that reads it.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from vllm_cosyvoice.config import SAMPLES_PER_FRAME
from vllm_cosyvoice.vocoder.cuda.convolution import Activation, Convolution, Taps, Windows
from vllm_cosyvoice.vocoder.torch.generator import OUTER_SLOPE, Generator, ResBlock, Snake

SUM_TYPE = torch.float16  # of what residual blocks add to: float32 brings 0.9 dB for a third more traffic


class ResBlocks:
    """Residual blocks side by side, without the end of their last pair, which differs from place to place."""

    def __init__(self, blocks: Sequence[ResBlock], rate: int, extra: int) -> None:
        pairs = range(len(blocks[0].convs1))
        self.first_activation = _snakes([block.activations1[0] for block in blocks])
        self.convs1 = [_convolution([block.convs1[pair] for block in blocks], rate, extra) for pair in pairs]
        self.between = [_snakes([block.activations2[pair] for block in blocks]) for pair in pairs]
        self.convs2 = [_convolution([block.convs2[pair] for block in blocks], rate, extra) for pair in pairs[:-1]]
        self.behind = [_snakes([block.activations1[pair] for block in blocks]) for pair in pairs[1:]]
        self.last = _convolution([block.convs2[-1] for block in blocks], rate, extra, summed=True)

    def __call__(self, x: Tensor, active: Tensor, windows: Windows, into: Tensor) -> Tensor:
        """All but the last convolution.

        Args:
            x: the input, one plane or one for each block.
            active: the input under `first_activation`.
            into: takes what the last pair adds to, [blocks, positions, channels].

        Returns:
            what the last convolution reads.
        """
        for pair, conv2 in enumerate(self.convs2):
            hidden = self.convs1[pair](active, windows, activation=self.between[pair])
            sums = into if pair == len(self.convs2) - 1 else torch.empty_like(into)
            active = conv2(hidden, windows, residual=x, raw=sums, activation=self.behind[pair])
            x = sums
        return self.convs1[-1](active, windows, activation=self.between[-1])


class Stage:
    """One step up in rate: upsample, let the source's spectrum in, average residual blocks."""

    def __init__(self, generator: Generator, index: int, rate: int, spectrum_rate: int) -> None:
        self.is_last = index == len(generator.rates) - 1
        extra = int(self.is_last)  # a position more than its frames have, as a centred spectrum has
        up, down = generator.ups[index], generator.source_downs[index]
        assert isinstance(up, nn.ConvTranspose1d) and isinstance(down, nn.Conv1d)
        phases = generator.rates[index]
        self.rate = rate
        self.up = Convolution([Taps.transposed(up, shift=extra)], rate=rate // phases, phases=phases, extra=(0, extra))
        self.down = Convolution([Taps.of(down)], rate=rate, stride=spectrum_rate // rate, extra=(1, extra))
        branches = generator.resblocks[index * generator.branches : (index + 1) * generator.branches]
        self.source_block = ResBlocks(_blocks([generator.source_resblocks[index]]), rate, extra)
        self.blocks = ResBlocks(_blocks(branches), rate, extra)
        self.output_activation = Activation(OUTER_SLOPE if self.is_last else generator.slope)

    def __call__(self, x: Tensor, spectrum: Tensor, windows: Windows) -> Tensor:
        """The next stage's input, activated.

        Args:
            x: [1, positions / phases, inputs] float16, activated.
            spectrum: [1, frames · spectrum rate, bins] float16.
        """
        positions, channels = len(windows.starts) * self.rate, self.down.outputs
        joined = x.new_empty(2, positions, channels, dtype=SUM_TYPE)  # the source's branch and the upsampled signal
        self.up(x, windows, raw=joined[1])
        if self.is_last:  # the position more is the first, a mirror of the third
            first = windows.starts.long() * self.rate
            joined[1].index_copy_(0, first, joined[1].index_select(0, first + 2))
        branch = torch.empty_like(joined[:1])
        active = self.down(spectrum, windows, raw=branch, activation=self.source_block.first_activation)
        hidden = self.source_block(branch, active, windows, into=joined[:1])
        x = torch.empty_like(branch)
        start = self.blocks.first_activation
        active = self.source_block.last(hidden, windows, residual=joined, raw=x, activation=start)
        sums = x.new_empty(len(active), positions, channels)
        hidden = self.blocks(x, active, windows, into=sums)
        scale, activation = 1 / len(sums), self.output_activation
        return self.blocks.last(hidden, windows, residual=sums, activation=activation, scale=scale)


class PackedGenerator:
    """What `generator` computes, with its weights."""

    def __init__(self, generator: Generator) -> None:
        spectrum_rate = SAMPLES_PER_FRAME // generator.spectrum.hop
        rates = [math.prod(generator.rates[: index + 1]) for index in range(len(generator.rates))]
        self.first = _convolution([generator.conv_pre], 1, 0)
        self.first_activation = Activation(generator.slope)
        self.stages = [Stage(generator, index, rate, spectrum_rate) for index, rate in enumerate(rates)]
        self.last = _convolution([generator.conv_post], rates[-1], 1)

    def __call__(self, mel: Tensor, spectrum: Tensor, windows: Windows) -> Tensor:
        """Log-magnitudes and phases, float32 [frames · spectrum rate, bins, padded]; 0 outside of the windows.

        Args:
            mel: [frames, 80] float16.
            spectrum: the source's, [frames · spectrum rate, bins, padded] float16.
        """
        x = self.first(mel[None], windows, activation=self.first_activation)
        for stage in self.stages:
            x = stage(x, spectrum[None], windows)
        result = torch.empty(1, x.shape[1], self.last.outputs, dtype=torch.float32, device=x.device)
        self.last(x, windows, raw=result)
        return result[0]


def _convolution(convs: Sequence[nn.Module], rate: int, extra: int, *, summed: bool = False) -> Convolution:
    """Convolutions that keep the length, of one dilation."""
    checked = [conv for conv in convs if isinstance(conv, nn.Conv1d)]
    taps, dilation = [Taps.of(conv) for conv in checked], checked[0].dilation[0]
    return Convolution(taps, rate=rate, dilation=dilation, extra=(extra, extra), summed=summed)


def _snakes(modules: Iterable[nn.Module]) -> Activation:
    snakes = [module for module in modules if isinstance(module, Snake)]
    return Activation.snake([snake.alpha[:, 0] for snake in snakes], [snake.inverse[:, 0] for snake in snakes])


def _blocks(modules: Iterable[nn.Module]) -> list[ResBlock]:
    """Those that take longest first."""
    return sorted((block for block in modules if isinstance(block, ResBlock)), key=lambda block: -block.kernel)
