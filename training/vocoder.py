"""HiFT by the serving modules: spectral distances, and discriminators if wanted."""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from training.captured import Losses
from training.discriminators import Discriminators
from training.released import Parameters, Served
from training.spectrum import magnitudes
from vllm_cosyvoice.checkpoint.layout import vocoder_layout
from vllm_cosyvoice.config import MEL_BINS, SAMPLE_RATE, SAMPLES_PER_FRAME, VocoderConfig
from vllm_cosyvoice.vocoder.torch.loading import vocoder_weights
from vllm_cosyvoice.vocoder.torch.spectrum import Spectrum
from vllm_cosyvoice.vocoder.torch.vocoder import Vocoder
from vllm_cosyvoice.voice.features import PROMPT_N_FFT, mel_filters

CROP_TOKENS = 20
# Window and hop, samples: the longest tells overtones of neighbouring pitches apart.
RESOLUTIONS = ((4096, 960), (2048, 480), (1024, 240), (512, 120))
MEL_WEIGHT, F0_WEIGHT = 1.0, 0.005
# As large beside the spectral distances as HiFi-GAN's are beside its mel distance.
ADVERSARIAL_WEIGHT, MATCHING_WEIGHT = 0.5, 1.0
LOUDEST_SINE = 0.3  # in the source's mix; the overtone n has this by the root of n
FIRST_PITCH = 130.0  # Hz
FIRST_LOUDNESS = -3.0  # log-magnitude


def layout(config: VocoderConfig) -> dict[str, tuple[int, ...]]:
    """What is trained."""
    return vocoder_layout(config)


def start(parameters: Parameters, config: VocoderConfig) -> None:
    """Start near speech: soft, and at a voice's pitch."""
    parameters["conv_post.bias"].data[: config.n_fft // 2 + 1] = FIRST_LOUDNESS
    parameters["f0_predictor.classifier.bias"].data.fill_(FIRST_PITCH)
    parameters["f0_predictor.classifier.weight"].data.mul_(FIRST_PITCH / 2)
    # Not trained: left to itself, training turns the source down, and then pulses at the frame rate take its place.
    mix = parameters["m_source.l_linear.weight"].requires_grad_(False)
    mix.data.copy_(LOUDEST_SINE / torch.arange(1, mix.shape[1] + 1).sqrt())
    parameters["m_source.l_linear.bias"].requires_grad_(False)


def served(config: VocoderConfig, parameters: Parameters) -> Served:
    """The vocoder that computes with `parameters`."""
    device = next(iter(parameters.values())).device
    with torch.device("meta"):
        vocoder = Vocoder(config)
    vocoder = vocoder.train().to_empty(device=device)
    vocoder.source.draw_noise()
    vocoder.generator.spectrum = Spectrum(config.n_fft, config.hop_length, device)
    return Served(vocoder, parameters, vocoder_weights)


def loss(
    served: Served, discriminators: Discriminators, mel: Tensor, audio: Tensor, f0: Tensor, *, adversarial: bool
) -> Losses:
    """For mel [rows, frames, 80], audio [rows, 480 · frames] in [−1, 1] and the teacher's pitch [rows, frames].

    With `adversarial`, vocoder and discriminators are trained against each other. It never waits for the device, so it
    can be captured.
    """
    made, predicted = served(speak, mel, f0)
    pitch_loss = F.l1_loss(predicted, f0)
    spectral = torch.zeros((), device=mel.device)
    for window, hop in RESOLUTIONS:
        ours, theirs = magnitudes(made, window, hop), magnitudes(audio, window, hop)
        spectral = spectral + F.l1_loss(ours.log(), theirs.log()) + (ours - theirs).norm() / theirs.norm()
    spectral = spectral / len(RESOLUTIONS)
    filters = filters_on(mel.device)
    ours, theirs = (
        (filters @ magnitudes(each, PROMPT_N_FFT, SAMPLES_PER_FRAME)).clamp(min=1e-5).log() for each in (made, audio)
    )
    mel_loss = F.l1_loss(ours, theirs)
    value = spectral + MEL_WEIGHT * mel_loss + F0_WEIGHT * pitch_loss
    losses = {"spectral": spectral, "mel": mel_loss, "pitch": pitch_loss}
    if adversarial:
        against = discriminators.losses(made, audio)
        value = value + ADVERSARIAL_WEIGHT * against["adversarial"] + MATCHING_WEIGHT * against["feature_matching"]
        value = value + against["discriminator"]
        losses |= against
    return {"loss": value, **losses}


def speak(vocoder: Vocoder, mel: Tensor, f0: Tensor) -> tuple[Tensor, Tensor]:
    """Audio [rows, 480 · frames], and the predicted pitch.

    The source takes the teacher's `f0`: what is predicted at first is wrong, and a vocoder that can't rely on its
    source may learn to do without.
    """
    rows, frames, _ = mel.shape
    predicted = vocoder.f0(mel, torch.ones_like(f0))
    at = torch.zeros(rows, dtype=torch.long, device=mel.device)
    advances, phases = vocoder.source.phases(f0, f0.new_zeros(rows, vocoder.source.harmonics).double(), at)
    starts = torch.randint(1 << 20, (rows,), device=mel.device)
    noise = vocoder.source.noise_at(starts, frames * SAMPLES_PER_FRAME)
    source = vocoder.source(f0, advances, phases, noise)
    lengths = torch.full((rows,), frames, device=mel.device)
    return vocoder.generator(mel, source, lengths, ragged=False), predicted


@cache
def filters_on(device: torch.device) -> Tensor:
    """The mel filters [80, bins]."""
    return mel_filters(PROMPT_N_FFT, MEL_BINS, SAMPLE_RATE).to(device)
