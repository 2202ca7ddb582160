"""How far the next decode of a streamed utterance goes."""

import math
from typing import NamedTuple

from vllm_cosyvoice.config import CHUNK_TOKENS, FRAMES_PER_TOKEN, LOOKAHEAD_TOKENS, TOKEN_RATE
from vllm_cosyvoice.vocoder.stream import HOLD_BACK

GROWTH = 3  # a hop goes at most so many times as far as the one before it, or as a chunk if that was shorter
FIRST_HOPS = 10, CHUNK_TOKENS  # tokens of the shortest, which is 80 ms of audio, and of the longest


def first_hop(seconds: float) -> int:
    """Tokens of a first hop whose audio lasts so long, within `FIRST_HOPS`."""
    shortest, longest = FIRST_HOPS
    tokens = seconds * TOKEN_RATE + HOLD_BACK / FRAMES_PER_TOKEN
    return math.ceil(min(max(tokens, shortest), longest))


class Cut(NamedTuple):
    """How far a decode goes."""

    tokens: int  # of the utterance, from its start
    last: bool


def next_cut(arrived: int, decoded: int, first_hop: int, *, finished: bool, waited_for: bool) -> Cut | None:
    """The cut that can be made now, if one can.

    Each hop computes all that was decoded before it again, so hops must be few. A finished utterance is decoded to its
    end. Until then, a hop's audio only has to last until the next one, and one chunk is a second of audio, in which
    many tokens come. So hops start small and grow fast.

    Args:
        arrived: tokens so far; decoded: those that are audio already.
        first_hop: tokens of the first hop, which ends a chunk as all but the last one do.
        waited_for: the caller waits for the first audio: then its hop stays small, however much has arrived already.
    """
    new = arrived - decoded - LOOKAHEAD_TOKENS
    if waited_for and decoded == 0 and new >= 2 * first_hop:
        return Cut(first_hop, last=False)
    if finished:
        return Cut(arrived, last=True)
    hop = CHUNK_TOKENS if decoded else first_hop
    if new < hop:
        return None
    more = min(new, GROWTH * max(decoded, CHUNK_TOKENS) - decoded) - hop
    return Cut(decoded + hop + max(0, more) // CHUNK_TOKENS * CHUNK_TOKENS, last=False)
