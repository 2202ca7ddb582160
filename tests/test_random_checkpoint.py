"""Random model directories: reproducible, of the sizes asked for, and fit to run."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import AutoTokenizer

from tools.random_checkpoint import OFFICIAL, TINY, write_random_checkpoint
from tools.random_checkpoint.settings import yaml_text
from vllm_cosyvoice.checkpoint import CheckpointError, open_model
from vllm_cosyvoice.config import MEL_BINS, ModelConfig
from vllm_cosyvoice.flow import Flow, FlowRow
from vllm_cosyvoice.vocabulary import END_OF_SPEECH, FILL, SPEECH_TOKENS, UNUSED
from vllm_cosyvoice.vocoder import Vocoder


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_two_makings_are_equal_byte_for_byte_even_by_different_processes(tiny_model: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.random_checkpoint", "--size", "tiny", "--seed", "0"]
    subprocess.run([*command, str(tmp_path / "again")], check=True, timeout=120)
    assert contents(tmp_path / "again") == contents(tiny_model)


def test_another_seed_is_another_model(tiny_model: Path, tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "other", TINY, seed=1)
    first, other = contents(tiny_model), contents(tmp_path / "other")
    assert first.keys() == other.keys()
    assert {name for name in first if first[name] != other[name]} == {
        "llm.pt",
        "flow.pt",
        "hift.pt",
        "spk2info.pt",
        "campplus.onnx",
        "speech_tokenizer_v2.onnx",
        "flow.decoder.estimator.fp32.onnx",
    }


def test_nothing_is_overwritten(tiny_model: Path, tmp_path: Path) -> None:
    before = contents(tiny_model)
    with pytest.raises(CheckpointError, match="already exists"):
        write_random_checkpoint(tiny_model, TINY, seed=1)
    assert contents(tiny_model) == before
    (tmp_path / "empty").mkdir()
    write_random_checkpoint(tmp_path / "empty", TINY, seed=0)
    assert open_model(tmp_path / "empty").config == TINY


def test_the_text_head_is_the_text_embedding_and_is_stored_once(tiny_model: Path) -> None:
    state = torch.load(tiny_model / "llm.pt", weights_only=True)
    head, embedding = (state[f"llm.model.{name}.weight"] for name in ("lm_head", "model.embed_tokens"))
    assert head.data_ptr() == embedding.data_ptr()
    stored = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in state.values()}
    assert (tiny_model / "llm.pt").stat().st_size < sum(stored.values()) + head.untyped_storage().nbytes() / 2


def test_the_official_size_is_what_cosyvoices_code_has_built_in(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "model", OFFICIAL, seed=0)
    flow = open_model(tmp_path / "model").flow_state()
    assert flow["encoder.pre_lookahead_layer.conv1.weight"].shape == (512, 512, 4)
    assert flow["encoder.up_layer.conv.weight"].shape == (512, 512, 5)
    assert {name.split(".")[2] for name in flow if ".up_encoders." in name} == set("0123")


def test_the_settings_of_the_full_size_are_the_releases() -> None:
    text = yaml_text(ModelConfig())
    for line in (
        "llm_input_size: 896",
        "linear_units: 2048",
        "num_blocks: 6",
        "channels: [256]",
        "num_mid_blocks: 12",
        "inference_cfg_rate: 0.7",
        "static_chunk_size: !ref <chunk_size> * <token_mel_ratio>",
        "base_channels: 512",
        "upsample_rates: [8, 5, 3]",
        "resblock_dilation_sizes: [[1, 3, 5], [1, 3, 5], [1, 3, 5]]",
    ):
        assert f" {line}\n" in text or f"\n{line}\n" in text


def test_the_tokenizer_is_a_qwen2_tokenizer(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(open_model(tiny_model).tokenizer)
    for text in ("Hello, can you hear the quiet sound? It's 42.", "今天天气很好，我们去看海。", "naïve 🙂 ñ"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.tokenize(" the sound") == ["Ġthe", "Ġsound"]
    assert tokenizer.tokenize("42") == ["4", "2"]
    ids = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    assert ids == [ids[0], ids[0] + 1, ids[0] + 2]
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == ids[0]
    assert len(tokenizer) + 17 <= TINY.language_model.text_vocab_size  # room for the marks the text front end adds


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("frames", "tokens"), [(400, 100), (403, 100), (3000, 750)])
def test_speech_tokens_come_25_a_second_and_follow_the_audio(tiny_model: Path, frames: int, tokens: int) -> None:
    tokenizer = session(open_model(tiny_model).speech_tokenizer)
    random = np.random.default_rng(0)
    results = []
    for _ in range(2):
        mel = random.standard_normal((1, 128, frames)).astype(np.float32)
        (result,) = tokenizer.run(None, {"feats": mel, "feats_length": np.array([frames], np.int32)})
        results.append(result)
        assert result.shape == (1, tokens)
        assert result.dtype == np.int32
        assert result.min() >= 0
        assert result.max() < SPEECH_TOKENS
        assert len(np.unique(result)) > tokens // 10
    assert (results[0] != results[1]).mean() > 0.5


def test_speech_tokens_stop_at_the_given_length(tiny_model: Path) -> None:
    tokenizer = session(open_model(tiny_model).speech_tokenizer)
    mel = np.random.default_rng(0).standard_normal((1, 128, 400)).astype(np.float32)
    (whole,) = tokenizer.run(None, {"feats": mel, "feats_length": np.array([400], np.int32)})
    (part,) = tokenizer.run(None, {"feats": mel, "feats_length": np.array([200], np.int32)})
    assert np.array_equal(part, whole[:, :50])


def test_speaker_embeddings_follow_the_audio(tiny_model: Path) -> None:
    encoder = session(open_model(tiny_model).speaker_encoder)
    random = np.random.default_rng(0)
    first, second = (
        encoder.run(None, {"input": random.standard_normal((1, frames, MEL_BINS)).astype(np.float32)})[0]
        for frames in (98, 498)
    )
    assert first.shape == second.shape == (1, 192)
    assert np.isfinite(first).all()
    assert not np.allclose(first, second, atol=1e-3)


def test_the_estimators_graph_takes_what_the_release_takes(tiny_model: Path) -> None:
    estimator = session(tiny_model / "flow.decoder.estimator.fp32.onnx")
    assert [each.name for each in estimator.get_inputs()] == ["x", "mask", "mu", "t", "spks", "cond"]
    mel, ones = np.ones((2, MEL_BINS, 9), np.float32), np.ones(2, np.float32)
    inputs = {"x": mel, "mask": mel[:, :1], "mu": mel, "t": ones, "spks": mel[:, :, 0], "cond": mel}
    assert estimator.run(["estimator_out"], inputs)[0].shape == mel.shape


def test_control_tokens_are_never_drawn_and_the_end_can_be(tiny_model: Path) -> None:
    state = torch.load(tiny_model / "llm.pt", weights_only=True)
    hidden = torch.randn(2000, TINY.language_model.hidden_size, generator=torch.Generator().manual_seed(0))
    hidden /= hidden.square().mean(dim=1, keepdim=True).sqrt()
    probabilities = (hidden @ state["llm_decoder.weight"].T + state["llm_decoder.bias"]).softmax(dim=1)
    assert probabilities[:, [UNUSED, FILL]].max() == 0
    nucleus, ids = probabilities.topk(25)
    ends = nucleus.where(ids == END_OF_SPEECH, 0).sum(dim=1) / nucleus.sum(dim=1)
    assert 1 / 100 < ends.mean() < 1 / 30


@torch.inference_mode()
def test_the_speech_is_voiced_audible_and_not_clipped(tiny_model: Path) -> None:
    model = open_model(tiny_model)
    flow = Flow.from_state(TINY.flow, model.flow_state())
    vocoder = Vocoder.from_state(TINY.vocoder, model.vocoder_state())
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(SPEECH_TOKENS, (60,), generator=generator).tolist()
    speaker = flow.speaker(torch.randn(192, generator=generator))
    (mel,) = flow([FlowRow(tokens, 0, torch.zeros(0, MEL_BINS), speaker, chunk_mask=False)])
    pitch = vocoder.f0(mel[None], torch.ones(1, len(mel)))
    assert 60 < pitch.min() <= pitch.max() < 300
    source = 0.1 * torch.sin(torch.arange(len(mel) * 480) * (2 * torch.pi * 170 / 24_000))
    audio = vocoder.generator(mel[None], source[None], torch.tensor([len(mel)]), ragged=False)
    assert audio.isfinite().all()
    assert audio.square().mean().sqrt() > 0.01
    assert (audio.abs() > 0.98).float().mean() < 0.01
