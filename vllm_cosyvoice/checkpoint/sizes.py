"""Reads a model's sizes from its YAML, its Qwen2 `config.json` and the names of its tensors."""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, astuple
from pathlib import Path

from vllm_cosyvoice.checkpoint.errors import CheckpointError
from vllm_cosyvoice.checkpoint.hyperyaml import HyperYaml
from vllm_cosyvoice.checkpoint.layout import DIT_POSITION_GROUPS
from vllm_cosyvoice.config import (
    CausalVocoderConfig,
    DiTFlowConfig,
    FlowConfig,
    LanguageModelConfig,
    VocoderConfig,
)

# Values that a Qwen2 `config.json` must have if it has the key.
QWEN2 = {
    "model_type": "qwen2",
    "hidden_act": "silu",
    "use_sliding_window": False,
    "rope_scaling": None,
}


def flow_config(settings: HyperYaml, tensor_names: Iterable[str]) -> FlowConfig:
    """Sizes of the flow. The number of upsampled blocks, which the YAML omits, is taken from `tensor_names`."""
    channels = settings.get("flow.decoder.estimator.channels")
    if not isinstance(channels, list) or len(channels) != 1:
        raise CheckpointError(
            f"{settings.path} sets flow.decoder.estimator.channels to {channels}, but this engine is built for"
            f" one resolution, as in [256]"
        )
    width = _integer(settings, "flow.encoder.output_size")
    for name in ("flow.input_size", "flow.encoder.input_size"):
        if settings.get(name) != width:
            raise CheckpointError(
                f"{settings.path} sets {name} to {settings.get(name)}, but flow.encoder.output_size to {width};"
                f" this engine is built for one width"
            )
    up_blocks = {match[1] for name in tensor_names if (match := re.match(r"encoder\.up_encoders\.(\d+)\.", name))}
    return FlowConfig(
        token_vocab_size=_integer(settings, "flow.vocab_size"),
        width=width,
        heads=_integer(settings, "flow.encoder.attention_heads"),
        feed_forward=_integer(settings, "flow.encoder.linear_units"),
        blocks=_integer(settings, "flow.encoder.num_blocks"),
        up_blocks=len(up_blocks),
        estimator_channels=_as_integer(settings, "flow.decoder.estimator.channels", channels[0]),
        estimator_heads=_integer(settings, "flow.decoder.estimator.num_heads"),
        estimator_head_dim=_integer(settings, "flow.decoder.estimator.attention_head_dim"),
        estimator_blocks=_integer(settings, "flow.decoder.estimator.n_blocks"),
        estimator_mid_stages=_integer(settings, "flow.decoder.estimator.num_mid_blocks"),
        guidance=_number(settings, "flow.decoder.cfm_params.content.inference_cfg_rate"),
    )


def dit_flow_config(settings: HyperYaml) -> DiTFlowConfig:
    """Sizes of CosyVoice3's flow."""
    width = _integer(settings, "flow.decoder.estimator.dim")
    if width % DIT_POSITION_GROUPS:
        raise CheckpointError(
            f"{settings.path} sets flow.decoder.estimator.dim to {width}, which is not a multiple of"
            f" {DIT_POSITION_GROUPS}, the number of groups in its convolutions"
        )
    return DiTFlowConfig(
        token_vocab_size=_integer(settings, "flow.vocab_size"),
        look_ahead_width=_integer(settings, "flow.pre_lookahead_layer.channels"),
        width=width,
        blocks=_integer(settings, "flow.decoder.estimator.depth"),
        heads=_integer(settings, "flow.decoder.estimator.heads"),
        head_dim=_even(settings, "flow.decoder.estimator.dim_head"),
        feed_forward=width * _integer(settings, "flow.decoder.estimator.ff_mult"),
        guidance=_number(settings, "flow.decoder.cfm_params.content.inference_cfg_rate"),
    )


