"""The three features of prompt audio."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from tests.golden_cases import Case, errors
from vllm_cosyvoice.voice.features import prompt_mel, speaker_fbank, whisper_log_mel

FILE = "features.npz"
TOLERANCE = 1e-4

Feature = Callable[[torch.Tensor], torch.Tensor]
FEATURES: dict[str, tuple[str, Feature]] = {
    "whisper_log_mel": ("wave_16k", whisper_log_mel),
    "campplus_fbank": ("wave_16k", speaker_fbank),
    "mel_24k": ("wave_24k", lambda wave: prompt_mel(wave).T),
}
COSYVOICE3: dict[str, tuple[str, Feature]] = {
    "mel_24k": ("wave_24k", lambda wave: prompt_mel(wave, highest=12_000.0).T),
}


def cases(data: Path, salt: str) -> Iterator[Case]:
    """One case a feature; there are no weights, so `salt` changes nothing.

    The error that counts is relative RMS. In the quietest Kaldi bins (log energy under −13) float32 itself is only
    good to 2.5e-4: so far are float32 and float64 apart there.
    """
    with np.load(data / FILE) as golden:
        for name, (wave, feature) in (FEATURES if "wave_16k" in golden else COSYVOICE3).items():
            actual = feature(torch.from_numpy(golden[wave])).numpy()
            max_error, relative_error = errors(actual, golden[name])
            yield Case(FILE, name, max_error, relative_error, relative_error <= TOLERANCE and max_error <= 1e-3)
