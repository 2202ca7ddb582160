"""What the flow needs to know of a TensorRT engine, also where TensorRT is not installed."""

from typing import NamedTuple

from torch import Tensor

LONGEST = 3000  # frames of the longest row that an engine takes


class TensorRTError(RuntimeError):
    """TensorRT can't be used; the message says why."""


class FrameMask(NamedTuple):
    """What an engine takes in place of `attention_mask`'s tensor, which it makes of these."""

    lengths: Tensor  # [rows] int32, frames of each row that are no padding, at least 1
    chunks: Tensor  # [rows] int32, frames in a chunk of each row; its length or more is full attention
