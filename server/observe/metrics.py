"""The text of /metrics: the numbers of every process, in Prometheus' format.

The numbers of a process are a flat mapping. A name that ends in `_total` is a counter; `_bucket`, `_sum` and `_count`
belong to a histogram; all others are gauges. Labels follow in braces, as in Prometheus' text format.
"""

from collections.abc import Mapping, Sequence

PREFIX = "cosyvoice_"

Numbers = Mapping[str, float]

HELP = {
    "answers_total": "Answers by route, status and outcome: ok, invalid, refused (busy or not ready), failed, left.",
    "audio_seconds_total": "Seconds of audio sent to clients.",
    "encoders": "Answers whose audio is being encoded, for example as mp3.",
    "first_audio_seconds": "Time from a request to its first piece of audio.",
    "flow_cache_bytes": "Memory of what the flow remembers of voices and streams.",
    "gpu_memory_allocated_bytes": "GPU memory that the decoder's tensors use.",
    "gpu_memory_total_bytes": "Total memory of the GPU.",
    "gpu_memory_used_bytes": "GPU memory that all processes use.",
    "real_time_factor": "Seconds that a speech took per second of audio.",
    "requests": "Requests that an HTTP worker has in the stages.",
    "requests_prepared_total": "Requests whose text and voice were prepared.",
    "requests_preparing": "Requests whose text and voice are being prepared or are waiting for it.",
    "requests_total": "Requests that were sent to the stages.",
    "requests_unfinished_total": "Requests that ended before their last audio.",
    "retries_total": "Requests that an OpenAI client repeated.",
    "samples_total": "Samples decoded, 24000 a second.",
    "segments": "Segments of text that a process holds.",
    "segments_failed_total": "Segments that could not be decoded.",
    "segments_from_text": "Segments whose text is still arriving.",
    "segments_refused_total": "Segments refused because the queue was full.",
    "segments_running": "Segments that the language model generates; the others wait.",
    "segments_without_voice": "Segments that wait for their voice from the encoder.",
    "speech_seconds": "Time from a request to its last piece of audio.",
    "speech_tokens_total": "Speech tokens generated, 25 per second of audio.",
    "streams": "Segments that are being decoded.",
    "text_tokens_total": "Text tokens of accepted segments; text that arrives in pieces is not counted.",
    "underrun_seconds": "Silence in the playback of a client that starts with the first piece.",
    "voice_cache_hits_total": "Voices that were in the cache.",
    "voice_cache_misses_total": "Voices that had to be computed, or fetched by the decoder.",
    "voices_cached": "Voices in the decoder's cache.",
    "voices_held": "Voices that requests hold in the encoder.",
}
PARTS_OF_A_HISTOGRAM = ("_bucket", "_sum", "_count")


def labelled(name: str, **labels: object) -> str:
    """Return the name of a series with `labels`. Labels are our own words, so nothing needs escaping."""
    return name + "{" + ",".join(f'{label}="{value}"' for label, value in labels.items()) + "}"


class Histogram:
    """Counts the values at or below each of `bounds`, which are in ascending order."""

    def __init__(self, name: str, bounds: Sequence[float]) -> None:
        self._name = name
        self._counts = dict.fromkeys(bounds, 0)
        self._sum = 0.0
        self._count = 0

    def observe(self, value: float) -> None:
        """Count `value`."""
        self._sum += value
        self._count += 1
        for bound in self._counts:
            self._counts[bound] += value <= bound

    def numbers(self) -> dict[str, float]:
        """Return the series of the histogram."""
        buckets = {labelled(f"{self._name}_bucket", le=bound): count for bound, count in self._counts.items()}
        buckets[labelled(f"{self._name}_bucket", le="+Inf")] = self._count
        return buckets | {f"{self._name}_sum": self._sum, f"{self._name}_count": self._count}


def render(numbers: Mapping[str, Numbers]) -> str:
    """Return `numbers` (process → name → value) in Prometheus' text format."""
    families: dict[str, list[str]] = {}
    for process, values in sorted(numbers.items()):
        for series, value in values.items():
            name, _, labels = series.removesuffix("}").partition("{")
            labels = f'process="{process}"' + (f",{labels}" if labels else "")
            families.setdefault(_family(name), []).append(f"{PREFIX}{name}{{{labels}}} {value}")
    lines = []
    for family, samples in sorted(families.items()):
        if family in HELP:
            lines.append(f"# HELP {PREFIX}{family} {HELP[family]}")
        lines += [f"# TYPE {PREFIX}{family} {_kind(family, samples)}", *samples]
    return "".join(f"{line}\n" for line in lines)


def _family(name: str) -> str:
    part = next((part for part in PARTS_OF_A_HISTOGRAM if name.endswith(part)), "")
    return name.removesuffix(part)


def _kind(family: str, samples: Sequence[str]) -> str:
    if family.endswith("_total"):
        return "counter"
    return "histogram" if any(sample.startswith(f"{PREFIX}{family}_") for sample in samples) else "gauge"
