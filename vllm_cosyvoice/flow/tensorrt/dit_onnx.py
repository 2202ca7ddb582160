"""CosyVoice3's estimator, a diffusion transformer, as an ONNX graph with the module's weights."""

from typing import cast

import torch
from onnx import ModelProto
from torch import Tensor, nn

from vllm_cosyvoice.flow.tensorrt.onnx_graph import Graph, frame_mask, linear
from vllm_cosyvoice.flow.torch.dit import (
    BLOCK_TERMS,
    FINAL_TERMS,
    NORM_EPS,
    POSITION_GROUPS,
    POSITION_KERNEL,
    Attention,
    Block,
    DiT,
)


def dit_onnx(dit: DiT) -> ModelProto:
    """Export `DiT.forward` as ONNX, in the dtype of its weights. Equal weights give equal bytes.

    Inputs, with any number of rows and frames:
        x: [rows, frames, 80]
        hidden: [rows, frames, width], rotation: [frames, head_dim / 2, 2] float32, see `Condition`
        time: [6 · blocks + 2, width], one step's row of `FlowMatching.step_times`
        lengths, chunks: [rows] int32, in frames, from which the graph computes `attention_mask`
    Output:
        velocities: [2 · rows, frames, 80], first all rows with their condition, then all without
    """
    graph = Graph(dit)
    width, terms = dit.input_proj.out_features, BLOCK_TERMS * len(dit.blocks) + FINAL_TERMS
    times = [graph("Gather", "time", graph.weight(f"term_{term}", torch.tensor(term)), axis=0) for term in range(terms)]
    mask, turns = frame_mask(graph), _Rotation(graph)

    x = linear(graph, dit.input_proj, "x")
    x = graph("Concat", graph("Add", x, "hidden"), x, axis=0)
    x = graph("Add", x, _position(graph, dit, x))
    for index, block in enumerate(dit.blocks):
        x = _block(graph, cast(Block, block), x, times[BLOCK_TERMS * index :][:BLOCK_TERMS], turns, mask)
    weight, bias = times[-FINAL_TERMS:]
    velocities = linear(graph, dit.output_proj, _modulated_norm(graph, x, weight, bias))

    return graph.model(
        {
            "hidden": (graph.data_type, ["rows", "frames", width]),
            "rotation": (torch.float32, ["frames", dit.head_dim // 2, 2]),
        },
        (graph.data_type, [terms, width]),
        velocities,
    )


class _Rotation:
    """Turns the first head of queries and keys, whose channels `_turnable` has put in order."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._cos, self._sin = (
            graph("Gather", "rotation", graph.weight(f"part_{part}", torch.tensor(part)), axis=2) for part in (0, 1)
        )

    def __call__(self, x: str, head_dim: int, channels: int) -> str:
        """Turn the first `head_dim` of the `channels` of x."""
        graph = self._graph
        first, second, rest = graph.split(x, 3, axis=-1, sizes=[head_dim // 2, head_dim // 2, channels - head_dim])
        first, second = graph.widen(first), graph.widen(second)
        turned = (
            graph("Sub", graph("Mul", first, self._cos), graph("Mul", second, self._sin)),
            graph("Add", graph("Mul", second, self._cos), graph("Mul", first, self._sin)),
        )
        return graph("Concat", *map(graph.narrow, turned), rest, axis=-1)


def _turnable(parameter: Tensor, attention: Attention) -> Tensor:
    """Rows of the projection to query, key and value, the first head's even channels ahead of its odd ones.

    `rotated` turns neighbouring channels. Scores stay the same if queries and keys have their channels in another
    order, and halves need no interleaving.
    """
    order = torch.arange(len(parameter))
    for begin in (0, attention.heads * attention.head_dim):
        head = order[begin : begin + attention.head_dim]
        order[begin : begin + attention.head_dim] = torch.cat([head[::2], head[1::2]])
    return parameter[order]


def _position(graph: Graph, dit: DiT, x: str) -> str:
    x = graph("Transpose", x, perm=[0, 2, 1])
    for conv in (dit.position.conv1, dit.position.conv2):
        x = _conv(graph, conv, x)
    return graph("Transpose", x, perm=[0, 2, 1])


def _conv(graph: Graph, conv: nn.Conv1d, x: str) -> str:
    """Add a grouped causal convolution of [rows, channels, frames], and Mish."""
    name = graph.names[conv]
    assert conv.bias is not None
    weight, bias = graph.weight(f"{name}.weight", conv.weight), graph.weight(f"{name}.bias", conv.bias)
    x = graph("Conv", x, weight, bias, group=POSITION_GROUPS, pads=[POSITION_KERNEL - 1, 0])
    return graph.narrow(graph("Mish", graph.widen(x)))


def _modulated_norm(graph: Graph, x: str, weight: str, bias: str) -> str:
    """Add `modulated_norm`, in float32."""
    normed = graph("LayerNormalization", *map(graph.widen, (x, weight, bias)), epsilon=NORM_EPS)
    return graph.narrow(normed)


def _block(graph: Graph, block: Block, x: str, times: list[str], turns: _Rotation, mask: str) -> str:
    """Add a `Block`."""
    bias1, weight1, gate1, bias2, weight2, gate2 = times
    attended = _attention(graph, block.attention, _modulated_norm(graph, x, weight1, bias1), turns, mask)
    x = graph("Add", x, graph("Mul", gate1, attended))
    hidden = linear(graph, block.feed_in, _modulated_norm(graph, x, weight2, bias2))
    fed = linear(graph, block.feed_out, graph("Gelu", hidden, approximate="tanh"))
    return graph("Add", x, graph("Mul", gate2, fed))


def _attention(graph: Graph, attention: Attention, x: str, turns: _Rotation, mask: str) -> str:
    heads, name = attention.heads, graph.names[attention.qkv]
    weight = graph.weight(f"{name}.weight", _turnable(attention.qkv.weight, attention).T)
    bias = graph.weight(f"{name}.bias", _turnable(attention.qkv.bias, attention))
    query, key, value = graph.split(graph("Add", graph("MatMul", x, weight), bias), 3, axis=-1)
    query, key = (turns(part, attention.head_dim, heads * attention.head_dim) for part in (query, key))
    attended = graph("Attention", query, key, value, mask, q_num_heads=heads, kv_num_heads=heads)
    return linear(graph, attention.out, attended)
