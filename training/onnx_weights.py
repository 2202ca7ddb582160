"""Layers that were exported to ONNX, back in their modules."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn


@torch.no_grad()
def load_layers(layers: Iterable[nn.Conv1d | nn.Linear], path: Path) -> None:
    """Give `layers` the weights and biases of the graph at `path`, in the order in which it was built."""
    constants = (numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer)
    weights = (each for each in constants if each.dtype == np.float32 and each.ndim)
    for layer in layers:
        for parameter in (layer.weight, layer.bias):
            assert parameter is not None
            parameter.copy_(torch.from_numpy(next(weights).copy()))
