"""Voices that are registered while a server runs: kept whole, seen by all, and never mistaken for another model's."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.test_audio import tone, wav
from tools.random_checkpoint import TINY, write_random_checkpoint
from vllm_cosyvoice.checkpoint import open_model
from vllm_cosyvoice.failure import InputError
from vllm_cosyvoice.preparation import Preparation
from vllm_cosyvoice.recording import Recording, StoredVoice
from vllm_cosyvoice.voice import UnknownVoice, VoiceDirectory, VoiceRefused, load_audio
from vllm_cosyvoice.voice.feature_file import write_whole

RECORDING = Recording(wav(tone(2)), "It is a tone.")


@pytest.fixture(scope="module")
def preparations(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Preparation, Preparation]:
    """Two processes that share a directory."""
    directory = tmp_path_factory.mktemp("voices")
    first, second = (Preparation(open_model(tiny_model), directory) for _ in range(2))
    return first, second


def test_a_voice_registered_by_one_process_is_every_processes_voice(
    preparations: tuple[Preparation, Preparation],
) -> None:
    first, second = preparations
    stored = first.register("Anna", RECORDING)
    assert abs(stored.created_at - time.time()) < 60
    assert stored in second.voices()
    (segment,), voice = second.prepare("Hello.", "Anna")
    fresh = second.clone(*load_audio(RECORDING.data))
    assert voice.transcript == "It is a tone."
    assert np.array_equal(voice.speech_tokens, fresh.speech_tokens)
    assert np.array_equal(voice.mel, fresh.mel)
    assert np.array_equal(voice.embedding, fresh.embedding)
    assert segment.prompt[-len(voice.speech_tokens) :] == voice.speech_tokens.tolist()
    first.delete("Anna")
    assert "Anna" not in second.voice_names()
    with pytest.raises(InputError, match="no voice 'Anna'") as refused:
        second.voice("Anna")
    assert refused.value.param == "voice"


def test_another_recording_under_a_freed_name_is_another_voice(preparations: tuple[Preparation, Preparation]) -> None:
    first, second = preparations
    first.register("Berta", RECORDING)
    before = second.voice("Berta")
    assert second.voice("Berta") is before  # from memory
    first.delete("Berta")
    first.register("Berta", Recording(wav(tone(3))))
    after = second.voice("Berta")
    assert len(after.speech_tokens) == 75
    assert after.transcript == ""
    assert after.key != before.key
    first.delete("Berta")


def test_features_of_another_model_are_not_used_but_made_anew_and_kept(tmp_path: Path, tiny_model: Path) -> None:
    other_model = tmp_path / "model"
    write_random_checkpoint(other_model, TINY, seed=1)
    voices = tmp_path / "voices"
    voices.mkdir()
    one, other = (Preparation(open_model(model), voices) for model in (tiny_model, other_model))
    one.register("Anna", RECORDING)
    assert len(list((voices / "Anna").glob("*.safetensors"))) == 1
    heard = other.voice("Anna")
    assert not np.array_equal(heard.embedding, one.voice("Anna").embedding)
    assert np.array_equal(heard.embedding, other.voice(RECORDING).embedding)
    assert len(list((voices / "Anna").glob("*.safetensors"))) == 2
    again = Preparation(open_model(other_model), voices)
    (voices / "Anna" / "recording").unlink()  # what was kept suffices
    assert np.array_equal(again.voice("Anna").embedding, heard.embedding)


@pytest.mark.parametrize("damage", ["truncated", "wrong shape", "not a number", "wrong token"])
def test_damaged_features_are_made_anew(tmp_path: Path, tiny_model: Path, damage: str) -> None:
    Preparation(open_model(tiny_model), tmp_path).register("Anna", RECORDING)
    (path,) = (tmp_path / "Anna").glob("*.safetensors")
    sound = {"speech_tokens": np.zeros(50, np.int32), "mel": np.zeros((100, 80), np.float32)}
    sound["embedding"] = np.ones(192, np.float32)
    match damage:
        case "truncated":
            path.write_bytes(path.read_bytes()[:-100])
        case "wrong shape":
            save_file(sound | {"mel": np.zeros((99, 80), np.float32)}, path)
        case "not a number":
            save_file(sound | {"embedding": np.full(192, np.nan, np.float32)}, path)
        case "wrong token":
            save_file(sound | {"speech_tokens": np.full(50, 6561, np.int32)}, path)
    preparation = Preparation(open_model(tiny_model), tmp_path)
    expected = preparation.voice(RECORDING)
    assert np.array_equal(preparation.voice("Anna").embedding, expected.embedding)
    assert np.array_equal(preparation.voice("Anna").speech_tokens, expected.speech_tokens)


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        ".",
        "..",
        ".hidden",
        "../voice",
        "a/b",
        "/etc/passwd",
        "a\\b",
        "a\0b",
        "a\nb",
        "x" * 61,
        "a\u202eb",
        "%2e",
        "-rf",
        "Anna ",
        "\ud800",
    ],
)
def test_names_that_could_be_anything_else_are_refused(
    preparations: tuple[Preparation, Preparation], name: str
) -> None:
    with pytest.raises(InputError, match="can't be a voice's name") as refused:
        preparations[0].register(name, RECORDING)
    assert refused.value.param == "name"
    with pytest.raises((UnknownVoice, InputError)):
        preparations[0].voice(name)
    with pytest.raises(UnknownVoice):
        preparations[0].delete(name)


@pytest.mark.parametrize("name", ["Anna", "Jürgen's 2nd voice", "小明", "अनिता", "voice_1.5-b", "長" * 60])
def test_people_may_be_called_what_they_are_called(preparations: tuple[Preparation, Preparation], name: str) -> None:
    preparations[0].register(name, RECORDING)
    assert preparations[1].voice(name).transcript == "It is a tone."
    assert preparations[1].delete(name).name == name


def test_a_name_that_is_taken_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "Carla.wav").write_bytes(wav(tone(2)))
    (tmp_path / "Carla.txt").write_text("Mine.")
    model = open_model(tiny_model)
    preparation = Preparation(model, tmp_path)
    preparation.register("Anna", RECORDING)
    presets = list(model.preset_speakers())
    for name in ("Anna", "Carla", "default", presets[0]):
        with pytest.raises(VoiceRefused, match="choose another name"):
            preparation.register(name, Recording(wav(tone(3))))
    for name in ("Carla", "default", presets[0]):
        with pytest.raises(VoiceRefused, match="can't be deleted"):
            preparation.delete(name)
    assert len(preparation.voice("Anna").speech_tokens) == 50


def test_of_many_who_want_one_name_one_gets_it(tmp_path: Path, tiny_model: Path) -> None:
    preparation = Preparation(open_model(tiny_model))
    voice, recordings = preparation.clone(tone(2), 24_000), [Recording(bytes([number])) for number in range(16)]

    def register(recording: Recording) -> Recording | None:
        try:
            VoiceDirectory(tmp_path).register("Anna", recording, "model", voice)
        except VoiceRefused:
            return None
        return recording

    with ThreadPoolExecutor(len(recordings)) as threads:
        (winner,) = filter(None, threads.map(register, recordings))
    assert [path.name for path in tmp_path.iterdir()] == ["Anna"]
    assert (tmp_path / "Anna" / "recording").read_bytes() == winner.data
    with ThreadPoolExecutor(8) as threads:
        outcomes = [threads.submit(VoiceDirectory(tmp_path).delete, "Anna") for _ in range(8)]
    assert sum(outcome.exception() is None for outcome in outcomes) == 1
    assert not list(tmp_path.iterdir())


def test_what_killed_processes_left_is_no_voice_and_is_swept(tmp_path: Path, tiny_model: Path) -> None:
    for name, age in (("old", 7200), ("young", 60)):
        folder = tmp_path / f".unfinished-{name}"
        folder.mkdir()
        (folder / "voice.json").write_text('{"created_at": 1, "transcript": "", "digest": ""}')
        os.utime(folder, (time.time() - age,) * 2)
    (tmp_path / "no voice").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "voice.json").write_text("{}")
    preparation = Preparation(open_model(tiny_model), tmp_path)
    assert not {"no voice", "damaged", ".unfinished-old", ".unfinished-young"} & set(preparation.voice_names())
    preparation.register("Anna", RECORDING)
    assert not (tmp_path / ".unfinished-old").exists()
    assert (tmp_path / ".unfinished-young").exists()  # its process may be at work
    facts = json.loads((tmp_path / "Anna" / "voice.json").read_text())
    assert facts["transcript"] == "It is a tone."


def test_a_directory_that_can_not_be_written_serves_what_it_has(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Preparation(open_model(tiny_model), tmp_path).register("Anna", RECORDING)
    for path in (tmp_path / "Anna").glob("*.safetensors"):
        path.unlink()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("vllm_cosyvoice.voice.feature_file.os.fsync", refuse)  # root may write anywhere
    preparation = Preparation(open_model(tiny_model), tmp_path)
    assert preparation.voice("Anna").transcript == "It is a tone."
    with pytest.raises(OSError, match="Read-only"):
        preparation.register("Berta", RECORDING)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Anna"]


def test_there_is_an_end_to_how_many_are_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    monkeypatch.setattr("vllm_cosyvoice.voice.store.MOST_REGISTERED", 2)
    preparation = Preparation(open_model(tiny_model), tmp_path)
    for name in ("Anna", "Berta"):
        preparation.register(name, RECORDING)
    with pytest.raises(VoiceRefused, match="delete some"):
        preparation.register("Carla", RECORDING)


def test_a_recording_sent_along_is_encoded_once(preparations: tuple[Preparation, Preparation]) -> None:
    preparation = preparations[0]
    voice = preparation.voice(RECORDING)
    assert preparation.voice(Recording(bytes(RECORDING.data), RECORDING.transcript)) is voice
    assert preparation.voice(Recording(RECORDING.data, "Another sentence.")) is not voice
    with pytest.raises(InputError, match="at least 1 s") as refused:
        preparation.voice(Recording(wav(tone(0.5))))
    assert refused.value.param == "ref_audio"


def test_stored_voices_are_told_by_name_and_time(preparations: tuple[Preparation, Preparation]) -> None:
    names = [voice.name for voice in preparations[0].voices()]
    assert names == sorted(names)
    assert "default" in names
    assert all(isinstance(voice, StoredVoice) and voice.created_at >= 0 for voice in preparations[0].voices())


def test_others_may_read_what_is_written_as_the_users_umask_says(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_whole(tmp_path / "whole", b"all of it")
    assert (tmp_path / "whole").read_bytes() == b"all of it"
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["usual", "whole"]
