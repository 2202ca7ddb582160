"""Prepares the networks' inputs: converts text to segments, and a voice's name or recording to its features."""

import hashlib
import logging
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from types import MappingProxyType

import numpy as np

from vllm_cosyvoice.checkpoint import ModelDirectory
from vllm_cosyvoice.failure import InputError
from vllm_cosyvoice.recording import Recording, StoredVoice, Voice
from vllm_cosyvoice.segment import Segment
from vllm_cosyvoice.text import TextFrontEnd
from vllm_cosyvoice.text.normalise import NO_WORDS
from vllm_cosyvoice.text.pauses import Pause
from vllm_cosyvoice.voice import (
    AudioError,
    TranscriptError,
    UnknownVoice,
    VoiceDirectory,
    VoiceEncoder,
    VoiceRefused,
    load_audio,
)
from vllm_cosyvoice.voice.cache import VoiceCache
from vllm_cosyvoice.voice.presets import preset_voices
from vllm_cosyvoice.voice.store import check_name, no_such_voice

log = logging.getLogger(__name__)


def check_voice(name: str, model: ModelDirectory, voices_dir: Path | None = None) -> None:
    """Raise InputError if there is no voice `name`. This loads no networks."""
    directory, presets = VoiceDirectory(voices_dir), model.preset_speakers()
    if directory.version(name) is None and name not in presets:
        raise InputError("voice", no_such_voice(name, _names(directory, presets)))


def _names(directory: VoiceDirectory, presets: Iterable[str]) -> list[str]:
    """The names of all voices: built-in voices, the user's, and the model's preset speakers."""
    return sorted({*directory.names(), *presets})


