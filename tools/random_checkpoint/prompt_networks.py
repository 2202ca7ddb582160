"""Speech tokenizer and speaker encoder in the released sizes, so that encoding a new voice takes a realistic time.

Weights are random. Parts that take almost no time are omitted: rotary positions, the normalisations of the speaker
encoder (each is replaced by a bias) and the constants of batch statistics.
"""

from pathlib import Path

import numpy as np
from onnx import TensorProto

from tools.random_checkpoint.graphs import WHISPER_MEL_BINS, Graph, finite_scalar_tokens, heard_frames, tensor
from vllm_cosyvoice.config import MEL_BINS, SPEAKER_DIM

# The speech tokenizer: a Whisper-like encoder. Its attention has a memory, a long convolution over the values.
WIDTH, HEADS, LAYERS, MEMORY = 1280, 20, 6, 31

# The speaker encoder, CAM++: two-dimensional residual convolutions, then densely connected ones over time.
PLANES, TIME_CHANNELS, GROWTH, BOTTLENECK = 32, 128, 32, 128
DENSE_BLOCKS = ((12, 1), (24, 2), (16, 2))  # layers, dilation
EPSILON = 1e-5


def write_speech_tokenizer(path: Path, seed: int) -> None:
    """Log-mel [1, 128, T] and its length [1] → tokens [1, T/4] in 0 … 6560; 0.49 GB."""
    graph = Graph(seed)
    x = heard_frames(graph)
    for inputs in (WHISPER_MEL_BINS, WIDTH):
        x = _gelu(graph, graph("Conv", x, graph.draws(WIDTH, inputs, 3), strides=[2], pads=[1, 1]))
    x = graph("Transpose", x, perm=[0, 2, 1])
    for _ in range(LAYERS):
        x = graph("Add", x, _attend(graph, _norm(graph, x)))
        inner = _gelu(graph, _linear(graph, _norm(graph, x), WIDTH, 4 * WIDTH))
        x = graph("Add", x, _linear(graph, inner, 4 * WIDTH, WIDTH))
    finite_scalar_tokens(graph, graph("Transpose", x, perm=[0, 2, 1]), WIDTH)
    graph.save(
        path,
        [tensor("feats", [1, WHISPER_MEL_BINS, "T"]), tensor("feats_length", [1], TensorProto.INT32)],
        [tensor("indices", [1, "N"], TensorProto.INT32)],
    )


