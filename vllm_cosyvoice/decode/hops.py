"""How far the next decode of a streamed utterance goes."""

import math
from itertools import count
from typing import NamedTuple

from vllm_cosyvoice.config import CHUNK_TOKENS, FRAMES_PER_TOKEN, LOOKAHEAD_TOKENS, TOKEN_RATE

GROWTH = 3  # a hop ends at most this many times as far as the previous one, or as a chunk if that was shorter
# Tokens, from the shortest to the longest, see `shared_first_hop`. With the look-ahead, all but the last need 4n + 1
# tokens: one of the step that reads the prompt, and n plans of four.
FIRST_HOPS = 10, 14, 18, 22, CHUNK_TOKENS


def first_hop(seconds: float, hold_back: int) -> int:
    """Tokens of a first hop whose audio lasts `seconds`, from the shortest to the longest of `FIRST_HOPS`.

    The vocoder holds back `hold_back` frames.
    """
    tokens = seconds * TOKEN_RATE + hold_back / FRAMES_PER_TOKEN
    return math.ceil(min(max(tokens, FIRST_HOPS[0]), FIRST_HOPS[-1]))


def shared_first_hop(tokens: int) -> int:
    """The shortest first hop of at least `tokens` that ends on a chunk boundary where one of `FIRST_HOPS` would.

    A first hop decides where the chunks of the voice's prompt begin. So with these few hops, a flow that remembers
    prompts has few states of each voice.
    """
    ends = {hop % CHUNK_TOKENS for hop in FIRST_HOPS}
    return next(hop for hop in count(max(tokens, FIRST_HOPS[0])) if hop % CHUNK_TOKENS in ends)


def awaited_tokens(speed: float) -> int:
    """Tokens of the first two hops at `speed`, for which a listener waits or has little audio left."""
    return math.ceil(CHUNK_TOKENS * speed) + CHUNK_TOKENS + LOOKAHEAD_TOKENS


class Cut(NamedTuple):
    """How far a decode goes."""

    tokens: int  # of the utterance, from its start
    last: bool


def next_cut(arrived: int, decoded: int, first_hop: int, *, finished: bool, waited_for: bool) -> Cut | None:
    """The cut of a decode that starts now; None if too few tokens have arrived.

    Each hop has costs of its own, and recomputes what is not remembered, so there should be few hops. A finished
    utterance is decoded to its end. Until then, a hop's audio only has to last until the next hop, and a chunk is a
    second of audio, in which many tokens arrive. So hops start small and grow fast.

    Args:
        arrived: tokens received so far.
        decoded: tokens decoded so far.
        first_hop: tokens of the first hop. All hops except the last end on a chunk boundary.
        waited_for: the caller waits for the first audio, so the first hop stays small even if more tokens have arrived.
    """
    new_tokens = arrived - decoded - LOOKAHEAD_TOKENS
    if waited_for and decoded == 0 and new_tokens >= 2 * first_hop:
        return Cut(first_hop, last=False)
    if finished:
        return Cut(arrived, last=True)
    hop = CHUNK_TOKENS if decoded else first_hop
    if new_tokens < hop:
        return None
    extra = min(new_tokens, GROWTH * max(decoded, CHUNK_TOKENS) - decoded) - hop
    return Cut(decoded + hop + max(0, extra) // CHUNK_TOKENS * CHUNK_TOKENS, last=False)
