"""Draws one speech token for each row of logits by repetition-aware sampling (RAS), in PyTorch for CPUs.

RAS draws a token from the nucleus. If it is among the last ten, RAS draws again from all other tokens.
Each draw takes the token with the highest logit + Gumbel noise. The noise comes from Philox (4×32, 10 rounds; Salmon
et al. 2011) with the request's seed as key and token and position as counter. It has no state and does not depend on
other requests.

On a GPU, `token_draw_kernel` does the same in one kernel.
"""

import numpy as np
import torch

from vllm_cosyvoice.vocabulary import END_OF_SPEECH, UNUSED

WINDOW = 10  # generated tokens in which a repetition counts
RING = 16  # larger than the window, so that a draw that vLLM discards does not overwrite the window

# A token that is never generated, which marks empty places in a window.
NOTHING = UNUSED

# The device's record of a request, in 32-bit words. The seed takes two, which a GPU reads as one.
RECORD = np.dtype(
    [
        ("recent", np.int32, RING),  # the token at position p of the speech, below 0 before the request, is [p % RING]
        ("temperature", np.float32),  # 0: greedy, the highest logit among the tokens not in the window
        ("top_p", np.float32),
        ("top_k", np.int32),
        ("window", np.int32),  # WINDOW, or 0 if repetitions are allowed
        ("min_tokens", np.int32),  # the speech can't end before this position
        ("seed", np.int64),
    ],
    align=True,
)
WORDS = RECORD.itemsize // 4
SEED = WORDS - 2  # index of its first word


def draw(logits: torch.Tensor, records: torch.Tensor, places: torch.Tensor) -> None:
    """Draw one token for each place and make its row of `logits` one-hot: 0 for that token, -inf for all others.

    logits: [rows, 6564] float32; tokens at -inf and control tokens other than end of speech are not drawn.
    records: [slots, WORDS] int32, a `RECORD` in each row; the drawn tokens are added to them.
    places: [n, 3] int32: a row, the slot of its record, and the position of the token to draw, from 0.
    """
    row, slot, position = places.long().unsqueeze(-1).unbind(1)
    record = records[slot.squeeze(1)]
    temperature, top_p = record[:, RING : RING + 2].view(torch.float32).unsqueeze(-1).unbind(1)
    top_k, reach = record[:, RING + 2 : RING + 4].unsqueeze(-1).unbind(1)
    min_tokens = record[:, RING + 4, None]
    seed = record[:, SEED:].contiguous().view(torch.int64)
    back = torch.arange(WINDOW)
    window = record.gather(1, (position - 1 - back) % RING).where(back < reach, NOTHING).long()
    greedy = temperature == 0

    scores = logits[row.squeeze(1)] / temperature.where(~greedy, 1.0)
    scores[:, UNUSED:] = -torch.inf
    scores[:, END_OF_SPEECH, None].masked_fill_(position < min_tokens, -torch.inf)
    token = _from_nucleus(scores, top_p, top_k, seed, position)
    for place in (token == window).any(1).nonzero():
        token[place] = _from_all_but(token[place], scores[place], seed[place], position[place])
    if greedy.any():
        token = token.where(~greedy, scores.scatter(1, window, -torch.inf).argmax(1, keepdim=True))

    records[slot, position % RING] = token.int()
    logits[row.squeeze(1)] = -torch.inf
    logits[row, token] = 0.0


def _from_nucleus(
    scores: torch.Tensor, top_p: torch.Tensor, top_k: torch.Tensor, seed: torch.Tensor, position: torch.Tensor
) -> torch.Tensor:
    """Draw a token from the nucleus of each row, [rows, 1].

    The nucleus is the most likely tokens, up to `top_k`, until their probability reaches `top_p`.
    """
    top, tokens = scores.topk(int(top_k.max()))
    q = (top - scores.logsumexp(1, keepdim=True)).exp()
    nucleus = (q.cumsum(1) - q < top_p) & (torch.arange(top.shape[1]) < top_k)
    first, _ = philox(seed.numpy(), tokens.numpy(), position.numpy())
    return tokens.gather(1, (top + gumbel(first)).where(nucleus, -torch.inf).argmax(1, keepdim=True))


def _from_all_but(
    token: torch.Tensor, scores: torch.Tensor, seed: torch.Tensor, position: torch.Tensor
) -> torch.Tensor:
    """Draw a token other than `token`. All shapes are [rows, 1], except `scores` [rows, 6564]."""
    _, second = philox(seed.numpy(), np.arange(scores.shape[1]), position.numpy())
    return (scores + gumbel(second)).scatter(1, token, -torch.inf).argmax(1, keepdim=True)


def philox(seed: np.ndarray, token: np.ndarray, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute two random uint32 words for each element of the arguments, which are integers and broadcast."""
    low, high = (seed & 0xFFFFFFFF).astype(np.uint32), (seed >> 32).astype(np.uint32)
    a, b = token.astype(np.uint32), position.astype(np.uint32)
    c = d = np.zeros(1, np.uint32)
    for _ in range(10):
        first, second = _words(a * np.uint64(0xD2511F53)), _words(c * np.uint64(0xCD9E8D57))
        a, b, c, d = second[1] ^ b ^ low, second[0], first[1] ^ d ^ high, first[0]
        low, high = low + np.uint32(0x9E3779B9), high + np.uint32(0xBB67AE85)
    return a, b


def _words(products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The low and high words of `products`, uint64."""
    return products.astype(np.uint32), (products >> np.uint64(32)).astype(np.uint32)


def gumbel(words: np.ndarray) -> torch.Tensor:
    """Compute standard Gumbel noise, float32, from random words, uint32."""
    uniform = ((words >> np.uint32(9)).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-23)  # never 0 or 1
    return torch.from_numpy(-np.log(-np.log(uniform)))
