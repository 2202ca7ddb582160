"""What a profile says of a step, from a trace whose answer is known."""

from typing import Any

import pytest

from benchmarks.step_profile import Share, average, show


def event(category: str, name: str, start: float, length: float, thread: int = 1) -> dict[str, Any]:
    return {"ph": "X", "cat": category, "name": name, "ts": start, "dur": length, "tid": thread}


STEPS = [event("user_annotation", f"execute_context_0(0)_generation_{n}(1)", 1000.0 * n, 300.0) for n in (1, 2, 3)]


def test_gpu_time_is_counted_once_where_kernels_overlap_and_only_within_whole_steps() -> None:
    profile = average(
        [
            {"ph": "M", "name": "process_name"},
            *STEPS,
            event("kernel", "before the first step", 500, 400),
            event("kernel", "gemm", 1100, 200),
            event("kernel", "gemm", 2100, 200),
            event("kernel", "norm", 1200, 200),  # half of it beside the other
            event("gpu_memcpy", "Memcpy DtoH (Device -> Pinned)", 2400, 100),
            event("cuda_runtime", "cudaEventSynchronize", 1400, 60),
            event("cuda_runtime", "cudaGraphLaunch", 1050, 40),
            event("cpu_op", "aten::mm", 1000, 50),
            event("user_annotation", "gpu_model_runner: forward", 1000, 100),
            event("kernel", "of the last step", 3000, 400),
        ],
        step_ms=0.5,
    )
    assert (profile.steps, profile.wall_ms, profile.busy_ms, profile.kernels) == (2, 1.0, 0.3, 1.5)
    assert profile.largest == [Share("gemm", 1.0, 0.2), Share("norm", 0.5, 0.1)]
    assert profile.copies == [Share("Memcpy DtoH (Device -> Pinned)", 0.5, 0.05)]
    assert profile.syncs == [Share("cudaEventSynchronize", 0.5, 0.03)]
    assert profile.launches == [Share("cudaGraphLaunch", 0.5, 0.02)]
    assert profile.scopes == [Share("gpu_model_runner: forward", 0.5, 0.05)]
    assert profile.gap_ms == pytest.approx(0.2), "of the step that nobody profiled"
    assert "waits for 0.200 ms" in show(profile)


def test_without_a_gpu_the_outermost_operators_are_counted() -> None:
    profile = average(
        [
            *STEPS,
            event("cpu_op", "aten::mm", 1100, 100),
            event("cpu_op", "aten::linear", 1100, 150),
            event("cpu_op", "aten::add", 1250, 50),
            event("cpu_op", "aten::mm", 1100, 100, thread=2),
        ],
        step_ms=0.1,
    )
    assert [share.name for share in profile.largest] == ["aten::linear", "aten::mm", "aten::add"]
    assert profile.busy_ms == 0.1


def test_a_trace_without_a_whole_step_is_refused() -> None:
    with pytest.raises(ValueError, match="no whole step"):
        average(STEPS[:1], step_ms=1.0)
