"""The flow and the vocoder, small enough for unit tests, with seeded weights."""

import torch
from torch import Tensor

from tests.seeded_weights import seeded_state
from vllm_cosyvoice.checkpoint.layout import flow_layout, vocoder_layout
from vllm_cosyvoice.config import CausalVocoderConfig, DiTFlowConfig, FlowConfig, VocoderConfig
from vllm_cosyvoice.vocoder import VocoderRow

FLOW = FlowConfig(
    width=64,
    heads=4,
    feed_forward=64,
    blocks=2,
    up_blocks=1,
    estimator_channels=32,
    estimator_heads=2,
    estimator_head_dim=16,
    estimator_blocks=1,
    estimator_mid_stages=1,
)
DIT_FLOW = DiTFlowConfig(look_ahead_width=48, width=64, blocks=3, heads=4, head_dim=16, feed_forward=128)
PACKED_DIT_FLOW = DiTFlowConfig(  # the smallest that the fused kernels support
    look_ahead_width=48, width=256, blocks=2, heads=4, head_dim=16, feed_forward=128
)
VOCODER = VocoderConfig(base_channels=32, f0_channels=16)
CAUSAL_VOCODER = CausalVocoderConfig(base_channels=32, f0_channels=16)


def flow_state(config: FlowConfig | DiTFlowConfig = FLOW) -> dict[str, Tensor]:
    return seeded_state(flow_layout(config))


def vocoder_state(config: VocoderConfig = VOCODER) -> dict[str, Tensor]:
    state = seeded_state(vocoder_layout(config))
    # Seeded as they are, the weights have no pitch and four samples in five are clipped.
    state["f0_predictor.classifier.bias"] += 150
    state["conv_post.parametrizations.weight.original0"] *= 0.2
    return state


def mel(frames: int, seed: int = 0) -> Tensor:
    """Something that moves slowly in time, as speech does."""
    noise = torch.randn(1, 80, frames + 5, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.avg_pool1d(noise, 5, 1)[0, :, :frames].T.contiguous()


def ragged_rows() -> list[VocoderRow]:
    """Rows of different lengths, some in the middle of a stream."""
    generator = torch.Generator().manual_seed(0)
    return [
        VocoderRow(
            mel=mel(frames, seed=frames),
            phase=torch.rand(9, generator=generator, dtype=torch.float64),
            at=at,
            end=frames - at // 2,
            noise_start=1000 * frames,
        )
        for frames, at in ((30, 15), (17, 0), (1, 0), (44, 20), (44, 0))
    ]
