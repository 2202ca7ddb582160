"""Builds ONNX graphs of estimators, for runtimes that compile ONNX.

Graphs are written node by node, not traced: a trace would fix the example's rows and frames, and the dtype of every
value must be chosen. Matrix products, attention and the sums between layers have the dtype of the weights, as in the
modules. Norms and Mish use float32: they sum squares and compute exponentials, where float16 overflows and bfloat16 is
imprecise. The softmax is part of the operator `Attention`, whose fused kernels keep it in float32 and never write the
frames × frames scores.
"""

from collections.abc import Mapping, Sequence

import torch
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper
from torch import Tensor, nn

from vllm_cosyvoice.config import MEL_BINS
from vllm_cosyvoice.flow.tensorrt.interface import FrameMask

OPSET = 23  # the first with Attention
IR_VERSION = 11
ONNX_TYPES = {
    torch.float32: TensorProto.FLOAT,
    torch.float16: TensorProto.FLOAT16,
    torch.bfloat16: TensorProto.BFLOAT16,
    torch.int32: TensorProto.INT32,
    torch.int64: TensorProto.INT64,
}
TO_THE_END = torch.iinfo(torch.int64).max
OUTPUT = "velocities"

Shape = tuple[torch.dtype, list[int | str]]  # of an input; rows and frames are names
Attributes = Mapping[str, float | str | list[int]]


class Graph:
    """The graph of `network` under construction. Values are referred to by name."""

    def __init__(self, network: nn.Module) -> None:
        self.names = {module: name for name, module in network.named_modules()}
        self.data_type = next(network.parameters()).dtype
        self._nodes: list[NodeProto] = []
        self._weights: dict[str, TensorProto] = {}

    def __call__(self, operator: str, *inputs: str, **attributes: float | str | list[int]) -> str:
        """Add a node and return the name of its output."""
        return self._add(operator, inputs, 1, attributes)[0]

    def split(self, x: str, parts: int, *, axis: int, sizes: Sequence[int] = ()) -> list[str]:
        """Split `x` along `axis` into parts of these sizes, equal ones by default."""
        if sizes:
            return self._add("Split", (x, self.integers(*sizes)), parts, {"axis": axis})
        return self._add("Split", (x,), parts, {"axis": axis, "num_outputs": parts})

    def weight(self, name: str, value: Tensor) -> str:
        """Add `value` as a constant called `name`."""
        raw = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        self._weights[name] = TensorProto(name=name, data_type=ONNX_TYPES[value.dtype], dims=value.shape, raw_data=raw)
        return name

    def integers(self, *values: int) -> str:
        """Add a constant vector [n] of int64."""
        return self.weight("_".join(["integers", *map(str, values)]), torch.tensor(values))

    def widen(self, x: str) -> str:
        """Cast `x` from the weights' dtype to float32."""
        return self._cast(x, torch.float32)

    def narrow(self, x: str) -> str:
        """Cast `x` from float32 to the weights' dtype."""
        return self._cast(x, self.data_type)

    def model(self, condition: Mapping[str, Shape], time: Shape, velocities: str) -> ModelProto:
        """Build the model of an estimator whose result is the value `velocities`.

        Its inputs are x, those of `condition` by name, time, lengths and chunks.
        """
        inputs: dict[str, Shape] = {"x": (self.data_type, ["rows", "frames", MEL_BINS]), **condition, "time": time}
        inputs |= {name: (torch.int32, ["rows"]) for name in FrameMask._fields}
        self._nodes.append(helper.make_node("Identity", [velocities], [OUTPUT]))
        graph = helper.make_graph(
            self._nodes,
            "estimator",
            [_value(name, data_type, shape) for name, (data_type, shape) in inputs.items()],
            [_value(OUTPUT, self.data_type, ["rows_twice", "frames", MEL_BINS])],
            list(self._weights.values()),
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)

    def _add(self, operator: str, inputs: tuple[str, ...], outputs: int, attributes: Attributes) -> list[str]:
        names = [f"{operator}_{len(self._nodes)}_{output}" for output in range(outputs)]
        self._nodes.append(helper.make_node(operator, inputs, names, **attributes))
        return names

    def _cast(self, x: str, data_type: torch.dtype) -> str:
        return x if self.data_type == torch.float32 else self("Cast", x, to=ONNX_TYPES[data_type])


def _value(name: str, data_type: torch.dtype, shape: list[int | str]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, ONNX_TYPES[data_type], shape)


def frame_mask(graph: Graph) -> str:
    """Whether a query sees a key, bool [2 · rows, 1, frames, frames]: `attention_mask` as booleans."""
    zero, one = (
        graph.weight(name, torch.tensor(value, dtype=torch.int32)) for value, name in enumerate(("zero", "one"))
    )
    frames = graph("Cast", graph("Squeeze", graph("Shape", "x", start=1, end=2)), to=TensorProto.INT32)
    positions = graph("Range", zero, frames, one)
    lengths, chunks = (graph("Unsqueeze", name, graph.integers(1)) for name in ("lengths", "chunks"))
    chunk_ends = graph("Mul", graph("Add", graph("Div", positions, chunks), one), chunks)
    seen = graph("Unsqueeze", graph("Min", lengths, chunk_ends), graph.integers(1, 3))
    return graph("Less", positions, graph("Concat", seen, seen, axis=0))


def linear(graph: Graph, linear: nn.Linear, x: str) -> str:
    """Add a linear layer of the graph's network."""
    name = graph.names[linear]
    product = graph("MatMul", x, graph.weight(f"{name}.weight", linear.weight.T))
    return product if linear.bias is None else graph("Add", product, graph.weight(f"{name}.bias", linear.bias))
