"""The benchmarks: that they run on any machine, and that what they say of attainable speed is arithmetic."""

import re
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import cold_voice, compare, decode, flow_solve, measurement, parts, vocoder
from benchmarks.cpu_watch import CpuWatch
from benchmarks.load import Setting
from benchmarks.measurement import Measurement
from benchmarks.roofline import CHIPS, COSYVOICE3, Roofline
from benchmarks.serve_report import Figures, Report, figures
from benchmarks.table import spread
from tests.server_process import ServerProcess
from tools.random_checkpoint import TINY3
from tools.random_checkpoint.weights import flow_weights
from vllm_cosyvoice.checkpoint import ModelDirectory, open_model
from vllm_cosyvoice.config import DEMO_MODEL
from vllm_cosyvoice.flow import DiTFlow, Flow
from vllm_cosyvoice.vocoder import Vocoder

NOWHERE = Roofline(None)
ROOT = Path(__file__).parents[1]


def cases(found: Iterable[Measurement]) -> dict[str, Measurement]:
    return {measurement.case: measurement for measurement in found}


@pytest.fixture(autouse=True)
def few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long they take is not tested."""
    monkeypatch.setattr(measurement, "FEWEST", 1)
    monkeypatch.setattr(measurement, "SECONDS", 0.0)


def test_flow_and_vocoder_are_measured_over_batch_and_length(tiny_model: Path) -> None:
    model = open_model(tiny_model)
    flow = Flow.from_state(model.config.flow, model.flow_state())
    solves = cases(flow_solve.solves(model, flow, flow, [1, 2], [25]))
    assert list(solves) == [f"{count} × 25 tokens, {how}" for count in (1, 2) for how in ("whole", "streaming")]
    assert [solve.audio for solve in solves.values()] == [1.0, 1.0, 2.0, 2.0]
    exact = Vocoder.from_state(model.config.vocoder, model.vocoder_state())
    calls = cases(vocoder.calls(exact, exact, NOWHERE, [2], [25]))
    assert calls["2 × 50 frames"].audio == 2.0


def test_the_decode_stage_is_measured_whole_and_to_its_first_audio(tiny_model: Path) -> None:
    decodes = cases(decode.decodes(decode.TimedDecoder(open_model(tiny_model)), NOWHERE, [1], [25]))
    whole, hop, streamed = decodes
    assert (whole, hop) == ("1 × 25 tokens, whole", "1 × 25 tokens, hop 10"), "other hops are no shorter than all"
    assert streamed.startswith("1 × 25 tokens, in ")
    assert decodes[streamed].audio == 1.0
    assert decodes["1 × 25 tokens, whole"].audio == 1.0
    assert decodes["1 × 25 tokens, hop 10"].audio == pytest.approx(0.4 - 0.32), "16 frames are held back"


def test_a_voice_is_measured_cold_and_cached(tiny_model: Path) -> None:
    costs = cases(cold_voice.costs(tiny_model))
    assert {"cold", "cached"} < costs.keys()
    assert "speech_tokenizer_v2.onnx" in costs["cold"].notes, "its size tells whether the cost is a real model's"


def test_cosyvoice3s_flow_is_measured_too(tmp_path: Path) -> None:
    model = ModelDirectory(tmp_path, TINY3)
    flow = DiTFlow.from_state(TINY3.flow, flow_weights(TINY3.flow, seed=0))
    solves = cases(flow_solve.solves(model, flow, flow, [1], [25]))
    assert list(solves) == ["1 × 25 tokens, whole", "1 × 25 tokens, streaming"]


def test_what_an_h200_could_attain() -> None:
    roofline = Roofline(CHIPS["NVIDIA H200"])
    assert roofline.flow([750], chunk_mask=False) == pytest.approx(4.15, rel=0.01)
    assert roofline.flow([500, 500], chunk_mask=False) == pytest.approx(2 * 2.40, rel=0.01)
    cosyvoice3 = Roofline(CHIPS["NVIDIA H200"], COSYVOICE3)
    assert cosyvoice3.flow([750], chunk_mask=False) == pytest.approx(8.45, rel=0.01)
    assert cosyvoice3.decode([750], 500, chunk_mask=False) == pytest.approx(8.45 + 0.39, rel=0.01)
    assert roofline.language_model(1, 400) == pytest.approx(0.153, rel=0.01)
    assert roofline.language_model(64, 400) == pytest.approx(0.217, rel=0.01)
    both = roofline.decode([750], 500, chunk_mask=False)
    assert both is not None
    assert both == pytest.approx((roofline.flow([750], chunk_mask=False) or 0) + (roofline.vocoder(500) or 0))
    assert (roofline.flow([750], chunk_mask=True) or 0) < (roofline.flow([750], chunk_mask=False) or 0)


def test_runs_of_one_case_are_one_line_with_their_range(tmp_path: Path) -> None:
    found = [Measurement("flow", "1 × 250 tokens", ms, audio=10.0, attainable_ms=4.0) for ms in (20.0, 25.0)]
    measurement.write(tmp_path / "flow.json", found)
    (line,) = measurement.show(measurement.read(tmp_path / "flow.json")).splitlines()[2:]
    assert "22.50 (20.00–25.00)" in line
    assert "450 (400–500)" in line
    assert "18.0 (16.0–20.0)" in line


@pytest.mark.parametrize(
    ("values", "shown"),
    [([2.0], "2.0"), ([2.0, 2.01], "2.0"), ([1.0, 2.0], "1.5 (1.0–2.0)"), ([1.0, None], "–"), ([], "–")],
)
def test_a_spread_is_shown_where_there_is_one(values: list[float | None], shown: str) -> None:
    assert spread(values, ".1f") == shown


def test_a_part_that_takes_too_long_is_broken_off(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By SIGKILL where these tests run in the background, whose children ignore Ctrl-C."""
    monkeypatch.setattr(parts, "SECONDS_TO_END", 2.0)
    endless = ("--model_dir", tiny_model, "--batch", "64", "--tokens", "2000")
    assert not parts.run("flow_solve", *endless, seconds=1.0, log=tmp_path / "log")
    assert "| flow |" not in (tmp_path / "log").read_text()


