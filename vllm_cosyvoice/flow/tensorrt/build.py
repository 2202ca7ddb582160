"""Builds a TensorRT plan from ONNX."""

import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from vllm_cosyvoice.flow.tensorrt.interface import LONGEST, TensorRTError
from vllm_cosyvoice.flow.tensorrt.library import trt

log = logging.getLogger(__name__)

REPORT_SECONDS = 10.0
SHORTEST = 2  # frames of one speech token


class Profile(NamedTuple):
    """Shapes that one set of kernels is tuned for: up to `rows` by `frames`, fastest at `usual`."""

    rows: int
    frames: int
    usual: tuple[int, int]


PROFILES = (
    Profile(rows=1, frames=LONGEST, usual=(1, 750)),  # one listener
    Profile(rows=8, frames=LONGEST, usual=(8, 750)),
    Profile(rows=32, frames=1000, usual=(32, 500)),  # 32 listeners do not have longer rows; more would waste memory
)


def build_plan(onnx: bytes, profiles: tuple[Profile, ...] = PROFILES) -> bytes:
    """Build a serialized engine from the bytes of an exported estimator, for the current device, and log the progress.

    Raises:
        TensorRTError: the parser or the builder rejects the network.
    """
    messages = Messages()
    builder = trt.Builder(messages)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, messages)
    if not parser.parse(onnx):
        reasons = [str(parser.get_error(index)) for index in range(parser.num_errors)]
        raise TensorRTError(f"TensorRT can't parse the estimator: {'; '.join(reasons)}")
    config = builder.create_builder_config()
    progress = Progress(lambda done, seconds: log.info("Building the TensorRT engine: %d %%, %d s.", done, seconds))
    config.progress_monitor = progress
    for profile in profiles:
        shapes = builder.create_optimization_profile()
        sizes = [(1, SHORTEST), profile.usual, (profile.rows, profile.frames)]
        for index in range(network.num_inputs):
            value = network.get_input(index)
            shapes.set_shape(value.name, *(_shape(value, *size) for size in sizes))
        config.add_optimization_profile(shapes)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise TensorRTError(f"TensorRT can't build the estimator: {messages.last_error}")
    return bytes(plan)


def _shape(value: "trt.ITensor", rows: int, frames: int) -> list[int]:
    """The shape of an input whose dimensions are named rows and frames, or fixed."""
    named = {"rows": rows, "frames": frames}
    return [named.get(value.get_dimension_name(axis), size) for axis, size in enumerate(value.shape)]


class Messages(trt.ILogger):  # type: ignore[misc]
    """Forwards TensorRT's messages to our log. Warnings are logged at debug level, as many of them are meaningless."""

    def __init__(self) -> None:
        super().__init__()
        self.last_error = "no reason given"

    def log(self, severity: object, message: str) -> None:
        """Called by TensorRT."""
        if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
            self.last_error = message
            log.error("TensorRT: %s", message)
        elif severity == trt.ILogger.Severity.WARNING:
            log.debug("TensorRT: %s", message)


class Progress(trt.IProgressMonitor):  # type: ignore[misc]
    """Tracks the progress of a build. Phases have steps; a nested phase is one step of its parent.

    Calls `report(percent, seconds)` on progress, at most every ten seconds.
    """

    def __init__(self, report: Callable[[int, float], None]) -> None:
        super().__init__()
        self._report = report
        self._lock = threading.Lock()  # TensorRT calls from its own threads
        self._phases: dict[str, _Phase] = {}
        self._percent = 0
        self._begun = self._reported = time.monotonic()

    def phase_start(self, name: str, parent: str | None, steps: int) -> None:
        """Called by TensorRT."""
        with self._lock:
            self._phases[name] = _Phase(parent, steps)

    def step_complete(self, name: str, step: int) -> bool:
        """Called by TensorRT, which continues if the result is true."""
        with self._lock:
            self._phases[name] = self._phases[name]._replace(done=step + 1)
            percent, now = max(self._percent, int(100 * self._done(name))), time.monotonic()
            if percent > self._percent and now - self._reported >= REPORT_SECONDS:
                self._percent, self._reported = percent, now
                self._report(percent, now - self._begun)
        return True

    def phase_finish(self, name: str) -> None:
        """Called by TensorRT."""
        with self._lock:
            del self._phases[name]

    def _done(self, name: str) -> float:
        """The share of the whole build that is done, given the progress of `name`."""
        phase = self._phases[name]
        share = phase.done / phase.steps
        while (outer := self._phases.get(phase.parent or "")) is not None:
            share = min(1.0, (outer.done + share) / outer.steps)
            phase = outer
        return share


class _Phase(NamedTuple):
    parent: str | None
    steps: int
    done: int = 0
