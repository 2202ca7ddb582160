"""Which sizes are captured when; what they compute is tested where it is computed."""

import logging
from unittest.mock import Mock

import pytest
import torch

from vllm_cosyvoice.gpu.cuda_graphs import CudaGraphs

SIZES = (64, 16, 32, 128)


class RecordedGraphs(CudaGraphs):
    """Captures nothing, but says what it would have."""

    def __init__(self) -> None:
        super().__init__("flow", Mock(), Mock(), SIZES, "cpu")
        self.captured: list[int] = []

    def _capture(self, size: int) -> None:
        self.captured.append(size)
        self._graphs[size] = Mock(torch.cuda.CUDAGraph)


def test_the_largest_is_captured_first_and_the_log_counts(caplog: pytest.LogCaptureFixture) -> None:
    graphs = RecordedGraphs()
    with caplog.at_level(logging.INFO, "vllm_cosyvoice"):
        graphs.capture({32, 128})
    assert graphs.captured == [128, 32]
    assert caplog.messages[-1] == "Captured the flow for 32 frames, 2 of 2 sizes."


def test_the_others_follow_one_by_one() -> None:
    graphs = RecordedGraphs()
    graphs.capture({32, 128})
    assert [graphs.capture_next() for _ in range(3)] == [True, False, False]
    assert graphs.captured == [128, 32, 16, 64]


def test_the_size_that_calls_want_most_comes_first() -> None:
    graphs = RecordedGraphs()
    graphs.capture({128})
    for amount in (10, 60, 60, 60):
        graphs.size_for(amount)
    assert graphs.padding == 3 * (128 - 64)
    graphs.capture_next()
    assert graphs.captured == [128, 64]
    assert graphs.padding == 128 - 16
    graphs.size_for(64)
    assert graphs.padding == 128 - 16, "no other size would have saved anything"


def test_a_call_takes_the_smallest_captured_size_that_holds_it() -> None:
    graphs = RecordedGraphs()
    assert graphs.size_for(10) == 16
    graphs.capture({32, 128})
    assert [graphs.size_for(amount) for amount in (10, 32, 33)] == [32, 32, 128]
    graphs.capture_next()
    assert graphs.size_for(33) == 64
    with pytest.raises(ValueError, match="129 is more than the largest captured size, 128"):
        graphs.size_for(129)


def test_what_is_not_captured_is_computed() -> None:
    compute = Mock()
    graphs = CudaGraphs("flow", Mock(), compute, SIZES, "cpu")
    graphs.run(16)
    compute.assert_called_once_with(16)


def test_what_is_captured_is_replayed() -> None:
    graphs = RecordedGraphs()
    graphs.capture({16})
    graphs.run(16)
    graphs._graphs[16].replay.assert_called_once_with()  # type: ignore[attr-defined]
    graphs._compute.assert_not_called()  # type: ignore[attr-defined]
