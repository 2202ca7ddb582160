"""Speech to tokens: convolutions over Whisper's log-mel to a code of eight digits of three levels.

Six digits carry content: trained, through finite scalar quantisation (Mentzer et al. 2023), to tell the aligned phones
and a coarse spectrum without the speaker's mean. The last two count tokens modulo nine. Repetition-aware sampling draws
anew when a token is among the last ten: a pause or a long vowel, the same content for several tokens, must differ in
something, or the draw would leave it. The count is what differs; the language model learns it at once.
"""

from pathlib import Path

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor, nn
from torch.nn import functional as F

from training.flite import PHONES
from vllm_cosyvoice.random_checkpoint.graphs import LEVELS, WHISPER_MEL_BINS, Graph, tensor

CONTENT_DIGITS = 6
CONTENTS = LEVELS**CONTENT_DIGITS
COUNTS = 9
STRIDE = 4  # log-mel frames a token
DILATIONS = (1, 2, 4, 1, 2)
COARSE = 20  # bands of the log-mel that a code is to tell, 128 / 20 rounded down bins each
PHONE_WEIGHT, COARSE_WEIGHT, SPREAD_WEIGHT = 1.0, 1.0, 1.0
MEAN_SQUARE = 2 / 3  # of a digit whose three levels are as frequent; left alone, training forgets the middle one


class SpeechTokenizer(nn.Module):
    """The encoder, and the two heads that only training has."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(WHISPER_MEL_BINS, channels, 3, padding=1)
        self.down = nn.Conv1d(channels, channels, STRIDE, STRIDE)
        self.wide = nn.ModuleList(
            nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation) for dilation in DILATIONS
        )
        self.mix = nn.ModuleList(nn.Conv1d(channels, channels, 1) for _ in DILATIONS)
        self.digits = nn.Conv1d(channels, CONTENT_DIGITS, 1)
        inner = (nn.Linear(CONTENT_DIGITS, channels), nn.SiLU(), nn.Linear(channels, channels), nn.SiLU())
        self.decode = nn.Sequential(*inner)
        self.phones = nn.Linear(channels, 2 * len(PHONES))
        self.coarse = nn.Linear(channels, 2 * COARSE)

    def levels(self, log_mel: Tensor) -> Tensor:
        """Log-mel [rows, frames, 128] to digits [rows, frames // 4, 6] in −1 … 1, before rounding."""
        x = F.relu(self.down(F.relu(self.first(log_mel.transpose(1, 2)))))
        for wide, mix in zip(self.wide, self.mix, strict=True):
            x = x + mix(F.relu(wide(x)))
        return torch.tanh(self.digits(x)).transpose(1, 2)

    def contents(self, log_mel: Tensor) -> Tensor:
        """Content codes [rows, frames // 4], 0 … 728."""
        places = LEVELS ** torch.arange(CONTENT_DIGITS, device=log_mel.device)
        return ((self.levels(log_mel).round().long() + 1) * places).sum(-1)

    def loss(self, log_mel: Tensor, phones: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """For log-mel [rows, 4n, 128] and phones [rows, 2n]."""
        levels = self.levels(log_mel)
        rounded = levels + (levels.round() - levels).detach()
        hidden = self.decode(rounded)
        guesses = self.phones(hidden).view(len(hidden), -1, len(PHONES))
        phone_loss = F.cross_entropy(guesses.flatten(0, 1), phones.flatten())
        coarse = coarse_mel(log_mel)
        coarse_loss = F.l1_loss(self.coarse(hidden).view_as(coarse), coarse)
        accuracy = (guesses.argmax(-1) == phones).float().mean()
        spread_loss = (levels.square().mean((0, 1)) - MEAN_SQUARE).square().mean()
        spread_loss = spread_loss + levels.mean((0, 1)).square().mean()
        outer = levels.detach().round().abs().mean()  # share of digits that are not the middle one
        report = {"phone": phone_loss.detach(), "accuracy": accuracy, "coarse": coarse_loss.detach(), "outer": outer}
        return PHONE_WEIGHT * phone_loss + COARSE_WEIGHT * coarse_loss + SPREAD_WEIGHT * spread_loss, report

    def save(self, path: Path) -> None:
        """As the ONNX file of a model directory."""
        graph = Graph(0)

        def constant(value: Tensor) -> str:
            return graph.constant(value.detach().float().cpu().numpy())

        def conv(x: str, module: nn.Conv1d) -> str:
            padding, dilation, stride = int(module.padding[0]), module.dilation[0], module.stride[0]
            weights = (constant(module.weight), constant(module.bias))  # type: ignore[arg-type]
            return graph("Conv", x, *weights, pads=[padding] * 2, dilations=[dilation], strides=[stride])

        start, axis = (graph.constant(np.array([number], np.int64)) for number in (0, 2))
        length = graph("Cast", "feats_length", to=TensorProto.INT64)
        x = graph("Relu", conv(graph("Slice", "feats", start, length, axis), self.first))
        x = graph("Relu", conv(x, self.down))
        for wide, mix in zip(self.wide, self.mix, strict=True):
            x = graph("Add", x, conv(graph("Relu", conv(x, wide)), mix))  # type: ignore[arg-type]
        levels = graph("Cast", graph("Round", graph("Tanh", conv(x, self.digits))), to=TensorProto.INT64)
        one = graph.constant(np.array(1, np.int64))
        places = graph.constant(LEVELS ** np.arange(CONTENT_DIGITS, dtype=np.int64)[None, :, None])
        digit_axis = graph.constant(np.array([1], np.int64))
        contents = graph("ReduceSum", graph("Mul", graph("Add", levels, one), places), digit_axis, keepdims=0)
        tokens = graph("Squeeze", graph("Shape", contents, start=1, end=2))
        places_in_time = graph("Range", graph.constant(np.array(0, np.int64)), tokens, one)
        counts = graph("Mod", places_in_time, graph.constant(np.array(COUNTS, np.int64)))
        counted = graph("Add", contents, graph("Mul", counts, graph.constant(np.array(CONTENTS, np.int64))))
        graph("Cast", counted, output="indices", to=TensorProto.INT32)
        graph.save(
            path,
            [tensor("feats", [1, WHISPER_MEL_BINS, "T"]), tensor("feats_length", [1], TensorProto.INT32)],
            [tensor("indices", [1, "N"], TensorProto.INT32)],
        )


def speech_tokens(contents: Tensor, first: int | Tensor = 0) -> Tensor:
    """Speech tokens [..., n] of content codes, the first being the `first`-th of its speech."""
    places = torch.arange(contents.shape[-1], device=contents.device) + first
    tokens: Tensor = contents + CONTENTS * (places % COUNTS)
    return tokens


def coarse_mel(log_mel: Tensor) -> Tensor:
    """[rows, 4n, 128] → [rows, 2n, 20]: pairs of frames, bands, less the row's mean, which is the speaker's."""
    width = log_mel.shape[-1] // COARSE
    bands = log_mel[..., : COARSE * width].unfold(-1, width, width).mean(-1)
    pairs = bands.unfold(1, 2, 2).mean(-1)
    mean: Tensor = pairs.mean(1, keepdim=True)
    return pairs - mean