def write_speaker_encoder(path: Path, seed: int) -> None:
    """Fbank [1, T, 80] → embedding [1, 192]; 27 MB."""
    graph = Graph(seed)
    axis = graph.constant(np.array([1], np.int64))
    x = graph("Unsqueeze", graph("Transpose", "input", perm=[0, 2, 1]), axis)  # [1, 1, 80, T]
    x = _planes(graph, x, 1, 1)
    for stride in (2, 1, 2, 1):  # of the frequencies
        shortcut = graph("Conv", x, graph.draws(PLANES, PLANES, 1, 1), strides=[stride, 1])
        inner = _planes(graph, _planes(graph, x, PLANES, stride), PLANES, 1)
        x = graph("Relu", graph("Add", inner, shortcut))
    x = _planes(graph, x, PLANES, 2)
    channels = PLANES * MEL_BINS // 8
    x = graph("Reshape", x, graph.constant(np.array([1, channels, -1], np.int64)))
    x = graph("Relu", graph("Conv", x, graph.draws(TIME_CHANNELS, channels, 5), strides=[2], pads=[2, 2]))
    channels = TIME_CHANNELS
    for layers, dilation in DENSE_BLOCKS:
        for _ in range(layers):
            x = graph("Concat", x, _dense(graph, x, channels, dilation), axis=1)
            channels += GROWTH
        x = graph("Conv", graph("Relu", x), graph.draws(channels // 2, channels, 1))
        channels //= 2
    mean = graph("ReduceMean", x, axes=[2], keepdims=1)
    deviation = graph("Sub", x, mean)
    variance = graph("ReduceMean", graph("Mul", deviation, deviation), axes=[2], keepdims=0)
    spread = graph("Sqrt", graph("Add", variance, _number(graph, EPSILON)))
    statistics = graph("Concat", graph("Flatten", mean), spread, axis=1)
    graph("Gemm", statistics, graph.draws(SPEAKER_DIM, 2 * channels), output="output", transB=1)
    graph.save(path, [tensor("input", [1, "T", MEL_BINS])], [tensor("output", [1, SPEAKER_DIM])])


def _attend(graph: Graph, x: str) -> str:
    """Self-attention of [1, N, width], and the memory of its values."""
    split = graph.constant(np.array([1, -1, HEADS, WIDTH // HEADS], np.int64))
    joined = graph.constant(np.array([1, -1, WIDTH], np.int64))
    query, key, value = (_linear(graph, x, WIDTH, WIDTH) for _ in range(3))
    rows, columns, values = (
        graph("Transpose", graph("Reshape", part, split), perm=order)
        for part, order in ((query, [0, 2, 1, 3]), (key, [0, 2, 3, 1]), (value, [0, 2, 1, 3]))
    )
    scores = graph("Mul", graph("MatMul", rows, columns), _number(graph, (WIDTH // HEADS) ** -0.5))
    seen = graph("Transpose", graph("MatMul", graph("Softmax", scores, axis=-1), values), perm=[0, 2, 1, 3])
    over_time = graph("Transpose", value, perm=[0, 2, 1])
    pad = MEMORY // 2
    memory = graph("Conv", over_time, graph.draws(WIDTH, 1, MEMORY), group=WIDTH, pads=[pad, pad])
    seen = _linear(graph, graph("Reshape", seen, joined), WIDTH, WIDTH)
    return graph("Add", seen, graph("Add", value, graph("Transpose", memory, perm=[0, 2, 1])))


def _dense(graph: Graph, x: str, channels: int, dilation: int) -> str:
    """The channels that a densely connected layer adds to [1, channels, N], gated by its context."""
    narrow = graph("Relu", graph("Conv", graph("Relu", x), graph.draws(BOTTLENECK, channels, 1)))
    kernel = graph.draws(GROWTH, BOTTLENECK, 3)
    local = graph("Conv", narrow, kernel, dilations=[dilation], pads=[dilation, dilation])
    context = graph("ReduceMean", narrow, axes=[2], keepdims=1)
    inner = graph("Relu", graph("Conv", context, graph.draws(BOTTLENECK // 2, BOTTLENECK, 1)))
    gate = graph("Sigmoid", graph("Conv", inner, graph.draws(GROWTH, BOTTLENECK // 2, 1)))
    return graph("Mul", local, gate)


def _planes(graph: Graph, x: str, inputs: int, stride: int) -> str:
    """A 3 × 3 convolution and its activation; `stride` is along the frequency axis."""
    bias = graph.constant(np.zeros(PLANES, np.float32))
    conv = graph("Conv", x, graph.draws(PLANES, inputs, 3, 3), bias, strides=[stride, 1], pads=[1, 1, 1, 1])
    return graph("Relu", conv)


def _linear(graph: Graph, x: str, inputs: int, outputs: int) -> str:
    bias = graph.constant(np.zeros(outputs, np.float32))
    return graph("Add", graph("MatMul", x, graph.draws(inputs, outputs)), bias)


def _norm(graph: Graph, x: str) -> str:
    scale, shift = (graph.constant(np.full(WIDTH, value, np.float32)) for value in (1, 0))
    return graph("LayerNormalization", x, scale, shift, axis=-1)


def _gelu(graph: Graph, x: str) -> str:
    probability = graph("Add", graph("Erf", graph("Mul", x, _number(graph, 0.5**0.5))), _number(graph, 1.0))
    return graph("Mul", graph("Mul", x, probability), _number(graph, 0.5))


def _number(graph: Graph, value: float) -> str:
    return graph.constant(np.array(value, np.float32))
