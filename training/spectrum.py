"""Magnitude spectrograms, as the vocoder's losses and its discriminators take them."""

import torch
from torch import Tensor


def magnitudes(audio: Tensor, window: int, hop: int) -> Tensor:
    """Magnitude spectrogram [rows, window / 2 + 1, frames] of audio [rows, samples]."""
    shape = torch.hann_window(window, device=audio.device)
    return torch.stft(audio.float(), window, hop, window=shape, return_complex=True).abs().clamp(min=1e-4)