def vocoder_config(settings: HyperYaml) -> VocoderConfig:
    """Sizes of the vocoder."""
    config = VocoderConfig(
        base_channels=_integer(settings, "hift.base_channels"),
        f0_channels=_integer(settings, "hift.f0_predictor.cond_channels"),
        harmonics=_integer(settings, "hift.nb_harmonics"),
        upsample_rates=_integers(settings, "hift.upsample_rates"),
        upsample_kernels=_integers(settings, "hift.upsample_kernel_sizes"),
        resblock_kernels=_integers(settings, "hift.resblock_kernel_sizes"),
        resblock_dilations=_same_integers(settings, "hift.resblock_dilation_sizes"),
        source_resblock_kernels=_integers(settings, "hift.source_resblock_kernel_sizes"),
        source_resblock_dilations=_same_integers(settings, "hift.source_resblock_dilation_sizes"),
        n_fft=_integer(settings, "hift.istft_params.n_fft"),
        hop_length=_integer(settings, "hift.istft_params.hop_len"),
        sine_amplitude=_number(settings, "hift.nsf_alpha"),
        noise_amplitude=_number(settings, "hift.nsf_sigma"),
        voiced_threshold=_number(settings, "hift.nsf_voiced_threshold"),
        leaky_slope=_number(settings, "hift.lrelu_slope"),
        audio_limit=_number(settings, "hift.audio_limit"),
    )
    stages = {len(config.upsample_rates), len(config.upsample_kernels), len(config.source_resblock_kernels)}
    if len(stages) != 1:
        raise CheckpointError(
            f"{settings.path} gives hift different numbers of stages in upsample_rates, upsample_kernel_sizes and"
            f" source_resblock_kernel_sizes"
        )
    return config


def causal_vocoder_config(settings: HyperYaml) -> CausalVocoderConfig:
    """Sizes of CosyVoice3's vocoder."""
    return CausalVocoderConfig(**asdict(vocoder_config(settings)))


def language_model_config(path: Path) -> LanguageModelConfig:
    """Sizes of the language model from the Qwen2 `config.json` at `path`."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        rope = facts.get("rope_parameters") or {}  # transformers 5 writes `rope_theta` here
        for name, expected in QWEN2.items():
            if facts.get(name, expected) != expected:
                raise ValueError(f"it sets {name} to {facts[name]}, but this engine is built for {expected}")
        if rope.get("rope_type", "default") != "default":
            raise ValueError(f"it sets rope_type to {rope['rope_type']}, but this engine is built for default")
        config = LanguageModelConfig(
            hidden_size=int(facts["hidden_size"]),
            intermediate_size=int(facts["intermediate_size"]),
            num_layers=int(facts["num_hidden_layers"]),
            num_heads=int(facts["num_attention_heads"]),
            num_kv_heads=int(facts["num_key_value_heads"]),
            text_vocab_size=int(facts["vocab_size"]),
            max_position=int(facts["max_position_embeddings"]),
            rope_theta=float(rope.get("rope_theta") or facts["rope_theta"]),
            rms_norm_eps=float(facts["rms_norm_eps"]),
        )
        if min(astuple(config)) <= 0:
            raise ValueError("sizes must be positive")
        return config
    except KeyError as error:
        raise CheckpointError(f"{path} lacks {error}; it must be the config.json of a Qwen2 model") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is not a Qwen2 config.json that this engine can use ({error}); use the model's own file"
        ) from error


def _number(settings: HyperYaml, name: str) -> float:
    value = settings.get(name)
    try:
        return float(str(value))  # YAML 1.1 reads 1e-06 as text
    except ValueError:
        raise CheckpointError(f"{settings.path} sets {name} to {value}, which is not a number") from None


def _integer(settings: HyperYaml, name: str) -> int:
    return _as_integer(settings, name, settings.get(name))


def _even(settings: HyperYaml, name: str) -> int:
    value = _integer(settings, name)
    if value % 2:
        raise CheckpointError(f"{settings.path} sets {name} to {value}, which is not an even number")
    return value


def _integers(settings: HyperYaml, name: str) -> tuple[int, ...]:
    values = settings.get(name)
    if not isinstance(values, list) or not values:
        raise CheckpointError(f"{settings.path} sets {name} to {values}, which is not a list of whole numbers")
    return tuple(_as_integer(settings, name, value) for value in values)


def _same_integers(settings: HyperYaml, name: str) -> tuple[int, ...]:
    rows = settings.get(name)
    if not isinstance(rows, list) or not rows or any(row != rows[0] for row in rows) or not isinstance(rows[0], list):
        raise CheckpointError(f"{settings.path} sets {name} to {rows}, not to equal lists, one per kernel")
    return tuple(_as_integer(settings, name, value) for value in rows[0])


def _as_integer(settings: HyperYaml, name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(f"{settings.path} sets {name} to {value}, which is not a positive whole number")
    return value
