"""Selects what computes the vocoder: the network by the class of its sizes; CUDA kernels where there are any."""

import torch

from vllm_cosyvoice.checkpoint import ModelDirectory
from vllm_cosyvoice.config import CausalVocoderConfig
from vllm_cosyvoice.gpu.device import Gpu
from vllm_cosyvoice.vocoder.stream import AnyVocoder
from vllm_cosyvoice.vocoder.torch.causal_vocoder import CausalVocoder
from vllm_cosyvoice.vocoder.torch.vocoder import Vocoder


def open_vocoder(model: ModelDirectory, device: torch.device) -> AnyVocoder:
    """Load the vocoder of `model`. The caller still has to capture the CUDA graphs of a `PackedVocoder`.

    Raises:
        ValueError: the weights don't match the configuration.
        UnsupportedGpuError: the kernels don't run on `device`.
    """
    config, state = model.config.vocoder, model.vocoder_state()
    vocoder: Vocoder | CausalVocoder
    if isinstance(config, CausalVocoderConfig):
        vocoder = CausalVocoder.from_state(config, state, device)
    else:
        vocoder = Vocoder.from_state(config, state, device)
    if device.type != "cuda":
        return vocoder
    from vllm_cosyvoice.vocoder.cuda.vocoder import PackedVocoder  # needs Triton

    return PackedVocoder(vocoder, Gpu.of(device))
