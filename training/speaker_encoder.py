"""Who speaks: convolutions over filter banks, pooled over time to 192 numbers, trained to tell the speakers apart."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tools.random_checkpoint.graphs import Graph, tensor
from training.onnx_weights import load_layers
from vllm_cosyvoice.config import MEL_BINS, SPEAKER_DIM

DILATIONS = (1, 2, 4)
MARGIN, SCALE = 0.2, 16.0  # additive margin softmax (Wang et al. 2018)


class SpeakerEncoder(nn.Module):
    """Fbank [rows, frames, 80], less its mean over time, to embeddings [rows, 192]."""

    def __init__(self, channels: int, speakers: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(MEL_BINS, channels, 5, padding=2)
        self.wide = nn.ModuleList(
            nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation) for dilation in DILATIONS
        )
        self.out = nn.Linear(2 * channels, SPEAKER_DIM)
        self.speakers = nn.Parameter(torch.randn(speakers, SPEAKER_DIM))

    def forward(self, fbank: Tensor) -> Tensor:
        """See the class."""
        x = F.relu(self.first(fbank.transpose(1, 2)))
        for wide in self.wide:
            x = x + F.relu(wide(x))
        mean = x.mean(2)
        spread = (x - mean[..., None]).square().mean(2).add(1e-6).sqrt()
        embedding: Tensor = self.out(torch.cat([mean, spread], dim=1))
        return embedding

    def loss(self, fbank: Tensor, speakers: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """For fbank [rows, frames, 80] by `speakers` [rows]."""
        fbank = fbank - fbank.mean(1, keepdim=True)
        cosines = F.normalize(self(fbank), dim=1) @ F.normalize(self.speakers, dim=1).T
        margins = MARGIN * F.one_hot(speakers, len(self.speakers))
        loss = F.cross_entropy(SCALE * (cosines - margins), speakers)
        return loss, {"accuracy": (cosines.argmax(1) == speakers).float().mean()}

    def load(self, path: Path) -> None:
        """From the ONNX file of a model directory; the speakers keep their values."""
        load_layers([self.first, *self.wide, self.out], path)

    def save(self, path: Path) -> None:
        """As the ONNX file of a model directory."""
        graph = Graph(0)

        def constant(value: Tensor | None) -> str:
            assert value is not None
            return graph.constant(value.detach().float().cpu().numpy())

        def conv(x: str, module: nn.Module) -> str:
            assert isinstance(module, nn.Conv1d)
            padding, dilation = int(module.padding[0]), module.dilation[0]
            weights = (constant(module.weight), constant(module.bias))
            return graph("Relu", graph("Conv", x, *weights, pads=[padding] * 2, dilations=[dilation]))

        x = conv(graph("Transpose", "input", perm=[0, 2, 1]), self.first)
        for wide in self.wide:
            x = graph("Add", x, conv(x, wide))
        mean = graph("ReduceMean", x, axes=[2], keepdims=1)
        away = graph("Sub", x, mean)
        variance = graph("ReduceMean", graph("Mul", away, away), axes=[2], keepdims=0)
        spread = graph("Sqrt", graph("Add", variance, graph.constant(np.array(1e-6, np.float32))))
        statistics = graph("Concat", graph("Flatten", mean), spread, axis=1)
        graph("Gemm", statistics, constant(self.out.weight), constant(self.out.bias), output="output", transB=1)
        graph.save(path, [tensor("input", [1, "T", MEL_BINS])], [tensor("output", [1, SPEAKER_DIM])])