def test_the_server_is_measured_twice(server: ServerProcess, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    load = ("--concurrency", "2", "--modes", "streaming", "--tokens", "25", "--warm_up", "0.5", "--seconds", "2")
    flags = ("--base_url", server.url, *load, "--runs", "2", "--clients", "1", "--json", report)
    assert parts.run("serve", *flags, seconds=120, log=tmp_path / "log"), (tmp_path / "log").read_text()
    runs = Report.read(report).runs
    assert [len(run) for run in runs] == [1, 1]
    assert all(row.requests > 0 and not row.errors for run in runs for row in run)


def test_no_setting_is_begun_that_there_is_no_time_for(server: ServerProcess, tmp_path: Path) -> None:
    flags = ("--base_url", server.url, "--concurrency", "1", "--clients", "1", "--stop_after", "20")
    assert parts.run("serve", *flags, seconds=120, log=tmp_path / "log")
    log = (tmp_path / "log").read_text()
    assert "closed 1: not tried, there is no time left" in log
    assert "requests, 0 errors" not in log


def test_two_checkouts_are_compared(tmp_path: Path) -> None:
    """The other one says in its decode process which one it is."""
    old = tmp_path / "old"
    for package in ("server", "vllm_cosyvoice"):
        shutil.copytree(ROOT / package, old / package, ignore=shutil.ignore_patterns("__pycache__", "demo_model"))
    (old / "vllm_cosyvoice" / "demo_model").symlink_to(DEMO_MODEL)
    for module in ("server/processes/decode.py", "vllm_cosyvoice/decode/loop.py"):
        with (old / module).open("a") as file:
            file.write(f"\n\nprint('the old {module}', flush=True)\n")
    load = ("--concurrency", "1", "--modes", "streaming", "--tokens", "25", "--warm_up", "0", "--seconds", "2")
    assert parts.run("compare", old, *load, "--clients", "1", seconds=240, log=tmp_path / "log")
    runs, tables = (tmp_path / "log").read_text().split("\nold: ")
    by_old, by_new = runs.split("\nrun 1, new: ")
    assert "the old server/processes/decode.py" in by_old
    assert "the old vllm_cosyvoice/decode/loop.py" in by_old
    assert "the old " not in by_new
    assert re.fullmatch(r"\| closed \|    1 \| streaming \|( +\d+\.\d\d \|){3}", tables.splitlines()[-1])


def test_what_is_no_checkout_is_not_compared(tmp_path: Path) -> None:
    assert not parts.run("compare", tmp_path, "--concurrency", "1", seconds=60, log=tmp_path / "log")
    reason = (
        f"{tmp_path} is not a checkout of this project: it has no server/__main__.py and no vllm_cosyvoice/__init__.py"
    )
    assert reason in (tmp_path / "log").read_text()


def test_each_of_two_checkouts_is_the_first_in_turn() -> None:
    assert list(compare.turns(2)) == [(1, "old"), (1, "new"), (2, "new"), (2, "old")]


def test_ratios_are_of_the_same_run_and_setting() -> None:
    def report(*runs: tuple[float, ...]) -> Report:
        return Report([], [[row(size, rate) for size, rate in enumerate(rates, 1)] for rates in runs])

    def row(size: float, rate: float) -> Figures:
        setting = Setting("closed", size, True, 250, 0.0, 1.0)
        return replace(figures(setting, 0.0, []), audio_rate=rate, first_audio=[1 / rate, None, None])

    compared = compare.ratios(report((10.0, 20.0), (20.0,), (1.0,)), report((20.0, 30.0), (30.0, 40.0)))
    assert [[cell.strip() for cell in line.split("|")[2:-1]] for line in compared.splitlines()[2:]] == [
        ["1", "streaming", "0.58 (0.50–0.67)", "–", "1.75 (1.50–2.00)"],
        ["2", "streaming", "0.67", "–", "1.50"],
    ]


def test_cores_are_told_by_kind_of_process(server: ServerProcess) -> None:
    busy = CpuWatch(server.process.pid).take()
    assert busy.keys() == {"http", "encode", "generate", "decode"}
    assert CpuWatch(None).take() == {}


def test_timing_counts_what_the_host_waits_for() -> None:
    x = torch.ones(8)
    device, host = measurement.milliseconds(lambda: x + x)
    assert 0 < device == host
