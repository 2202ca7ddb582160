"""What operators see: /metrics as Prometheus reads it, the figures of speech, the dashboard."""

import json
import re
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.observe.delivery import BYTES_PER_SECOND, Account, Answers, Speeches, account
from server.observe.metrics import HELP, PREFIX, Histogram, render

DASHBOARD = Path(__file__).parents[1] / "deploy/grafana.json"


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("server.observe.delivery.time.monotonic", made)
    return made


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_reads_counters_gauges_and_histograms_of_every_process() -> None:
    histogram = Histogram("real_time_factor", (0.5, 1.0))
    for value in (0.5, 0.7, 3.0):
        histogram.observe(value)
    text = render({"http-1": {"retries_total": 2}, "http-0": {"requests": 1, **histogram.numbers()}})
    kinds = {family.name: family.type for family in text_string_to_metric_families(text)}
    assert kinds == {
        "cosyvoice_retries": "counter",  # the parser leaves _total out
        "cosyvoice_requests": "gauge",
        "cosyvoice_real_time_factor": "histogram",
    }
    found = samples(text)
    assert found["cosyvoice_retries_total", frozenset({("process", "http-1")})] == 2
    assert found["cosyvoice_requests", frozenset({("process", "http-0")})] == 1
    buckets = {
        dict(labels)["le"]: value
        for (name, labels), value in found.items()
        if name == "cosyvoice_real_time_factor_bucket"
    }
    assert buckets == {"0.5": 1, "1.0": 2, "+Inf": 3}, "each bucket counts what is at or below it"
    assert found["cosyvoice_real_time_factor_sum", frozenset({("process", "http-0")})] == pytest.approx(4.2)


def test_answers_are_counted_by_route_status_and_outcome() -> None:
    answers = Answers()
    answers.count("/v1/audio/speech", 200, "ok", retried=False)
    answers.count("/v1/audio/speech", 200, "ok", retried=True)
    answers.count("/v1/audio/speech", 429, "refused", retried=True)
    found = samples(render({"http-0": answers.numbers()}))
    where = ("process", "http-0"), ("route", "/v1/audio/speech")
    assert found["cosyvoice_answers_total", frozenset({*where, ("status", "200"), ("outcome", "ok")})] == 2
    assert found["cosyvoice_answers_total", frozenset({*where, ("status", "429"), ("outcome", "refused")})] == 1
    assert found["cosyvoice_retries_total", frozenset({("process", "http-0")})] == 2


async def test_a_listener_hears_silence_for_as_long_as_a_piece_is_late(clock: Clock) -> None:
    async def pieces() -> AsyncGenerator[bytes, None]:
        for wait, seconds in ((0.25, 1.0), (0.5, 0.5), (1.5, 1.0)):  # the last is half a second late
            clock.now += wait
            yield bytes(int(seconds * BYTES_PER_SECOND))

    speeches, entry = Speeches(), Account()
    token = account.set(entry)
    assert len([piece async for piece in speeches.measure(pieces())]) == 3
    account.reset(token)
    numbers = speeches.numbers()
    assert numbers["first_audio_seconds_sum"] == 0.25
    assert numbers["underrun_seconds_sum"] == pytest.approx(0.5)
    assert numbers["underrun_seconds_count"] == 1
    assert numbers["audio_seconds_total"] == 2.5
    assert numbers["speech_seconds_sum"] == pytest.approx(2.25)
    assert numbers["real_time_factor_sum"] == pytest.approx(2.25 / 2.5)
    assert (entry.first_audio_seconds, entry.audio_seconds) == (0.25, 2.5)


async def test_speech_that_is_broken_off_counts_as_heard_so_far_but_has_no_real_time_factor(clock: Clock) -> None:
    async def pieces() -> AsyncGenerator[bytes, None]:
        yield bytes(BYTES_PER_SECOND)
        raise RuntimeError

    speeches = Speeches()
    with pytest.raises(RuntimeError):
        async for _ in speeches.measure(pieces()):
            clock.now += 1
    numbers = speeches.numbers()
    assert (numbers["audio_seconds_total"], numbers["first_audio_seconds_count"]) == (1.0, 1)
    assert numbers["real_time_factor_count"] == 0


def test_the_dashboard_asks_for_numbers_that_there_are() -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(queries) > 15
    asked = {name for query in queries for name in re.findall(rf"{PREFIX}(\w+)", query)}
    known = set(HELP) | {name + part for name in HELP for part in ("_bucket", "_sum", "_count")}
    assert asked <= known
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
