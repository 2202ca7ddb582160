"""Spectral features of recordings: the inputs of three networks, computed as in their training."""

from functools import cache

import torch
from torch.nn.functional import pad
from torchaudio.compliance.kaldi import fbank
from torchaudio.functional import melscale_fbanks

from vllm_cosyvoice.config import MEL_BINS, PROMPT_SAMPLE_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME

HIGHEST = 8000.0  # Hz, top of the mel scales
WHISPER_N_FFT = 400
WHISPER_HOP = 160
WHISPER_BINS = 128
SPEAKER_BINS = 80
PROMPT_N_FFT = 1920
PROMPT_MARGIN = (PROMPT_N_FFT - SAMPLES_PER_FRAME) // 2  # samples that a frame sees on either side of its own


def whisper_log_mel(samples: torch.Tensor) -> torch.Tensor:
    """Compute Whisper's log-mel of 16 kHz `samples` [n]: [128, n // 160], the speech tokenizer's input."""
    window = torch.hann_window(WHISPER_N_FFT)
    spectrum = torch.stft(samples, WHISPER_N_FFT, WHISPER_HOP, window=window, return_complex=True)
    power = spectrum[:, :-1].abs().square()
    log_mel = (mel_filters(WHISPER_N_FFT, WHISPER_BINS, PROMPT_SAMPLE_RATE) @ power).clamp(min=1e-10).log10()
    return (torch.maximum(log_mel, log_mel.max() - 8) + 4) / 4


def speaker_fbank(samples: torch.Tensor) -> torch.Tensor:
    """Compute Kaldi filter banks of 16 kHz `samples` [n] minus their mean over time: [frames, 80].

    Frames are 25 ms long, every 10 ms. They are the speaker encoder's input.
    """
    banks: torch.Tensor = fbank(
        samples[None], num_mel_bins=SPEAKER_BINS, sample_frequency=PROMPT_SAMPLE_RATE, dither=0.0
    )
    return banks - banks.mean(dim=0, keepdim=True)


def prompt_mel(samples: torch.Tensor, highest: float = HIGHEST) -> torch.Tensor:
    """Compute the natural-log mel of 24 kHz `samples` [n]: [n // 480, 80], the mel that the flow continues.

    `highest`: the top of the mel scale in Hz.
    """
    return mel_within(pad(samples[None], (PROMPT_MARGIN, PROMPT_MARGIN), mode="reflect"), highest)[0]


def mel_within(samples: torch.Tensor, highest: float = HIGHEST) -> torch.Tensor:
    """Compute `prompt_mel` of samples [rows, n] without the first and last `PROMPT_MARGIN`: [rows, frames, 80]."""
    window = torch.hann_window(PROMPT_N_FFT, device=samples.device)
    spectrum = torch.stft(samples, PROMPT_N_FFT, SAMPLES_PER_FRAME, window=window, center=False, return_complex=True)
    magnitude = torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-9)
    filters = mel_filters(PROMPT_N_FFT, MEL_BINS, SAMPLE_RATE, highest).to(samples.device)
    return (filters @ magnitude).clamp(min=1e-5).log().transpose(1, 2)


@cache
def mel_filters(n_fft: int, bins: int, rate: int, highest: float = HIGHEST) -> torch.Tensor:
    """Triangular filters on Slaney's mel scale with Slaney's normalisation, [bins, n_fft // 2 + 1]."""
    filters: torch.Tensor = melscale_fbanks(n_fft // 2 + 1, 0.0, highest, bins, rate, norm="slaney", mel_scale="slaney")
    return filters.T.contiguous()
