"""The pitch and the source on packed windows: those of the networks in `torch`, window by window."""

import torch
from torch import Tensor
from torch.nn import functional as F

from vllm_cosyvoice.nn.layers import FrameConv
from vllm_cosyvoice.vocoder.cuda.convolution import Windows
from vllm_cosyvoice.vocoder.torch.causal_vocoder import CausalVocoder
from vllm_cosyvoice.vocoder.torch.vocoder import Vocoder


class HarmonicExcitation:
    """The excitation of a `Vocoder`, in float32."""

    def __init__(self, vocoder: Vocoder) -> None:
        self._f0, self._source = vocoder.f0, vocoder.source

    def pitch(self, mel: Tensor, windows: Windows) -> Tensor:
        """Compute the pitch in Hz, [frames], 0 outside the windows, of `mel` [frames, 80]."""
        # Each layer looks one frame ahead and one back, so a spare frame of zeros separates the windows.
        pitch: Tensor = self._f0(mel[None], windows.inside.float()[None])
        return pitch[0]

    def source(self, f0: Tensor, advances: Tensor, phases: Tensor, noise: Tensor, windows: Windows) -> Tensor:
        """Compute the source, float32 [480 · frames].

        Args:
            f0: [frames], in Hz.
            advances, phases: [frames, harmonics] float64, in cycles, see `Source.phases`.
            noise: [480 · frames].
        """
        # The first frame of a window has no frame before it. After the last, the pitch is 0 and so is the advance.
        first = torch.arange(len(f0), device=f0.device) == windows.starts
        advances = advances.masked_fill(first[:, None], 0)
        source: Tensor = self._source(f0[None], advances[None], phases[None], noise[None])
        return source[0]


class StaircaseExcitation:
    """The excitation of a `CausalVocoder`, its pitch in float64."""

    def __init__(self, vocoder: CausalVocoder) -> None:
        self._convs = [conv for conv in vocoder.f0.convs if isinstance(conv, FrameConv)]
        self._classifier, self._source = vocoder.f0.classifier, vocoder.source

    def pitch(self, mel: Tensor, windows: Windows) -> Tensor:
        """As in `HarmonicExcitation`."""
        x = mel.double()
        for conv in self._convs:
            x = F.elu(_convolved(conv, x, windows))
        pitch: Tensor = self._classifier(x)[:, 0].abs()
        return pitch * windows.inside

    def source(self, f0: Tensor, advances: Tensor, phases: Tensor, noise: Tensor, windows: Windows) -> Tensor:
        """As in `HarmonicExcitation`. A frame's phase is constant, so `advances` are not needed."""
        source: Tensor = self._source(f0[None], phases[None], noise[None])
        return source[0]


def _convolved(conv: FrameConv, x: Tensor, windows: Windows) -> Tensor:
    """Compute `conv`, which keeps the length, of packed frames [frames, inputs], with zeros around each window.

    One spare frame would not separate the windows, as a tap is up to three frames away.
    """
    taps = torch.arange(-conv.left, conv.right + 1, device=x.device)
    frames = torch.arange(len(x), device=x.device)[:, None] + taps
    outside = (frames < windows.starts[:, None]) | (frames >= windows.ends[:, None])
    read = x[frames.clamp(0, len(x) - 1)].masked_fill(outside[..., None], 0)  # [frames, kernel, inputs]
    return F.linear(read.flatten(1), conv.weight, conv.bias)
