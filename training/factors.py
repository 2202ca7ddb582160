"""Tables over speech tokens, learned as what a token's content adds, what its count adds, and what is its own.

The file has one row a token and 6561 tokens are many for so little speech, but a token's content means the same
whatever its count. `merged` gives the file's table.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from training.released import Parameters
from training.speech_tokenizer import CONTENTS, COUNTS

CONTENT, COUNT = "|content", "|count"
SPEECH_TOKENS = CONTENTS * COUNTS


def add_factors(parameters: Parameters, name: str, size: float) -> None:
    """Add the factors of the table `name` [6561 or more, width] to `parameters`; rows of speech tokens start at 0."""
    table = parameters[name].data
    table[:SPEECH_TOKENS] = 0
    for suffix, rows in ((CONTENT, CONTENTS), (COUNT, COUNTS)):
        parameters[name + suffix] = nn.Parameter(torch.randn(rows, table.shape[1], device=table.device) * size)


def merged(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the file."""
    tensors = {name: tensor for name, tensor in parameters.items() if "|" not in name}
    for name in [name.removesuffix(CONTENT) for name in parameters if name.endswith(CONTENT)]:
        content, count, own = parameters[name + CONTENT], parameters[name + COUNT], parameters[name]
        speech = (count[:, None] + content[None]).flatten(0, 1)
        tensors[name] = torch.cat([own[:SPEECH_TOKENS] + speech, own[SPEECH_TOKENS:]])
    return tensors
