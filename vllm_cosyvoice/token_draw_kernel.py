"""`token_draw.draw` for a GPU: one Triton program for each place, with its whole row in registers."""

import torch
import triton
import triton.language as tl

from vllm_cosyvoice.token_draw import RING, WORDS
from vllm_cosyvoice.vocabulary import UNUSED


def draw(logits: torch.Tensor, records: torch.Tensor, places: torch.Tensor) -> None:
    """As `token_draw.draw`, on a GPU. Of equal logits at the edge of the nucleus those of the lowest ids are in it."""
    _draw[(places.shape[0],)](
        logits,
        logits.stride(0),
        records,
        places,
        SIZE=logits.shape[1],
        ALLOWED=UNUSED,
        BLOCK=triton.next_power_of_2(logits.shape[1]),
        RING=RING,
        WORDS=WORDS,
        num_warps=8,
    )


@triton.jit
def _draw(
    logits,
    stride,
    records,
    places,
    SIZE: tl.constexpr,
    ALLOWED: tl.constexpr,
    BLOCK: tl.constexpr,
    RING: tl.constexpr,
    WORDS: tl.constexpr,
):
    places += 3 * tl.program_id(0)
    logits += tl.load(places) * stride
    record = records + tl.load(places + 1) * WORDS
    position = tl.load(places + 2)
    settings = record + RING
    temperature = tl.load(settings).to(tl.float32, bitcast=True)
    top_p = tl.load(settings + 1).to(tl.float32, bitcast=True)
    top_k = tl.load(settings + 2)
    reach = tl.load(settings + 3)
    seed = tl.load((settings + 4).to(tl.pointer_type(tl.int64)))

    back = tl.arange(0, RING)
    window = tl.load(record + ((position - 1 - back) & (RING - 1)), mask=back < reach, other=-1)
    ids = tl.arange(0, BLOCK)
    scores = tl.load(logits + ids, mask=ids < ALLOWED, other=-float("inf"))

    if temperature == 0:
        token = tl.argmax(scores, 0)
        while _contains(window, token):
            scores = tl.where(ids == token, -float("inf"), scores)
            token = tl.argmax(scores, 0)
    else:
        scores = scores / temperature
        kept = _nucleus(scores, ids, top_p, top_k)
        first, second, _, _ = tl.philox(seed, ids, position + ids * 0, ids * 0, ids * 0)
        token = tl.argmax(tl.where(kept, scores + _gumbel(first), -float("inf")), 0)
        if _contains(window, token):
            token = tl.argmax(tl.where(ids == token, -float("inf"), scores + _gumbel(second)), 0)

    tl.store(record + (position & (RING - 1)), token)
    tl.store(logits + ids, tl.where(ids == token, 0.0, -float("inf")), mask=ids < SIZE)


@triton.jit
def _nucleus(scores, ids, top_p, top_k):
    """Mask of the likeliest tokens until they weigh `top_p` or are `top_k`, found by bisection of the lowest score."""
    weights = tl.exp(scores - tl.max(scores, 0))
    enough = top_p * tl.sum(weights, 0)
    # The bits of a float, ordered as the floats are.
    bits = scores.to(tl.int32, bitcast=True)
    keys = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    low, high = tl.min(keys, 0), tl.max(keys, 0)  # the lowest key of the nucleus is above `low` and at most `high`
    while low + 1 < high:
        middle = (low & high) + ((low ^ high) >> 1)
        above = keys > middle
        if (tl.sum(above.to(tl.int32), 0) < top_k) & (tl.sum(tl.where(above, weights, 0.0), 0) < enough):
            high = middle
        else:
            low = middle
    above = keys > high
    equal = keys == high
    ahead = tl.cumsum(equal.to(tl.int32), 0) - 1  # of those with an equal score
    count = tl.sum(above.to(tl.int32), 0) + ahead
    weight = tl.sum(tl.where(above, weights, 0.0), 0) + ahead * weights
    return above | (equal & (count < top_k) & (weight < enough))


@triton.jit
def _gumbel(words):
    uniform = ((words >> 9).to(tl.float32) + 0.5) * 1.1920928955078125e-07  # 2⁻²³
    return -tl.log(-tl.log(uniform))


@triton.jit
def _contains(window, token):
    return tl.max((window == token).to(tl.int32), 0) > 0
