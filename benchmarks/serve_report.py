"""Figures of a load on the server: from what the callers saw to a table and a plot."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.load import Outcome, Setting, Share
from benchmarks.playback import play

PERCENTILES = (50, 90, 99)
COLUMNS = (
    *("load", "size", "mode", "requests", "errors", "first audio ms p50", "p90", "p99", "all audio s p50", "p99"),
    *("a-s/s", "RTF", "stalled %", "stalled s", "lag ms", "GPU MiB", "GPU %"),
)


@dataclass(frozen=True)
class Figures:
    """Of one setting. Latencies are of the requests begun after the warm-up, in seconds; NaN if all of them failed."""

    setting: Setting
    requests: int
    errors: dict[str, int]  # message → how often
    first_audio: list[float]  # percentiles 50, 90, 99; of a request that is not streamed, when its last byte was there
    all_audio: list[float]  # the same three
    audio_rate: float  # seconds of audio that came in each second after the warm-up
    real_time_factor: float  # mean over the requests: time to all audio over its length
    stalled_share: float  # of the streams
    stalled_seconds: float  # mean of the streams that stalled
    client_lag: float  # percentile 99 of how late the callers' event loops were: below it no time says anything
    gpu_memory: int | None = None  # MiB in use at most
    gpu_busy: float | None = None  # percent, mean

    @property
    def flawless(self) -> bool:
        """No stall, no error."""
        return self.requests > 0 and not self.errors and self.stalled_share == 0


def figures(setting: Setting, start: float, shares: Sequence[Share]) -> Figures:
    """What `shares` saw of `setting`, which began at `start`."""
    window = start + setting.warm_up, start + setting.warm_up + setting.seconds
    outcomes = [outcome for share in shares for outcome in share.outcomes]
    counted = [outcome for outcome in outcomes if window[0] <= outcome.begun < window[1]]
    good = [outcome for outcome in counted if not outcome.error]
    came = [seconds for o in outcomes for there, seconds in o.pieces if window[0] <= there < window[1]]
    total = [outcome.pieces[-1][0] - outcome.begun for outcome in good]
    first = [outcome.pieces[0][0] - outcome.begun for outcome in good] if setting.streaming else total
    stalls = [play(outcome.pieces).stalled for outcome in good] if setting.streaming else []
    return Figures(
        setting,
        requests=len(counted),
        errors=dict(Counter(outcome.error for outcome in outcomes if outcome.error)),
        first_audio=_percentiles(first),
        all_audio=_percentiles(total),
        audio_rate=sum(came) / setting.seconds,
        real_time_factor=_mean([spent / _length(o) for spent, o in zip(total, good, strict=True)]),
        stalled_share=_mean([stall > 0 for stall in stalls]),
        stalled_seconds=_mean([stall for stall in stalls if stall > 0] or [0.0]),
        client_lag=_percentiles([lag for share in shares for lag in share.lags])[-1],
    )


def table(rows: Sequence[Figures]) -> str:
    """All settings, for Markdown and for the eye."""
    cells = [COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(COLUMNS))]
    lines = ["| " + " | ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    return "\n".join(lines)


def brief(row: Figures) -> str:
    """One line, to be watched."""
    p50, _, p99 = (1000 * seconds for seconds in row.first_audio)
    stalls = f" {100 * row.stalled_share:.1f} % stalled," if row.setting.streaming else ""
    return (
        f"{row.setting.kind} {row.setting.size:g} {_mode(row.setting.streaming)}: {row.requests} requests,"
        f" first audio p50 {p50:.0f} p99 {p99:.0f} ms, {row.audio_rate:.1f} a-s/s,{stalls}"
        f" {sum(row.errors.values())} errors"
    )


def plot(rows: Sequence[Figures], path: Path) -> None:
    """First audio, audio a second and stalls over the load, a line for each kind of it.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    import matplotlib  # only a plot needs it

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    kinds = dict.fromkeys((row.setting.kind, row.setting.streaming) for row in rows)
    for color, (kind, streaming) in enumerate(kinds):
        line = [row for row in rows if (row.setting.kind, row.setting.streaming) == (kind, streaming)]
        sizes, name = [row.setting.size for row in line], f"{kind}, {_mode(streaming)}"
        for percentile, style in ((0, "o-"), (2, "o:")):
            label = f"{name}, p{PERCENTILES[percentile]}"
            milliseconds = [1000 * row.first_audio[percentile] for row in line]
            axes[0].plot(sizes, milliseconds, style, color=f"C{color}", label=label)
        axes[1].plot(sizes, [row.audio_rate for row in line], "o-", color=f"C{color}", label=name)
        if streaming:
            axes[2].plot(sizes, [100 * row.stalled_share for row in line], "o-", color=f"C{color}", label=name)
    axes[0].set(title="time to first audio", ylabel="ms", yscale="log")
    axes[1].set(title="audio seconds a second")
    axes[2].set(title="streams that stalled", ylabel="%")
    for axis in axes:
        axis.set_xlabel("callers, or requests a second (open)")
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _cells(row: Figures) -> tuple[str, ...]:
    unknown, setting = "–", row.setting
    stalls = [f"{100 * row.stalled_share:.1f}", f"{row.stalled_seconds:.2f}"] if setting.streaming else [unknown] * 2
    return (
        *(setting.kind, f"{setting.size:g}", _mode(setting.streaming)),
        *(str(row.requests), str(sum(row.errors.values()))),
        *(f"{1000 * seconds:.0f}" for seconds in row.first_audio),
        *(f"{row.all_audio[index]:.2f}" for index in (0, 2)),
        *(f"{row.audio_rate:.1f}", f"{row.real_time_factor:.3f}", *stalls, f"{1000 * row.client_lag:.0f}"),
        unknown if row.gpu_memory is None else str(row.gpu_memory),
        unknown if row.gpu_busy is None else f"{row.gpu_busy:.0f}",
    )


def _mode(streaming: bool) -> str:
    return "streaming" if streaming else "whole"


def _length(outcome: Outcome) -> float:
    return sum(seconds for _, seconds in outcome.pieces)


def _percentiles(values: Sequence[float]) -> list[float]:
    return [float(value) for value in np.percentile(values or [float("nan")], PERCENTILES)]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
