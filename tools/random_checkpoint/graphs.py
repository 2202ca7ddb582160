"""Creates the three ONNX graphs of a model directory: small, with seeded weights and the release's inputs and outputs.

`prompt_networks` creates two of them in the released sizes.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vllm_cosyvoice.config import MEL_BINS, SPEAKER_DIM

OPSET = 17
IR_VERSION = 8  # supported by onnxruntime since 2022
WHISPER_MEL_BINS = 128
FRAMES_PER_SPEECH_TOKEN = 4  # of the 100 Hz log-mel
DIGITS = 8  # finite scalar quantisation: eight digits of three levels give 6561 tokens
LEVELS = 3
HIDDEN = 32

Attribute = int | list[int]


class Graph:
    """A graph under construction."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def constant(self, value: np.ndarray) -> str:
        """Add a weight and return its name."""
        name = f"weight_{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(value, name))
        return name

    def draws(self, *shape: int) -> str:
        """Add a random float32 weight that preserves the variance of its input."""
        fan_in = np.prod(shape[1:])
        return self.constant((self._random.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32))

    def __call__(self, operator: str, *inputs: str, output: str = "", **attributes: Attribute) -> str:
        """Add a node and return the name of its output."""
        output = output or f"value_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def save(self, path: Path, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]) -> None:
        """Check and write the graph."""
        graph = helper.make_graph(self._nodes, path.stem, inputs, outputs, self._weights)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="random"
        )
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)


def tensor(name: str, shape: list[int | str], element_type: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    """An input or output; a string in `shape` names a dynamic dimension."""
    return helper.make_tensor_value_info(name, element_type, shape)


def write_speaker_encoder(path: Path, seed: int) -> None:
    """Fbank [1, T, 80] → embedding [1, 192]: a convolution, then mean and deviation over time, then a projection."""
    graph = Graph(seed)
    channels = graph("Transpose", "input", perm=[0, 2, 1])
    hidden = graph("Relu", graph("Conv", channels, graph.draws(HIDDEN, MEL_BINS, 5), pads=[2, 2]))
    mean = graph("ReduceMean", hidden, axes=[2], keepdims=1)
    deviation = graph("Sub", hidden, mean)
    variance = graph("ReduceMean", graph("Mul", deviation, deviation), axes=[2], keepdims=0)
    spread = graph("Sqrt", graph("Add", variance, graph.constant(np.array(1e-6, np.float32))))
    statistics = graph("Concat", graph("Flatten", mean), spread, axis=1)
    graph("Gemm", statistics, graph.draws(SPEAKER_DIM, 2 * HIDDEN), output="output", transB=1)
    graph.save(path, [tensor("input", [1, "T", MEL_BINS])], [tensor("output", [1, SPEAKER_DIM])])


def write_speech_tokenizer(path: Path, seed: int) -> None:
    """Log-mel [1, 128, T] and its length [1] → tokens [1, T/4] in 0 … 6560: one convolution, then its digits."""
    graph = Graph(seed)
    frames = heard_frames(graph)
    stride = FRAMES_PER_SPEECH_TOKEN
    hidden = graph("Conv", frames, graph.draws(HIDDEN, WHISPER_MEL_BINS, stride), strides=[stride])
    finite_scalar_tokens(graph, graph("Tanh", hidden), HIDDEN)
    graph.save(
        path,
        [tensor("feats", [1, WHISPER_MEL_BINS, "T"]), tensor("feats_length", [1], TensorProto.INT32)],
        [tensor("indices", [1, "N"], TensorProto.INT32)],
    )


def heard_frames(graph: Graph) -> str:
    """Cut the speech tokenizer's input "feats" to the length in "feats_length"."""
    start, axis = (graph.constant(np.array([number], np.int64)) for number in (0, 2))
    return graph("Slice", "feats", start, graph("Cast", "feats_length", to=TensorProto.INT64), axis)


def finite_scalar_tokens(graph: Graph, hidden: str, channels: int) -> None:
    """Compute the speech tokenizer's output "indices" from `hidden` [1, channels, N] by finite scalar quantisation."""
    digits = graph("Conv", hidden, graph.draws(DIGITS, channels, 1))
    levels = graph("Add", graph("Round", graph("Tanh", digits)), graph.constant(np.array(1, np.float32)))
    places = LEVELS ** np.arange(DIGITS, dtype=np.float32)[None, :, None]
    digit_axis = graph.constant(np.array([1], np.int64))
    tokens = graph("ReduceSum", graph("Mul", levels, graph.constant(places)), digit_axis, keepdims=0)
    graph("Cast", tokens, output="indices", to=TensorProto.INT32)


def write_estimator(path: Path, seed: int) -> None:
    """The estimator's interface with a fixed batch of 2, as exported in the release, around a single convolution.

    This file is never run: the engine uses `flow.pt`.
    """
    graph = Graph(seed)
    frames = graph("Shape", "x", start=2, end=3)
    spread = graph("Concat", graph.constant(np.array([2, MEL_BINS], np.int64)), frames, axis=0)
    axes = graph.constant(np.array([2], np.int64))
    speakers = graph("Expand", graph("Unsqueeze", "spks", axes), spread)
    time_axes = graph.constant(np.array([1, 2], np.int64))
    time = graph("Expand", graph("Unsqueeze", "t", time_axes), spread)
    inputs = graph("Concat", "x", "mu", speakers, "cond", time, axis=1)
    velocity = graph("Conv", inputs, graph.draws(MEL_BINS, 5 * MEL_BINS, 3), pads=[2, 0])
    graph("Mul", velocity, "mask", output="estimator_out")
    mel: list[int | str] = [2, MEL_BINS, "seq_len"]
    graph.save(
        path,
        [
            tensor("x", mel),
            tensor("mask", [2, 1, "seq_len"]),
            tensor("mu", mel),
            tensor("t", [2]),
            tensor("spks", [2, MEL_BINS]),
            tensor("cond", mel),
        ],
        [tensor("estimator_out", mel)],
    )
