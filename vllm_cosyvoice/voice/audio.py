"""Decodes, checks and resamples recordings. Samples are float32 mono in [−1, 1]."""

import logging
import wave
from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import torch
from torchaudio.transforms import Resample

from vllm_cosyvoice.limits import MOST_PROMPT_SECONDS

logger = logging.getLogger(__name__)

MIN_SECONDS = 1.0
MAX_FILE_SECONDS = 60.0  # more than a prompt may have, as silence at its ends does not count
MIN_RATE, MAX_RATE = 8_000, 192_000
# The resampler's filter bank grows with rate / gcd(rate, 24000), to gigabytes for 44,099 Hz. All common rates are
# multiples of 25; the few others are converted to 48 kHz while decoding.
RATE_STEP = 25
UNUSUAL_RATE_BECOMES = 48_000

CUT = "cut it to the best 5 to 15 s"

SILENCE = 1e-3  # peak, −60 dB
CANCELLED = 1e-2  # of the louder channel's power; the mean with a silent channel still has a quarter
MAX_PEAK = 2.0  # decoders may overshoot 1 slightly; more means a wrong scale
CLIPPED = 0.999
CLIPPED_SHARE = 1e-3

COMPLETE = 0.95  # of a file's length
BELIEVABLE_SECONDS = 1200.0  # headers of live streams have the largest number instead of a length
WITH_LENGTH = ("wav", "aiff", "au", "flac", "matroska,webm")  # formats with a length in the header
MP3_HEADER = 4096  # bytes; the tag with the number of frames is in the first frame

# Containers only: a playlist (hls, concat) would make the decoder open other files and addresses.
FORMATS = (
    "wav,w64,aiff,caf,au,flac,mp3,ogg,mov,mp4,m4a,matroska,webm,aac,ac3,eac3,amr,asf,avi,ape,flv,mpeg,mpegts,tta,wv,voc"
)
# Accept recordings whose titles are not valid UTF-8. PyAV 19 always does and has no such setting.
ANY_METADATA = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}


class AudioError(ValueError):
    """The recording can't be used. The message says why and what to send instead."""


def load_audio(source: bytes | str | Path) -> tuple[np.ndarray, int]:
    """Decode a recording, given as a path or a file's content, to float32 mono samples [n] and their rate in Hz.

    Channels are averaged; if two channels cancel each other, the louder one is used. Decoding stops after more than
    60 s, regardless of the length in the file's header. A clipped recording is logged as a warning. Raises AudioError,
    see `check_samples`, and OSError for a path that can't be read.
    """
    samples, rate = _decode(source if isinstance(source, bytes) else Path(source).read_bytes())
    check_samples(samples, rate)
    clipped = float(np.mean(np.abs(samples) >= CLIPPED))
    if clipped > CLIPPED_SHARE:
        logger.warning(
            "%.1f %% of the recording's samples are clipped, which degrades the voice: record at a lower level",
            100 * clipped,
        )
    return samples, rate


def check_audio(samples: np.ndarray, rate: int) -> None:
    """Like `check_samples`, and raise AudioError for more than 30 s."""
    check_samples(samples, rate)
    if len(samples) > MOST_PROMPT_SECONDS * rate:
        raise AudioError(f"The recording is longer than {MOST_PROMPT_SECONDS:.0f} s: {CUT}.")


def check_samples(samples: np.ndarray, rate: int) -> None:
    """Raise AudioError unless `samples` [n] are at least 1 s of sound, finite, in scale, at a usable `rate`."""
    if not MIN_RATE <= rate <= MAX_RATE or rate % RATE_STEP:
        raise AudioError(_bad_rate(rate))
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise AudioError(
            f"The samples are {samples.dtype} of shape {samples.shape}: pass one channel of floats in [−1, 1]."
        )
    seconds = len(samples) / rate
    if seconds < MIN_SECONDS:
        raise AudioError(f"The recording is {seconds:.2f} s long: it needs at least {MIN_SECONDS:.0f} s of speech.")
    peak = float(np.abs(samples).max())  # NaN if any sample is NaN
    if not np.isfinite(peak):
        raise AudioError("The recording contains samples that are not finite numbers: export it again.")
    if peak < SILENCE:
        raise AudioError(f"The recording is silent (peak {peak:.1e}): send audible speech.")
    if peak > MAX_PEAK:
        raise AudioError(f"The samples reach {peak:.3g}: scale them to [−1, 1].")


