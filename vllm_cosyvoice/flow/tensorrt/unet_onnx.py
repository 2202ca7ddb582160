"""CosyVoice2's estimator, a U-Net, as an ONNX graph with the module's weights."""

from typing import cast

from onnx import ModelProto
from torch import nn

from vllm_cosyvoice.flow.tensorrt.onnx_graph import TO_THE_END, Graph, Shape, frame_mask, linear
from vllm_cosyvoice.flow.torch.estimator import Condition, Estimator, Resnet, Stage, Transformer
from vllm_cosyvoice.nn.layers import FrameConv


def unet_onnx(estimator: Estimator) -> ModelProto:
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
    graph = Graph(estimator)

    mask = frame_mask(graph)
    first, *middle, last = graph.split("time", stages, axis=0)
    hidden, shortcut = _frame_conv(graph, resnet.conv1, "x"), linear(graph, resnet.shortcut, "x")
    hidden = graph("Concat", graph("Add", hidden, "hidden"), hidden, axis=0)
    shortcut = graph("Concat", graph("Add", shortcut, "shortcut"), shortcut, axis=0)
    x = skip = _attend(graph, estimator.down, _join(graph, resnet, hidden, shortcut, first), mask)
    x = _frame_conv(graph, estimator.down_conv, x)
    for stage, time in zip(estimator.mid, middle, strict=True):
        x = _stage(graph, cast(Stage, stage), x, time, mask)
    x = _stage(graph, estimator.up, graph("Concat", x, skip, axis=-1), last, mask)
    x = _frame_conv(graph, estimator.final_conv, _frame_conv(graph, estimator.up_conv, x))
    x = graph.narrow(graph("Mish", _norm(graph, estimator.final_norm, x)))
    velocities = linear(graph, estimator.final_proj, x)

    condition: dict[str, Shape] = {name: (graph.data_type, ["rows", "frames", channels]) for name in Condition._fields}
    return graph.model(condition, (graph.data_type, [stages, channels]), velocities)


def _frame_conv(graph: Graph, conv: FrameConv, x: str) -> str:
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
    return linear(graph, conv, graph("Concat", *taps, axis=-1))


def _norm(graph: Graph, norm: nn.LayerNorm, x: str) -> str:
    """Add a layer norm of `x`, in float32."""
    name = graph.names[norm]
    weight = graph.weight(f"{name}.weight", norm.weight.float())
    bias = graph.weight(f"{name}.bias", norm.bias.float())
    return graph("LayerNormalization", graph.widen(x), weight, bias, epsilon=norm.eps)


def _join(graph: Graph, resnet: Resnet, hidden: str, shortcut: str, time: str) -> str:
    """See `Resnet.join`."""
    hidden = graph("Add", graph("Mish", _norm(graph, resnet.norm1, hidden)), graph.widen(time))
    hidden = _frame_conv(graph, resnet.conv2, graph.narrow(hidden))
    return graph("Add", graph.narrow(graph("Mish", _norm(graph, resnet.norm2, hidden))), shortcut)


def _transformer(graph: Graph, transformer: Transformer, x: str, mask: str) -> str:
    heads = transformer.heads
    normed = graph.narrow(_norm(graph, transformer.norm1, x))
    query, key, value = graph.split(linear(graph, transformer.qkv, normed), 3, axis=-1)
    attended = graph("Attention", query, key, value, mask, q_num_heads=heads, kv_num_heads=heads)
    x = graph("Add", x, linear(graph, transformer.out, attended))
    hidden = linear(graph, transformer.feed_in, graph.narrow(_norm(graph, transformer.norm2, x)))
    return graph("Add", x, linear(graph, transformer.feed_out, graph("Gelu", hidden)))


def _attend(graph: Graph, stage: Stage, x: str, mask: str) -> str:
    for transformer in stage.transformers:
        x = _transformer(graph, cast(Transformer, transformer), x, mask)
    return x


def _stage(graph: Graph, stage: Stage, x: str, time: str, mask: str) -> str:
    resnet = stage.resnet
    hidden, shortcut = _frame_conv(graph, resnet.conv1, x), linear(graph, resnet.shortcut, x)
    return _attend(graph, stage, _join(graph, resnet, hidden, shortcut, time), mask)
