"""The trained networks as a model directory, in half precision."""

import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from tools.random_checkpoint.settings import yaml_text
from training import flow, language_model
from training.corpus import PRESETS, recording
from training.factors import merged
from training.fit import trained
from training.sentences import VOICE_TRANSCRIPT
from training.speaker_encoder import SpeakerEncoder
from training.speech_tokenizer import SpeechTokenizer
from vllm_cosyvoice.checkpoint import directory as files
from vllm_cosyvoice.checkpoint import open_model
from vllm_cosyvoice.checkpoint.cosyvoice2 import COSYVOICE2
from vllm_cosyvoice.config import LLM_FILE, ModelConfig


def export(
    out: Path, model: Path, config: ModelConfig, speech_tokenizer: SpeechTokenizer, speaker_encoder: SpeakerEncoder
) -> None:
    """Write the model directory `model` from the stages' files in `out`, and check it as the engine does.

    Raises:
        FileNotFoundError: a stage has not run.
        FileExistsError: there is something at `model` already.
    """
    if model.exists():
        raise FileExistsError(f"{model} exists already; remove it or name another directory")
    model.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=model.parent) as temporary:
        made = Path(temporary) / model.name
        made.mkdir()
        (made / COSYVOICE2.settings).write_text(yaml_text(config), encoding="utf-8")
        shutil.copytree(out / files.TOKENIZER, made / files.TOKENIZER)
        torch.save(_halved(language_model.file_tensors(trained(out, "language_model"))), made / LLM_FILE)
        torch.save(_halved(flow.file_tensors(trained(out, "flow"))), made / files.FLOW)
        vocoder = {f"generator.{name}": tensor for name, tensor in _halved(merged(trained(out, "vocoder"))).items()}
        torch.save(vocoder, made / files.VOCODER)
        speech_tokenizer.save(made / COSYVOICE2.speech_tokenizer)
        speaker_encoder.save(made / files.SPEAKER_ENCODER)
        presets = {}
        for speaker, name in enumerate(PRESETS):
            _, heard = recording(VOICE_TRANSCRIPT, speaker)
            presets[name] = {"embedding": embedding(speaker_encoder, heard)[None]}
        torch.save(presets, made / files.PRESET_SPEAKERS)
        open_model(made)
        made.replace(model)


@torch.no_grad()
def embedding(speaker_encoder: SpeakerEncoder, heard: Tensor) -> Tensor:
    """[192] of 16 kHz samples."""
    from vllm_cosyvoice.voice.features import speaker_fbank

    vector: Tensor = speaker_encoder.cpu()(speaker_fbank(heard)[None])[0]
    return vector


def _halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """In half precision. Names of one and the same tensor stay so, and the file holds it once."""
    halved = {id(tensor): tensor.detach().half().clone() for tensor in tensors.values()}
    return {name: halved[id(tensor)] for name, tensor in tensors.items()}
