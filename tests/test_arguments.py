"""What a user of LightTTS or of this server may type, and what is refused before any process starts."""

import subprocess
import sys
from pathlib import Path

import pytest

from server.arguments import UNNEEDED, UNNEEDED_SWITCHES, Arguments, parse


def arguments(*flags: str) -> Arguments:
    return parse(["--model_dir", "m", *flags])[0]


def refusal(capsys: pytest.CaptureFixture[str], *flags: str, gpus: int = 0) -> str:
    with pytest.raises(SystemExit) as end:
        parse(["--model_dir", "m", *flags], gpus=lambda: gpus)
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1, "one line says it all"
    return message


def test_defaults_are_lighttts_own_where_it_has_the_flag() -> None:
    given = arguments()
    assert (given.host, given.port, given.httpserver_workers) == ("localhost", 8080, 1)
    assert (given.encode_process_num, given.decode_process_num) == (1, None)
    assert (given.encode_paral_num, given.gpt_paral_num, given.cache_capacity) == (50, 50, 200)
    assert (given.max_total_token_num, given.max_req_total_len) == (65536, 32768)
    assert not given.load_trt
    assert given.zmq_mode == "ipc:///tmp/"


@pytest.mark.parametrize(
    ("text", "value"),
    [("True", True), ("1", True), ("yes", True), ("False", False), ("false", False), ("0", False), ("no", False)],
)
def test_load_trt_means_what_it_says(text: str, value: bool) -> None:
    assert arguments("--load_trt", text).load_trt is value


def test_hosts_for_ref_audio_come_with_commas_and_none_by_default() -> None:
    assert arguments().ref_audio_hosts == ()
    hosts = arguments("--ref_audio_hosts", "a.example, 10.0.0.5:8000,[::1]:80").ref_audio_hosts
    assert hosts == ("a.example", "10.0.0.5:8000", "[::1]:80")


def test_voice_aliases_are_openais_names_and_those_of_the_file(tmp_path: Path) -> None:
    openais = arguments().voice_aliases
    assert len(openais) == 13
    assert set(openais.values()) == {"slt", "rms", "awb"}
    table = tmp_path / "aliases.json"
    table.write_text('{"nova": "Änna", "narrator": "default"}', encoding="utf-8")
    aliases = arguments("--voice_aliases", str(table)).voice_aliases
    assert aliases == {**openais, "nova": "Änna", "narrator": "default"}


def test_pronunciations_are_none_or_those_of_the_file(tmp_path: Path) -> None:
    assert arguments().pronunciations == {}
    table = tmp_path / "words.json"
    table.write_text('{"nginx": "engine ex", "重庆": "崇庆"}', encoding="utf-8")
    assert arguments("--pronunciations", str(table)).pronunciations == {"nginx": "engine ex", "重庆": "崇庆"}


@pytest.mark.parametrize("flag", ["--voice_aliases", "--pronunciations"])
@pytest.mark.parametrize("text", ["[]", '{"nova": 1}', "nova: Anna", ""])
def test_a_table_that_is_none_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, text: str
) -> None:
    table = tmp_path / "table.json"
    table.write_text(text)
    assert str(table) in refusal(capsys, flag, str(table))


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--voice_aliases", "/nowhere.json"], "can't be read"),
        (["--load_trt", "maybe"], "is not a boolean"),
        (["--port", "0"], "not a port"),
        (["--port", "65536"], "not a port"),
        (["--httpserver_workers", "0"], "whole number of at least 1"),
        (["--gpt_paral_num", "-3"], "whole number of at least 1"),
        (["--decode_paral_num", "many"], "whole number of at least 1"),
        (["--gpu_memory_utilization", "1.5"], "not a share"),
        (["--gpu_memory_utilization", "nan"], "not a share"),
        (["--data_type", "int4"], "invalid choice"),
        (["--hub", "elsewhere"], "invalid choice"),
        (["--zmq_mode", "inproc://x"], "neither tcp:// nor ipc://"),
        (["--zmq_mode", "ipc://relative/"], "absolute directory"),
        (["--zmq_mode", "ipc:///no/such/place/"], "no directory"),
        (["--voices_dir", "/no/such/place"], "no directory"),
        (["--ref_audio_hosts", "http://a.example/"], "not HOST or HOST:PORT"),
        (["--ref_audio_hosts", "a.example,b example"], "not HOST or HOST:PORT"),
        (["--max_req_total_len", "70000"], "does not fit"),
        (["--max_num_batched_tokens", "49"], "less than one token for each"),
        (["--decode_gpu", "2"], "--decode_gpu 2 needs 3 GPUs and CUDA finds 2"),
        (["--decode_gpu", "-1"], "whole number of at least 0"),
        (["--no_such_flag", "1"], "unrecognized"),
        (["--voices", "/tmp"], "unrecognized"),
    ],
)
def test_nonsense_is_refused_with_the_reason(capsys: pytest.CaptureFixture[str], flags: list[str], reason: str) -> None:
    assert reason in refusal(capsys, *flags, gpus=2)


def test_several_decode_processes_need_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["--decode_process_num", "2", "--decode_gpu", "1"], {}, gpus=lambda: 2)[0].decode_process_num == 2
    reason = refusal(capsys, "--decode_process_num", "2", gpus=0)
    assert "--decode_process_num 2 needs a GPU and CUDA finds none; on a CPU, one decode process" in reason
    assert "--decode_gpu 1 needs a GPU and CUDA finds none" in refusal(capsys, "--decode_gpu", "1", gpus=0)


def test_a_socket_directory_whose_paths_would_be_too_long_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    assert "too long" in refusal(capsys, "--zmq_mode", f"ipc://{deep}/")


@pytest.mark.parametrize("flag", UNNEEDED)
def test_every_other_flag_of_lighttts_is_taken_and_answered_with_a_line(flag: str) -> None:
    value = [] if flag in UNNEEDED_SWITCHES else ["1"]
    given, notes = parse(["--model_dir", "m", f"--{flag}", *value])
    assert given == arguments()
    assert len(notes) == 1
    assert notes[0].startswith(f"--{flag} is not needed: ")


def test_nothing_is_said_about_flags_that_were_not_given() -> None:
    assert parse(["--model_dir", "m"])[1] == []


def test_a_model_that_is_not_there_ends_the_start_with_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "server", "--model_dir", str(tmp_path), "--load_trt", "False"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert str(tmp_path) in ended.stderr
