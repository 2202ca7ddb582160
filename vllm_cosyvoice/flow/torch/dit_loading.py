"""Converts the tensors of CosyVoice3's `flow.pt` to the layout of the modules in this package."""

from collections.abc import Mapping

from torch import Tensor

from vllm_cosyvoice.config import MEL_BINS
from vllm_cosyvoice.flow.torch.loading import join_qkv, rename
from vllm_cosyvoice.nn.layers import frame_conv_weight

RENAMES = (
    (r"^spk_embed_affine_layer\.", "speaker_proj."),
    (r"^input_embedding\.", "encoder.token_embedding."),
    (r"^pre_lookahead_layer\.", "encoder.look_ahead."),
    (r"^decoder\.estimator\.", "estimator."),
    (r"\.time_embed\.time_mlp\.0\.", ".modulation.time_in."),
    (r"\.time_embed\.time_mlp\.2\.", ".modulation.time_out."),
    (r"\.transformer_blocks\.(\d+)\.attn_norm\.linear\.", r".modulation.blocks.\1."),
    (r"\.norm_out\.linear\.", ".modulation.final."),
    (r"\.input_embed\.proj\.", ".input_proj."),
    (r"\.input_embed\.conv_pos_embed\.(conv[12])\.0\.", r".position.\1."),
    (r"\.transformer_blocks\.", ".blocks."),
    (r"\.attn\.to_out\.0\.", ".attention.out."),
    (r"\.attn\.to_", ".attention."),
    (r"\.ff\.ff\.0\.0\.", ".feed_in."),
    (r"\.ff\.ff\.2\.", ".feed_out."),
    (r"\.proj_out\.", ".output_proj."),
)
COMPUTED = "estimator.rotary_embed.inv_freq"  # follows from the size of a head, see `dit.rotations`
INPUT_PROJ = "estimator.input_proj.weight"


def dit_flow_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert `state`, with the names and shapes of `flow.pt`, to the state dict of a `DiTFlow`.

    The look-ahead's convolutions become matrices; query, key and value become one matrix; the input projection is split
    into the part over x and the part over the condition.
    """
    weights = join_qkv(rename(state, RENAMES))
    weights.pop(COMPUTED, None)
    if INPUT_PROJ in weights:
        weights[INPUT_PROJ], weights["estimator.condition_proj.weight"] = weights[INPUT_PROJ].tensor_split(
            [MEL_BINS], dim=1
        )
    look_ahead = [name for name in weights if name.startswith("encoder.look_ahead.") and name.endswith(".weight")]
    return weights | {name: frame_conv_weight(weights[name]) for name in look_ahead}
