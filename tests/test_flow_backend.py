"""What computes the flow."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from tests.cards import H200
from vllm_cosyvoice.checkpoint import ModelDirectory, open_model
from vllm_cosyvoice.config import DEMO_MODEL, DiTFlowConfig, FlowConfig, ModelConfig
from vllm_cosyvoice.flow import DiTFlow, Flow
from vllm_cosyvoice.flow.backend import open_flow
from vllm_cosyvoice.flow.cuda.kernel_sizes import misfits
from vllm_cosyvoice.gpu.device import Gpu

GPU = torch.device("cuda")


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """`Flow.from_state`, which here has no GPU to put a flow on."""
    from_state = Mock()
    monkeypatch.setattr(Flow, "from_state", from_state)
    return from_state


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> Mock:
    pytest.importorskip("triton")
    packed_flow = Mock()
    monkeypatch.setattr("vllm_cosyvoice.flow.cuda.flow.PackedFlow", packed_flow)
    return packed_flow


def test_plain_pytorch_computes_the_demo_model_on_a_gpu(
    plain: Mock, packed: Mock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "vllm_cosyvoice"):
        flow = open_flow(open_model(DEMO_MODEL), GPU, torch.bfloat16, load_trt=False)
    assert flow is plain.return_value
    assert plain.call_args.args[2:] == (GPU, torch.bfloat16)
    packed.assert_not_called()
    (line,) = caplog.messages
    assert "encoder width 192 (a power of two from 16), encoder head width 48" in line


@pytest.mark.parametrize("config", [FlowConfig(), DiTFlowConfig()])
def test_fused_kernels_compute_the_released_models_on_a_gpu(
    config: FlowConfig | DiTFlowConfig, packed: Mock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_state = Mock()  # here is no GPU to put a flow on
    monkeypatch.setattr(Flow if isinstance(config, FlowConfig) else DiTFlow, "from_state", from_state)
    monkeypatch.setattr(ModelDirectory, "flow_state", dict)
    monkeypatch.setattr(Gpu, "of", lambda device: H200.gpu)
    flow = open_flow(ModelDirectory(Path(), ModelConfig(flow=config)), GPU, torch.bfloat16, load_trt=False)
    assert flow is packed.return_value
    assert packed.call_args.args == (from_state.return_value, H200.gpu, torch.bfloat16)
    assert not caplog.messages


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"width": 1024, "heads": 16, "feed_forward": 48}, []),
        ({"width": 384}, ["encoder width 384", "encoder head width 48"]),
        ({"heads": 64}, ["encoder head width 8"]),
        ({"heads": 4}, ["encoder head width 128"]),
        ({"feed_forward": 2056}, ["encoder feed-forward width 2056"]),
        ({"estimator_channels": 96}, ["estimator width 96"]),
        ({"estimator_channels": 512}, ["estimator width 512"]),
        ({"estimator_head_dim": 24}, ["estimator head width 24"]),
        ({"estimator_head_dim": 128}, ["estimator head width 128"]),
    ],
)
def test_sizes_that_the_kernels_do_not_take(changes: dict[str, Any], found: list[str]) -> None:
    reported = misfits(replace(FlowConfig(), **changes))
    assert [size.partition(" (")[0] for size in reported] == found


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"width": 256, "heads": 3, "head_dim": 16, "feed_forward": 48}, []),
        ({"width": 128}, ["estimator width 128"]),
        ({"width": 768}, ["estimator width 768"]),
        ({"width": 2048}, ["estimator width 2048"]),
        ({"head_dim": 128}, ["estimator head width 128"]),
        ({"feed_forward": 2056}, ["estimator feed-forward width 2056"]),
    ],
)
def test_sizes_of_a_transformer_that_the_kernels_do_not_take(changes: dict[str, Any], found: list[str]) -> None:
    reported = misfits(replace(DiTFlowConfig(), **changes))
    assert [size.partition(" (")[0] for size in reported] == found
