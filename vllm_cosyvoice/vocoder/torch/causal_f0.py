"""Predicts the pitch from the mel, reading three frames ahead."""

from torch import Tensor, nn
from torch.nn import functional as F

from vllm_cosyvoice.config import F0_LOOKAHEAD, MEL_BINS
from vllm_cosyvoice.nn.layers import FrameConv

LAYERS = 5


class CausalF0Predictor(nn.Module):
    """Predicts the fundamental frequency of each frame from the mel of eight frames before it to three after it.

    It always computes in float64, as the reference does: the source adds up the pitch over the utterance, and so its
    errors. In float32, the phase of the ninth harmonic is off by up to 2.5e-4 cycles after a minute.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        first = FrameConv(MEL_BINS, channels, F0_LOOKAHEAD + 1, right=F0_LOOKAHEAD)
        others = (FrameConv(channels, channels, 3, left=2) for _ in range(LAYERS - 1))
        self.convs = nn.ModuleList([first, *others])
        self.classifier = nn.Linear(channels, 1)

    def forward(self, mel: Tensor) -> Tensor:
        """Compute the pitch in Hz, [rows, frames] float64, of `mel` [rows, frames, 80], which is 0 in the padding."""
        x = mel.double()
        for conv in self.convs:
            x = F.elu(conv(x))
        f0: Tensor = self.classifier(x).squeeze(-1).abs()
        return f0
