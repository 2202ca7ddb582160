"""Creates seeded random weights of any size that give finite, voiced, audible speech with an end.

Matrices preserve variance (draws divided by the square root of the number of inputs), so that logits, mel and hidden
states have about unit variance at any width. The few values that decide how the result sounds are set afterwards.
"""

import math
import zlib

import torch

from vllm_cosyvoice.checkpoint.cosyvoice2 import COSYVOICE2
from vllm_cosyvoice.checkpoint.family import ModelFamily
from vllm_cosyvoice.checkpoint.layout import Layout, flow_layout, vocoder_layout
from vllm_cosyvoice.config import DiTFlowConfig, FlowConfig, LanguageModelConfig, VocoderConfig
from vllm_cosyvoice.vocabulary import END_OF_SPEECH, FILL, UNUSED

State = dict[str, torch.Tensor]

# Matrices of CosyVoice3's estimator that are called embeddings, but project.
PROJECTIONS = ("decoder.estimator.time_embed.", "decoder.estimator.input_embed.")
NEVER = -1e4  # a logit that is never drawn, but finite in bfloat16
# The other 6561 logits have unit variance, so this is about the 25th largest, the last of the nucleus. After the least
# length, speech ends with a probability of about 1 in 55 per token: a sentence gets about six speech tokens per text
# token.
END_LOGIT = 2.7
END_SPREAD = 0.1  # standard deviation of the end's logit, small so that all seeds and sizes end alike

VOICE_PITCH = 170.0  # Hz
PITCH_SPREAD = 60.0  # Hz per unit of the pitch predictor's output
LOUDNESS = -1.5  # mean log-magnitude of the spectrum, well below clipping
LIVELINESS = 0.5  # size of the variations of log-magnitude and phase


def language_model_weights(config: LanguageModelConfig, seed: int, family: ModelFamily = COSYVOICE2) -> State:
    """`llm.pt`. As in the release, the text head is tied to the text embedding, so it takes no extra memory."""
    layout = family.language_model_layout(config)
    del layout["llm.model.lm_head.weight"]
    state = _draw(layout, seed)
    state["llm.model.lm_head.weight"] = state["llm.model.model.embed_tokens.weight"]
    if "llm_decoder.bias" in state:  # CosyVoice3 has none, so that its speech ends like any other token comes
        bias = state["llm_decoder.bias"].zero_()
        bias[[UNUSED, FILL]] = NEVER
        bias[END_OF_SPEECH] = END_LOGIT
        state["llm_decoder.weight"][END_OF_SPEECH] *= END_SPREAD
    return state


def flow_weights(config: FlowConfig | DiTFlowConfig, seed: int) -> State:
    """`flow.pt`."""
    return _draw(flow_layout(config), seed)


def vocoder_weights(config: VocoderConfig, seed: int) -> State:
    """`hift.pt`."""
    state = _draw(vocoder_layout(config), seed)
    for name, direction in state.items():
        if name.endswith("original1"):
            norms = direction.flatten(1).norm(dim=1).view(-1, 1, 1)
            state[name.replace("original1", "original0")].copy_(norms)
    state["f0_predictor.classifier.weight"] *= PITCH_SPREAD
    state["f0_predictor.classifier.bias"].fill_(VOICE_PITCH)
    state["conv_post.parametrizations.weight.original0"] *= LIVELINESS
    bins = config.n_fft // 2 + 1
    state["conv_post.bias"][:bins] = LOUDNESS
    return state


def _draw(layout: Layout, seed: int) -> State:
    return {name: _tensor(name, shape, seed) for name, shape in layout.items()}


def _tensor(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """One tensor, which depends only on its name, its shape and the seed, not on the order of creation."""
    if name.endswith((".alpha", "original0")) or (len(shape) == 1 and name.endswith("weight")):
        return torch.ones(shape)
    if len(shape) == 1:
        return torch.zeros(shape)
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
    draws = torch.randn(shape, generator=generator)
    table = "embed" in name and len(shape) == 2 and not name.startswith(PROJECTIONS)
    return draws if table else draws / math.sqrt(math.prod(shape[1:]))
