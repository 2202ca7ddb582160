"""A model directory: checked once, then the source of everything that the engine needs."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from vllm_cosyvoice.checkpoint import sizes, tensors, vllm_directory
from vllm_cosyvoice.checkpoint.errors import CheckpointError
from vllm_cosyvoice.checkpoint.family import check_family
from vllm_cosyvoice.checkpoint.hyperyaml import HyperYaml
from vllm_cosyvoice.checkpoint.layout import flow_layout, language_model_layout, vocoder_layout, with_folded_norms
from vllm_cosyvoice.checkpoint.presets import PresetSpeaker, read_presets
from vllm_cosyvoice.config import LanguageModelConfig, ModelConfig

YAML = "cosyvoice2.yaml"
OTHER_YAMLS = ("cosyvoice.yaml", "cosyvoice3.yaml")
LANGUAGE_MODEL = "llm.pt"
FLOW = "flow.pt"
VOCODER = "hift.pt"
SPEAKER_ENCODER = "campplus.onnx"
SPEECH_TOKENIZER = "speech_tokenizer_v2.onnx"
PRESET_SPEAKERS = "spk2info.pt"
TOKENIZER = "CosyVoice-BlankEN"
TOKENIZER_FILES = ("config.json", "vocab.json", "merges.txt", "tokenizer_config.json")

UNUSED_TENSOR = "llm.model.lm_head.weight"  # Qwen2's text head, which is not needed for speech


@dataclass(frozen=True)
class ModelDirectory:
    """A checked CosyVoice2 model directory. Create one with `open_model`."""

    path: Path
    config: ModelConfig

    @property
    def tokenizer(self) -> Path:
        """Directory of the text tokenizer."""
        return self.path / TOKENIZER

    @property
    def speaker_encoder(self) -> Path:
        """ONNX file: float32 [1, T, 80] → float32 [1, 192]."""
        return self.path / SPEAKER_ENCODER

    @property
    def speech_tokenizer(self) -> Path:
        """ONNX file: float32 [1, 128, T] and int32 [1] → T/4 speech tokens."""
        return self.path / SPEECH_TOKENIZER

    def preset_speakers(self) -> dict[str, PresetSpeaker]:
        """The model's preset speakers by name, without damaged ones, which `find` has logged."""
        speakers, _ = read_presets(self.path / PRESET_SPEAKERS)
        return speakers

    def flow_state(self) -> dict[str, torch.Tensor]:
        """The flow's float32 tensors, by the names of `flow_layout`."""
        return _as_float32(tensors.read_tensors(self.path / FLOW, meta=False))

    def vocoder_state(self) -> dict[str, torch.Tensor]:
        """The vocoder's float32 tensors, by the names of `vocoder_layout`, also for files with older names.

        If a weight's norm is folded into it in the file, it is a single tensor `weight` here, too.
        """
        state = tensors.read_tensors(self.path / VOCODER, meta=False)
        return _as_float32(tensors.rename(state, tensors.vocoder_name))

    def engine_directory(self) -> Path:
        """The directory from which vLLM loads the language model."""
        return vllm_directory.engine_directory(self.path / LANGUAGE_MODEL, self.config.language_model)


def open_model(path: Path) -> ModelDirectory:
    """Check the whole model directory at `path`, without reading the weights themselves.

    Raises:
        CheckpointError: describes the first problem and how to fix it.
    """
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a directory; give a CosyVoice2 model directory or a hub name")
    settings = read_settings(path)
    flow = tensors.read_tensors(path / FLOW, meta=True)
    config = ModelConfig(
        language_model=_checked_tokenizer(path / TOKENIZER),
        flow=sizes.flow_config(settings, flow),
        vocoder=sizes.vocoder_config(settings),
    )
    tensors.check_layout(path / FLOW, flow, flow_layout(config.flow))
    vocoder = tensors.rename(tensors.read_tensors(path / VOCODER, meta=True), tensors.vocoder_name)
    tensors.check_layout(path / VOCODER, vocoder, with_folded_norms(vocoder_layout(config.vocoder), vocoder))
    layout = language_model_layout(config.language_model)
    language_model = tensors.read_tensors(path / LANGUAGE_MODEL, meta=True)
    if UNUSED_TENSOR not in language_model:
        del layout[UNUSED_TENSOR]
    tensors.check_layout(path / LANGUAGE_MODEL, language_model, layout)
    for network in (SPEAKER_ENCODER, SPEECH_TOKENIZER):  # `VoiceEncoder` checks their inputs
        tensors.check_present(path / network)
    return ModelDirectory(path, config)


def read_settings(path: Path) -> HyperYaml:
    """Read the settings of the model directory `path` and check that they belong to a CosyVoice2.

    Raises:
        CheckpointError: the YAML is missing, or it belongs to another model family.
    """
    if not (path / YAML).is_file():
        other = next((name for name in OTHER_YAMLS if (path / name).is_file()), None)
        if other:
            raise CheckpointError(
                f"{path} contains {other} but no {YAML}, so it is of another family or an early release;"
                f" use the current FunAudioLLM/CosyVoice2-0.5B"
            )
    tensors.check_present(path / YAML)
    settings = HyperYaml(path / YAML)
    check_family(settings)
    return settings


def _checked_tokenizer(path: Path) -> LanguageModelConfig:
    for name in TOKENIZER_FILES:
        tensors.check_present(path / name)
    config = sizes.language_model_config(path / "config.json")
    try:
        highest = max(json.loads((path / "vocab.json").read_text(encoding="utf-8")).values())
    except (ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path / 'vocab.json'} is not a vocabulary; download it again") from error
    if highest >= config.text_vocab_size:
        raise CheckpointError(
            f"{path / 'vocab.json'} has ids up to {highest}, but the language model has {config.text_vocab_size} rows"
            f" for text; the two do not belong together"
        )
    return config


def _as_float32(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.float() for name, tensor in state.items()}
