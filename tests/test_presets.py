"""The speakers in `spk2info.pt`: a model's own, those that CosyVoice saved, and damage that costs no more than them."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vllm_cosyvoice.checkpoint import find, open_model
from vllm_cosyvoice.preparation import Preparation
from vllm_cosyvoice.voice import Voice, VoiceDirectory
from vllm_cosyvoice.voice.presets import preset_voices


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return shutil.copytree(tiny_model, tmp_path / "model")


@pytest.fixture(scope="module")
def preparation(tiny_model: Path) -> Preparation:
    return Preparation(open_model(tiny_model))


@pytest.fixture(scope="module")
def cloned(preparation: Preparation) -> Voice:
    return preparation.clone(*VoiceDirectory().load("slt"))


@pytest.fixture
def saved(preparation: Preparation, cloned: Voice) -> dict[str, torch.Tensor]:
    """What CosyVoice's `add_zero_shot_spk` saves of a recording."""
    tokens = torch.from_numpy(cloned.speech_tokens)[None]
    mel, embedding = torch.from_numpy(cloned.mel)[None], torch.from_numpy(cloned.embedding)[None]
    text = torch.tensor([preparation.prompt_text(cloned)], dtype=torch.int32)

    def length(of: torch.Tensor) -> torch.Tensor:
        return torch.tensor([of.shape[1]], dtype=torch.int32)

    return {
        "prompt_text": text,
        "prompt_text_len": length(text),
        "llm_prompt_speech_token": tokens,
        "llm_prompt_speech_token_len": length(tokens),
        "flow_prompt_speech_token": tokens,
        "flow_prompt_speech_token_len": length(tokens),
        "prompt_speech_feat": mel,
        "prompt_speech_feat_len": length(mel),
        "llm_embedding": embedding,
        "flow_embedding": embedding,
    }


def write(model: Path, speakers: object) -> None:
    torch.save(speakers, model / "spk2info.pt")


def test_the_models_own_speakers_are_embeddings(tiny_model: Path) -> None:
    entries = torch.load(tiny_model / "spk2info.pt", weights_only=True)
    voices = preset_voices(open_model(tiny_model))
    assert voices.keys() == entries.keys()
    for name, voice in voices.items():
        assert voice.embedding.tolist() == entries[name]["embedding"].flatten().tolist()
        assert (voice.transcript, len(voice.speech_tokens), voice.mel.shape) == ("", 0, (0, 80))


def test_a_model_without_speakers_has_none(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    (model / "spk2info.pt").unlink()
    assert open_model(find(str(model))).preset_speakers() == {}
    assert not caplog.records


def test_embeddings_come_with_or_without_a_batch_axis(model: Path) -> None:
    write(model, {"flat": {"embedding": torch.ones(192)}, "row": {"embedding": torch.ones(1, 192)}})
    speakers = open_model(model).preset_speakers()
    assert [tuple(speaker.embedding.shape) for speaker in speakers.values()] == [(192,), (192,)]


def test_a_speaker_that_cosyvoice_saved_is_cloned_from(
    model: Path, saved: dict[str, torch.Tensor], cloned: Voice, preparation: Preparation
) -> None:
    write(model, {"anna": saved})
    mine = Preparation(open_model(model))
    assert "anna" in mine.voice_names()
    (segment,), voice = mine.prepare("Hello.", "anna")
    (expected,) = preparation.segments("Hello.", cloned)
    assert segment == expected  # transcript and speech tokens
    assert voice.transcript == cloned.transcript
    for name in ("speech_tokens", "mel", "embedding"):
        assert getattr(voice, name).dtype == getattr(cloned, name).dtype
        assert np.array_equal(getattr(voice, name), getattr(cloned, name))


def test_each_saved_speaker_has_a_key_of_its_own(model: Path, saved: dict[str, torch.Tensor]) -> None:
    """The key decides whether what was computed for a voice is used again."""
    other = {**saved, "prompt_speech_feat": saved["prompt_speech_feat"] - 1}
    write(model, {"anna": saved})
    keys = {preset_voices(open_model(model))["anna"].key}
    write(model, {"anna": other, "berta": saved, "carla": {"embedding": saved["flow_embedding"]}})
    keys |= {voice.key for voice in preset_voices(open_model(model)).values()}
    assert len(keys) == 4


def test_what_cosyvoice_took_out_of_a_speaker_is_not_needed(model: Path, saved: dict[str, torch.Tensor]) -> None:
    """Used in cross-lingual mode, a speaker loses what is for the language model before the next save."""
    left = {name: value for name, value in saved.items() if not name.startswith(("prompt_text", "llm_prompt"))}
    write(model, {"anna": left})
    mine = Preparation(open_model(model))
    voice = mine.voice("anna")
    assert (voice.transcript, mine.prompt_text(voice), mine.prompt_speech(voice)) == ("", [], [])
    assert len(voice.speech_tokens) == 125


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"flow_embedding": torch.ones(1, 80)}, "its embedding is not 192 finite numbers"),
        ({"flow_embedding": torch.full((1, 192), torch.nan)}, "its embedding is not 192 finite numbers"),
        ({"flow_embedding": [0.0] * 192}, "its flow_embedding is not a tensor"),
        ({"prompt_speech_feat": None}, "it has no prompt_speech_feat"),
        ({"prompt_speech_feat": torch.ones(1, 249, 80)}, "125 speech tokens, but not twice as many finite mel frames"),
        ({"prompt_speech_feat": torch.ones(1, 80, 249)}, "the shape [1, 80, 249], not [1, frames, 80]"),
        ({"flow_prompt_speech_token": torch.full((1, 125), 6561)}, "speech tokens outside 0 … 6560"),
        (
            {
                "flow_prompt_speech_token": torch.zeros(1, 751, dtype=torch.int32),
                "prompt_speech_feat": torch.zeros(1, 1502, 80),
            },
            "longer than 30 s",
        ),
    ],
)
def test_a_damaged_speaker_is_told_and_the_others_speak(
    model: Path,
    saved: dict[str, torch.Tensor],
    caplog: pytest.LogCaptureFixture,
    change: dict[str, object],
    says: str,
) -> None:
    write(model, {"anna": saved | change, "berta": saved, "carla": {"text": 1}, "dora": None})
    assert open_model(find(str(model))).preset_speakers().keys() == {"berta"}
    (record,) = caplog.records
    assert f"{model / 'spk2info.pt'} contains speakers that can't be used: anna (" in record.message
    assert says in record.message
    assert "carla (it has no embedding), dora (it is not a table); remove them" in record.message
    assert record.levelno == logging.WARNING


class Trap:
    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path("ran").touch, ()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, "is cut short or damaged; download it again"),
        (lambda path: path.write_text("<html>404 Not Found</html>"), "is not a PyTorch checkpoint"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: torch.save({"anna": Trap()}, path), "contains more than tensors and plain data"),
        (lambda path: torch.save([1, 2], path), "is not a table of speakers"),
    ],
)
def test_a_damaged_file_is_told_once_and_the_model_serves(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], object],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    damage(model / "spk2info.pt")
    preparation = Preparation(open_model(find(str(model))))
    assert preparation.voice_names() == VoiceDirectory().names()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.startswith("The model's own speakers are not available: ")
    assert str(model / "spk2info.pt") in record.message
    assert says in record.message
    assert not (tmp_path / "ran").exists()
