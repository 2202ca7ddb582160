"""Speech to tokens: convolutions over Whisper's log-mel to a content of nine bits, and a count.

The content is trained, through scalar quantisation (Mentzer et al. 2023) to two levels, to tell the aligned phones and
a coarse spectrum without the speaker's mean. The count is the token's place modulo twelve. Repetition-aware sampling
draws anew, from all tokens, when a token is among the last ten: a pause or a long vowel, the same content for several
tokens, would be broken up. With the count no token is among the last ten, and the language model learns it at once.
"""

from itertools import chain
from pathlib import Path

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor, nn
from torch.nn import functional as F

from tools.random_checkpoint.graphs import WHISPER_MEL_BINS, Graph, heard_frames, tensor
from training.flite import PHONES
from training.onnx_weights import load_layers

BITS = 9
CONTENTS = 2**BITS
PLACES = 2 ** torch.arange(BITS)
COUNTS = 12  # more than the window of repetition-aware sampling; CONTENTS · COUNTS is at most 6561
STRIDE = 4  # log-mel frames a token
DILATIONS = (1, 2, 4, 1, 2)
INT64 = TensorProto.INT64
COARSE = 20  # bands of the log-mel that a code is to tell, 128 / 20 rounded down bins each
PHONE_WEIGHT, COARSE_WEIGHT, BALANCE_WEIGHT = 1.0, 1.0, 1.0


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
        self.bits = nn.Conv1d(channels, BITS, 1)
        inner = (nn.Linear(BITS, channels), nn.SiLU(), nn.Linear(channels, channels), nn.SiLU())
        self.decode = nn.Sequential(*inner)
        self.phones = nn.Linear(channels, 2 * len(PHONES))
        self.coarse = nn.Linear(channels, 2 * COARSE)

    def levels(self, log_mel: Tensor) -> Tensor:
        """Log-mel [rows, frames, 128] to bits [rows, frames // 4, 9] in −1 … 1, whose signs count."""
        x = F.relu(self.down(F.relu(self.first(log_mel.transpose(1, 2)))))
        for wide, mix in zip(self.wide, self.mix, strict=True):
            x = x + mix(F.relu(wide(x)))
        return torch.tanh(self.bits(x)).transpose(1, 2)

    def contents(self, log_mel: Tensor) -> Tensor:
        """Contents [rows, frames // 4], 0 … 511."""
        return ((self.levels(log_mel) > 0) * PLACES.to(log_mel.device)).sum(-1)

    def guesses(self, signs: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [..., 2, phones] and coarse spectrum [..., 2, bands] of bits [..., 9], each −1 or 1."""
        hidden = self.decode(signs)
        phones: Tensor = self.phones(hidden).unflatten(-1, (2, -1))
        return phones, self.coarse(hidden).unflatten(-1, (2, -1))

    def spoken_phones(self, contents: Tensor) -> Tensor:
        """The likeliest phones [..., 2] of contents [...], 20 ms each."""
        signs = 2.0 * (contents[..., None] & PLACES.to(contents.device) > 0) - 1
        return self.guesses(signs)[0].argmax(-1)

    def loss(self, log_mel: Tensor, phones: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """For log-mel [rows, 4n, 128] and phones [rows, 2n]."""
        levels = self.levels(log_mel).float()
        guessed, guessed_coarse = self.guesses(levels + (2.0 * (levels > 0) - 1 - levels).detach())
        phone_loss = F.cross_entropy(guessed.flatten(0, -2).float(), phones.flatten())
        coarse = coarse_mel(log_mel)
        coarse_loss = F.l1_loss(guessed_coarse.reshape_as(coarse).float(), coarse)
        accuracy = (guessed.argmax(-1).flatten(1) == phones).float().mean()
        balance_loss = levels.mean((0, 1)).square().mean()
        report = {"phone": phone_loss.detach(), "accuracy": accuracy, "coarse": coarse_loss.detach()}
        return PHONE_WEIGHT * phone_loss + COARSE_WEIGHT * coarse_loss + BALANCE_WEIGHT * balance_loss, report

    def load(self, path: Path) -> None:
        """From the ONNX file of a model directory; the heads keep their values."""
        pairs = zip(self.wide, self.mix, strict=True)
        load_layers([self.first, self.down, *chain.from_iterable(pairs), self.bits], path)  # type: ignore[list-item]

    def save(self, path: Path) -> None:
        """As the ONNX file of a model directory."""
        graph = Graph(0)

        def constant(value: Tensor) -> str:
            return graph.constant(value.detach().float().cpu().numpy())

        def conv(x: str, module: nn.Conv1d) -> str:
            padding, dilation, stride = int(module.padding[0]), module.dilation[0], module.stride[0]
            weights = (constant(module.weight), constant(module.bias))  # type: ignore[arg-type]
            return graph("Conv", x, *weights, pads=[padding] * 2, dilations=[dilation], strides=[stride])

        x = graph("Relu", conv(heard_frames(graph), self.first))
        x = graph("Relu", conv(x, self.down))
        for wide, mix in zip(self.wide, self.mix, strict=True):
            x = graph("Add", x, conv(graph("Relu", conv(x, wide)), mix))  # type: ignore[arg-type]
        bits = graph("Cast", graph("Greater", conv(x, self.bits), graph.constant(np.array(0, np.float32))), to=INT64)
        places = graph.constant(PLACES.numpy()[None, :, None])
        bit_axis = graph.constant(np.array([1], np.int64))
        contents = graph("ReduceSum", graph("Mul", bits, places), bit_axis, keepdims=0)
        tokens = graph("Squeeze", graph("Shape", contents, start=1, end=2))
        zero, one = (graph.constant(np.array(number, np.int64)) for number in (0, 1))
        places_in_time = graph("Range", zero, tokens, one)
        counts = graph("Mod", places_in_time, graph.constant(np.array(COUNTS, np.int64)))
        counted = graph("Add", contents, graph("Mul", counts, graph.constant(np.array(CONTENTS, np.int64))))
        graph("Cast", counted, output="indices", to=TensorProto.INT32)
        graph.save(
            path,
            [tensor("feats", [1, WHISPER_MEL_BINS, "T"]), tensor("feats_length", [1], TensorProto.INT32)],
            [tensor("indices", [1, "N"], TensorProto.INT32)],
        )


def speech_tokens(contents: Tensor, first: int | Tensor = 0) -> Tensor:
    """Speech tokens [..., n] of contents, the first being the `first`-th of its speech."""
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
