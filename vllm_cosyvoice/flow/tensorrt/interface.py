"""The part of the TensorRT backend that the flow needs even if TensorRT is not installed."""

from typing import NamedTuple

from torch import Tensor

LONGEST = 3000  # most frames in a row of an engine


class TensorRTError(RuntimeError):
    """TensorRT can't be used. The message gives the reason."""


class FrameMask(NamedTuple):
    """Mask input of an engine, which computes `attention_mask`'s tensor from it."""

    lengths: Tensor  # [rows] int32, frames of each row without padding, at least 1
    chunks: Tensor  # [rows] int32, frames per chunk of each row; at least the row's length for full attention
