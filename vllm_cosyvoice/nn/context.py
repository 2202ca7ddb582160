"""What the layers of a network need of earlier positions, when a row is computed in pieces.

A causal convolution needs the last inputs before the piece, an attention layer all earlier keys and values. A layer
asks its `Context`; all other layers treat each position alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Context:
    """The context of a row that is computed in one piece: nothing comes before it."""

    def extended(self, x: Tensor, count: int) -> Tensor:
        """Return x [rows, positions, channels] with the `count` positions before it; they are zero before the row."""
        return F.pad(x, (0, 0, count, 0)) if count else x

    def keys_values(self, new: Tensor) -> Tensor:
        """Return all keys and values so far, [rows, all positions, 2, heads, head_dim], given the piece's, `new`."""
        return new


WHOLE = Context()


class PieceState(NamedTuple):
    """What one piece leaves behind, layer by layer."""

    inputs: list[Tensor]  # of each causal convolution: the last ones up to the end of the piece
    keys_values: list[Tensor]  # of each attention layer: those of the piece


class PieceContext(Context):
    """The context of one row's next piece. It recognises a layer by its turn, which is the same in every piece.

    Args:
        tokens: length of the row in tokens; a layer has one or more positions per token.
        past: states of the pieces that come first and are not computed, and the tokens of one such piece.
    """

    def __init__(self, tokens: int, past: Sequence[PieceState] = (), piece_tokens: int = 0) -> None:
        self._tokens = tokens
        self._start = self._end = len(past) * piece_tokens  # of the current piece, in tokens
        self._inputs = list(past[-1].inputs) if past else []
        self._keys_values: list[Tensor] = []
        for layer in zip(*(state.keys_values for state in past), strict=True):
            buffer = self._buffer(layer[0], piece_tokens)
            for piece, place in zip(layer, buffer.split(layer[0].shape[1], dim=1), strict=False):
                place.copy_(piece)
            self._keys_values.append(buffer)
        self._turns = [0, 0]  # of the next convolution and of the next attention layer

    def begin(self, tokens: int) -> None:
        """Begin the next piece, of `tokens`."""
        self._start, self._end = self._end, self._end + tokens
        self._turns = [0, 0]

    def state(self) -> PieceState:
        """Copy what the current piece leaves behind, after it has passed all layers."""
        count = self._end - self._start
        pieces = []
        for buffer in self._keys_values:
            rate = buffer.shape[1] // self._tokens
            pieces.append(buffer[:, rate * self._start : rate * (self._start + count)].clone())
        return PieceState([inputs.clone() for inputs in self._inputs], pieces)

    def extended(self, x: Tensor, count: int) -> Tensor:
        """See `Context.extended`."""
        if count == 0:
            return x
        turn, self._turns[0] = self._turns[0], self._turns[0] + 1
        if turn == len(self._inputs):
            self._inputs.append(x.new_zeros(len(x), count, x.shape[2]))
        x = torch.cat([self._inputs[turn], x], dim=1)
        self._inputs[turn] = x[:, -count:]
        return x

    def keys_values(self, new: Tensor) -> Tensor:
        """See `Context.keys_values`."""
        turn, self._turns[1] = self._turns[1], self._turns[1] + 1
        if turn == len(self._keys_values):
            self._keys_values.append(self._buffer(new, self._end - self._start))
        buffer = self._keys_values[turn]
        rate = buffer.shape[1] // self._tokens
        start, end = rate * self._start, rate * self._end
        buffer[:, start:end] = new
        return buffer[:, :end]

    def _buffer(self, piece: Tensor, tokens: int) -> Tensor:
        """Room for a layer's keys and values of the whole row; `piece` has those of `tokens`."""
        return piece.new_empty(len(piece), piece.shape[1] // tokens * self._tokens, *piece.shape[2:])
