"""The estimator as an ONNX graph with the module's weights, for runtimes that compile ONNX.

The graph is written node by node, not traced: a trace would fix the example's rows and frames, and the dtype of every
value must be chosen. Matrix products, attention and the sums between layers have the dtype of the weights, as in the
module. LayerNorm and Mish use float32: they sum squares and compute exponentials, where float16 overflows and bfloat16
is imprecise. The softmax is part of the operator `Attention`, whose fused kernels keep it in float32 and never write
the frames × frames scores.
"""

from typing import cast

import torch
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper
from torch import Tensor, nn

from vllm_cosyvoice.config import MEL_BINS
from vllm_cosyvoice.flow.torch.estimator import Estimator, Resnet, Stage, Transformer
from vllm_cosyvoice.nn.layers import FrameConv

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


def estimator_onnx(estimator: Estimator) -> ModelProto:
    """Export `Estimator.forward` as ONNX, in the dtype of its weights. Equal weights give equal bytes.

    Inputs, with any number of rows and frames:
        x: [rows, frames, 80]
        hidden, shortcut: [rows, frames, channels], see `Condition`
        time: [stages, channels], one step's row of `Estimator.times`
        lengths, chunks: [rows] int32, in frames, from which the graph computes `attention_mask`
    Output:
        velocities: [2 · rows, frames, 80], first all rows with their condition, then all without
    """
    resnet, stages = estimator.down.resnet, 2 + len(estimator.mid)
    channels = resnet.conv1.out_features
    graph = _Graph(estimator)

    mask = _mask(graph)
    first, *middle, last = graph.split("time", stages, axis=0)
    hidden, shortcut = _frame_conv(graph, resnet.conv1, "x"), _linear(graph, resnet.shortcut, "x")
    hidden = graph("Concat", graph("Add", hidden, "hidden"), hidden, axis=0)
    shortcut = graph("Concat", graph("Add", shortcut, "shortcut"), shortcut, axis=0)
    x = skip = _attend(graph, estimator.down, _join(graph, resnet, hidden, shortcut, first), mask)
    x = _frame_conv(graph, estimator.down_conv, x)
    for stage, time in zip(estimator.mid, middle, strict=True):
        x = _stage(graph, cast(Stage, stage), x, time, mask)
    x = _stage(graph, estimator.up, graph("Concat", x, skip, axis=-1), last, mask)
    x = _frame_conv(graph, estimator.final_conv, _frame_conv(graph, estimator.up_conv, x))
    x = graph.narrow(graph("Mish", _norm(graph, estimator.final_norm, x)))
    velocities = _linear(graph, estimator.final_proj, x)

    return graph.model(
        inputs={
            "x": (graph.data_type, ["rows", "frames", MEL_BINS]),
            "hidden": (graph.data_type, ["rows", "frames", channels]),
            "shortcut": (graph.data_type, ["rows", "frames", channels]),
            "time": (graph.data_type, [stages, channels]),
            "lengths": (torch.int32, ["rows"]),
            "chunks": (torch.int32, ["rows"]),
        },
        output=("velocities", velocities, ["rows_twice", "frames", MEL_BINS]),
    )


class _Graph:
    """A graph under construction. Values are referred to by name."""

    def __init__(self, network: nn.Module) -> None:
        self.names = {module: name for name, module in network.named_modules()}
        self.data_type = next(network.parameters()).dtype
        self._nodes: list[NodeProto] = []
        self._weights: dict[str, TensorProto] = {}

    def __call__(self, operator: str, *inputs: str, **attributes: float) -> str:
        """Add a node and return the name of its output."""
        return self._add(operator, inputs, 1, attributes)[0]

    def split(self, x: str, parts: int, *, axis: int) -> list[str]:
        """Split `x` into equal parts along `axis`."""
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

    def model(
        self,
        inputs: dict[str, tuple[torch.dtype, list[int | str]]],
        output: tuple[str, str, list[int | str]],
    ) -> ModelProto:
        """Build the model from `inputs` by name, and `output` as its name, value and shape."""
        name, value, shape = output
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        graph = helper.make_graph(
            self._nodes,
            "estimator",
            [_value(name, data_type, shape) for name, (data_type, shape) in inputs.items()],
            [_value(name, self.data_type, shape)],
            list(self._weights.values()),
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)

    def _add(self, operator: str, inputs: tuple[str, ...], outputs: int, attributes: dict[str, float]) -> list[str]:
        names = [f"{operator}_{len(self._nodes)}_{output}" for output in range(outputs)]
        self._nodes.append(helper.make_node(operator, inputs, names, **attributes))
        return names

    def _cast(self, x: str, data_type: torch.dtype) -> str:
        return x if self.data_type == torch.float32 else self("Cast", x, to=ONNX_TYPES[data_type])


