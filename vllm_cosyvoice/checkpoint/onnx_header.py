"""What an ONNX file takes and gives, read from the file's outline.

The weights in between are skipped, so a file of 500 MB is checked in a millisecond and no ONNX package is needed.
Field numbers are those of `onnx.proto`; the encoding is Protocol Buffers' wire format.
"""

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vllm_cosyvoice.checkpoint.errors import CheckpointError
from vllm_cosyvoice.checkpoint.tensors import check_present

FLOAT, INT32, INT64 = 1, 6, 7  # TensorProto.DataType
TYPE_NAMES = {FLOAT: "float32", INT32: "int32", INT64: "int64"}

MODEL_GRAPH = 7
GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT = 5, 11, 12
INITIALIZER_NAME = 8
VALUE_NAME, VALUE_TYPE = 1, 2
TYPE_TENSOR = 1
TENSOR_ELEMENT_TYPE, TENSOR_SHAPE = 1, 2
SHAPE_DIMENSION, DIMENSION_VALUE = 1, 1

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types

Dimensions = tuple[int | None, ...]  # None: any size


@dataclass(frozen=True)
class Tensor:
    """One input or output of a graph."""

    name: str
    element_type: int
    shape: Dimensions | None  # None: not declared

    def accepts(self, element_types: Sequence[int], shape: Dimensions | None) -> bool:
        """Whether it can be one of `element_types` with `shape` (None: any shape)."""
        if self.element_type not in element_types:
            return False
        if self.shape is None or shape is None:
            return True
        return len(self.shape) == len(shape) and all(
            mine is None or wanted is None or mine == wanted for mine, wanted in zip(self.shape, shape, strict=True)
        )

    def __str__(self) -> str:
        shape = "?" if self.shape is None else ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name} {TYPE_NAMES.get(self.element_type, 'of another type')} [{shape}]"


Wanted = tuple[Sequence[int], Dimensions | None]  # allowed element types, and a shape (None: any)


def check_signature(path: Path, inputs: Sequence[Wanted], outputs: Sequence[Wanted]) -> None:
    """Refuse the ONNX file at `path` unless it takes `inputs` and gives `outputs` first, in this order.

    Raises:
        CheckpointError: as `read_signature`, or another number, type or shape.
    """
    found_inputs, found_outputs = read_signature(path)
    for kind, found, wanted in (("takes", found_inputs, inputs), ("gives", found_outputs[: len(outputs)], outputs)):
        if len(found) != len(wanted) or not all(map(Tensor.accepts, found, *zip(*wanted, strict=True))):
            described = ", ".join(map(str, found)) or "nothing"
            raise CheckpointError(f"{path} {kind} {described}, so it is another model's; download the file again")


def read_signature(path: Path) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and outputs of the ONNX graph in `path`.

    Raises:
        CheckpointError: missing, empty, a pointer, cut short, or not ONNX.
    """
    check_present(path)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _signature(data)
    except (ValueError, IndexError, KeyError) as error:
        raise CheckpointError(f"{path} is cut short or not an ONNX model; download it again") from error


def _signature(data: mmap.mmap) -> tuple[list[Tensor], list[Tensor]]:
    graphs = [span for field, span in _fields(data, 0, len(data)) if field == MODEL_GRAPH]
    if len(graphs) != 1:
        raise ValueError("no graph")
    inputs, outputs, weights = [], [], set()
    for field, (start, end) in _fields(data, *graphs[0]):
        if field == GRAPH_INPUT:
            inputs.append(_tensor(data, start, end))
        elif field == GRAPH_OUTPUT:
            outputs.append(_tensor(data, start, end))
        elif field == GRAPH_INITIALIZER:
            weights.add(_text(data, _children(data, start, end, INITIALIZER_NAME)))
    # Old exporters list the weights among the inputs too.
    return [tensor for tensor in inputs if tensor.name not in weights], outputs


def _tensor(data: mmap.mmap, start: int, end: int) -> Tensor:
    name = _text(data, _children(data, start, end, VALUE_NAME))
    for type_span in _children(data, start, end, VALUE_TYPE):
        for tensor_span in _children(data, *type_span, TYPE_TENSOR):
            element_type = next((value for value, _ in _children(data, *tensor_span, TENSOR_ELEMENT_TYPE)), 0)
            shapes = _children(data, *tensor_span, TENSOR_SHAPE)
            return Tensor(name, element_type, _dimensions(data, *shapes[0]) if shapes else None)
    raise ValueError(f"{name} is not a tensor")


def _dimensions(data: mmap.mmap, start: int, end: int) -> Dimensions:
    spans = _children(data, start, end, SHAPE_DIMENSION)
    return tuple(next((value for value, _ in _children(data, *span, DIMENSION_VALUE)), None) for span in spans)


def _text(data: mmap.mmap, spans: list[tuple[int, int]]) -> str:
    return data[slice(*spans[-1])].decode() if spans else ""


def _children(data: mmap.mmap, start: int, end: int, field: int) -> list[tuple[int, int]]:
    return [span for number, span in _fields(data, start, end) if number == field]


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """Each field's number with its content's (start, end); for a number, (value, 0)."""
    position = start
    while position < end:
        key, position = _varint(data, position)
        wire_type = key & 7
        if wire_type == VARINT:
            value, position = _varint(data, position)
            yield key >> 3, (value, 0)
            continue
        if wire_type == BYTES:
            length, position = _varint(data, position)
        elif wire_type in (FIXED64, FIXED32):
            length = 8 if wire_type == FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire_type}")
        if position + length > end:
            raise ValueError("a field reaches past its end")
        yield key >> 3, (position, position + length)
        position += length


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number of more than ten bytes")
