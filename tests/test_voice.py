"""From a recording to a Voice, and the recordings on disk."""

import logging
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tests.test_audio import encoded, tone, wav
from vllm_cosyvoice.checkpoint import CheckpointError, ModelDirectory, open_model
from vllm_cosyvoice.voice import AudioError, UnknownVoice, Voice, VoiceDirectory, VoiceEncoder, load_audio, voice_key
from vllm_cosyvoice.voice.features import prompt_mel, speaker_fbank, whisper_log_mel
from vllm_cosyvoice.voice.store import BUILT_IN


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> ModelDirectory:
    return open_model(tiny_model)


@pytest.fixture(scope="module")
def encoder(model: ModelDirectory) -> VoiceEncoder:
    return VoiceEncoder(model, threads=1)


@pytest.fixture(scope="module")
def recording() -> tuple[np.ndarray, int, str]:
    return VoiceDirectory().load("default")


# features


@pytest.mark.parametrize("seconds", [1.0, 2.345, 5.0])
def test_features_have_their_frame_rates(seconds: float) -> None:
    heard, spoken = torch.from_numpy(tone(seconds, 16_000)), torch.from_numpy(tone(seconds, 24_000))
    assert whisper_log_mel(heard).shape == (128, len(heard) // 160)
    assert speaker_fbank(heard).shape == ((len(heard) - 400) // 160 + 1, 80)
    assert prompt_mel(spoken).shape == (len(spoken) // 480, 80)


def test_a_tone_lights_its_own_mel_bin() -> None:
    brightest = prompt_mel(torch.from_numpy(tone(1))).mean(dim=0).argmax().item()
    assert 10 <= brightest <= 12  # 440 Hz is 6.6 of the 45.2 Slaney mels that 80 bins cover


def test_the_speaker_features_have_no_mean() -> None:
    assert speaker_fbank(torch.from_numpy(tone(2, 16_000))).mean(dim=0).abs().max() < 1e-4


# encode


def test_a_voice_has_two_frames_a_token(encoder: VoiceEncoder, recording: tuple[np.ndarray, int, str]) -> None:
    voice = encoder.encode(*recording)
    count = len(voice.speech_tokens)
    assert count == pytest.approx(25 * len(recording[0]) / recording[1], abs=1)
    assert voice.speech_tokens.dtype == np.int32
    assert voice.mel.dtype == voice.embedding.dtype == np.float32
    assert voice.mel.shape == (2 * count, 80)
    assert voice.embedding.shape == (192,)
    assert voice.transcript == recording[2]
    assert 0 <= voice.speech_tokens.min() <= voice.speech_tokens.max() <= 6560
    assert len(set(voice.speech_tokens.tolist())) > 10  # it listens


@pytest.mark.parametrize("samples", [24_000, 24_001, 24_479, 24_480, 24_959, 24_960, 47_999, 720_000])
def test_tokens_and_mel_are_trimmed_to_each_other(encoder: VoiceEncoder, samples: int) -> None:
    voice = encoder.encode(tone(30)[:samples], 24_000, "")
    assert len(voice.speech_tokens) == min(samples // 960, samples * 2 // 3 // 640)
    assert len(voice.mel) == 2 * len(voice.speech_tokens)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_the_same_recording_at_another_rate_is_the_same_voice(encoder: VoiceEncoder, rate: int) -> None:
    voice, other = (encoder.encode(tone(3, r, frequency=220.0), r, "") for r in (24_000, rate))
    assert len(other.speech_tokens) == len(voice.speech_tokens)
    similarity = voice.embedding @ other.embedding
    assert similarity / np.linalg.norm(voice.embedding) / np.linalg.norm(other.embedding) > 0.95


def test_speech_tokens_are_those_of_the_voice(encoder: VoiceEncoder, recording: tuple[np.ndarray, int, str]) -> None:
    samples, rate, transcript = recording
    voice = encoder.encode(samples, rate, transcript)
    tokens = encoder.speech_tokens(samples, rate)
    assert tokens.dtype == np.int32
    assert tokens[: len(voice.speech_tokens)].tolist() == voice.speech_tokens.tolist()


def test_encoding_twice_gives_the_same(encoder: VoiceEncoder, recording: tuple[np.ndarray, int, str]) -> None:
    first, second = encoder.encode(*recording), encoder.encode(*recording)
    assert first.key == second.key
    assert np.array_equal(first.speech_tokens, second.speech_tokens)
    assert np.array_equal(first.mel, second.mel)
    assert np.array_equal(first.embedding, second.embedding)


def test_bad_audio_is_refused_before_the_networks_run(encoder: VoiceEncoder) -> None:
    for samples, sentence in (
        (tone(0.5), "at least 1 s"),
        (tone(31), "longer than 30 s"),
        (tone(1) * np.nan, "not finite"),
    ):
        with pytest.raises(AudioError, match=sentence):
            encoder.encode(samples, 24_000, "x")
        with pytest.raises(AudioError, match=sentence):
            encoder.speech_tokens(samples, 24_000)


def test_networks_that_are_not_the_models_are_refused(tmp_path: Path, model: ModelDirectory) -> None:
    wrong = ModelDirectory(path=tmp_path, config=model.config)
    shutil.copy(model.speech_tokenizer, wrong.speech_tokenizer)
    wrong.speaker_encoder.write_bytes(b"not a graph")
    with pytest.raises(CheckpointError, match=r"campplus\.onnx is cut short or not an ONNX model"):
        VoiceEncoder(wrong)
    write_graph(wrong.speaker_encoder, np.zeros(191, np.float32), inputs=("input",))
    with pytest.raises(CheckpointError, match=r"191 numbers.*campplus\.onnx is not CosyVoice2's"):
        VoiceEncoder(wrong).encode(tone(2), 24_000, "")
    write_graph(wrong.speaker_encoder, np.full(192, np.nan, np.float32), inputs=("input",))
    with pytest.raises(CheckpointError, match=r"campplus\.onnx is not CosyVoice2's"):
        VoiceEncoder(wrong).encode(tone(2), 24_000, "")
    for tokens in ([6561], [-1], []):
        write_graph(wrong.speech_tokenizer, np.array(tokens, np.int32), inputs=("feats", "feats_length"))
        with pytest.raises(CheckpointError, match=r"speech_tokenizer_v2\.onnx is not CosyVoice2's"):
            VoiceEncoder(wrong).speech_tokens(tone(2), 24_000)


def write_graph(path: Path, output: np.ndarray, inputs: tuple[str, ...]) -> None:
    """A network that gives `output` whatever it hears."""
    shapes = {"input": [1, "T", 80], "feats": [1, 128, "T"], "feats_length": [1]}
    types = {"feats_length": TensorProto.INT32}
    graph = helper.make_graph(
        [helper.make_node("Constant", [], ["output"], value=numpy_helper.from_array(output))],
        path.stem,
        [helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), shapes[name]) for name in inputs],
        [helper.make_tensor_value_info("output", helper.np_dtype_to_tensor_dtype(output.dtype), output.shape)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


# keys


def test_the_key_is_of_audio_and_transcript_not_of_the_file(encoder: VoiceEncoder) -> None:
    samples = tone(2)
    key = encoder.encode(samples, 24_000, " Hello. ").key
    assert key == voice_key(samples, 24_000, "Hello.")
    as_wav, as_flac = load_audio(wav(samples)), load_audio(encoded(load_audio(wav(samples))[0], 24_000, "flac", "flac"))
    assert voice_key(*as_wav, "Hello.") == voice_key(*as_flac, "Hello.")
    assert len({key, *(voice_key(*other) for other in others(samples))}) == 4


def others(samples: np.ndarray) -> list[tuple[np.ndarray, int, str]]:
    changed = samples.copy()
    changed[7] += 1e-3
    return [(changed, 24_000, "Hello."), (samples, 48_000, "Hello."), (samples, 24_000, "Hello!")]


def test_a_preset_speaker_has_an_embedding_only() -> None:
    embedding = np.arange(192, dtype=np.float64)
    voice = Voice.preset("Anna", embedding[None])
    assert (voice.transcript, voice.speech_tokens.shape, voice.mel.shape) == ("", (0,), (0, 80))
    assert voice.embedding.dtype == np.float32
    assert voice.embedding.tolist() == embedding.tolist()
    assert len({voice.key, Voice.preset("Berta", embedding).key, Voice.preset("Anna", embedding + 1).key}) == 3
    with pytest.raises(ValueError, match="'Anna' has shape"):
        Voice.preset("Anna", embedding[:100])


# the voices on disk


@pytest.mark.parametrize("name", ["default", "slt", "rms", "awb"])
def test_the_built_in_voices_are_ready_to_use(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        samples, rate, transcript = VoiceDirectory().load(name)
    assert not caplog.records
    assert 4 <= len(samples) / rate <= 6
    assert transcript.endswith(".")
    origin = (BUILT_IN / "ORIGIN.md").read_text()
    assert "licence" in origin.lower()
    assert f"`{name}`" in origin


def test_a_users_directory_adds_voices_and_wins(tmp_path: Path) -> None:
    (tmp_path / "anna.flac").write_bytes(encoded(tone(2), 24_000, "flac", "flac"))
    (tmp_path / "anna.txt").write_text(" Grüß dich, 你好。\n", encoding="utf-8")
    (tmp_path / "default.wav").write_bytes(wav(tone(3)))
    (tmp_path / "default.txt").write_text("Mine.")
    (tmp_path / "no transcript.wav").write_bytes(wav(tone(2)))
    (tmp_path / "notes.txt").write_text("no recording")
    voices = VoiceDirectory(tmp_path)
    assert voices.names() == ["anna", "awb", "default", "rms", "slt"]
    samples, rate, transcript = voices.load("anna")
    assert (len(samples), rate, transcript) == (48_000, 24_000, "Grüß dich, 你好。")
    assert voices.load("default")[2] == "Mine."
    (tmp_path / "no transcript.txt").write_text("Now there is one.")  # while the server runs
    assert "no transcript" in voices.names()
    (tmp_path / "anna.wav").write_bytes(wav(tone(4)))
    assert len(voices.load("anna")[0]) == 4 * 24_000  # WAV comes first, every time


@pytest.mark.parametrize(
    "name", ["../secret/voice", "secret/voice", "/etc/passwd", "", ".", "..", "default.wav", "a\0b"]
)
def test_no_name_leads_out_of_the_directory(tmp_path: Path, name: str) -> None:
    for secret in (tmp_path / "secret", tmp_path / "voices" / "secret"):
        secret.mkdir(parents=True)
        (secret / "voice.wav").write_bytes(wav(tone(2)))
        (secret / "voice.txt").write_text("secret")
    with pytest.raises(UnknownVoice, match=r"Voices here: awb, default, rms, slt\.$"):
        VoiceDirectory(tmp_path / "voices").load(name)


def test_bad_recordings_and_directories_are_told(tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"noise")
    (tmp_path / "bad.txt").write_text("x")
    with pytest.raises(AudioError, match="can't be decoded"):
        VoiceDirectory(tmp_path).load("bad")
    with pytest.raises(NotADirectoryError, match="is not a directory"):
        VoiceDirectory(tmp_path / "bad.wav")
