"""Flow matching: speech tokens to mel."""

from vllm_cosyvoice.flow.solver import Flow, FlowRow

__all__ = ["Flow", "FlowRow"]
