"""Creates a model directory with random weights: all files of the release, in any size, without downloads.

    python -m tools.random_checkpoint --size tiny --seed 0 models/tiny

Its speech is noise in the rhythm of speech, but it exercises the whole engine. Writing the graphs needs the `onnx`
package; running a model does not.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from tools.random_checkpoint import weights
from tools.random_checkpoint.settings import yaml_text
from tools.random_checkpoint.tokenizer import write_tokenizer
from vllm_cosyvoice.checkpoint import directory as files
from vllm_cosyvoice.checkpoint.cosyvoice2 import COSYVOICE2
from vllm_cosyvoice.checkpoint.cosyvoice3 import COSYVOICE3
from vllm_cosyvoice.checkpoint.errors import CheckpointError
from vllm_cosyvoice.checkpoint.family import ModelFamily
from vllm_cosyvoice.config import (
    LLM_FILE,
    SPEAKER_DIM,
    CausalVocoderConfig,
    DiTFlowConfig,
    FlowConfig,
    LanguageModelConfig,
    ModelConfig,
    VocoderConfig,
)

ESTIMATOR = "flow.decoder.estimator.fp32.onnx"
PRESET_NAMES = ("中文女", "English male")

FULL = ModelConfig()
TINY_FLOW = FlowConfig(
    width=128,
    heads=4,
    feed_forward=256,
    blocks=2,
    up_blocks=2,
    estimator_channels=64,
    estimator_heads=4,
    estimator_head_dim=16,
    estimator_blocks=1,
    estimator_mid_stages=2,
)
# Small enough to speak faster than real time on two CPU cores, with head sizes that vLLM's CPU attention supports.
TINY = ModelConfig(
    LanguageModelConfig(
        hidden_size=128, intermediate_size=256, num_layers=2, num_heads=4, num_kv_heads=2, text_vocab_size=4096
    ),
    TINY_FLOW,
    VocoderConfig(base_channels=64, f0_channels=64),
)
# The smallest model that CosyVoice's own code loads: it fixes the encoder's width and the blocks behind the upsampling.
OFFICIAL = replace(TINY, flow=replace(TINY_FLOW, width=512, heads=8, blocks=1, up_blocks=4))
FULL3 = ModelConfig(flow=DiTFlowConfig(), vocoder=CausalVocoderConfig())
TINY3 = ModelConfig(
    TINY.language_model,
    DiTFlowConfig(look_ahead_width=64, width=64, blocks=2, heads=4, head_dim=16, feed_forward=128),
    CausalVocoderConfig(base_channels=64, f0_channels=64),
)
SIZES = {
    "cosyvoice2": {"tiny": TINY, "official": OFFICIAL, "full": FULL},
    "cosyvoice3": {"tiny": TINY3, "full": FULL3},
}


def write_random_checkpoint(out: Path, config: ModelConfig, *, seed: int) -> None:
    """Write a model directory with the sizes `config` to `out`. Equal arguments give equal files.

    Raises:
        CheckpointError: `out` already exists, or the `onnx` package is missing.
    """
    write_model_directory(
        out,
        config,
        language_model=weights.language_model_weights(config.language_model, seed, _family(config)),
        flow=weights.flow_weights(config.flow, seed),
        vocoder=weights.vocoder_weights(config.vocoder, seed),
        seed=seed,
    )


def write_model_directory(
    out: Path,
    config: ModelConfig,
    *,
    language_model: dict[str, torch.Tensor],
    flow: dict[str, torch.Tensor],
    vocoder: dict[str, torch.Tensor],
    seed: int,
) -> None:
    """Write a model directory with the given weights; its other files are created from `config` and `seed`.

    The directory is created atomically.

    Raises:
        CheckpointError: `out` already exists, or the `onnx` package is missing.
    """
    try:
        from tools.random_checkpoint import graphs, prompt_networks
    except ImportError as error:
        raise CheckpointError("Writing a model's ONNX files needs the onnx package: `pip install onnx`") from error
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise CheckpointError(f"{out} already exists; remove it or choose another directory")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as temporary:
        directory = Path(temporary) / out.name
        directory.mkdir()
        family = _family(config)
        (directory / family.settings).write_text(yaml_text(config), encoding="utf-8")
        write_tokenizer(directory / files.TOKENIZER, config.language_model)
        torch.save(language_model, directory / LLM_FILE)
        torch.save(flow, directory / files.FLOW)
        # As in the release, with the generator's prefix from its GAN.
        torch.save({f"generator.{name}": tensor for name, tensor in vocoder.items()}, directory / files.VOCODER)
        torch.save(_preset_speakers(seed), directory / files.PRESET_SPEAKERS)
        prompts = prompt_networks if config in (FULL, FULL3) else graphs
        prompts.write_speaker_encoder(directory / files.SPEAKER_ENCODER, seed)
        prompts.write_speech_tokenizer(directory / family.speech_tokenizer, seed)
        if family is COSYVOICE2:
            graphs.write_estimator(directory / ESTIMATOR, seed)
        directory.replace(out)


def _family(config: ModelConfig) -> ModelFamily:
    return COSYVOICE3 if isinstance(config.flow, DiTFlowConfig) else COSYVOICE2


def _preset_speakers(seed: int) -> dict[str, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return {name: {"embedding": torch.randn(1, SPEAKER_DIM, generator=generator)} for name in PRESET_NAMES}
