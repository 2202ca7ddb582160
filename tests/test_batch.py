"""The offline batch job: real engine, tiny random model."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.server_process import SLOW, wait_until
from vllm_cosyvoice import Synthesizer
from vllm_cosyvoice.__main__ import main
from vllm_cosyvoice.audio_file import AudioFileFormat
from vllm_cosyvoice.batch.line import parse_lines
from vllm_cosyvoice.batch.run import run_batch
from vllm_cosyvoice.config import SAMPLES_PER_TOKEN
from vllm_cosyvoice.sampling import SamplingOptions
from vllm_cosyvoice.text.front_end import SILENCE

Run = Callable[..., int]


def write(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def short(text: str, tokens: int = 10, **fields: Any) -> dict[str, Any]:
    return {"text": text, "seed": 0, "min_tokens": tokens, "max_tokens": tokens, **fields}


def manifest(directory: Path) -> dict[str, dict[str, Any]]:
    return {entry["id"]: entry for entry in map(json.loads, (directory / "manifest.jsonl").read_text().splitlines())}


def samples(path: Path) -> np.ndarray:
    with av.open(path) as container:
        return np.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)])


@pytest.fixture
def run(synthesizer: Synthesizer, tmp_path: Path) -> Run:
    def run(source: Path, file_format: AudioFileFormat = "wav", voice: str = "default") -> int:
        return run_batch(
            source,
            tmp_path / "out",
            voice=voice,
            file_format=file_format,
            model="tiny",
            open_synthesizer=lambda: nullcontext(synthesizer),
        )

    return run


def no_engine() -> AbstractContextManager[Synthesizer]:
    raise AssertionError("there is nothing to speak, so the engine should not be started")


@pytest.mark.parametrize("file_format", ["wav", "flac"])
def test_each_line_becomes_a_file_with_its_audio(
    run: Run, synthesizer: Synthesizer, tmp_path: Path, file_format: AudioFileFormat
) -> None:
    source = write(
        tmp_path / "lines.jsonl",
        short("Hello world."),
        short("Hello world.", 20, id="second"),
        short("Hello world.", 20, id="fast", speed=2.0),
        short("Hello world.", id="preset", voice="English male"),
        short("Hello world.", id="happy", instructions="Speak happily."),
    )
    assert run(source, file_format) == 0
    plain = synthesizer.speak("Hello world.", sampling=SamplingOptions(seed=0, min_tokens=10, max_tokens=10))
    spoken = {
        line_id: samples(tmp_path / "out" / entry["file"]) for line_id, entry in manifest(tmp_path / "out").items()
    }
    assert list(spoken) == ["000001", "second", "fast", "preset", "happy"]
    assert [len(audio) // SAMPLES_PER_TOKEN for audio in spoken.values()] == [10, 20, 10, 10, 10]
    np.testing.assert_allclose(spoken["000001"], plain, atol=40)  # float arithmetic depends on what is batched
    assert all(np.abs(spoken["000001"] - spoken[other]).max() > 400 for other in ("preset", "happy"))


def test_the_manifest_tells_what_was_asked_for_and_what_came_of_it(run: Run, tmp_path: Path) -> None:
    assert run(write(tmp_path / "lines.jsonl", short("Hello.", id="a", speed=2.0)), "flac", voice="English male") == 0
    assert manifest(tmp_path / "out")["a"] == {
        **short("Hello.", id="a", speed=2.0),
        "voice": "English male",
        "model": "tiny",
        "file": "a.flac",
        "seconds": 0.2,
    }


def test_what_is_done_is_not_done_again(run: Run, tmp_path: Path) -> None:
    lines = [short(f"Line {number}.", id=str(number)) for number in range(5)]
    source, out = write(tmp_path / "lines.jsonl", *lines), tmp_path / "out"
    assert run(source) == 0
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.wav")}
    lines[1]["text"] = "Another line."
    (out / "2.wav").unlink()
    entries = (out / "manifest.jsonl").read_text().splitlines(keepends=True)
    (out / "manifest.jsonl").write_text("".join(entries[:-1]) + entries[-1][:20])  # killed while it was written
    assert run(write(source, *lines)) == 0
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.wav")}
    assert [name for name in sorted(after) if after[name] != before[name]] == ["1.wav", "2.wav", "4.wav"]
    assert list(manifest(out)) == ["0", "1", "2", "3", "4"]
    assert manifest(out)["1"]["text"] == "Another line."
    assert run_batch(source, out, voice="default", file_format="wav", model="tiny", open_synthesizer=no_engine) == 0


def test_another_model_or_format_is_spoken_anew(run: Run, tmp_path: Path) -> None:
    source, out = write(tmp_path / "lines.jsonl", short("Hello.", id="a")), tmp_path / "out"
    assert run(source, "wav") == 0
    with pytest.raises(AssertionError):
        run_batch(source, out, voice="default", file_format="wav", model="other", open_synthesizer=no_engine)
    assert run(source, "flac") == 0
    assert manifest(out)["a"]["file"] == "a.flac"
    assert (out / "a.flac").is_file()


def test_bad_lines_are_named_and_the_rest_is_spoken(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(
        tmp_path / "lines.jsonl",
        short("First."),
        {"txt": "Second."},
        short("Third.", voice="nobody"),
        short(" "),
        short("Fifth."),
        short("?!…"),
    )
    assert run(source) == 3
    assert list(manifest(tmp_path / "out")) == ["000001", "000005", "000006"]
    assert manifest(tmp_path / "out")["000006"]["seconds"] == SILENCE
    errors = capsys.readouterr().err
    assert f"{source}:2: Object contains unknown field `txt`" in errors
    assert f"{source}:3: There is no voice 'nobody'" in errors
    assert f"{source}:4: There is nothing to speak" in errors


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("nonsense", "malformed"),
        ("[]", "Expected `object`"),
        ("{}", "missing required field `text`"),
        ('{"text": 1}', "Expected `str`, got `int` - at `$.text`"),
        ('{"text": "a", "sped": 1}', "unknown field `sped`; a line is an object with text and"),
        ('{"text": "a", "speed": 5}', "speed must be between 0.25 and 4, not 5.0"),
        ('{"text": "a", "top_p": 0}', "top_p must be above 0"),
        ('{"text": "a", "id": "../a"}', "can't name a file"),
        ('{"text": "a", "id": ".a"}', "can't name a file"),
        (f'{{"text": "a", "id": "{"a" * 61}"}}', "can't name a file"),
        ('{"text": "a", "id": "first"}', "is already used in line 1"),
    ],
)
def test_a_bad_line_is_told_what_is_wrong_with_it(line: str, reason: str) -> None:
    lines, errors = parse_lines(f'{{"text": "a", "id": "first"}}\n\n{line}\n'.encode(), "default")
    assert list(lines) == [1]
    assert list(errors) == [3]
    assert reason in errors[3]


def test_a_line_that_is_not_utf_8_is_told_so() -> None:
    _, errors = parse_lines('{"text": "schön"}'.encode("latin-1"), "default")
    assert "not UTF-8: save the file" in errors[1]


def test_many_lines_are_in_flight_at_once(
    run: Run, synthesizer: Synthesizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, speak = threading.Barrier(40), synthesizer.speak

    def speak_together(*arguments: Any, **options: Any) -> np.ndarray:
        together.wait(60)  # fails unless 40 callers come
        return speak(*arguments, **options)

    monkeypatch.setattr(synthesizer, "speak", speak_together)
    assert run(write(tmp_path / "lines.jsonl", *(short(f"Line {number}.", 3) for number in range(40)))) == 0
    assert len(manifest(tmp_path / "out")) == 40


def test_a_terminal_shows_a_bar(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    assert run(write(tmp_path / "lines.jsonl", short("One."), short("Two."))) == 0
    assert "2/2" in terminal.getvalue()
    assert "s of audio a second" in terminal.getvalue()


def test_the_command_needs_a_file_of_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["vllm_cosyvoice", "batch", str(tmp_path / "none.jsonl"), str(tmp_path / "out")])
    assert main() == 1
    assert "none.jsonl" in capsys.readouterr().err


def begun(model: Path, source: Path, out: Path) -> "subprocess.Popen[str]":
    """The command, which has spoken its first line. It hears Ctrl-C also where these tests run in the background."""
    command = ["env", "--default-signal=SIGINT", sys.executable, "-m", "vllm_cosyvoice", "batch", str(source), str(out)]
    command += ["--model_dir", str(model)]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    written = out / "manifest.jsonl"
    wait_until(lambda: running.poll() is not None or (written.exists() and written.read_text()), "a line is spoken")
    assert running.poll() is None
    return running


def test_ctrl_c_ends_the_command_and_the_same_command_goes_on(tiny_model: Path, tmp_path: Path, run: Run) -> None:
    lines = [short(f"Line {number}.", 10 if number < 4 else 2000, id=str(number)) for number in range(12)]
    source, out = write(tmp_path / "lines.jsonl", *lines), tmp_path / "out"
    with begun(tiny_model, source, out) as running:
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does, so vLLM's engine hears it as well
        _, errors = running.communicate(timeout=SLOW)
    assert running.returncode == 130, errors
    assert "Traceback" not in errors
    spoken = {line_id: (out / entry["file"]).stat().st_mtime_ns for line_id, entry in manifest(out).items()}
    assert 0 < len(spoken) < len(lines)
    lines = [line if line["id"] in spoken else short("Short.", id=line["id"]) for line in lines]
    assert run(write(source, *lines)) == 0  # in this process, whose engine is there already
    assert all(len(samples(out / f"{line['id']}.wav")) == line["max_tokens"] * SAMPLES_PER_TOKEN for line in lines)
    assert all((out / f"{line_id}.wav").stat().st_mtime_ns == spoken[line_id] for line_id in spoken)
