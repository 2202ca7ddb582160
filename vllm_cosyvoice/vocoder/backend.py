"""Selects what computes the vocoder: the network by the class of its sizes; CUDA kernels where there are any."""

import torch

from vllm_cosyvoice.checkpoint import ModelDirectory
from vllm_cosyvoice.config import CausalVocoderConfig
from vllm_cosyvoice.gpu.device import Gpu
from vllm_cosyvoice.vocoder.stream import AnyVocoder
from vllm_cosyvoice.vocoder.torch.causal_vocoder import CausalVocoder
from vllm_cosyvoice.vocoder.torch.vocoder import Vocoder


def load_vocoder(model: ModelDirectory, device: torch.device) -> Vocoder | CausalVocoder:
    """Load the vocoder of `model` in PyTorch.

    Raises:
        ValueError: the weights don't match the configuration.
    """
    config, state = model.config.vocoder, model.vocoder_state()
    if isinstance(config, CausalVocoderConfig):
        return CausalVocoder.from_state(config, state, device)
    return Vocoder.from_state(config, state, device)


def open_vocoder(model: ModelDirectory, device: torch.device) -> AnyVocoder:
    """Load the vocoder of `model`. The caller still has to capture the CUDA graphs of a `PackedVocoder`.

    Raises:
        ValueError: the weights don't match the configuration.
        UnsupportedGpuError: the kernels don't run on `device`.
    """
    vocoder = load_vocoder(model, device)
    if device.type != "cuda":
        return vocoder
    from vllm_cosyvoice.vocoder.cuda.vocoder import PackedVocoder  # needs Triton

    return PackedVocoder(vocoder, Gpu.of(device))
