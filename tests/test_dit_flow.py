"""What only CosyVoice3's flow has; `test_flow` has what it shares with CosyVoice2's."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from tests import small_networks
from tests.golden import COSYVOICE3_DATA
from tests.golden_cases.dit_flow import dit_flow_config as config_of_shapes
from tools.random_checkpoint.weights import flow_weights
from vllm_cosyvoice.checkpoint import CheckpointError, ModelDirectory
from vllm_cosyvoice.checkpoint.hyperyaml import HyperYaml
from vllm_cosyvoice.checkpoint.layout import flow_layout
from vllm_cosyvoice.checkpoint.sizes import dit_flow_config
from vllm_cosyvoice.config import DiTFlowConfig, ModelConfig
from vllm_cosyvoice.flow import DiTFlow, FlowRow
from vllm_cosyvoice.flow.backend import open_flow

SETTINGS = """\
token_mel_ratio: 2
chunk_size: 25
flow: !new:cosyvoice.flow.flow.CausalMaskedDiffWithDiT
    input_size: 80
    vocab_size: 6561
    pre_lookahead_layer: !new:cosyvoice.transformer.upsample_encoder.PreLookaheadLayer
        in_channels: 80
        channels: 1024
        pre_lookahead_len: 3
    decoder: !new:cosyvoice.flow.flow_matching.CausalConditionalCFM
        in_channels: 240
        cfm_params: !new:omegaconf.DictConfig
            content:
                solver: 'euler'
                inference_cfg_rate: 0.7
        estimator: !new:cosyvoice.flow.DiT.dit.DiT
            dim: 1024
            depth: 22
            heads: 16
            dim_head: 64
            ff_mult: 2
            static_chunk_size: !ref <chunk_size> * <token_mel_ratio>
