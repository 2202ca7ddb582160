"""Flow matching (Lipman et al. 2023) by the serving modules: their encoder, estimator, masks and guidance pair."""

import random

import torch
from torch import Tensor
from torch.nn import functional as F

from training.released import Parameters, Served
from vllm_cosyvoice.checkpoint.layout import flow_layout
from vllm_cosyvoice.config import CHUNK_TOKENS, FRAMES_PER_TOKEN, LOOKAHEAD_TOKENS, FlowConfig
from vllm_cosyvoice.flow.torch.flow import Flow
from vllm_cosyvoice.flow.torch.loading import flow_weights
from vllm_cosyvoice.flow.torch.masks import attention_mask

FREE_SHARE = 0.2  # weight of the velocity without the condition, which guidance steers away from
ENCODER_WEIGHT = 0.1  # of mu's own distance from the mel, which makes the start quicker
PROMPTED = 0.6  # share of batches that continue a prompt's mel
MEAN_MEL = -4.6  # of the corpus, where mu and the velocity start: to get there takes thousands of steps
FEWEST_TOKENS, MOST_TOKENS = 30, 350


def layout(config: FlowConfig) -> dict[str, tuple[int, ...]]:
    """What is trained."""
    return flow_layout(config)


def served(config: FlowConfig, parameters: Parameters) -> Served:
    """The flow that computes with `parameters`."""
    device = next(iter(parameters.values())).device
    with torch.device("meta"):
        flow = Flow(config)
    return Served(flow.train().to_empty(device=device), parameters, flow_weights)


def loss(
    served: Served, tokens: Tensor, mel: Tensor, speaker: Tensor, *, streaming: bool, look_ahead: int, prompt: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """One batch without padding.

    Args:
        tokens: [rows, spoken + 3], the last three for the look-ahead.
        mel: [rows, 2 · spoken, 80].
        speaker: [rows, 192], speaker embeddings.
        look_ahead: how many of the last three the encoder may hear; the rest it knows as the utterance's end.
        prompt: frames whose mel is given.
    """
    guided, free, target, mu = served(velocities, tokens, mel, speaker, streaming, look_ahead, prompt)
    guided_loss, free_loss = (F.mse_loss(each[:, prompt:], target[:, prompt:]) for each in (guided, free))
    encoder_loss = F.mse_loss(mu, mel)
    report = {"guided": guided_loss.detach(), "free": free_loss.detach(), "mu": encoder_loss.detach()}
    return (1 - FREE_SHARE) * guided_loss + FREE_SHARE * free_loss + ENCODER_WEIGHT * encoder_loss, report


def velocities(
    flow: Flow, tokens: Tensor, mel: Tensor, speaker: Tensor, streaming: bool, look_ahead: int, prompt: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Velocities with and without the condition at a random time, what they should be, and mu."""
    rows, device = len(tokens), tokens.device
    spoken = tokens.shape[1] - LOOKAHEAD_TOKENS
    lengths = torch.full((rows,), spoken, device=device)
    heard = lengths + look_ahead
    mask, frame_mask, pair_mask = masks(lengths, streaming, mel.dtype)
    hidden = flow.encoder(tokens, heard, spoken, mask, frame_mask)
    mu = flow.encoder_proj(hidden.float())
    vectors = flow.speaker_proj(F.normalize(speaker, dim=1))
    prompt_mel = F.pad(mel[:, :prompt], (0, 0, 0, mel.shape[1] - prompt))
    noise = torch.randn_like(mel)
    time = 1 - torch.cos(torch.rand(rows, device=device) * torch.pi / 2)  # spread as the solver's steps are
    at = time[:, None, None]
    stage_times = flow.estimator.times(time).repeat(2, 1, 1).transpose(0, 1)[:, :, None]  # [stages, 2 · rows, 1, …]
    condition = flow.estimator.condition(mu, vectors, prompt_mel)
    both = flow.estimator((1 - at) * noise + at * mel, condition, stage_times, pair_mask)
    guided, free = both.float().chunk(2)
    return guided, free, mel - noise, mu


def masks(lengths: Tensor, streaming: bool, data_type: torch.dtype) -> tuple[Tensor | None, ...]:
    """The masks a solve of such rows has: of tokens, of frames, of the guidance pair's frames."""
    if not streaming:
        return None, None, None
    longest = int(lengths.max())
    chunks = torch.full_like(lengths, CHUNK_TOKENS)
    pair_lengths, pair_chunks = (FRAMES_PER_TOKEN * each.repeat(2) for each in (lengths, chunks))
    pair_mask = attention_mask(pair_lengths, pair_chunks, FRAMES_PER_TOKEN * longest, data_type)
    return attention_mask(lengths, chunks, longest, data_type), pair_mask[: len(lengths)], pair_mask


def draw_case() -> tuple[int, bool, int, int]:
    """Tokens, streaming, look-ahead and prompt frames of a batch; both masks as often."""
    spoken = random.randint(FEWEST_TOKENS, MOST_TOKENS)
    streaming = random.random() < 0.5
    look_ahead = LOOKAHEAD_TOKENS * (random.random() < 0.5)
    prompt = FRAMES_PER_TOKEN * random.randint(0, 2 * spoken // 3) if random.random() < PROMPTED else 0
    return spoken, streaming, look_ahead, prompt
