"""The released sizes of the networks that hear a voice: what they take and give."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tools.random_checkpoint import prompt_networks
from vllm_cosyvoice.vocabulary import SPEECH_TOKENS

CPU = ["CPUExecutionProvider"]


def test_the_speaker_encoder_is_as_large_as_the_released_one_and_tells_recordings_apart(tmp_path: Path) -> None:
    file = tmp_path / "campplus.onnx"
    prompt_networks.write_speaker_encoder(file, seed=0)
    assert file.stat().st_size == pytest.approx(28e6, rel=0.1)
    session = onnxruntime.InferenceSession(file, providers=CPU)
    banks = np.random.default_rng(0).standard_normal((2, 1, 203, 80), np.float32)
    first, second = (session.run(None, {"input": recording})[0] for recording in banks)
    assert first.shape == (1, 192)
    assert np.isfinite(first).all()
    assert not np.allclose(first, second, rtol=0.1)


def test_the_speech_tokenizer_gives_25_tokens_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_networks, "LAYERS", 1)  # of six: all of them take half a gigabyte
    file = tmp_path / "speech_tokenizer_v2.onnx"
    prompt_networks.write_speech_tokenizer(file, seed=0)
    session = onnxruntime.InferenceSession(file, providers=CPU)
    log_mel = np.random.default_rng(0).standard_normal((1, 128, 500), np.float32)
    whole, half = (
        session.run(None, {"feats": log_mel, "feats_length": np.array([length], np.int32)})[0] for length in (400, 200)
    )
    assert (whole.shape, half.shape) == ((1, 100), (1, 50))
    assert 0 <= whole.min() <= whole.max() < SPEECH_TOKENS
    assert len(np.unique(whole)) > 50, "what is heard decides about the tokens"
