"""`token_draw.draw` for a GPU: one Triton program per row, which it holds in registers."""

import torch
import triton
import triton.language as tl

from vllm_cosyvoice.llm.token_draw import RING, SEED, WORDS
from vllm_cosyvoice.vocabulary import END_OF_SPEECH, UNUSED


def draw(
    logits: torch.Tensor,
    records: torch.Tensor,
    slots: torch.Tensor,
    lengths: torch.Tensor,
    prompt_lengths: torch.Tensor,
    known_lengths: torch.Tensor,
    tokens: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one token for each row, the same as `token_draw.draw`.

    Of equal logits at the edge of the nucleus, those with the lowest ids belong to it. All inputs are on the device and
    none is written, so a draw that vLLM discards has no effect.

    logits: [rows, 6564], float32 or narrower.
    records: [slots, WORDS] int32, a `RECORD` in each row, from before the request generated its first token.
    slots: [rows] int32, the slot of each row; below 0: the row is unused.
    lengths: [rows or more] int32, number of tokens of each row's request, prompt and speech.
    prompt_lengths: [slots] int32.
    known_lengths: [slots] int32, number of tokens that the model reads before it generates: the prompt, and the speech
        of a request that was set aside.
    tokens: [slots, longest] int32, prompt and speech.

    Returns: the drawn tokens, [rows] int64, -1 for rows that are unused or have top_k 0; and the number of tokens that
        each row's request gains, [rows] int32: 0 as long as it reads, else 1.
    """
    drawn = torch.empty(logits.shape[0], dtype=torch.int64, device=logits.device)
    gained = torch.empty(logits.shape[0], dtype=torch.int32, device=logits.device)
    _draw[(logits.shape[0],)](
        drawn,
        gained,
        logits,
        logits.stride(0),
        records,
        slots,
        lengths,
        prompt_lengths,
        known_lengths,
        tokens,
        tokens.stride(0),
        END=END_OF_SPEECH,
        ALLOWED=UNUSED,
        BLOCK=triton.next_power_of_2(logits.shape[1]),
        RING=RING,
        SEED=SEED,
        WORDS=WORDS,
        num_warps=8,
    )
    return drawn, gained


@triton.jit
def _draw(
    drawn,
    gained,
    logits,
    stride,
    records,
    slots,
    lengths,
    prompt_lengths,
    known_lengths,
    tokens,
    tokens_stride,
    END: tl.constexpr,
    ALLOWED: tl.constexpr,
    BLOCK: tl.constexpr,
    RING: tl.constexpr,
    SEED: tl.constexpr,
    WORDS: tl.constexpr,
):
    row = tl.program_id(0)
    slot = tl.load(slots + row).to(tl.int64)
    if slot < 0:
        tl.store(drawn + row, -1)
        tl.store(gained + row, 0)
        return
    length = tl.load(lengths + row)
    tl.store(gained + row, (length >= tl.load(known_lengths + slot)).to(tl.int32))
    record = records + slot * WORDS
    settings = record + RING
    temperature = tl.load(settings).to(tl.float32, bitcast=True)
    top_p = tl.load(settings + 1).to(tl.float32, bitcast=True)
    top_k = tl.load(settings + 2)
    reach = tl.load(settings + 3)
    min_tokens = tl.load(settings + 4)
    seed = tl.load((record + SEED).to(tl.pointer_type(tl.int64)))
    if top_k == 0:
        tl.store(drawn + row, -1)
        return
    position = length - tl.load(prompt_lengths + slot)

    back = tl.arange(0, RING)
    place = position - 1 - back
    generated = tl.load(tokens + slot * tokens_stride + length - 1 - back, mask=(back < reach) & (place >= 0), other=-1)
    earlier = tl.load(record + (place & (RING - 1)), mask=(back < reach) & (place < 0), other=-1)
    window = tl.maximum(generated, earlier)
    ids = tl.arange(0, BLOCK)
    allowed = (ids < ALLOWED) & ((ids != END) | (position >= min_tokens))
    logits += row.to(tl.int64) * stride
    scores = tl.load(logits + ids, mask=allowed, other=-float("inf")).to(tl.float32)

    if temperature == 0:
        token = tl.argmax(scores, 0)
        while _contains(window, token):
            scores = tl.where(ids == token, -float("inf"), scores)
            token = tl.argmax(scores, 0)
    else:
        scores = scores / temperature
        nucleus = _nucleus(scores, ids, top_p, top_k)
        first, second, _, _ = tl.philox(seed, ids, position + ids * 0, ids * 0, ids * 0)
        token = tl.argmax(tl.where(nucleus, scores + _gumbel(first), -float("inf")), 0)
        if _contains(window, token):
            token = tl.argmax(tl.where(ids == token, -float("inf"), scores + _gumbel(second)), 0)

    tl.store(drawn + row, token)


@triton.jit
def _nucleus(scores, ids, top_p, top_k):
    """Mask of the nucleus, see `token_draw`, found by bisection of its lowest score."""
    weights = tl.exp(scores - tl.max(scores, 0))
    enough = top_p * tl.sum(weights, 0)
    # Integer keys in the order of the scores.
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
