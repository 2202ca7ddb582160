"""Flow matching (Lipman et al. 2023) by the serving modules: their encoder, estimator, masks and guidance pair."""

import random
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from training.captured import Losses
from training.factors import merged
from training.released import Parameters, Served
from vllm_cosyvoice.checkpoint.layout import flow_layout
from vllm_cosyvoice.config import CHUNK_TOKENS, FRAMES_PER_TOKEN, LOOKAHEAD_TOKENS, FlowConfig
from vllm_cosyvoice.flow.torch.flow import Flow
from vllm_cosyvoice.flow.torch.loading import flow_weights
from vllm_cosyvoice.flow.torch.masks import attention_mask

FREE_SHARE = 0.2  # weight of the velocity without the condition, which guidance steers away from
ENCODER_WEIGHT = 0.1  # of the distance of mu from the mel, which makes the start quicker
PROMPTED = 0.6  # share of batches that continue a prompt's mel
MEAN_MEL = -4.6  # of the corpus, where mu and the velocity start: to get there takes thousands of steps
LENGTHS = (30, 50, 75, 105, 145, 195, 260, 350)  # tokens: each has CUDA graphs of its own
# Blocks with the weights of another one: two blocks are run twice, so the file is 6 MB smaller. In this order, cycles,
# shared layers lose less than side by side (Takase and Kiyono 2021).
SHARED = {"encoder.up_encoders.2.": "encoder.up_encoders.0.", "encoder.up_encoders.3.": "encoder.up_encoders.1."}
ENCODER = ("input_embedding.", "encoder.", "encoder_proj.")


def layout(config: FlowConfig) -> dict[str, tuple[int, ...]]:
    """What is trained: the file's tensors without those of the blocks in SHARED."""
    return {name: shape for name, shape in flow_layout(config).items() if not name.startswith(tuple(SHARED))}


def file_tensors(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `flow.pt` holds. Blocks in SHARED have the very tensors of the blocks whose weights they use."""
    tensors = merged(parameters)
    for block, source in SHARED.items():
        names = [name for name in tensors if name.startswith(source)]
        tensors |= {name.replace(source, block): tensors[name] for name in names}
    return tensors


def served(config: FlowConfig, parameters: Parameters) -> Served:
    """The flow that computes with `parameters`."""
    device = next(iter(parameters.values())).device
    with torch.device("meta"):
        flow = Flow(config)
    flow = flow.train().to_empty(device=device)
    return Served(flow, parameters, lambda tensors: flow_weights(file_tensors(tensors)))


def loss(
    served: Served, tokens: Tensor, mel: Tensor, speaker: Tensor, look_ahead: Tensor, prompt: Tensor, *, streaming: bool
) -> Losses:
    """The loss of one batch without padding. It never waits for the device, so it can be captured.

    Args:
        tokens: [rows, spoken + 3], the last three for the look-ahead.
        mel: [rows, 2 · spoken, 80].
        speaker: [rows, 192], speaker embeddings.
        look_ahead: [], how many of the last three the encoder may hear; the rest it knows as the utterance's end.
        prompt: [], frames whose mel is given.
    """
    guided, free, target, mu = served(velocities, tokens, mel, speaker, look_ahead, prompt, streaming)
    made = (torch.arange(mel.shape[1], device=mel.device) >= prompt)[:, None]
    guided_loss, free_loss = (
        ((each - target).square() * made).sum() / (made.sum() * target[:, 0].numel()) for each in (guided, free)
    )
    encoder_loss = F.mse_loss(mu, mel)
    value = (1 - FREE_SHARE) * guided_loss + FREE_SHARE * free_loss + ENCODER_WEIGHT * encoder_loss
    return {"loss": value, "guided": guided_loss, "free": free_loss, "mu": encoder_loss}


def encoder_loss(
    served: Served, tokens: Tensor, mel: Tensor, teacher: Tensor, look_ahead: Tensor, *, streaming: bool
) -> Losses:
    """How far mu is from the `teacher`'s, [rows, 2 · spoken, 80]; and from the mel, which is not trained here."""
    (mu,) = served(means, tokens, look_ahead, streaming)
    value = F.mse_loss(mu, teacher)
    return {"loss": value, "mu": F.mse_loss(mu.detach(), mel)}


def means(flow: Flow, tokens: Tensor, look_ahead: Tensor, streaming: bool) -> tuple[Tensor]:
    """The encoder's mel, mu [rows, 2 · spoken, 80], of `tokens` [rows, spoken + 3]."""
    rows, spoken = len(tokens), tokens.shape[1] - LOOKAHEAD_TOKENS
    heard = torch.full((rows,), spoken, device=tokens.device) + look_ahead
    mask = chunk_mask(rows, spoken, CHUNK_TOKENS, tokens.device) if streaming else None
    hidden = flow.encoder(tokens, heard, spoken, mask, frame_mask(rows, spoken, tokens.device) if streaming else None)
    return (flow.encoder_proj(hidden.float()),)


def velocities(
    flow: Flow, tokens: Tensor, mel: Tensor, speaker: Tensor, look_ahead: Tensor, prompt: Tensor, streaming: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Velocities with and without the condition at a random time, what they should be, and mu."""
    rows, frames, _ = mel.shape
    device = mel.device
    (mu,) = means(flow, tokens, look_ahead, streaming)
    vectors = flow.speaker_proj(F.normalize(speaker, dim=1))
    prompt_mel = mel * (torch.arange(frames, device=device) < prompt)[:, None]
    noise = torch.randn_like(mel)
    time = 1 - torch.cos(torch.rand(rows, device=device) * torch.pi / 2)  # spread as the solver's steps are
    at = time[:, None, None]
    stage_times = flow.estimator.times(time).repeat(2, 1, 1).transpose(0, 1)[:, :, None]  # [stages, 2 · rows, 1, …]
    condition = flow.estimator.condition(mu, vectors, prompt_mel)
    pair_mask = frame_mask(2 * rows, frames // FRAMES_PER_TOKEN, device) if streaming else None
    both = flow.estimator((1 - at) * noise + at * mel, condition, stage_times, pair_mask)
    guided, free = both.float().chunk(2)
    return guided, free, mel - noise, mu


def frame_mask(rows: int, spoken: int, device: torch.device) -> Tensor:
    """The chunk mask at the frame rate, [rows, 1, 2 · spoken, 2 · spoken]."""
    return chunk_mask(rows, FRAMES_PER_TOKEN * spoken, FRAMES_PER_TOKEN * CHUNK_TOKENS, device)


def chunk_mask(rows: int, positions: int, chunk: int, device: torch.device) -> Tensor:
    """The mask of full rows in chunks, [rows, 1, positions, positions], as a solve has it."""
    lengths, chunks = (torch.full((rows,), number, device=device) for number in (positions, chunk))
    return attention_mask(lengths, chunks, positions, torch.float32)


def draw_case() -> tuple[int, bool, int, int]:
    """Tokens, streaming, look-ahead and prompt frames of a batch; both masks as often."""
    spoken = random.choice(LENGTHS)
    streaming = random.random() < 0.5
    look_ahead = LOOKAHEAD_TOKENS * (random.random() < 0.5)
    prompt = FRAMES_PER_TOKEN * random.randint(0, 2 * spoken // 3) if random.random() < PROMPTED else 0
    return spoken, streaming, look_ahead, prompt