"""
MODEL = ModelDirectory(Path(), ModelConfig(flow=small_networks.DIT_FLOW))


def row(flow: DiTFlow, tokens: int) -> FlowRow:
    return FlowRow(list(range(tokens)), 0, torch.zeros(0, 80), flow.speaker(torch.ones(192)), True)


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelDirectory, "flow_state", lambda self: small_networks.flow_state(small_networks.DIT_FLOW))


@pytest.mark.parametrize("size", ["small", "full"])
def test_layout_is_that_of_the_reference(size: str) -> None:
    shapes = json.loads((COSYVOICE3_DATA / "manifest.json").read_text(encoding="utf-8"))[f"flow.{size}"]
    config = DiTFlowConfig() if size == "full" else config_of_shapes(shapes)
    assert flow_layout(config) == {name: tuple(shape) for name, shape in shapes.items()}


def test_sizes_are_read_from_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "cosyvoice3.yaml"
    path.write_text(SETTINGS)
    assert dit_flow_config(HyperYaml(path)) == DiTFlowConfig()
    text = SETTINGS
    changes = {
        " channels: 1024": " channels: 96",
        "dim: 1024": "dim: 128",
        "depth: 22": "depth: 4",
        "heads: 16": "heads: 2",
        "dim_head: 64": "dim_head: 32",
        "ff_mult: 2": "ff_mult: 4",
        "inference_cfg_rate: 0.7": "inference_cfg_rate: 0.5",
    }
    for old, new in changes.items():
        text = text.replace(old, new)
    path.write_text(text)
    expected = DiTFlowConfig(6561, 96, width=128, blocks=4, heads=2, head_dim=32, feed_forward=512, guidance=0.5)
    assert dit_flow_config(HyperYaml(path)) == expected


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dim: 1024", "dim: 1000", "estimator.dim to 1000, which is not a multiple of 16"),
        ("dim_head: 64", "dim_head: 63", "estimator.dim_head to 63, which is not an even number"),
        ("depth: 22", "depth: 0", "estimator.depth to 0, which is not a positive whole number"),
        ("            ff_mult: 2\n", "", "estimator.ff_mult to None"),
    ],
)
def test_sizes_that_no_model_can_have_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "cosyvoice3.yaml"
    path.write_text(SETTINGS.replace(old, new))
    with pytest.raises(CheckpointError, match=message):
        dit_flow_config(HyperYaml(path))


def test_weights_that_only_the_times_need_are_not_kept() -> None:
    state = small_networks.flow_state(small_networks.DIT_FLOW)
    flow = DiTFlow.from_state(small_networks.DIT_FLOW, state)
    of_time = ("attn_norm", "norm_out", "time_embed", "inv_freq")
    kept = sum(tensor.numel() for name, tensor in state.items() if not any(part in name for part in of_time))
    assert sum(tensor.numel() for tensor in flow.parameters()) == kept
    assert flow.step_times.shape == (10, 6 * small_networks.DIT_FLOW.blocks + 2, small_networks.DIT_FLOW.width)


@pytest.mark.usefixtures("weights")
def test_the_class_of_the_sizes_selects_the_flow(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "vllm_cosyvoice"):
        flow = open_flow(MODEL, torch.device("cpu"), torch.float32, load_trt=False)
    assert not caplog.messages
    assert isinstance(flow, DiTFlow)
    assert flow([row(flow, 25)])[0].shape == (50, 80)


@pytest.mark.usefixtures("weights")
def test_plain_pytorch_computes_a_small_one_on_a_gpu(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_state = Mock()  # here is no GPU to put a flow on
    monkeypatch.setattr(DiTFlow, "from_state", from_state)
    flow = open_flow(MODEL, torch.device("cuda"), torch.bfloat16, load_trt=False)
    assert flow is from_state.return_value
    assert from_state.call_args.args[2:] == (torch.device("cuda"), torch.bfloat16)
    (line,) = caplog.messages
    assert "runs in plain PyTorch, which is slower" in line
    assert "estimator width 64 (a power of two from 256 to 1024)" in line


@pytest.mark.usefixtures("weights")
def test_why_tensorrt_does_not_run_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "vllm_cosyvoice"):
        open_flow(MODEL, torch.device("cpu"), torch.float32, load_trt=True)
    (line,) = caplog.messages
    assert line == "--load_trt: there is no GPU; the flow runs without it."


def test_a_solve_asks_for_no_value_and_so_never_waits_for_the_device() -> None:
    """Tensors on the meta device have no values."""
    shapes = flow_layout(small_networks.DIT_FLOW)
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    flow = DiTFlow.from_state(small_networks.DIT_FLOW, state, "meta", torch.bfloat16)
    mu, speaker = torch.empty(3, 100, 80, device="meta"), torch.empty(3, 80, device="meta")
    mask = torch.empty(6, 1, 100, 100, dtype=torch.bfloat16, device="meta")
    assert flow.solve(mu, speaker, mu, mask).shape == mu.shape


def test_positions_beyond_the_convolutions_reach_matter() -> None:
    """Rotation tells the first head where a frame is: without it, distant frames could change places."""
    flow = DiTFlow.from_state(small_networks.DIT_FLOW, small_networks.flow_state(small_networks.DIT_FLOW))
    x = torch.randn(1, 200, 80, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        condition = flow.estimator.condition(x, torch.zeros(1, 80), torch.zeros_like(x))
        there = flow.estimator(x, condition, flow.step_times[0], None)
        turned = condition._replace(rotation=condition.rotation.roll(50, dims=0))
        moved = flow.estimator(x, turned, flow.step_times[0], None)
    assert float((there - moved).abs().max()) > 1e-3


def test_random_weights_give_a_mel_of_ordinary_size() -> None:
    config = replace(small_networks.DIT_FLOW, blocks=6)
    flow = DiTFlow.from_state(config, flow_weights(config, seed=0))
    mel = flow([row(flow, 50)])[0]
    assert 0.1 < float(mel.std()) < 10
