"""Which part of a recording a voice is made from, and whether the transcript can belong to it."""

import numpy as np

from vllm_cosyvoice.limits import MOST_PROMPT_SECONDS
from vllm_cosyvoice.voice.audio import CUT, MIN_SECONDS, AudioError, check_samples
from vllm_cosyvoice.voice.silence import without_silence
from vllm_cosyvoice.voice.transcript import syllables

# The fastest talkers on record reach 13 to 14 syllables a second, conversation 4 to 7.
MOST_SYLLABLES_A_SECOND = 15


class TranscriptError(AudioError):
    """A transcript that can't be what the recording says."""


def prompt_part(samples: np.ndarray, rate: int, transcript: str) -> np.ndarray:
    """`samples` (float32 mono [n] in [−1, 1]) without the silence at their ends.

    Raises AudioError unless that leaves 1 to 30 s, and TranscriptError if nobody could say `transcript` in that time.
    """
    check_samples(samples, rate)
    part = without_silence(samples, rate)
    seconds = len(part) / rate
    if not seconds:
        raise AudioError("The recording holds no speech, only silence and clicks: send audible speech.")
    if seconds < MIN_SECONDS:
        raise AudioError(
            f"The recording is {seconds:.2f} s long without the silence at its ends: it takes at least "
            f"{MIN_SECONDS:.0f} s of speech."
        )
    if seconds > MOST_PROMPT_SECONDS:
        raise AudioError(
            f"The recording is longer than {MOST_PROMPT_SECONDS:.0f} s without the silence at its ends: {CUT}."
        )
    if (count := syllables(transcript)) > MOST_SYLLABLES_A_SECOND * seconds:
        raise TranscriptError(
            f"The transcript has about {count} syllables, too many for a recording of {seconds:.1f} s: send what the "
            "recording says and no more, or the whole recording."
        )
    return part
