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
    """What one piece of a row leaves behind, layer by layer."""

    tokens: int  # length of the piece; a layer has one or more positions per token
    inputs: list[Tensor]  # of each causal convolution: the last ones up to the end of the piece
    keys_values: list[Tensor]  # of each attention layer: those of the piece


class PieceContext(Context):
    """The context of a row that is computed piece by piece. It knows a layer by its turn, which is always the same.

    Args:
        tokens: length of the row.
        past: states of the first pieces, which are not computed again.
    """

    def __init__(self, tokens: int, past: Sequence[PieceState] = ()) -> None:
        self._tokens = tokens
        self._start = self._end = sum(state.tokens for state in past)  # of the current piece, in tokens
        self._inputs = list(past[-1].inputs) if past else []
        self._keys_values: list[Tensor] = []
        for layer in zip(*(state.keys_values for state in past), strict=True):
            buffer = self._buffer(layer[0], past[0].tokens)
            end = 0
            for piece in layer:
                start, end = end, end + piece.shape[1]
                buffer[:, start:end] = piece
            self._keys_values.append(buffer)
        self._turns = [0, 0]  # of the next convolution and of the next attention layer

    def begin(self, tokens: int) -> None:
        """Begin the next piece, of `tokens`."""
        self._start, self._end = self._end, self._end + tokens
        self._turns = [0, 0]

    def state(self) -> PieceState:
        """Copy what the current piece leaves behind, after it has passed all layers."""
        keys_values = [buffer[:, self._place(buffer)].clone() for buffer in self._keys_values]
        return PieceState(self._end - self._start, [inputs.clone() for inputs in self._inputs], keys_values)

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
        place = self._place(buffer)
        buffer[:, place] = new
        return buffer[:, : place.stop]

    def _place(self, buffer: Tensor) -> slice:
        """The positions of the current piece in a layer's keys and values of the whole row."""
        rate = buffer.shape[1] // self._tokens
        return slice(rate * self._start, rate * self._end)

    def _buffer(self, piece: Tensor, tokens: int) -> Tensor:
        """Room for a layer's keys and values of the whole row; `piece` has those of `tokens`."""
        return piece.new_empty(len(piece), piece.shape[1] // tokens * self._tokens, *piece.shape[2:])
