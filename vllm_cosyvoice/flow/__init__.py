"""Flow matching: speech tokens to mel."""

from vllm_cosyvoice.flow.row import FlowRow
from vllm_cosyvoice.flow.torch.dit_flow import DiTFlow
from vllm_cosyvoice.flow.torch.flow import Flow

__all__ = ["DiTFlow", "Flow", "FlowRow"]
