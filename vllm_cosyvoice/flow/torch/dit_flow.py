"""CosyVoice3's flow: its token encoder and its diffusion transformer, solved as all flows are."""

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from vllm_cosyvoice.config import DiTFlowConfig, FlowConfig
from vllm_cosyvoice.flow.torch.dit import DiT
from vllm_cosyvoice.flow.torch.dit_loading import dit_flow_weights
from vllm_cosyvoice.flow.torch.flow import FlowMatching
from vllm_cosyvoice.flow.torch.token_encoder import TokenEncoder
from vllm_cosyvoice.nn.context import WHOLE, Context


class DiTFlow(FlowMatching):
    """Converts speech tokens to mel: two convolutions encode the tokens, a transformer estimates the velocity."""

    encoder: TokenEncoder
    estimator: DiT
    weights = staticmethod(dit_flow_weights)

    def __init__(self, config: DiTFlowConfig) -> None:
        super().__init__(config)
        self.encoder = TokenEncoder(config)
        self.estimator = DiT(config)

    @classmethod
    def from_state(
        cls,
        config: FlowConfig | DiTFlowConfig,
        state: Mapping[str, Tensor],
        device: torch.device | str = "cpu",
        data_type: torch.dtype = torch.float32,
    ) -> Self:
        """See `FlowMatching.from_state`."""
        flow = super().from_state(config, state, device, data_type)
        del flow.estimator.modulation  # the solve needs no other times than `step_times`
        return flow

    def mu(
        self,
        tokens: Tensor,
        counts: Tensor,
        spoken: int,
        mask: Tensor | None,
        frame_mask: Tensor | None,
        context: Context = WHOLE,
    ) -> Tensor:
        """See `FlowMatching.mu`. Nothing here attends, so the masks are not used."""
        mu: Tensor = self.encoder(tokens, counts, spoken, context).float()
        return mu
