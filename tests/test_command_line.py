"""`python -m vllm_cosyvoice`: a wrong command line is told before the engine starts, which takes half a minute."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vllm_cosyvoice.__main__ import main
from vllm_cosyvoice.voice.store import BUILT_IN

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> Run:
    def no_engine(*_: object, **__: object) -> None:
        raise AssertionError("the engine is started")

    def run(*argv: str) -> int:
        monkeypatch.setattr("sys.argv", ["vllm_cosyvoice", *argv, "--model_dir", str(tiny_model)])
        return main()

    monkeypatch.setattr("vllm_cosyvoice.synthesizer.Synthesizer", no_engine)
    return run


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("--voice", "nobody"), "no voice 'nobody'"),
        (("--prompt_wav", "missing.wav"), "missing.wav"),
        (("--prompt_wav", __file__), "can't be decoded"),
        (("--prompt_wav", str(BUILT_IN / "slt.wav"), "--prompt_text", "word " * 80), "80 syllables, too many"),
        (("--voices_dir", "missing"), "missing is not a directory"),
    ],
)
def test_what_cannot_be_spoken_is_told_at_once(
    run: Run, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], says: str
) -> None:
    assert run("Hello.", *argv) == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("output", ["out.mp3", "missing/out.wav"])
def test_a_file_that_cannot_be_written_is_told_at_once(
    run: Run, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        run("Hello.", "-o", output)
    assert ended.value.code == 2
    assert output in capsys.readouterr().err


def test_a_batch_needs_a_voice_that_exists(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lines.jsonl").write_text('{"text": "Hello."}\n')
    assert run("batch", str(tmp_path / "lines.jsonl"), str(tmp_path / "out"), "--voice", "nobody") == 1
    assert "no voice 'nobody'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("full", [False, True])
def test_a_batch_may_have_full_attention(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: bool) -> None:
    class StartedError(Exception):
        pass

    def engine(*_: object, **options: object) -> None:
        assert options["full_attention"] is full
        raise StartedError

    monkeypatch.setattr("vllm_cosyvoice.synthesizer.Synthesizer", engine)
    (tmp_path / "lines.jsonl").write_text('{"text": "Hello."}\n')
    with pytest.raises(StartedError):
        run("batch", str(tmp_path / "lines.jsonl"), str(tmp_path / "out"), *["--full_attention"] * full)


def test_a_text_is_shown_as_it_would_be_spoken(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("normalize", "It costs $5.") == 0
    assert capsys.readouterr().out == "It costs five dollars.\n"
    assert run("normalize", "?!") == 0
    assert capsys.readouterr().out == "[pause:0.2s]\n"
    assert run("normalize", " ") == 1
    assert "nothing to speak" in capsys.readouterr().err


def test_pauses_are_shown_between_segments(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("normalize", "--language", "de", "Um 10 [pause:1.5s] Uhr") == 0
    assert capsys.readouterr().out == "Um zehn.\n[pause:1.5s]\nUhr.\n"


def test_lines_are_shown_as_they_would_be_spoken(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        '{"id": "a", "input": "10"}',
        '{"id": 2, "input": "10", "language": "de"}',
        "",
        '{"id": 3, "input": " "}',
        "[]",
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    assert run("normalize", "--jsonl") == 1
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert answers[:2] == [{"id": "a", "segments": ["ten."]}, {"id": 2, "segments": ["zehn."]}]
    assert [answer["segments"] for answer in answers[2:]] == [[], []]
    assert "nothing to speak" in answers[2]["error"]
    assert answers[3]["id"] == 5


@pytest.mark.parametrize("arguments", [[], ["text", "--jsonl"]])
def test_either_a_text_or_lines_are_shown(run: Run, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("normalize", *arguments)
    assert ended.value.code == 2


def test_the_server_is_one_of_the_commands(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("serve", "--port", "none")
    assert "--port" in capsys.readouterr().err
