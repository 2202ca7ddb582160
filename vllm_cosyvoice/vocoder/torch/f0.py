"""Pitch from mel."""

from torch import Tensor, nn
from torch.nn import functional as F

from vllm_cosyvoice.config import MEL_BINS
from vllm_cosyvoice.nn.layers import FrameConv

LAYERS = 5  # of kernel 3, so a frame's pitch depends on five frames either side


class F0Predictor(nn.Module):
    """The fundamental frequency of each frame.

    Always float32, and as matrix products, which do not fall back to TF32 on a GPU unless asked to: the pitch is summed
    up over the utterance, so its errors are too.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            FrameConv(MEL_BINS if layer == 0 else channels, channels, 3, left=1, right=1) for layer in range(LAYERS)
        )
        self.classifier = nn.Linear(channels, 1)

    def forward(self, mel: Tensor, valid: Tensor) -> Tensor:
        """Hz, [rows, frames], 0 in the padding.

        Args:
            mel: [rows, frames, 80], 0 in the padding.
            valid: [rows, frames], 1 where a frame is no padding and 0 where it is.
        """
        x = mel
        for conv in self.convs:
            x = F.elu(conv(x)) * valid[..., None]
        f0: Tensor = self.classifier(x).squeeze(-1).abs() * valid
        return f0
