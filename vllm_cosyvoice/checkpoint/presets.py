"""Reads `spk2info.pt`: a model's preset speakers, and those that CosyVoice's `add_zero_shot_spk` saved there."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from vllm_cosyvoice.checkpoint import tensors
from vllm_cosyvoice.checkpoint.errors import CheckpointError
from vllm_cosyvoice.config import FRAMES_PER_TOKEN, MEL_BINS, SPEAKER_DIM, TOKEN_RATE
from vllm_cosyvoice.limits import MOST_PROMPT_SECONDS
from vllm_cosyvoice.vocabulary import SPEECH_TOKENS

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class PresetSpeaker:
    """A preset speaker. If only the embedding is known, tokens and mel are empty."""

    embedding: torch.Tensor  # float32 [192]
    speech_tokens: torch.Tensor  # int32 [n]
    mel: torch.Tensor  # float32 [2n, 80], natural log
    transcript: list[int]  # tokenizer ids of the recording's text; empty if unknown


def read_presets(path: Path) -> tuple[dict[str, PresetSpeaker], str | None]:
    """Read the usable speakers in the file at `path`, by name, and describe a problem with the file, if any.

    Preset speakers are optional, so a missing or damaged file gives no speakers.
    """
    if not path.exists():
        return {}, None
    try:
        entries = tensors.read_pickle(path, meta=False)
    except CheckpointError as error:
        return {}, f"The model's own speakers are not available: {error}, or remove it"
    if not isinstance(entries, dict):
        return {}, f"The model's own speakers are not available: {path} is not a table of speakers; download it again"
    speakers, unusable = {}, []
    for name, facts in entries.items():
        try:
            speakers[str(name)] = _speaker(facts)
        except ValueError as error:
            unusable.append(f"{name} ({error})")
    if unusable:
        cure = "remove them from the file or save them again with CosyVoice2's add_zero_shot_spk"
        return speakers, f"{path} contains speakers that can't be used: {', '.join(unusable)}; {cure}"
    return speakers, None


def warn_of_damage(path: Path) -> None:
    """Log a warning if there is a problem with the file at `path`."""
    if problem := read_presets(path)[1]:
        log.warning("%s.", problem)


def _speaker(facts: object) -> PresetSpeaker:
    """Convert and check an entry; raise ValueError if it can't be used."""
    if not isinstance(facts, dict):
        raise ValueError("it is not a table")
    if "flow_prompt_speech_token" not in facts:
        empty = torch.zeros(0)
        embedding = _flat(facts, "embedding", torch.float32)
        return _checked(PresetSpeaker(embedding, empty.int(), empty.reshape(0, MEL_BINS), []))
    mel = _tensor(facts, "prompt_speech_feat").float()
    if mel.shape[-1:] != (MEL_BINS,):
        raise ValueError(f"prompt_speech_feat has the shape {list(mel.shape)}, not [1, frames, {MEL_BINS}]")
    return _checked(
        PresetSpeaker(
            embedding=_flat(facts, "flow_embedding", torch.float32),
            speech_tokens=_flat(facts, "flow_prompt_speech_token", torch.int32),
            mel=mel.reshape(-1, MEL_BINS).clone(),
            # CosyVoice removes it from the entry when the speaker is used in cross-lingual mode.
            transcript=_flat(facts, "prompt_text", torch.int32).tolist() if "prompt_text" in facts else [],
        )
    )


def _checked(speaker: PresetSpeaker) -> PresetSpeaker:
    tokens, mel = speaker.speech_tokens, speaker.mel
    if speaker.embedding.shape != (SPEAKER_DIM,) or not speaker.embedding.isfinite().all():
        raise ValueError(f"its embedding is not {SPEAKER_DIM} finite numbers")
    if len(mel) != FRAMES_PER_TOKEN * len(tokens) or not mel.isfinite().all():
        raise ValueError(f"it has {len(tokens)} speech tokens, but not twice as many finite mel frames: {len(mel)}")
    if len(tokens) > MOST_PROMPT_SECONDS * TOKEN_RATE:
        raise ValueError(f"its recording is longer than {MOST_PROMPT_SECONDS:.0f} s")
    if ((tokens < 0) | (tokens >= SPEECH_TOKENS)).any():
        raise ValueError(f"it has speech tokens outside 0 … {SPEECH_TOKENS - 1}")
    return speaker


def _flat(facts: Mapping[str, object], name: str, data_type: torch.dtype) -> torch.Tensor:
    return _tensor(facts, name).to(data_type).flatten().clone()


def _tensor(facts: Mapping[str, object], name: str) -> torch.Tensor:
    value = facts.get(name)
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"it has no {name}" if value is None else f"its {name} is not a tensor")
    return value
