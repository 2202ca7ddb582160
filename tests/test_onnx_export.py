import json
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from tests import small_networks
from tests.golden import DATA
from tests.golden_cases import tensors
from tests.golden_cases.flow import ESTIMATOR_HEADS, flow_config
from tests.seeded_weights import seeded_state
from vllm_cosyvoice.config import CHUNK_FRAMES, DiTFlowConfig, FlowConfig
from vllm_cosyvoice.flow import Flow
from vllm_cosyvoice.flow.tensorrt.dit_onnx import dit_onnx
from vllm_cosyvoice.flow.tensorrt.onnx_graph import ONNX_TYPES
from vllm_cosyvoice.flow.tensorrt.unet_onnx import unet_onnx
from vllm_cosyvoice.flow.torch.dit import Condition as DiTCondition
from vllm_cosyvoice.flow.torch.dit import DiT
from vllm_cosyvoice.flow.torch.dit_flow import DiTFlow
from vllm_cosyvoice.flow.torch.estimator import Condition, Estimator
from vllm_cosyvoice.flow.torch.masks import attention_mask

EVERYTHING = 10_000  # frames in a chunk: longer than any row here


Config = FlowConfig | DiTFlowConfig
CONFIGS = pytest.mark.parametrize("config", [small_networks.FLOW, small_networks.DIT_FLOW], ids=["U-Net", "DiT"])


def small_flow(config: Config, data_type: torch.dtype) -> Flow | DiTFlow:
    family = Flow if isinstance(config, FlowConfig) else DiTFlow
    return family.from_state(config, small_networks.flow_state(config), data_type=data_type)


def exported(estimator: Estimator | DiT) -> onnx.ModelProto:
    return dit_onnx(estimator) if isinstance(estimator, DiT) else unet_onnx(estimator)


def array(tensor: Tensor) -> np.ndarray:
    if tensor.dtype != torch.bfloat16:
        return tensor.numpy()
    return tensor.view(torch.int16).numpy().view(onnx.helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16))


def runtime(model: onnx.ModelProto, data_type: torch.dtype) -> onnxruntime.InferenceSession | ReferenceEvaluator:
    """What runs `model` on a CPU: onnxruntime has no bfloat16 there."""
    if data_type == torch.bfloat16:
        return ReferenceEvaluator(model)
    return onnxruntime.InferenceSession(model.SerializeToString())


def velocities(
    session: onnxruntime.InferenceSession | ReferenceEvaluator,
    x: Tensor,
    condition: Condition | DiTCondition,
    time: Tensor,
    lengths: list[int],
    chunks: list[int],
) -> Tensor:
    tensors = {"x": x, **condition._asdict(), "time": time}
    tensors |= {"lengths": torch.tensor(lengths, dtype=torch.int32), "chunks": torch.tensor(chunks, dtype=torch.int32)}
    (computed,) = session.run(None, {name: array(tensor) for name, tensor in tensors.items()})
    return torch.from_numpy(computed.astype(np.float32))


@CONFIGS
@pytest.mark.parametrize(
    ("data_type", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 3e-2)]
)
@torch.inference_mode()
def test_one_graph_gives_what_the_module_gives_for_any_rows_lengths_and_chunks(
    config: Config, data_type: torch.dtype, tolerance: float
) -> None:
    flow: Any = small_flow(config, data_type)
    session = runtime(exported(flow.estimator), data_type)
    for frames, lengths, chunks in [
        (2, [2], [EVERYTHING]),
        (130, [130], [CHUNK_FRAMES]),
        (70, [70, 50, 31], [CHUNK_FRAMES, CHUNK_FRAMES, EVERYTHING]),
        (131, [101, 131], [EVERYTHING, 7]),
    ]:
        rows = len(lengths)
        x, mu, prompt_mel = torch.randn(3, rows, frames, 80, generator=torch.Generator().manual_seed(frames))
        condition, time = flow.estimator.condition(mu, mu[:, 0], prompt_mel), flow.step_times[4]
        mask = attention_mask(torch.tensor(2 * lengths), torch.tensor(2 * chunks), frames, data_type)
        expected = flow.estimator(x.to(data_type), condition, time, mask).float()
        actual = velocities(session, x.to(data_type), condition, time, lengths, chunks)
        assert actual.shape == expected.shape == (2 * rows, frames, 80)
        real = (torch.arange(frames) < torch.tensor(lengths)[:, None]).repeat(2, 1)
        assert (actual - expected)[real].norm() < tolerance * expected[real].norm()