def _value(name: str, data_type: torch.dtype, shape: list[int | str]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, ONNX_TYPES[data_type], shape)


def _mask(graph: _Graph) -> str:
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


def _linear(graph: _Graph, linear: nn.Linear, x: str) -> str:
    name = graph.names[linear]
    product = graph("MatMul", x, graph.weight(f"{name}.weight", linear.weight.T))
    return product if linear.bias is None else graph("Add", product, graph.weight(f"{name}.bias", linear.bias))


def _frame_conv(graph: _Graph, conv: FrameConv, x: str) -> str:
    """Add a causal `FrameConv`. Each tap's slice counts its end from the back, so no shape is needed."""
    padded = graph("Pad", x, graph.integers(0, conv.left, 0, 0, 0, 0))
    taps = [
        graph(
            "Slice",
            padded,
            graph.integers(tap),
            graph.integers(tap - conv.left if tap < conv.left else TO_THE_END),
            graph.integers(1),
        )
        for tap in range(conv.kernel)
    ]
    return _linear(graph, conv, graph("Concat", *taps, axis=-1))


def _norm(graph: _Graph, norm: nn.LayerNorm, x: str) -> str:
    """Add a layer norm of `x`, in float32."""
    name = graph.names[norm]
    weight = graph.weight(f"{name}.weight", norm.weight.float())
    bias = graph.weight(f"{name}.bias", norm.bias.float())
    return graph("LayerNormalization", graph.widen(x), weight, bias, epsilon=norm.eps)


def _join(graph: _Graph, resnet: Resnet, hidden: str, shortcut: str, time: str) -> str:
    """See `Resnet.join`."""
    hidden = graph("Add", graph("Mish", _norm(graph, resnet.norm1, hidden)), graph.widen(time))
    hidden = _frame_conv(graph, resnet.conv2, graph.narrow(hidden))
    return graph("Add", graph.narrow(graph("Mish", _norm(graph, resnet.norm2, hidden))), shortcut)


def _transformer(graph: _Graph, transformer: Transformer, x: str, mask: str) -> str:
    heads = transformer.heads
    normed = graph.narrow(_norm(graph, transformer.norm1, x))
    query, key, value = graph.split(_linear(graph, transformer.qkv, normed), 3, axis=-1)
    attended = graph("Attention", query, key, value, mask, q_num_heads=heads, kv_num_heads=heads)
    x = graph("Add", x, _linear(graph, transformer.out, attended))
    hidden = _linear(graph, transformer.feed_in, graph.narrow(_norm(graph, transformer.norm2, x)))
    return graph("Add", x, _linear(graph, transformer.feed_out, graph("Gelu", hidden)))


def _attend(graph: _Graph, stage: Stage, x: str, mask: str) -> str:
    for transformer in stage.transformers:
        x = _transformer(graph, cast(Transformer, transformer), x, mask)
    return x


def _stage(graph: _Graph, stage: Stage, x: str, time: str, mask: str) -> str:
    resnet = stage.resnet
    hidden, shortcut = _frame_conv(graph, resnet.conv1, x), _linear(graph, resnet.shortcut, x)
    return _attend(graph, stage, _join(graph, resnet, hidden, shortcut, time), mask)
