"""Finds or downloads, checks and reads model directories."""

from vllm_cosyvoice.checkpoint.directory import ModelDirectory, open_model
from vllm_cosyvoice.checkpoint.errors import CheckpointError
from vllm_cosyvoice.checkpoint.hub import find
from vllm_cosyvoice.checkpoint.presets import PresetSpeaker

__all__ = ["CheckpointError", "ModelDirectory", "PresetSpeaker", "find", "open_model"]
