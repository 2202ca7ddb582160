"""Predicts the pitch from the mel."""

from torch import Tensor, nn
from torch.nn import functional as F

from vllm_cosyvoice.config import MEL_BINS
from vllm_cosyvoice.nn.layers import FrameConv

LAYERS = 5  # of kernel 3, so a frame's pitch depends on five frames on either side


class F0Predictor(nn.Module):
    """Predicts the fundamental frequency of each frame.

    It always computes in float32, and as matrix products, which use TF32 on a GPU only if enabled: the pitch is
    accumulated over the utterance, and so are its errors.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            FrameConv(MEL_BINS if layer == 0 else channels, channels, 3, left=1, right=1) for layer in range(LAYERS)
        )
        self.classifier = nn.Linear(channels, 1)

    def forward(self, mel: Tensor, valid: Tensor) -> Tensor:
        """Compute the pitch in Hz, [rows, frames], 0 in the padding.

        Args:
            mel: [rows, frames, 80], 0 in the padding.
            valid: [rows, frames], 1 for real frames and 0 for padding.
        """
        x = mel
        for conv in self.convs:
            x = F.elu(conv(x)) * valid[..., None]
        f0: Tensor = self.classifier(x).squeeze(-1).abs() * valid
        return f0
