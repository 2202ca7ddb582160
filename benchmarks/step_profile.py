"""Breaks down the time of a step of the language model, from a trace of vLLM's torch profiler.

The trace is in Chrome's format: events with a category, a name, a start and a duration in microseconds.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm.config import ProfilerConfig

from benchmarks.table import table

STEP = "execute_"  # prefix of vLLM's annotation of a step
ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")
IN_DRIVER = ("cuda_runtime", "cuda_driver")
PARTS = ("largest", "copies", "syncs", "launches", "scopes")
LARGEST = 10
LONGEST_NAME = 90  # characters; kernels from templates have names of up to a thousand


@dataclass(frozen=True)
class Share:
    """The share of one kind of event in a step."""

    name: str
    count: float  # per step
    ms: float  # per step; the times of concurrent events are added up


@dataclass(frozen=True)
class StepProfile:
    """An average step. Without a GPU, operators replace its kernels."""

    steps: int
    step_ms: float  # without profiling
    wall_ms: float  # with the overhead of the profiler on the host
    busy_ms: float  # at least one kernel or copy runs
    gap_ms: float  # the rest of `step_ms`
    kernels: float
    largest: list[Share]  # kernels with the longest times
    copies: list[Share]  # by direction, on the GPU
    syncs: list[Share]  # calls in which the host waits for the GPU
    launches: list[Share]  # calls that start work on the GPU
    scopes: list[Share]  # vLLM's own scopes of work on the host, some of them nested


def config(directory: Path) -> ProfilerConfig:
    """vLLM's configuration for a trace in `directory`, of the process that runs the model."""
    return ProfilerConfig(
        profiler="torch",
        torch_profiler_dir=str(directory),
        torch_profiler_with_stack=False,
        torch_profiler_use_gzip=False,
        torch_profiler_dump_cuda_time_total=False,
        ignore_frontend=True,
    )


def take(directory: Path, step_ms: float) -> StepProfile:
    """Average all complete steps in the only trace in `directory`, and delete it. Raises ValueError, see `average`."""
    [trace] = directory.glob("*.json")
    events = json.loads(trace.read_text())["traceEvents"]
    trace.unlink()
    return average(events, step_ms)


def average(events: Iterable[dict[str, Any]], step_ms: float) -> StepProfile:
    """Average all complete steps in a trace with these events. Raises ValueError if there is none.

    step_ms: time of a step without profiling. In the trace, the times between steps are longer because of the
    profiler's overhead on the host, but kernels take the usual time.
    """
    complete = [event for event in events if event.get("ph") == "X"]
    annotations = [event for event in complete if event["cat"] == "user_annotation"]
    starts = sorted(event["ts"] for event in annotations if event["name"].startswith(STEP))
    if len(starts) < 2:
        raise ValueError("the trace contains no whole step: profile more of them")
    steps = len(starts) - 1
    inside = [event for event in complete if starts[0] <= event["ts"] < starts[-1]]

    def shares(selected: Iterable[dict[str, Any]]) -> list[Share]:
        times: dict[str, list[float]] = defaultdict(list)
        for event in selected:
            times[event["name"]].append(event["dur"])
        shares = [Share(name, len(all_of) / steps, sum(all_of) / steps / 1000) for name, all_of in times.items()]
        return sorted(shares, key=lambda share: share.ms, reverse=True)

    calls = [event for event in inside if event["cat"] in IN_DRIVER]
    work = [event for event in inside if event["cat"] in ON_GPU] or _outermost(inside)
    kernels = [event for event in work if event["cat"] not in ON_GPU[1:]]
    busy_ms = _merged((event["ts"], event["ts"] + event["dur"]) for event in work) / steps / 1000
    return StepProfile(
        steps=steps,
        step_ms=step_ms,
        wall_ms=(starts[-1] - starts[0]) / steps / 1000,
        busy_ms=busy_ms,
        gap_ms=max(0.0, step_ms - busy_ms),
        kernels=len(kernels) / steps,
        largest=shares(kernels)[:LARGEST],
        copies=shares(event for event in work if event["cat"] in ON_GPU[1:]),
        syncs=shares(event for event in calls if "Synchronize" in event["name"]),
        launches=shares(event for event in calls if "Launch" in event["name"] or "Memcpy" in event["name"]),
        scopes=shares(
            event for event in inside if event["cat"] == "user_annotation" and not event["name"].startswith(STEP)
        ),
    )


def show(profile: StepProfile) -> str:
    """Format `profile` as text."""
    rows = [
        [part, f"{share.ms:.3f}", f"{share.count:.1f}", share.name[:LONGEST_NAME]]
        for part in PARTS
        for share in getattr(profile, part)[:LARGEST]
    ]
    return (
        f"{profile.step_ms:.3f} ms a step ({profile.wall_ms:.3f} when profiled, {profile.steps} steps); the device is "
        f"busy for {profile.busy_ms:.3f} ms with {profile.kernels:.0f} kernels and waits for {profile.gap_ms:.3f} ms\n"
        + table(("part", "ms a step", "times a step", "name"), rows)
    )


def _outermost(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The operators that were not called by another operator of their thread."""
    kept, ends = [], defaultdict[Any, float](float)
    for event in sorted(events, key=lambda event: (event["ts"], -event["dur"])):
        if event["cat"] == "cpu_op" and event["ts"] >= ends[event["tid"]]:
            ends[event["tid"]] = event["ts"] + event["dur"]
            kept.append(event)
    return kept


def _merged(spans: Iterable[tuple[float, float]]) -> float:
    """The total time that is covered by at least one of the spans."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total
