"""Mel to audio, against the reference vocoder."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from tests.golden_cases import Case, errors, tensors
from tests.seeded_weights import seeded_state
from vllm_cosyvoice.config import VocoderConfig
from vllm_cosyvoice.vocoder import Vocoder

SIZES = ("small", "full")
MAX_F0_ERROR = 1e-4  # relative
MAX_ERROR = 1e-3  # absolute, of source and speech


def vocoder_config(shapes: Mapping[str, Sequence[int]]) -> VocoderConfig:
    """The sizes behind a manifest entry."""
    return VocoderConfig(
        base_channels=shapes["conv_pre.bias"][0],
        f0_channels=shapes["f0_predictor.condnet.0.bias"][0],
        harmonics=shapes["m_source.l_linear.weight"][1] - 1,
    )


def cases(data: Path, salt: str) -> Iterator[Case]:
    """All sizes in `data`, with weights seeded by `salt`: each part from the reference's input of that part."""
    manifest = json.loads((data / "manifest.json").read_text())
    for size in SIZES:
        path = data / f"hift_{size}.npz"
        golden = tensors(path)
        shapes = manifest[f"hift.{size}"]
        config = vocoder_config(shapes)
        vocoder = Vocoder.from_state(config, seeded_state(shapes, salt))
        mel = golden["mel"].T[None]
        with torch.inference_mode():
            f0 = vocoder.f0(mel, torch.ones(mel.shape[:2]))[0]
            absolute, relative = errors(f0.numpy(), golden["f0"].numpy())
            yield Case(path.name, "f0", absolute, relative, relative <= MAX_F0_ERROR)

            source_f0 = golden["source_f0"][None]
            start = torch.zeros(1, vocoder.source.harmonics, dtype=torch.float64)
            advances, phases = vocoder.source.phases(source_f0, start, torch.tensor([0]))
            source = vocoder.source(source_f0, advances, phases, torch.zeros_like(golden["source"]))
            absolute, relative = errors(source.numpy(), golden["source"].numpy())
            yield Case(path.name, "source", absolute, relative, absolute <= MAX_ERROR)

            speech = vocoder.generator(mel, golden["source"], torch.tensor([mel.shape[1]]), ragged=False)[0]
            absolute, relative = errors(speech.numpy(), golden["speech"].numpy())
            yield Case(path.name, "speech", absolute, relative, absolute <= MAX_ERROR)
            inside = golden["speech"].abs() < config.audio_limit - MAX_ERROR
            absolute, relative = errors(speech[inside].numpy(), golden["speech"][inside].numpy())
            note = f"{float(inside.float().mean()):.0%} of the samples"
            yield Case(path.name, "speech off the clamp", absolute, relative, absolute <= MAX_ERROR, note)
