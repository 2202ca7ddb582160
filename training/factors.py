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
    """Put factors in the place of the table `name`, [at least MADE, …], whose rows of speech tokens start at 0.

    A table that `merged` made gets its factors back. Of a random one only the rows survive that tell them.
    """
    table = parameters.pop(name).data
    parameters[name + CONTENT] = nn.Parameter(table[:CONTENTS].clone())
    parameters[name + COUNT] = nn.Parameter(table[:MADE:CONTENTS] - table[0])
    parameters[name + REST] = nn.Parameter(table[MADE:].clone())


def merged(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the file. Other parameters with a | in their names are training's own."""
    tensors = {name: tensor for name, tensor in parameters.items() if "|" not in name}
    for name in [name.removesuffix(CONTENT) for name in parameters if name.endswith(CONTENT)]:
        content, count, rest = (parameters[name + part] for part in (CONTENT, COUNT, REST))
        tensors[name] = torch.cat([(count[:, None] + content[None]).flatten(0, 1), rest])
    return tensors


def fill(parameters: Parameters, tensors: Mapping[str, Tensor]) -> None:
    """Give `parameters` the `tensors` of a file; those that are training's own keep their values."""
    tables = {name: nn.Parameter(tensor.float()) for name, tensor in tensors.items()}
    for name in parameters:
        if name.endswith(CONTENT) and name.removesuffix(CONTENT) in tables:
            factor(tables, name.removesuffix(CONTENT))
    with torch.no_grad():
        for name in parameters.keys() & tables.keys():
            parameters[name].copy_(tables[name])


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
