"""A model directory: checked once, then the source of everything that the engine needs."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from vllm_cosyvoice.checkpoint import sizes, tensors, vllm_directory
from vllm_cosyvoice.checkpoint.cosyvoice2 import COSYVOICE2
from vllm_cosyvoice.checkpoint.cosyvoice3 import COSYVOICE3
from vllm_cosyvoice.checkpoint.errors import CheckpointError
from vllm_cosyvoice.checkpoint.family import ModelFamily
from vllm_cosyvoice.checkpoint.hyperyaml import HyperYaml
from vllm_cosyvoice.checkpoint.layout import flow_layout, vocoder_layout, with_folded_norms
from vllm_cosyvoice.checkpoint.presets import PresetSpeaker, read_presets
from vllm_cosyvoice.config import LLM_FILE, LanguageModelConfig, ModelConfig

FAMILIES = (COSYVOICE2, COSYVOICE3)
OTHER_FAMILY = "cosyvoice.yaml"  # its settings
FLOW = "flow.pt"
VOCODER = "hift.pt"
SPEAKER_ENCODER = "campplus.onnx"
PRESET_SPEAKERS = "spk2info.pt"
TOKENIZER = "CosyVoice-BlankEN"
TOKENIZER_FILES = ("config.json", "vocab.json", "merges.txt", "tokenizer_config.json")

UNUSED_TENSOR = "llm.model.lm_head.weight"  # Qwen2's text head, which is not needed for speech


@dataclass(frozen=True)
class ModelDirectory:
    """A checked model directory. Create one with `open_model`."""

    path: Path
    config: ModelConfig
    family: ModelFamily = COSYVOICE2
    llm_file: str = LLM_FILE

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
        return self.path / self.family.speech_tokenizer

    def preset_speakers(self) -> dict[str, PresetSpeaker]:
        """The model's preset speakers by name, without damaged ones, which `find` has logged."""
        speakers, _ = read_presets(self.path / PRESET_SPEAKERS)
        return speakers

    def flow_state(self) -> dict[str, torch.Tensor]:
        """The flow's float32 tensors, by the names of the family's layout."""
        return _as_float32(tensors.read_tensors(self.path / FLOW, meta=False))

    def vocoder_state(self) -> dict[str, torch.Tensor]:
        """The vocoder's float32 tensors, by the names of the family's layout, also for files with older names.

        If a weight's norm is folded into it in the file, it is a single tensor `weight` here, too.
        """
        state = tensors.read_tensors(self.path / VOCODER, meta=False)
        return _as_float32(tensors.rename(state, tensors.vocoder_name))

    def engine_directory(self) -> Path:
        """The directory from which vLLM loads the language model."""
        weights = self.path / self.llm_file
        return vllm_directory.engine_directory(weights, self.config.language_model, self.family.architecture)


def open_model(path: Path, llm_file: str = LLM_FILE) -> ModelDirectory:
    """Check the whole model directory at `path`, without reading the weights themselves.

    `llm_file`: the file of the language model in it, such as `llm.rl.pt` of CosyVoice3.

    Raises:
        CheckpointError: describes the first problem and how to fix it.
    """
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a directory; give a CosyVoice2 model directory or a hub name")
    family, settings = read_settings(path)
    flow = tensors.read_tensors(path / FLOW, meta=True)
    config = family.sizes(settings, flow, _checked_tokenizer(path / TOKENIZER))
    tensors.check_layout(path / FLOW, flow, flow_layout(config.flow))
    vocoder = tensors.rename(tensors.read_tensors(path / VOCODER, meta=True), tensors.vocoder_name)
    tensors.check_layout(path / VOCODER, vocoder, with_folded_norms(vocoder_layout(config.vocoder), vocoder))
    layout = family.language_model_layout(config.language_model)
    language_model = tensors.read_tensors(_language_model(path, llm_file), meta=True)
    if UNUSED_TENSOR not in language_model:
        del layout[UNUSED_TENSOR]
    tensors.check_layout(path / llm_file, language_model, layout)
    for network in (SPEAKER_ENCODER, family.speech_tokenizer):  # `VoiceEncoder` checks their inputs
        tensors.check_present(path / network)
    return ModelDirectory(path, config, family, llm_file)


def read_settings(path: Path) -> tuple[ModelFamily, HyperYaml]:
    """Read and check the settings of the model directory `path`, and determine its family.

    Raises:
        CheckpointError: the YAML is missing, or it belongs to a family that this engine can't run.
    """
    family = next((family for family in FAMILIES if (path / family.settings).is_file()), COSYVOICE2)
    if (path / OTHER_FAMILY).is_file() and not (path / family.settings).is_file():
        names = " or ".join(family.settings for family in FAMILIES)
        raise CheckpointError(
            f"{path} contains {OTHER_FAMILY} but no {names}, so it is of another family or an early release; use the"
            f" current FunAudioLLM/CosyVoice2-0.5B"
        )
    tensors.check_present(path / family.settings)
    settings = HyperYaml(path / family.settings)
    family.check(settings)
    return family, settings


def _language_model(path: Path, name: str) -> Path:
    """The file of the language model, which must exist if it is not the usual one."""
    if name != LLM_FILE and not (path / name).is_file():
        found = ", ".join(sorted(file.name for file in path.glob("llm*.pt"))) or "none"
        raise CheckpointError(f"{path} has no language model {name!r}; choose one of its files: {found}")
    return path / name


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
