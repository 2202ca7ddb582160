"""How far the next decode of a streamed utterance goes."""

import math
from typing import NamedTuple

from vllm_cosyvoice.config import CHUNK_TOKENS, FRAMES_PER_TOKEN, LOOKAHEAD_TOKENS, TOKEN_RATE
from vllm_cosyvoice.vocoder.stream import HOLD_BACK

GROWTH = 3  # a hop ends at most this many times as far as the previous one, or as a chunk if that was shorter
FIRST_HOPS = 10, CHUNK_TOKENS  # tokens of the shortest first hop (80 ms of audio) and of the longest


def first_hop(seconds: float) -> int:
    """Tokens of a first hop whose audio lasts `seconds`, within `FIRST_HOPS`."""
    shortest, longest = FIRST_HOPS
    tokens = seconds * TOKEN_RATE + HOLD_BACK / FRAMES_PER_TOKEN
    return math.ceil(min(max(tokens, shortest), longest))


class Cut(NamedTuple):
    """How far a decode goes."""

    tokens: int  # of the utterance, from its start
    last: bool


def next_cut(arrived: int, decoded: int, first_hop: int, *, finished: bool, waited_for: bool) -> Cut | None:
    """The cut of a decode that starts now; None if too few tokens have arrived.

    Each hop recomputes all earlier ones, so there should be few hops. A finished utterance is decoded to its end. Until
    then, a hop's audio only has to last until the next hop, and a chunk is a second of audio, in which many tokens
    arrive. So hops start small and grow fast.

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
