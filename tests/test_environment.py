"""Every setting can come from the environment, and the command line wins."""

from dataclasses import fields
from pathlib import Path

import pytest

from server.arguments import UNNEEDED, VARIABLES, Arguments, digest, parse


def parsed(*flags: str, **environment: str) -> Arguments:
    return parse(flags, environment)[0]


def refusal(capsys: pytest.CaptureFixture[str], *flags: str, **environment: str) -> str:
    with pytest.raises(SystemExit) as end:
        parse(["--model_dir", "m", *flags], environment, gpus=lambda: 1)
    assert end.value.code == 2
    return capsys.readouterr().err


def test_every_flag_has_its_variable() -> None:
    settings = {field.name for field in fields(Arguments)} - {"api_key_digests"} | {"api_key", "api_key_file"}
    assert {flag: f"COSYVOICE_{flag.upper()}" for flag in settings} == VARIABLES
    assert not set(VARIABLES) & set(UNNEEDED)


def test_variables_set_what_flags_set(tmp_path: Path) -> None:
    given = parsed(
        COSYVOICE_MODEL_DIR="m",
        COSYVOICE_PORT="81",
        COSYVOICE_LOAD_TRT="no",
        COSYVOICE_VOICES_DIR=str(tmp_path),
        COSYVOICE_GPU_MEMORY_UTILIZATION="0.5",
    )
    assert (given.model_dir, given.port, given.load_trt) == ("m", 81, False)
    assert (given.voices_dir, given.gpu_memory_utilization) == (tmp_path, 0.5)


@pytest.mark.parametrize("flags", [("--port", "82"), ("--port=82",)])
def test_the_command_line_wins(flags: tuple[str, ...]) -> None:
    assert parsed("--model_dir", "m", *flags, COSYVOICE_PORT="81").port == 82
    assert parsed("--model_dir", "m", *flags, COSYVOICE_PORT="nonsense").port == 82


def test_an_empty_variable_is_as_good_as_none() -> None:
    assert parsed("--model_dir", "m", COSYVOICE_PORT="", COSYVOICE_API_KEY="") == parsed("--model_dir", "m")


def test_a_refusal_names_the_variable_that_is_at_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert "COSYVOICE_PORT: '0' is not a port" in refusal(capsys, COSYVOICE_PORT="0")
    message = refusal(capsys, "--max_total_token_num", "100", COSYVOICE_MAX_REQ_TOTAL_LEN="200")
    assert "COSYVOICE_MAX_REQ_TOTAL_LEN 200 does not fit into --max_total_token_num 100" in message


def test_a_variable_that_sets_nothing_is_pointed_out() -> None:
    _, notes = parse(["--model_dir", "m"], {"COSYVOICE_PROT": "1", "PATH": "/bin"})
    assert notes == ["COSYVOICE_PROT is set, but there is no flag --prot."]


def test_keys_come_from_flags_a_file_or_a_variable_and_are_kept_as_digests_only(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("key-3\n\nkey-4\n")
    given = parsed("--model_dir", "m", "--api_key", "key-1,key-2", "--api_key", "key-1", "--api_key_file", str(file))
    assert set(given.api_key_digests) == {digest(key) for key in ("key-1", "key-2", "key-3", "key-4")}
    assert len(given.api_key_digests) == 4
    assert not any(key in repr(given) for key in ("key-1", "key-2", "key-3", "key-4"))
    assert parsed("--model_dir", "m", COSYVOICE_API_KEY="a, b").api_key_digests == tuple(sorted(map(digest, "ab")))
    from_file = parsed("--model_dir", "m", COSYVOICE_API_KEY_FILE=str(file))
    assert set(from_file.api_key_digests) == {digest("key-3"), digest("key-4")}
    assert parsed("--model_dir", "m", "--api_key", "a", COSYVOICE_API_KEY="b").api_key_digests == (digest("a"),)
    assert parsed("--model_dir", "m").api_key_digests == ()


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--api_key", ""), "empty"),
        (("--api_key", " , "), "empty"),
        (("--api_key", "schlüssel"), "ASCII"),
        (("--api_key_file", "/no/such/file"), "can't be read"),
        (("--api_key_file", "/dev/null"), "empty"),
        (("--cors_origins", "example.org"), "neither * nor an origin"),
        (("--cors_origins", "https://example.org/page"), "neither * nor an origin"),
        (("--public_paths", "health"), "must begin with /"),
    ],
)
def test_access_that_makes_no_sense_is_refused(
    capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], reason: str
) -> None:
    message = refusal(capsys, *flags)
    assert reason in message
    assert "schlüssel" not in message
