"""Converts the tensors of `hift.pt` to the layout of the modules in this package."""

import re
from collections.abc import Mapping

from torch import Tensor

from vllm_cosyvoice.nn.layers import frame_conv_weight

RENAMES = (
    (r"^f0_predictor\.condnet\.(\d+)\.", lambda match: f"f0.convs.{int(match[1]) // 2}."),
    (r"^f0_predictor\.", "f0."),
    (r"^m_source\.l_linear\.", "source.mix."),
    (r"^(conv_pre|conv_post|ups|source_downs|source_resblocks|resblocks)\.", r"generator.\1."),
)
MAGNITUDE, DIRECTION = ".parametrizations.weight.original0", ".parametrizations.weight.original1"


def vocoder_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert `state`, with the names and shapes of `hift.pt`, to the state dict of a `Vocoder` without weight norm."""
    weights: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith(MAGNITUDE) and name.replace(MAGNITUDE, DIRECTION) in state:
            continue
        if name.endswith(DIRECTION) and name.replace(DIRECTION, MAGNITUDE) in state:
            norm = tensor.flatten(1).norm(dim=1)[:, None, None]
            tensor = state[name.replace(DIRECTION, MAGNITUDE)] * tensor / norm
            name = name.replace(DIRECTION, ".weight")
        for pattern, replacement in RENAMES:
            name = re.sub(pattern, replacement, name)
        if name.startswith("f0.") and tensor.ndim == 3:
            tensor = frame_conv_weight(tensor)
        if name.endswith(".alpha"):
            tensor = tensor[:, None]
            weights[name.replace(".alpha", ".inverse")] = 1 / (tensor + 1e-9)
        weights[name] = tensor
    return weights
