"""Trims silence at the ends of a recording, which the language model would continue instead of the speech."""

import numpy as np

FRAME_SECONDS = 0.02
SUSTAINED_FRAMES = 3  # shorter sounds, such as mouse clicks, are not speech
LOUDEST_FRAMES = 25  # half a second: clicks are shorter, and every usable recording has more speech
QUIETEST_SPEECH = 1e-4  # of the power of the loudest half second, −40 dB; breath and final consonants are louder
NO_SOUND = 1e-9  # power, −90 dB: the noise floor of 16 bits
# Margins that are kept, for soft onsets and final consonants: slightly more than around read sentences.
SECONDS_BEFORE = 0.3
SECONDS_BEHIND = 0.2


def without_silence(samples: np.ndarray, rate: int) -> np.ndarray:
    """Keep `samples` [n] from 0.3 s before the first sound to 0.2 s after the last; return none if there is no sound.

    They must be at least 1 s long. Sound is a signal that stays above −40 dB of the loudest half second for 60 ms, so a
    recording with noise or music up to its ends is not trimmed.
    """
    frame = round(FRAME_SECONDS * rate)
    frames = samples[: len(samples) // frame * frame].reshape(-1, frame)
    power = frames.var(axis=1, dtype=np.float64)  # without the offset that cheap microphones add
    loudest = np.sort(power)[-LOUDEST_FRAMES:].min()
    sound = power > max(QUIETEST_SPEECH * loudest, NO_SOUND)
    (begins,) = np.nonzero(np.convolve(sound, np.ones(SUSTAINED_FRAMES), "valid") == SUSTAINED_FRAMES)
    if not begins.size:
        return samples[:0]
    first, last = begins[0] * frame, (begins[-1] + SUSTAINED_FRAMES) * frame
    return samples[max(0, first - round(SECONDS_BEFORE * rate)) : last + round(SECONDS_BEHIND * rate)]
