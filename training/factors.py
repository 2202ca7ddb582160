"""Tables over speech tokens, learned as what a token's content adds and what its count adds.

The file has one row a token, and 6561 are many for so little speech: most would hardly be seen. `merged` gives the
file's table, and `log_probability` needs no table to be exact, which makes the language model's head cheap.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.released import Parameters
from training.speech_tokenizer import CONTENTS, COUNTS

CONTENT, COUNT, REST = "|content", "|count", "|rest"
MADE = CONTENTS * COUNTS  # speech tokens that the tokenizer makes; the rest of a table is rows of their own


def factor(parameters: Parameters, name: str) -> None:
    """Put factors in the place of the table `name`, [at least MADE, …], whose rows of speech tokens start at 0."""
    table = parameters.pop(name).data
    parameters[name + CONTENT] = nn.Parameter(table[:CONTENTS].clone())
    parameters[name + COUNT] = nn.Parameter(table[CONTENTS : CONTENTS + COUNTS].clone())
    parameters[name + REST] = nn.Parameter(table[MADE:].clone())


def merged(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the file. Other parameters with a | in their names are training's own."""
    tensors = {name: tensor for name, tensor in parameters.items() if "|" not in name}
    for name in [name.removesuffix(CONTENT) for name in parameters if name.endswith(CONTENT)]:
        content, count, rest = (parameters[name + part] for part in (CONTENT, COUNT, REST))
        tensors[name] = torch.cat([(count[:, None] + content[None]).flatten(0, 1), rest])
    return tensors


def log_probability(
    parameters: Mapping[str, Tensor], name: str, hidden: Tensor, tokens: Tensor
) -> tuple[Tensor, Tensor]:
    """Of `tokens` [n] behind `hidden` [n, width] by the layer `name`; also the likeliest contents [n]."""
    content, count, rest = (
        F.linear(hidden, parameters[f"{name}.weight{part}"], parameters[f"{name}.bias{part}"]).float()
        for part in (CONTENT, COUNT, REST)
    )
    total = torch.logaddexp(content.logsumexp(-1) + count.logsumexp(-1), rest.logsumexp(-1))
    made = tokens.clamp(max=MADE - 1)[:, None]
    of_made = content.gather(1, made % CONTENTS) + count.gather(1, made // CONTENTS)
    of_rest = rest.gather(1, (tokens[:, None] - MADE).clamp(min=0))
    return torch.where(tokens[:, None] < MADE, of_made, of_rest)[:, 0] - total, content.argmax(-1)
