"""Utterances that have a voice, and decodes of them as far as they go."""

import numpy as np

from vllm_cosyvoice.config import CHUNK_TOKENS
from vllm_cosyvoice.decode.decoder import SpeechDecoder
from vllm_cosyvoice.decode.utterance import FlowPrompt, Utterance


def begun(
    decoder: SpeechDecoder,
    prompt: FlowPrompt,
    *,
    first_hop: int | None = CHUNK_TOKENS,
    streaming: bool = True,
    speed: float = 1.0,
    seed: int = 0,
) -> Utterance:
    return decoder.begin(Utterance(streaming=streaming, speed=speed, seed=seed), prompt, first_hop)


def decode(decoder: SpeechDecoder, *utterances: Utterance) -> list[np.ndarray]:
    """The next audio of each that has some, in one call; empty for the others."""
    work = [(utterance, cut) for utterance in utterances if (cut := utterance.next_cut())]
    audio = dict(zip((utterance for utterance, _ in work), decoder.decode(work), strict=True))
    return [audio.get(utterance, np.empty(0, np.int16)) for utterance in utterances]
