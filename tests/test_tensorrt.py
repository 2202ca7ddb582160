import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import small_networks, tensorrt_stand_in
from vllm_cosyvoice.config import DiTFlowConfig, FlowConfig
from vllm_cosyvoice.flow import Flow
from vllm_cosyvoice.flow.tensorrt.backend import tensorrt_estimator
from vllm_cosyvoice.flow.tensorrt.dit_onnx import dit_onnx
from vllm_cosyvoice.flow.tensorrt.interface import LONGEST, FrameMask, TensorRTError
from vllm_cosyvoice.flow.tensorrt.plan_cache import cached_plan, plan_path
from vllm_cosyvoice.flow.tensorrt.unet_onnx import unet_onnx
from vllm_cosyvoice.flow.torch.dit import Condition as DiTCondition
from vllm_cosyvoice.flow.torch.dit import DiT
from vllm_cosyvoice.flow.torch.estimator import Condition, Estimator
from vllm_cosyvoice.flow.torch.masks import attention_mask

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX has no package for this platform")

from vllm_cosyvoice.flow.tensorrt import build as tensorrt_build
from vllm_cosyvoice.flow.tensorrt.build import PROFILES, Progress, build_plan
from vllm_cosyvoice.flow.tensorrt.runtime import TensorRTEstimator

Module = Estimator | DiT
Config = FlowConfig | DiTFlowConfig


def estimator(data_type: torch.dtype = torch.float16, config: Config = small_networks.FLOW) -> Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Estimator(config) if isinstance(config, FlowConfig) else DiT(config)
        return module.to(data_type).requires_grad_(False)


def onnx(module: Module) -> bytes:
    model = dit_onnx(module) if isinstance(module, DiT) else unet_onnx(module)
    content: bytes = model.SerializeToString()
    return content


def step_time(module: Module) -> Tensor:
    """A step's input `time`."""
    return module.times(torch.tensor([0.3]))[0].to(next(module.parameters()))


def engine_of(module: Module) -> TensorRTEstimator:
    return TensorRTEstimator(module, step_time(module))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLLM_COSYVOICE_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("config", "data_type"),
    [
        (replace(FlowConfig(), estimator_blocks=1, estimator_mid_stages=1), torch.float16),
        (replace(FlowConfig(), estimator_blocks=1, estimator_mid_stages=1), torch.bfloat16),
        (replace(DiTFlowConfig(), blocks=1), torch.bfloat16),
    ],
)
def test_parser_and_builder_accept_layers_of_full_size(config: Config, data_type: torch.dtype) -> None:
    """The released sizes with fewer layers: all 56 transformers take two minutes. Attention is fused or refused."""
    assert build_plan(onnx(estimator(data_type, config)), PROFILES[:1])


def test_a_build_takes_all_profiles_and_shows_its_progress(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tensorrt_build, "REPORT_SECONDS", 0.0)
    caplog.set_level(logging.INFO)
    assert build_plan(onnx(estimator()))
    percents = [int(percent) for percent in re.findall(r"Building the TensorRT engine: (\d+) %", caplog.text)]
    assert len(percents) > 3
    assert percents == sorted(set(percents)) and percents[-1] <= 100


def test_a_build_without_fused_attention_is_refused() -> None:
    with pytest.raises(TensorRTError, match=r"can't build the estimator: .*Attention operation was not supported"):
        build_plan(onnx(estimator(torch.float32)), PROFILES[:1])


def test_what_is_no_onnx_is_refused() -> None:
    with pytest.raises(TensorRTError, match=r"can't parse the estimator: .*Failed to parse the ONNX model"):
        build_plan(b"nonsense")


def test_progress_counts_steps_inside_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_build, "REPORT_SECONDS", 0.0)
    percents: list[int] = []
    progress = Progress(lambda percent, seconds: percents.append(percent))
    progress.phase_start("all", None, 2)
    progress.phase_start("first half", "all", 4)
    for step in range(4):
        assert progress.step_complete("first half", step)
    progress.phase_finish("first half")
    progress.step_complete("all", 0)
    progress.phase_start("second half", "all", 2)
    progress.step_complete("second half", 0)
    assert percents == [12, 25, 37, 50, 75]


def test_a_plan_is_built_once() -> None:
    path = plan_path(b"network", "tensorrt-10", "H200")
    assert cached_plan(path, lambda: b"plan") == b"plan"
    assert cached_plan(path, lambda: pytest.fail("built again")) == b"plan"


def test_a_damaged_plan_is_built_anew() -> None:
    path = plan_path(b"network", "tensorrt-10", "H200")
    cached_plan(path, lambda: b"plan")
    for damaged in (path.read_bytes()[:-1], b"", b"\0" + path.read_bytes()[1:]):
        path.write_bytes(damaged)
        assert cached_plan(path, lambda: b"other plan") == b"other plan"
        assert cached_plan(path, lambda: pytest.fail("built again")) == b"other plan"


