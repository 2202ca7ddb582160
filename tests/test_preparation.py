"""What a request becomes before the language model sees it."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from vllm_cosyvoice.checkpoint import open_model
from vllm_cosyvoice.failure import InputError
from vllm_cosyvoice.preparation import Preparation
from vllm_cosyvoice.vocabulary import START, TASK, text_ids
from vllm_cosyvoice.voice import VoiceDirectory
from vllm_cosyvoice.voice.store import BUILT_IN


@pytest.fixture(scope="module")
def preparation(tiny_model: Path) -> Preparation:
    return Preparation(open_model(tiny_model))


def test_zero_shot_continues_the_voices_transcript_and_speech(preparation: Preparation) -> None:
    (segment,), voice = preparation.prepare("Hello world.", "default")
    text = preparation.tokens("Hello world.")
    transcript = preparation.tokens(voice.transcript)
    assert segment.prompt == [START, *text_ids(transcript), *text_ids(text), TASK, *voice.speech_tokens.tolist()]
    assert (segment.text_tokens, segment.min_tokens, segment.max_tokens) == (len(text), 2 * len(text), 20 * len(text))


def test_cross_lingual_leaves_the_recording_out_of_the_prompt(preparation: Preparation) -> None:
    voice = preparation.voice("default")
    (segment,) = preparation.segments("Hello world.", voice, cross_lingual=True)
    assert segment.prompt == [START, *text_ids(preparation.tokens("Hello world.")), TASK]


def test_instructions_take_the_transcripts_place_and_end_once(preparation: Preparation) -> None:
    plain = preparation.tokens("Speak slowly.<|endofprompt|>")
    for instructions in ("Speak slowly.", " Speak slowly.<|endofprompt|>"):
        (segment,) = preparation.segments("Hello world.", preparation.voice("default"), instructions)
        assert segment.prompt == [START, *text_ids(plain), *text_ids(preparation.tokens("Hello world.")), TASK]


def test_a_preset_speaker_has_no_prompt(preparation: Preparation) -> None:
    (segment,), voice = preparation.prepare("Hello world.", "中文女")
    assert segment.prompt == [START, *text_ids(preparation.tokens("Hello world.")), TASK]
    assert not len(voice.speech_tokens)


def test_names_are_those_of_all_voices(preparation: Preparation) -> None:
    assert {"default", "中文女"} <= set(preparation.voice_names())


@pytest.mark.parametrize("name", ["nobody", "", "../default", "/etc/passwd", "default.wav", "default\0"])
def test_an_unknown_voice_lists_the_known_ones(preparation: Preparation, name: str) -> None:
    with pytest.raises(InputError, match="default") as error:
        preparation.voice(name)
    assert error.value.param == "voice"


def test_a_voice_on_disk_may_change(tiny_model: Path, tmp_path: Path) -> None:
    for suffix in (".wav", ".txt"):
        shutil.copy(BUILT_IN / f"default{suffix}", tmp_path / f"mine{suffix}")
    preparation = Preparation(open_model(tiny_model), tmp_path)
    before = preparation.voice("mine")
    assert preparation.voice("mine") is before
    (tmp_path / "mine.txt").write_text("Other words.", encoding="utf-8")
    assert preparation.voice("mine").transcript == "Other words."
    (tmp_path / "mine.wav").write_bytes(b"no audio")
    with pytest.raises(InputError, match="'mine' can't be used"):
        preparation.voice("mine")
    (tmp_path / "mine.wav").unlink()
    with pytest.raises(InputError, match="no voice 'mine'"):
        preparation.voice("mine")


def test_the_cache_keeps_the_voices_used_last(tiny_model: Path, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        for suffix in (".wav", ".txt"):
            shutil.copy(BUILT_IN / f"default{suffix}", tmp_path / f"{name}{suffix}")
    preparation = Preparation(open_model(tiny_model), tmp_path, cache_capacity=2)
    a, b = preparation.voice("a"), preparation.voice("b")
    assert preparation.voice("a") is a
    preparation.voice("c")
    assert preparation.voice("a") is a
    assert preparation.voice("b") is not b
    np.testing.assert_array_equal(preparation.voice("b").mel, b.mel)


def test_an_alias_is_the_voice_it_stands_for_unless_a_voice_has_its_name(tiny_model: Path, tmp_path: Path) -> None:
    aliases = {"nova": "default", "default": "nobody", "lost": "nobody", "loop": "loop"}
    preparation = Preparation(open_model(tiny_model), tmp_path, aliases=aliases)
    default = preparation.voice("default")
    assert preparation.voice("nova").key == default.key
    shutil.copy(BUILT_IN / "default.wav", tmp_path / "nova.wav")
    (tmp_path / "nova.txt").write_text("Something else.")
    assert preparation.voice("nova").transcript == "Something else."
    assert "nova" in preparation.voice_names()
    assert "lost" not in preparation.voice_names()
    for name, missing in (("lost", "nobody"), ("loop", "loop"), ("unknown", "unknown")):
        with pytest.raises(InputError, match=f"no voice '{missing}'") as error:
            preparation.voice(name)
        assert error.value.param == "voice"


def test_a_voice_is_found_without_reading_all_others(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    aliased = Preparation(open_model(tiny_model), aliases={"nova": "default"})
    monkeypatch.delattr(VoiceDirectory, "voices")
    assert aliased.voice("nova").key == aliased.voice("default").key
    assert aliased.voice("中文女")