class Preparation:
    """The text front end, the voice encoder and the voices of one model.

    The features of the `cache_capacity` most recently used voices stay in memory. `aliases` maps further names to
    voices; a voice with the same name takes precedence. `pronunciations`: see TextFrontEnd.
    """

    def __init__(
        self,
        model: ModelDirectory,
        voices_dir: Path | None = None,
        cache_capacity: int = 200,
        aliases: Mapping[str, str] = MappingProxyType({}),
        pronunciations: Mapping[str, str] = NO_WORDS,
    ) -> None:
        self._family = model.family
        self._text = TextFrontEnd(model.tokenizer, pronunciations)
        self._transcript = lru_cache(max(1, cache_capacity))(self._text.normalise)  # as slow as normalising the text
        self._encoder = VoiceEncoder(model)
        self._directory = VoiceDirectory(voices_dir)
        self._presets = preset_voices(model)
        self._cache = VoiceCache(cache_capacity)
        self._aliases = aliases

    @property
    def cache_hits(self) -> int:
        """Number of lookups that found the voice in memory."""
        return self._cache.hits

    @property
    def cache_misses(self) -> int:
        """Number of lookups that did not."""
        return self._cache.misses

    def voice_names(self) -> list[str]:
        """The names that `voice` accepts, without aliases."""
        return _names(self._directory, self._presets)

    def voices(self) -> list[StoredVoice]:
        """The voices of `voice_names`."""
        presets = {name: StoredVoice(name, created_at=0) for name in self._presets}
        voices = presets | {voice.name: voice for voice in self._directory.voices()}
        return [voices[name] for name in sorted(voices)]

    def register(self, name: str, recording: Recording) -> StoredVoice:
        """Check a recording and store its voice as `name`, for all processes that share the directory.

        Raises InputError for an invalid name or recording, VoiceRefused if the name is taken, and OSError if writing to
        disk fails.
        """
        try:
            check_name(name)
        except ValueError as error:
            raise InputError("name", str(error)) from error
        if name in self._presets:
            raise VoiceRefused(f"{name!r} is a preset speaker of the model: choose another name.")
        if (target := self._aliases.get(name, name)) != name:
            raise VoiceRefused(
                f"{name!r} is an alias of the voice {target!r}: choose another name. To use {name!r} for your voice, "
                "change the table of --voice_aliases."
            )
        return self._directory.register(name, recording, self._encoder.key, self._recorded(recording))

    def delete(self, name: str) -> StoredVoice:
        """Delete a registered voice; requests that already use it are not affected.

        Raises UnknownVoice, and VoiceRefused for a voice that was not registered.
        """
        if name in self._presets and name not in self._directory.names():
            raise VoiceRefused(f"{name!r} is a preset speaker of the model: it can't be deleted.")
        return self._directory.delete(name)

    def voice(self, source: str | Recording) -> Voice:
        """Get a voice by its name or alias, or make one from a recording.

        Its features are computed on first use, and again when its files change. Raises InputError if there is no such
        voice or the recording can't be used.
        """
        return self._cache.get_or_make(*self._wanted(source))

    def voice_in_memory(self, source: str | Recording) -> Voice | None:
        """Like `voice`, but return None if its features would have to be read or computed."""
        key, version, _ = self._wanted(source)
        return self._cache.get(key, version)

    def _wanted(self, source: str | Recording) -> tuple[Hashable, Hashable, Callable[[], Voice]]:
        """The key and version of a voice in the cache, and the function that makes it."""
        if isinstance(source, Recording):
            content = hashlib.blake2b(source.data).digest(), source.transcript
            return content, content, lambda: self._recorded(source)
        alias_of = self._aliases.get(source, source)
        for name in (source, alias_of):
            if version := self._directory.version(name):
                return name, version, partial(self._load, name, version)
            if name in self._presets:
                return name, None, partial(self._presets.__getitem__, name)
        raise self._unknown(alias_of)

    def _load(self, name: str, version: Hashable) -> Voice:
        voice = self._directory.features(name, self._encoder.key)
        if voice is not None:
            return voice
        try:
            voice = self.clone(*self._directory.load(name))
        except UnknownVoice as error:
            raise self._unknown(name) from error
        except AudioError as error:
            raise InputError("voice", f"The voice {name!r} can't be used. {error}") from error
        try:
            self._directory.keep_features(name, version, self._encoder.key, voice)
        except OSError as error:
            log.warning("The features of the voice %r can't be stored: %s.", name, error)
        return voice

    def _recorded(self, recording: Recording) -> Voice:
        try:
            return self.clone(*load_audio(recording.data), recording.transcript)
        except TranscriptError as error:
            raise InputError("ref_text", str(error)) from error
        except AudioError as error:
            raise InputError("ref_audio", str(error)) from error

    def _unknown(self, name: str) -> InputError:
        return InputError("voice", no_such_voice(name, self.voice_names()))

    def clone(self, samples: np.ndarray, sample_rate: int, transcript: str = "") -> Voice:
        """Make a voice from a recording: float32 mono `samples` [n] in [−1, 1], 1 to 30 s.

        Without a transcript, the voice speaks in cross-lingual mode. Raises AudioError for audio that can't be used.
        """
        return self._encoder.encode(samples, sample_rate, transcript)

    def source_tokens(self, samples: np.ndarray, sample_rate: int) -> np.ndarray:
        """Compute the speech tokens of a recording for voice conversion: int32 [n], 25 per second.

        Raises AudioError for audio that can't be used.
        """
        return self._encoder.speech_tokens(samples, sample_rate)

    def tokens(self, text: str) -> list[int]:
        """Tokenizer ids of `text`, without normalisation."""
        return self._text.tokens(text)

    def prompt_text(self, voice: Voice, instructions: str | None = None, *, cross_lingual: bool = False) -> list[int]:
        """Tokenizer ids that precede the text: the instructions, or the voice's transcript, or none (cross-lingual)."""
        transcript = "" if instructions or cross_lingual else voice.transcript
        text = self._family.prompt_text(instructions, transcript and self._transcript(transcript))
        return self._text.tokens(text) if text else []

    def prompt_speech(self, voice: Voice, instructions: str | None = None, *, cross_lingual: bool = False) -> list[int]:
        """Speech tokens that the language model continues: the voice's in zero-shot mode, else none."""
        if instructions or cross_lingual or not voice.transcript:
            return []
        tokens: list[int] = voice.speech_tokens.tolist()
        return tokens

    def segments(
        self,
        text: str,
        voice: Voice,
        instructions: str | None = None,
        *,
        cross_lingual: bool = False,
        normalize: bool = True,
        language: str | None = None,
        pronunciations: Mapping[str, str] = NO_WORDS,
    ) -> list[Segment]:
        """Normalise, split and tokenize `text` for `voice`. For the last three arguments, see `TextFrontEnd.pieces`.

        The mode is instruct with `instructions`, else zero-shot if the voice has a transcript, else cross-lingual (sft
        for a preset speaker). `cross_lingual` leaves the voice's transcript and speech out of the language model's
        prompt, for text in another language than the recording.
        A text without words gives one segment of silence.
        Raises InputError for an empty text, an invalid pause or an unknown language.
        """
        try:
            pieces = self._text.pieces(text, normalize=normalize, language=language, pronunciations=pronunciations)
        except ValueError as error:
            raise InputError("input", str(error)) from error
        prompt_text = self.prompt_text(voice, instructions, cross_lingual=cross_lingual)
        prompt_speech = self.prompt_speech(voice, instructions, cross_lingual=cross_lingual)
        segments: list[Segment] = []
        silence = 0.0  # seconds of pauses since the last segment
        for piece in pieces:
            if isinstance(piece, Pause):
                silence += piece.seconds
            else:
                segment = Segment.of(self._text.tokens(piece), prompt_text, prompt_speech)
                segments.append(replace(segment, silence_before=silence))
                silence = 0.0
        if not segments:
            return [Segment.silent(silence)]
        segments[-1] = replace(segments[-1], silence_after=silence)
        return segments

    def prepare(self, text: str, voice: str | Recording) -> tuple[list[Segment], Voice]:
        """Make the segments and the voice for one text. Raises InputError with the invalid field."""
        features = self.voice(voice)
        return self.segments(text, features), features
