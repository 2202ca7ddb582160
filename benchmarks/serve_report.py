"""Converts the callers' results of a load test to figures, a table and a plot."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.load import Outcome, Setting, Share
from benchmarks.playback import play
from benchmarks.table import spread, table

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Figures:
    """The figures of one setting in one run. Latencies, in seconds, are of requests begun after the warm-up.

    They are None if all requests failed.
    """

    setting: Setting
    requests: int
    errors: dict[str, int]  # message → count
    first_audio: list[float | None]  # percentiles 50, 90, 99; without streaming, the time of the last byte
    all_audio: list[float | None]  # the same percentiles
    audio_rate: float  # seconds of audio received per second after the warm-up
    real_time_factor: float | None  # mean over the requests: time to all audio divided by its length
    stalled_share: float | None  # of the streams
    stalled_seconds: float | None  # mean of the streams that stalled
    client_lag: float | None  # percentile 99 of the delays of the callers' event loops; shorter times mean nothing
    gpu_memory: int | None = None  # maximum MiB in use on one GPU
    gpu_busy: float | None = None  # percent, mean
    cores: dict[str, float] | None = None  # CPU cores busy on average, by kind of process

    @property
    def flawless(self) -> bool:
        """Whether there were no stalls and no errors."""
        return self.requests > 0 and not self.errors and not self.stalled_share


@dataclass(frozen=True)
class Report:
    """All results for one server."""

    conditions: list[str]
    runs: list[list[Figures]]  # of the same settings, but the last runs may have fewer

    def write(self, path: Path) -> None:
        """Write the report as JSON, see `read`."""
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> "Report":
        """Read a report written by `write`."""
        return msgspec.json.decode(path.read_bytes(), type=cls)

    @property
    def failed(self) -> bool:
        """Whether any request failed."""
        return any(row.errors for run in self.runs for row in run)

    def by_setting(self) -> list[list[Figures]]:
        """The runs of each setting."""
        settings: dict[Setting, list[Figures]] = {}
        for row in (row for run in self.runs for row in run):
            settings.setdefault(row.setting, []).append(row)
        return list(settings.values())

    def text(self) -> str:
        """Format errors, conditions, and a table with means and ranges of the runs."""
        rows = self.by_setting()
        errors = [
            f"error: {row.setting.kind} {row.setting.size:g}: {count} × {message}"
            for row in (row for runs in rows for row in runs)
            for message, count in row.errors.items()
        ]
        listeners = [runs for runs in rows if runs[0].setting.kind == "real-time"]
        clean = [runs[0].setting.size for runs in listeners if all(row.flawless for row in runs)]
        most = [f"most real-time listeners without a stall or an error: {max(clean):g}"] if clean else []
        cells = [[show(runs) for _, show in COLUMNS] for runs in rows]
        return "\n".join([*errors, *self.conditions, table([name for name, _ in COLUMNS], cells), *most])


def _column(read: Callable[[Figures], float | None], form: str) -> Callable[[Sequence[Figures]], str]:
    return lambda runs: spread([read(row) for row in runs], form)


def _streamed(read: Callable[[Figures], float | None]) -> Callable[[Figures], float | None]:
    return lambda row: read(row) if row.setting.streaming else None


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value


Column = tuple[str, Callable[[Sequence[Figures]], str]]  # its header, and its cell for the runs of a setting
SETTING_COLUMNS: list[Column] = [
    ("load", lambda runs: runs[0].setting.kind),
    ("size", lambda runs: f"{runs[0].setting.size:g}"),
    ("mode", lambda runs: _mode(runs[0].setting.streaming)),
]
COLUMNS: list[Column] = [
    *SETTING_COLUMNS,
    ("requests", _column(lambda row: row.requests, ".0f")),
    ("errors", _column(lambda row: sum(row.errors.values()), ".0f")),
    ("first audio ms p50", _column(lambda row: _times(row.first_audio[0], 1000), ".0f")),
    ("p90", _column(lambda row: _times(row.first_audio[1], 1000), ".0f")),
    ("p99", _column(lambda row: _times(row.first_audio[2], 1000), ".0f")),
    ("all audio s p50", _column(lambda row: row.all_audio[0], ".2f")),
    ("p99", _column(lambda row: row.all_audio[2], ".2f")),
    ("a-s/s", _column(lambda row: row.audio_rate, ".1f")),
    ("RTF", _column(lambda row: row.real_time_factor, ".3f")),
    ("stalled %", _column(_streamed(lambda row: _times(row.stalled_share, 100)), ".1f")),
    ("stalled s", _column(_streamed(lambda row: row.stalled_seconds), ".2f")),
    ("lag ms", _column(lambda row: _times(row.client_lag, 1000), ".0f")),
    ("GPU MiB", _column(lambda row: row.gpu_memory, ".0f")),
    ("GPU %", _column(lambda row: row.gpu_busy, ".0f")),
    ("cores", _column(lambda row: sum(row.cores.values()) if row.cores else None, ".1f")),
]


def figures(setting: Setting, start: float, shares: Sequence[Share]) -> Figures:
    """Compute the figures of `setting`, which began at `start`, from the results of all processes."""
    window = start + setting.warm_up, start + setting.warm_up + setting.seconds
    outcomes = [outcome for share in shares for outcome in share.outcomes]
    counted = [outcome for outcome in outcomes if window[0] <= outcome.begun < window[1]]
    good = [outcome for outcome in counted if not outcome.error]
    received = [seconds for o in outcomes for arrival, seconds in o.pieces if window[0] <= arrival < window[1]]
    total = [outcome.pieces[-1][0] - outcome.begun for outcome in good]
    first = [outcome.pieces[0][0] - outcome.begun for outcome in good] if setting.streaming else total
    stalls = [play(outcome.pieces).stalled for outcome in good] if setting.streaming else []
    return Figures(
        setting,
        requests=len(counted),
        errors=dict(Counter(outcome.error for outcome in outcomes if outcome.error)),
        first_audio=_percentiles(first),
        all_audio=_percentiles(total),
        audio_rate=sum(received) / setting.seconds,
        real_time_factor=_mean([spent / _length(o) for spent, o in zip(total, good, strict=True)]),
        stalled_share=_mean([stall > 0 for stall in stalls]),
        stalled_seconds=_mean([stall for stall in stalls if stall > 0] or [0.0]),
        client_lag=_percentiles([lag for share in shares for lag in share.lags])[-1],
    )


def brief(row: Figures) -> str:
    """One line to show progress."""
    shown = {name: show([row]) for name, show in COLUMNS}
    cores = ", ".join(f"{kind} {busy:.1f}" for kind, busy in (row.cores or {}).items())
    return (
        f"{shown['load']} {shown['size']} {shown['mode']}: {shown['requests']} requests, {shown['errors']} errors,"
        f" first audio p50 {shown['first audio ms p50']} ms, {shown['a-s/s']} a-s/s, {shown['stalled %']} % stalled"
        + (f"; cores: {cores}" if cores else "")
    )


def plot(report: Report, path: Path) -> None:
    """Plot first audio, audio per second and stalls over the load: means of the runs, one line per kind of load.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    import matplotlib  # only a plot needs it

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    rows = report.by_setting()
    kinds = dict.fromkeys((runs[0].setting.kind, runs[0].setting.streaming) for runs in rows)
    for color, (kind, streaming) in enumerate(kinds):
        line = [runs for runs in rows if (runs[0].setting.kind, runs[0].setting.streaming) == (kind, streaming)]
        sizes, name = [runs[0].setting.size for runs in line], f"{kind}, {_mode(streaming)}"
        for percentile, style in ((0, "o-"), (2, "o:")):
            label = f"{name}, p{PERCENTILES[percentile]}"
            milliseconds = [_average([_times(row.first_audio[percentile], 1000) for row in runs]) for runs in line]
            axes[0].plot(sizes, milliseconds, style, color=f"C{color}", label=label)
        rates = [_average([row.audio_rate for row in runs]) for runs in line]
        axes[1].plot(sizes, rates, "o-", color=f"C{color}", label=name)
        if streaming:
            stalls = [_average([_times(row.stalled_share, 100) for row in runs]) for runs in line]
            axes[2].plot(sizes, stalls, "o-", color=f"C{color}", label=name)
    axes[0].set(title="time to first audio", ylabel="ms", yscale="log")
    axes[1].set(title="audio seconds a second")
    axes[2].set(title="streams that stalled", ylabel="%")
    for axis in axes:
        axis.set_xlabel("callers, or requests a second (open)")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _mode(streaming: bool) -> str:
    return "streaming" if streaming else "whole"


def _length(outcome: Outcome) -> float:
    return sum(seconds for _, seconds in outcome.pieces)


def _percentiles(values: Sequence[float]) -> list[float | None]:
    return [float(value) for value in np.percentile(values, PERCENTILES)] if values else [None] * len(PERCENTILES)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _average(values: Sequence[float | None]) -> float:
    """The mean for a plot, which omits NaN."""
    return float(np.mean([float("nan") if value is None else value for value in values]))
