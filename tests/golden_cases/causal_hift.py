"""CosyVoice3's mel to audio, against the reference vocoder."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from tests.golden_cases import Case, errors, tensors
from tests.golden_cases.hift import vocoder_config
from tests.seeded_weights import seeded_state
from vllm_cosyvoice.config import F0_LOOKAHEAD, SAMPLES_PER_FRAME, CausalVocoderConfig
from vllm_cosyvoice.vocoder import CausalVocoder, VocoderStream, speak

SIZES = ("small", "full")
MAX_ERROR = 1e-6  # absolute, of pitch and source
MAX_SPEECH_ERROR = 1e-3  # absolute
# Relative. In float32, oneDNN's convolutions round more than PyTorch's own: 1.02e-5 instead of 3.5e-6.
MAX_POST_ERROR = 2e-5
MAX_POST_ERROR_IN_FLOAT64 = 1e-6


def cases(data: Path, salt: str) -> Iterator[Case]:
    """All sizes in `data`, with weights seeded by `salt`: each part from the reference's input, then the whole."""
    manifest = json.loads((data / "manifest.json").read_text())
    for size in SIZES:
        path = data / f"hift_{size}.npz"
        golden = tensors(path)
        shapes = manifest[f"hift.{size}"]
        config, state = CausalVocoderConfig(**vars(vocoder_config(shapes))), seeded_state(shapes, salt)
        with torch.inference_mode():
            for name, actual in _computed(CausalVocoder.from_state(config, state), golden):
                absolute, relative = errors(actual.numpy(), golden[name].numpy())
                limit = MAX_SPEECH_ERROR if "speech" in name else MAX_ERROR
                passed = relative <= MAX_POST_ERROR if name == "post" else absolute <= limit
                yield Case(path.name, name, absolute, relative, passed)

            exact = CausalVocoder.from_state(config, state, data_type=torch.float64)
            post = exact.generator.body(golden["mel"].T[None], golden["source"].double(), _length(golden))[0]
            absolute, relative = errors(post.numpy(), golden["post"].numpy())
            yield Case(path.name, "post", absolute, relative, relative <= MAX_POST_ERROR_IN_FLOAT64, "in float64")


def _length(golden: Mapping[str, Tensor]) -> Tensor:
    return torch.tensor([golden["mel"].shape[1]])


def _computed(vocoder: CausalVocoder, golden: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Everything of `golden` as `vocoder` computes it; names may come twice."""
    mel, length = golden["mel"].T[None], _length(golden)
    frames = mel.shape[1]
    f0 = vocoder.f0(mel)[0]
    yield "f0", f0
    yield "f0_streaming", f0[:-F0_LOOKAHEAD]

    draws = torch.Generator().manual_seed(int(golden["noise_seed"]))
    noise = torch.rand(frames * SAMPLES_PER_FRAME, vocoder.source.harmonics, generator=draws)
    yield "noise_head", noise[: len(golden["noise_head"])]
    mixed = vocoder.source.mixed(noise)
    source_f0 = golden["source_f0"][None]
    start = torch.zeros(1, vocoder.source.harmonics, dtype=torch.float64)
    _, phases = vocoder.source.phases(source_f0, start, torch.tensor([0]))
    yield "source_quiet", vocoder.source(source_f0, phases, torch.zeros(1, len(mixed)))
    yield "source", vocoder.source(source_f0, phases, mixed[None])

    yield "post", vocoder.generator.body(mel, golden["source"], length)[0]
    yield "speech", vocoder.generator(mel, golden["source"], length)[0]
    known = frames - F0_LOOKAHEAD  # frames whose pitch is known in a call that is not final
    source = golden["source"][:, : known * SAMPLES_PER_FRAME]
    early = vocoder.generator(mel[:, :known], source, length - F0_LOOKAHEAD)[0]
    yield "speech_streaming", early[: len(golden["speech_streaming"])]

    vocoder.source.noise = mixed
    yield "path_speech", _streamed(vocoder, mel[0], [frames])
    yield "path_speech", _streamed(vocoder, mel[0], golden["path_calls"].tolist())


def _streamed(vocoder: CausalVocoder, mel: Tensor, ends: list[int]) -> Tensor:
    """The audio of a stream whose calls know the first `ends` frames of `mel` [frames, 80]."""
    stream = VocoderStream(vocoder)
    pieces = []
    for end in ends:
        stream.push(mel[len(stream.mel) : end])
        pieces += speak(vocoder, [stream], [stream.window(last=end == ends[-1])])
    return torch.cat(pieces)
