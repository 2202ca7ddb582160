"""Converts the tensors of `flow.pt` to the layout of the modules in this package."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vllm_cosyvoice.config import MEL_BINS
from vllm_cosyvoice.nn.layers import frame_conv_weight

RENAMES = (
    (r"^spk_embed_affine_layer\.", "speaker_proj."),
    (r"^input_embedding\.", "encoder.token_embedding."),
    (r"^encoder\.pre_lookahead_layer\.", "encoder.look_ahead."),
    (r"^encoder\.(up_)?embed\.out\.0\.", r"encoder.\1embed.linear."),
    (r"^encoder\.(up_)?embed\.out\.1\.", r"encoder.\1embed.norm."),
    (r"^encoder\.(up_)?encoders\.", r"encoder.\1blocks."),
    (r"^encoder\.up_layer\.conv\.", "encoder.up_conv."),
    (r"^encoder\.after_norm\.", "encoder.norm."),
    (r"\.norm_mha\.", ".norm1."),
    (r"\.norm_ff\.", ".norm2."),
    (r"\.feed_forward\.w_1\.", ".feed_in."),
    (r"\.feed_forward\.w_2\.", ".feed_out."),
    (r"\.self_attn\.pos_bias_u$", ".attention.content_bias"),
    (r"\.self_attn\.pos_bias_v$", ".attention.position_bias"),
    (r"\.self_attn\.linear_pos\.", ".attention.position."),
    (r"\.self_attn\.linear_", ".attention."),
    (r"^decoder\.estimator\.", "estimator."),
    (r"\.time_mlp\.linear_1\.", ".time_in."),
    (r"\.time_mlp\.linear_2\.", ".time_out."),
    (r"\.(down|up)_blocks\.0\.0\.", r".\1.resnet."),
    (r"\.(down|up)_blocks\.0\.1\.", r".\1.transformers."),
    (r"\.(down|up)_blocks\.0\.2\.", r".\1_conv."),
    (r"\.mid_blocks\.(\d+)\.0\.", r".mid.\1.resnet."),
    (r"\.mid_blocks\.(\d+)\.1\.", r".mid.\1.transformers."),
    (r"\.final_block\.block\.0\.", ".final_conv."),
    (r"\.final_block\.block\.2\.", ".final_norm."),
    (r"\.block([12])\.block\.0\.", r".conv\1."),
    (r"\.block([12])\.block\.2\.", r".norm\1."),
    (r"\.mlp\.1\.", ".time."),
    (r"\.res_conv\.", ".shortcut."),
    (r"\.attn1\.to_out\.0\.", ".out."),
    (r"\.attn1\.to_", "."),
    (r"\.norm3\.", ".norm2."),
    (r"\.ff\.net\.0\.proj\.", ".feed_in."),
    (r"\.ff\.net\.2\.", ".feed_out."),
)


def flow_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert `state`, with the names and shapes of `flow.pt`, to the state dict of a `Flow`.

    Convolutions become matrices; query, key and value become one matrix; the estimator's first block is split into the
    part over x and the part over the condition.
    """
    weights = join_qkv(rename(state, RENAMES))
    for conv, split in (("conv1", "condition_conv"), ("shortcut", "condition_shortcut")):
        name = f"estimator.down.resnet.{conv}.weight"
        if name in weights:
            weights[name], condition = weights[name].tensor_split([MEL_BINS], dim=1)
            weights[f"estimator.{split}.weight"] = condition
    return {name: frame_conv_weight(tensor) if tensor.ndim == 3 else tensor for name, tensor in weights.items()}


def rename(state: Mapping[str, Tensor], renames: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """Apply `renames`, pairs of a pattern and its replacement, in order to each name in `state`."""
    weights = {}
    for name, tensor in state.items():
        for pattern, replacement in renames:
            name = re.sub(pattern, replacement, name)
        weights[name] = tensor
    return weights


def join_qkv(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Join the layers `q`, `k` and `v` of each attention in `weights` to one layer `qkv`, where all three are there."""
    for name in [name for name in weights if re.search(r"\.q\.(weight|bias)$", name)]:
        parts = [name.replace(".q.", f".{part}.") for part in "qkv"]
        if all(part in weights for part in parts):
            weights[name.replace(".q.", ".qkv.")] = torch.cat([weights.pop(part) for part in parts])
    return weights