@torch.inference_mode()
def test_the_graph_gives_the_reference_networks_numbers() -> None:
    golden = tensors(DATA / "flow_small.npz")
    shapes = json.loads((DATA / "manifest.json").read_text())["flow.small"]
    flow = Flow.from_state(flow_config(shapes, ESTIMATOR_HEADS["small"]), seeded_state(shapes))
    session = runtime(unet_onnx(flow.estimator), torch.float32)
    outputs = [name for name in golden if name.endswith((".out_full", ".out_chunk"))]
    assert outputs
    for name in outputs:
        case, _, kind = name.rpartition(".")
        x, mu, cond = (golden[f"{case}.{kind}"].transpose(1, 2) for kind in ("x", "mu", "cond"))
        times = flow.estimator.times(golden[f"{case}.t"])
        condition = flow.estimator.condition(mu, golden[f"{case}.spks"], cond)
        chunk = CHUNK_FRAMES if kind == "out_chunk" else EVERYTHING
        for row, expected in enumerate(golden[name]):
            one = slice(row, row + 1)
            length = int(golden[f"{case}.mask"][row].sum())
            parts = Condition(*(part[one] for part in condition))
            actual = velocities(session, x[one].contiguous(), parts, times[row], [length], [chunk])[0].T
            difference = (actual - expected)[:, :length]
            assert difference.norm() < 1e-4 * expected[:, :length].norm()


@CONFIGS
@pytest.mark.parametrize("data_type", [torch.float16, torch.bfloat16])
def test_norms_and_mish_are_in_float32_and_all_else_in_the_data_type(config: Config, data_type: torch.dtype) -> None:
    model = onnx.shape_inference.infer_shapes(exported(small_flow(config, data_type).estimator), strict_mode=True)
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    for operator, expected in {
        "LayerNormalization": TensorProto.FLOAT,
        "Mish": TensorProto.FLOAT,
        "MatMul": ONNX_TYPES[data_type],
        "Attention": ONNX_TYPES[data_type],
        "Gelu": ONNX_TYPES[data_type],
    }.items():
        found = {types[node.output[0]] for node in model.graph.node if node.op_type == operator}
        assert found == {expected}


@CONFIGS
def test_equal_weights_give_equal_bytes_and_others_others(config: Config) -> None:
    first, second, other = (small_flow(config, torch.float16).estimator for _ in range(3))
    list(other.parameters())[-1][0] += 1
    one, two, three = (exported(estimator).SerializeToString() for estimator in (first, second, other))
    assert one == two != three


@pytest.mark.parametrize(
    ("config", "own"),
    [
        (
            small_networks.FLOW,
            {"hidden": ["rows", "frames", 32], "shortcut": ["rows", "frames", 32], "time": [3, 32]},
        ),
        (
            small_networks.DIT_FLOW,
            {"hidden": ["rows", "frames", 64], "rotation": ["frames", 8, 2], "time": [20, 64]},
        ),
    ],
    ids=["U-Net", "DiT"],
)
def test_the_graph_is_valid_and_no_size_of_a_call_is_in_it(config: Config, own: dict[str, list[int | str]]) -> None:
    model = exported(small_flow(config, torch.float32).estimator)
    onnx.checker.check_model(model, full_check=True)
    shapes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in [*model.graph.input, *model.graph.output]
    }
    assert shapes == {
        "x": ["rows", "frames", 80],
        **own,
        "lengths": ["rows"],
        "chunks": ["rows"],
        "velocities": ["rows_twice", "frames", 80],
    }
