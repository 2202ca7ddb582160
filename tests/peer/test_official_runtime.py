"""CosyVoice's own code loads our model directories, and computes what our engine computes.

The package `cosyvoice2-eu` has that code. It needs an environment of its own, see CONTRIBUTING.md.
"""

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tools.random_checkpoint import OFFICIAL, write_random_checkpoint
from training.sizes import DEMO
from vllm_cosyvoice.checkpoint import ModelDirectory, open_model
from vllm_cosyvoice.config import (
    CHUNK_TOKENS,
    FRAMES_PER_TOKEN,
    LOOKAHEAD_TOKENS,
    MEL_BINS,
    SAMPLES_PER_FRAME,
    SAMPLES_PER_TOKEN,
    SPEAKER_DIM,
    ModelConfig,
)
from vllm_cosyvoice.flow import Flow, FlowRow
from vllm_cosyvoice.vocabulary import SPEECH_TOKENS
from vllm_cosyvoice.vocoder import Vocoder, VocoderRow

if find_spec("cosyvoice2_eu") is None:
    pytest.skip("CosyVoice's own code is not installed, see CONTRIBUTING.md", allow_module_level=True)

SPOKEN, PROMPT = 2 * CHUNK_TOKENS, 20  # tokens


@dataclass(frozen=True)
class Pair:
    """One model directory, opened by our code and by CosyVoice's."""

    model: ModelDirectory
    official: dict[str, Any]  # "llm", "flow" and "hift"


@pytest.fixture(scope="module", params=[OFFICIAL, DEMO], ids=["official", "demo"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A model with random weights, of the smallest sizes that CosyVoice's code takes and of the demo model's."""
    config: ModelConfig = request.param
    path = tmp_path_factory.mktemp("official") / "model"
    write_random_checkpoint(path, config, seed=0)
    with (path / "cosyvoice2.yaml").open(encoding="utf-8") as file:
        settings = {"qwen_pretrain_path": str(path / "CosyVoice-BlankEN")}
        official = import_module("hyperpyyaml").load_hyperpyyaml(file, overrides=settings)
    for network, file_name in (("llm", "llm.pt"), ("flow", "flow.pt"), ("hift", "hift.pt")):
        state = official_state(path / file_name)
        official[network].load_state_dict(state, strict=True)
        official[network].float().eval()  # transformers 5 takes the data type in config.json, earlier ones float32
    return Pair(open_model(path), official)


def official_state(path: Path) -> dict[str, Tensor]:
    """The tensors of `path` as CosyVoice's own loader names them."""
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return {name.replace("generator.", ""): tensor for name, tensor in state.items()}


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_the_text_head_is_the_text_embedding(pair: Pair) -> None:
    qwen2 = pair.official["llm"].llm.model
    assert torch.equal(qwen2.lm_head.weight, qwen2.model.embed_tokens.weight)


@pytest.mark.parametrize("prompt", [0, PROMPT], ids=["bare", "prompted"])
@pytest.mark.parametrize("more", [True, False], ids=["more comes", "at the end"])
@pytest.mark.parametrize("streaming", [True, False], ids=["chunk mask", "whole"])
@torch.inference_mode()
def test_mels_are_equal(pair: Pair, prompt: int, more: bool, streaming: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(SPEECH_TOKENS, (1, SPOKEN + LOOKAHEAD_TOKENS * more), generator=generator)
    prompt_mel, embedding = numbers(1, FRAMES_PER_TOKEN * prompt, MEL_BINS), numbers(1, SPEAKER_DIM)
    expected, _ = pair.official["flow"].inference(
        token=tokens[:, prompt:],
        token_len=torch.tensor([tokens.shape[1] - prompt], dtype=torch.int32),
        prompt_token=tokens[:, :prompt],
        prompt_token_len=torch.tensor([prompt], dtype=torch.int32),
        prompt_feat=prompt_mel,
        prompt_feat_len=torch.tensor([prompt_mel.shape[1]], dtype=torch.int32),
        embedding=embedding,
        streaming=streaming,
        finalize=not more,
    )
    flow = Flow.from_state(pair.model.config.flow, pair.model.flow_state())
    look_ahead = LOOKAHEAD_TOKENS * more
    row = FlowRow(tokens[0].tolist(), look_ahead, prompt_mel[0], flow.speaker(embedding[0]), streaming)
    torch.testing.assert_close(flow([row])[0], expected[0].T, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_speech_of_a_mel_is_equal(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)  # the noise in CosyVoice's source
    mel = numbers(1, 40, MEL_BINS)
    expected, _ = pair.official["hift"].inference(speech_feat=mel.transpose(1, 2))
    vocoder = Vocoder.from_state(pair.model.config.vocoder, pair.model.vocoder_state())
    vocoder.source.noise.zero_()
    phase = torch.zeros(vocoder.source.harmonics, dtype=torch.float64)
    audio = vocoder([VocoderRow(mel[0], phase, 0, mel.shape[1], 0)])[0][0]
    assert audio.shape == (SAMPLES_PER_FRAME * mel.shape[1],)
    error = (audio - expected[0]).norm() / expected.norm()
    assert error < 1e-2  # CosyVoice adds up the source's phase in float32, of up to 41 sines


def test_the_official_engine_speaks(pair: Pair) -> None:
    networks = (pair.official[name] for name in ("llm", "flow", "hift"))
    engine = import_module("cosyvoice.cli.model").CosyVoice2Model(*networks)
    text = torch.arange(100, 106)[None]
    audio = torch.cat([each["tts_speech"] for each in engine.tts(text=text, flow_embedding=numbers(1, 192))], dim=1)
    assert audio.isfinite().all()
    assert audio.abs().max() > 0.01
    assert audio.shape[1] % SAMPLES_PER_TOKEN == 0
    assert 2 * text.shape[1] <= audio.shape[1] // SAMPLES_PER_TOKEN <= 20 * text.shape[1]