def resample(samples: torch.Tensor, rate: int, new_rate: int) -> torch.Tensor:
    """Resample `samples` [n] from `rate` to `new_rate`: [ceil(n · new_rate / rate)]."""
    resampled: torch.Tensor = _resampler(rate, new_rate)(samples)
    return resampled


@lru_cache(maxsize=8)  # a filter bank takes a few kilobytes for common rates, at most 32 MB
def _resampler(rate: int, new_rate: int) -> Resample:
    return Resample(rate, new_rate)


def _decode(data: bytes) -> tuple[np.ndarray, int]:
    """Decode samples [n] and rate of the first audio stream; raise AudioError after `MAX_FILE_SECONDS`."""
    pieces: list[np.ndarray] = []
    count = rate = 0
    options = {"format_whitelist": FORMATS}
    try:
        with av.open(BytesIO(data), options=options, **ANY_METADATA) as container:
            if not container.streams.audio:
                raise AudioError("The file contains no audio: send a recording, such as WAV, FLAC, MP3, OGG or M4A.")
            converter = None
            for frame in container.decode(container.streams.audio[0]):
                if converter is None:
                    if not MIN_RATE <= frame.sample_rate <= MAX_RATE:
                        raise AudioError(_bad_rate(frame.sample_rate))
                    rate = frame.sample_rate if frame.sample_rate % RATE_STEP == 0 else UNUSUAL_RATE_BECOMES
                    converter = av.AudioResampler(format="fltp", rate=rate)
                for planes in converter.resample(frame):
                    pieces.append(_at_most_two(planes.to_ndarray()))
                    count += planes.samples
                if count > MAX_FILE_SECONDS * rate:
                    raise AudioError(f"The recording is longer than {MAX_FILE_SECONDS:.0f} s: {CUT}.")
            if converter is not None:
                pieces += [_at_most_two(planes.to_ndarray()) for planes in converter.resample(None)]
                _check_complete(count / rate, container, data)
    except AudioError:
        raise
    except (av.FFmpegError, ValueError) as error:
        raise AudioError(
            f"The recording can't be decoded ({error}): send an undamaged WAV, FLAC, MP3, OGG or M4A file."
        ) from error
    if not pieces:
        raise AudioError("The recording is empty: send a file with at least 1 s of speech.")
    return _mixed(np.concatenate(pieces, axis=1)), rate


def _check_complete(seconds: float, container: av.container.InputContainer, data: bytes) -> None:
    """Reject a file that is shorter than its header says, as its transcript would be longer than the recording."""
    expected = _seconds_in_header(container, data)
    if expected <= BELIEVABLE_SECONDS and seconds < COMPLETE * expected - MIN_SECONDS / 10:
        raise AudioError(
            f"The file contains {seconds:.1f} s of the {expected:.1f} s in its header, so it was cut short in transit:"
            " send it again."
        )


def _seconds_in_header(container: av.container.InputContainer, data: bytes) -> float:
    """The length in the header; 0 if there is none. Without one, missing data goes unnoticed or fails to decode."""
    name = container.format.name
    if name == "wav":
        with suppress(wave.Error, EOFError), wave.open(BytesIO(data)) as header:
            seconds: float = header.getnframes() / header.getframerate()  # FFmpeg tells the length of what is there
            return seconds
    has_length = name in WITH_LENGTH or (name == "mp3" and any(tag in data[:MP3_HEADER] for tag in (b"Xing", b"Info")))
    return container.duration / av.time_base if has_length and container.duration else 0.0


def _at_most_two(channels: np.ndarray) -> np.ndarray:
    """Average more than two channels [channels, n]; only a pair may be in opposite phase, see `_mixed`."""
    return channels if len(channels) <= 2 else channels.mean(axis=0, keepdims=True)


def _mixed(channels: np.ndarray) -> np.ndarray:
    """Mix samples [channels, n] to mono [n]."""
    mean: np.ndarray = channels.mean(axis=0)
    powers = np.square(channels).mean(axis=1)
    if np.square(mean).mean() < CANCELLED * powers.max():
        mean = channels[powers.argmax()]
    return mean


def _bad_rate(rate: int) -> str:
    return (
        f"The sample rate is {rate} Hz: resample to one between {MIN_RATE} and {MAX_RATE} Hz that is a multiple of "
        f"{RATE_STEP}, best 24000."
    )