def test_other_weights_versions_and_chips_have_other_plans() -> None:
    keys = [("network", "tensorrt-10", "H200"), ("other", "tensorrt-10", "H200")]
    keys += [("network", "tensorrt-11", "H200"), ("network", "tensorrt-10", "NVIDIA L4/sm89")]
    paths = {plan_path(content.encode(), library, chip) for content, library, chip in keys}
    assert len(paths) == len(keys)
    assert {path.parent for path in paths} == {plan_path(b"", "", "").parent}


def test_a_cache_that_cannot_be_written_costs_only_the_next_build(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (cache / "tensorrt").write_text("a file where the directory should be")
    assert cached_plan(plan_path(b"network", "tensorrt-10", "H200"), lambda: b"plan") == b"plan"
    assert "set VLLM_COSYVOICE_CACHE" in caplog.text


def test_without_a_gpu_one_line_says_that_tensorrt_does_not_run(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert tensorrt_estimator(Flow.from_state(small_networks.FLOW, small_networks.flow_state())) is None
    assert [line.getMessage() for line in caplog.records] == ["--load_trt: there is no GPU; the flow runs without it."]


def call(module: Module, rows: int, frames: int) -> tuple[Tensor, Condition | DiTCondition, Tensor, FrameMask]:
    """Arguments with rows of all lengths, every other one with full attention."""
    time = step_time(module)
    x, mu, prompt_mel = torch.randn(3, rows, frames, 80, generator=torch.Generator().manual_seed(rows))
    lengths = frames - torch.arange(rows, dtype=torch.int32) % frames
    chunks = 50 + frames * (torch.arange(rows, dtype=torch.int32) % 2)
    return x.to(time), module.condition(mu, mu[:, 0], prompt_mel), time, FrameMask(lengths, chunks)


@pytest.mark.parametrize(
    ("config", "rows", "frames"),
    [
        (small_networks.FLOW, 1, 120),
        (small_networks.FLOW, 9, 1010),
        (small_networks.FLOW, 33, 8),
        (small_networks.DIT_FLOW, 33, 60),
    ],
)
@torch.inference_mode()
def test_an_engine_gives_what_the_module_gives(
    config: Config, rows: int, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last three are more rows than a profile takes at that length."""
    tensorrt_stand_in.install(monkeypatch, build=lambda content: content)
    module: Any = estimator(config=config)
    x, condition, time, mask = call(module, rows, frames)
    actual = engine_of(module)(x, condition, time, mask)
    frame_mask = attention_mask(mask.lengths.repeat(2), mask.chunks.repeat(2), frames, x.dtype)
    expected = module(x, condition, time, frame_mask)
    real = (torch.arange(frames) < mask.lengths[:, None]).repeat(2, 1)
    assert actual.shape == expected.shape and actual.dtype == expected.dtype
    assert (actual - expected)[real].float().norm() < 5e-3 * expected[real].float().norm()


@torch.inference_mode()
def test_an_engine_reads_tensors_however_they_lie_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    tensorrt_stand_in.install(monkeypatch, build=lambda content: content)
    module = estimator()
    engine = engine_of(module)
    x, condition, time, mask = call(module, 2, 40)
    turned = x.transpose(1, 2).contiguous().transpose(1, 2)
    assert not turned.is_contiguous()
    assert torch.equal(engine(turned, condition, time, mask), engine(x, condition, time, mask))


def test_longer_rows_than_the_profiles_cover_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tensorrt_stand_in.install(monkeypatch, build=lambda content: content)
    module = estimator()
    with pytest.raises(ValueError, match="use the PyTorch module"):
        engine_of(module)(*call(module, 1, LONGEST + 2))


def test_a_second_start_finds_the_plan_and_a_foreign_plan_is_built_anew(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds = []

    def build(content: bytes) -> bytes:
        builds.append(content)
        return content if len(builds) > 1 else b"foreign plan"

    tensorrt_stand_in.install(monkeypatch, build)
    engine_of(estimator())
    assert len(builds) == 2
    engine_of(estimator())
    assert len(builds) == 2
    assert len(list((cache / "tensorrt").iterdir())) == 1


@pytest.mark.parametrize("wrong", [0.5, float("nan")])
def test_an_engine_that_computes_something_else_is_refused(wrong: float, monkeypatch: pytest.MonkeyPatch) -> None:
    other: Any = estimator()
    other.up_conv.bias.add_(wrong)
    tensorrt_stand_in.install(monkeypatch, build=lambda content: onnx(other))
    with pytest.raises(TensorRTError, match=r"velocities for 1 rows are off by (\d|nan)"):
        engine_of(estimator())
