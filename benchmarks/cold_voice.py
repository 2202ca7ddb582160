"""Times the preparation of a voice: a new recording of 5 s, and one whose features are cached.

    python -m benchmarks.cold_voice [--model_dir DIR | --size full]

"cold" is the whole time for a request with a new recording, with the threads of an encode process; some of its parts
follow. "cached" is the time for the next request with the same recording.
"""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
import torch

from benchmarks.measurement import Measurement, host_milliseconds, parser, report
from benchmarks.model import model_directory
from vllm_cosyvoice.audio_file import audio_file
from vllm_cosyvoice.checkpoint import open_model
from vllm_cosyvoice.config import PROMPT_SAMPLE_RATE, SAMPLE_RATE
from vllm_cosyvoice.preparation import Preparation
from vllm_cosyvoice.recording import Recording
from vllm_cosyvoice.voice import VoiceEncoder
from vllm_cosyvoice.voice.audio import resample
from vllm_cosyvoice.voice.features import prompt_mel, speaker_fbank, whisper_log_mel

SECONDS = 5


def costs(directory: Path) -> Iterator[Measurement]:
    """Measure every case once."""
    model = open_model(directory)
    preparation, encoder = Preparation(model), VoiceEncoder(model)
    noise = np.random.default_rng(0).standard_normal(SECONDS * SAMPLE_RATE) / 10
    samples = noise.astype(np.float32)
    wav = audio_file((32_767 * noise.clip(-1, 1)).astype(np.int16), "wav")
    wave = torch.from_numpy(samples)
    prompt_wave = resample(wave, SAMPLE_RATE, PROMPT_SAMPLE_RATE)
    number = count()
    cases: dict[str, Callable[[], object]] = {
        "cold": lambda: preparation.voice(Recording(wav, f"Transcript {next(number)}.")),
        "cached": lambda: preparation.voice(Recording(wav, "Transcript 0.")),
        "of it: resampling": lambda: resample(wave, SAMPLE_RATE, PROMPT_SAMPLE_RATE),
        "of it: speech tokens, with resampling and log-mel": lambda: encoder.speech_tokens(samples, SAMPLE_RATE),
        "of it: log-mel": lambda: whisper_log_mel(prompt_wave),
        "of it: filter banks of the speaker encoder": lambda: speaker_fbank(prompt_wave),
        "of it: mel of the flow": lambda: prompt_mel(wave),
    }
    networks = (model.speech_tokenizer, model.speaker_encoder)
    notes = " and ".join(f"{path.name} {path.stat().st_size / 1e6:.0f} MB" for path in networks)
    for case, call in cases.items():
        yield Measurement("voice", case, host_milliseconds(call), notes=notes if case == "cold" else "")


def main() -> None:
    """Print a table."""
    arguments = parser(__doc__, batches=False).parse_args()
    with model_directory(arguments) as directory:
        report(lambda: costs(directory), arguments)


if __name__ == "__main__":
    main()
