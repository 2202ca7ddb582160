"""Selects the part of a recording that becomes a voice, and checks that the transcript can belong to it."""

import numpy as np

from vllm_cosyvoice.limits import MOST_PROMPT_SECONDS
from vllm_cosyvoice.voice.audio import CUT, MIN_SECONDS, AudioError, check_samples
from vllm_cosyvoice.voice.silence import without_silence
from vllm_cosyvoice.voice.transcript import syllables

# The fastest talkers on record reach 13 to 14 syllables per second, conversation has 4 to 7.
MOST_SYLLABLES_A_SECOND = 15


class TranscriptError(AudioError):
    """The transcript can't belong to the recording."""


def prompt_part(samples: np.ndarray, rate: int, transcript: str) -> np.ndarray:
    """Trim the silence at the ends of `samples` (float32 mono [n] in [−1, 1]).

    Raises AudioError unless 1 to 30 s remain, and TranscriptError if `transcript` is too long for that time.
    """
    check_samples(samples, rate)
    part = without_silence(samples, rate)
    seconds = len(part) / rate
    if not seconds:
        raise AudioError("The recording contains no speech, only silence and clicks: send audible speech.")
    if seconds < MIN_SECONDS:
        raise AudioError(
            f"The recording is {seconds:.2f} s long without the silence at its ends: it needs at least "
            f"{MIN_SECONDS:.0f} s of speech."
        )
    if seconds > MOST_PROMPT_SECONDS:
        raise AudioError(
            f"The recording is longer than {MOST_PROMPT_SECONDS:.0f} s without the silence at its ends: {CUT}."
        )
    if (count := syllables(transcript)) > MOST_SYLLABLES_A_SECOND * seconds:
        raise TranscriptError(
            f"The transcript has about {count} syllables, too many for a recording of {seconds:.1f} s: send exactly "
            "the words of the recording, or the whole recording."
        )
    return part
