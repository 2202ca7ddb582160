"""What kernels read and write of remembered chunks, see `flow.cuda.memory`."""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor


class Tail(NamedTuple):
    """The last frames of remembered chunks, before one convolution at one step."""

    memory: Tensor  # [tail frames of all pages, copies, channels]
    frames: Tensor  # int32, each frame's index in `memory` or -1: read between rows, written in rows


class Pages(NamedTuple):
    """The keys and values of remembered chunks, in one attention layer at one step."""

    memory: Tensor  # [pages, 2, frames of a chunk, 2 · heads · head_dim]: with the condition and without
    frames: Tensor  # int32, the page where a frame's key and value are written, or -1
    past: Tensor  # int32, the pages that tiles refer to, see `packing.SolverTable`


@triton.jit
def exchanged(y, in_row, line, column, memory, CHANNELS: tl.constexpr):
    """Write those of the frames y [rows, columns] that are kept, and return y with what is kept between rows.

    `line` [rows] are the frames' lines in `memory` [lines, channels]; negative: none.
    """
    place = memory + line[:, None] * CHANNELS + column[None, :]
    known = (line >= 0)[:, None] & (column < CHANNELS)[None, :]
    y = tl.where(known & ~in_row, tl.load(place, known & ~in_row, 0.0).to(tl.float32), y)
    tl.store(place, y.to(memory.dtype.element_ty), known & in_row)
    return y
