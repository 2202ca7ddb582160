"""From what a caller asks for to what the networks take: text → segments, a voice's name → its features."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from pathlib import Path

import numpy as np

from vllm_cosyvoice.checkpoint import ModelDirectory
from vllm_cosyvoice.segment import Segment
from vllm_cosyvoice.text import TextFrontEnd
from vllm_cosyvoice.voice import AudioError, UnknownVoice, Voice, VoiceDirectory, VoiceEncoder

END_OF_PROMPT = "<|endofprompt|>"


class InputError(ValueError):
    """What a caller sent can't be spoken. `param` names the field, in the words of the OpenAI speech API."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


class Preparation:
    """Text front end, voice encoder and the voices in use, for one model.

    `cache_capacity` voices keep their features in memory, the least recently used goes first.
    """

    def __init__(self, model: ModelDirectory, voices_dir: Path | None = None, cache_capacity: int = 200) -> None:
        self._text = TextFrontEnd(model.tokenizer)
        self._encoder = VoiceEncoder(model)
        self._directory = VoiceDirectory(voices_dir)
        self._presets = {
            name: Voice.preset(name, embedding.numpy()) for name, embedding in model.preset_speakers().items()
        }
        self._cache: OrderedDict[str, tuple[Hashable, Voice]] = OrderedDict()
        self._cache_capacity = cache_capacity
        self._lock = threading.Lock()  # of the cache: requests may be prepared in several threads

    def voice_names(self) -> list[str]:
        """Names that `voice` takes: the built-in voices, the user's, and the model's preset speakers."""
        return sorted({*self._directory.names(), *self._presets})

    def voice(self, name: str) -> Voice:
        """The voice called `name`; its features are computed when it is first asked for, and when its files change.

        Raises InputError when there is no such voice or its recording can't be used.
        """
        try:
            version = self._directory.version(name)
        except UnknownVoice as error:
            if name in self._presets:
                return self._presets[name]
            known = ", ".join(self.voice_names())
            raise InputError("voice", f"There is no voice {name!r}. Voices here: {known}.") from error
        with self._lock:
            cached_version, voice = self._cache.get(name, (None, None))
            if voice is None or cached_version != version:
                voice = self._load(name)
            self._cache[name] = version, voice
            self._cache.move_to_end(name)
            while len(self._cache) > self._cache_capacity:
                self._cache.popitem(last=False)
            return voice

    def _load(self, name: str) -> Voice:
        try:
            return self.clone(*self._directory.load(name))
        except AudioError as error:
            raise InputError("voice", f"The voice {name!r} can't be used. {error}") from error

    def clone(self, samples: np.ndarray, sample_rate: int, transcript: str = "") -> Voice:
        """A voice from a recording: float32 mono `samples` in [−1, 1], 1 to 30 s.

        Without a transcript the voice speaks in cross-lingual mode. Raises AudioError for audio that can't be used.
        """
        return self._encoder.encode(samples, sample_rate, transcript)

    def source_tokens(self, samples: np.ndarray, sample_rate: int) -> np.ndarray:
        """Speech tokens of a recording, int32 [n], 25 a second: what voice conversion speaks again.

        Raises AudioError for audio that can't be used.
        """
        return self._encoder.speech_tokens(samples, sample_rate)

    def tokens(self, text: str) -> list[int]:
        """Tokenizer ids of `text` as it stands."""
        return self._text.tokens(text)

    def prompt_text(self, voice: Voice, instructions: str | None = None, *, cross_lingual: bool = False) -> list[int]:
        """Tokenizer ids ahead of the text: the instruction, or the voice's transcript, or none (cross-lingual)."""
        if instructions:
            return self._text.tokens(instructions.replace(END_OF_PROMPT, " ").strip() + END_OF_PROMPT)
        if cross_lingual or not voice.transcript:
            return []
        return self._text.tokens(self._text.normalise(voice.transcript))

    def prompt_speech(self, voice: Voice, instructions: str | None = None, *, cross_lingual: bool = False) -> list[int]:
        """Speech tokens the language model continues: the voice's own, in zero-shot mode only."""
        if instructions or cross_lingual or not voice.transcript:
            return []
        tokens: list[int] = voice.speech_tokens.tolist()
        return tokens

    def segments(
        self, text: str, voice: Voice, instructions: str | None = None, *, cross_lingual: bool = False
    ) -> list[Segment]:
        """`text` normalised, split and tokenized for `voice`.

        Modes: `instructions` set: instruct; else a voice with a transcript: zero-shot; else cross-lingual, which
        for a preset speaker is the sft mode. `cross_lingual` leaves a voice's transcript and speech out of the
        language model's prompt, for text in another language than the recording's.
        Raises InputError when there is nothing to speak.
        """
        try:
            pieces = self._text.segments(text)
        except ValueError as error:
            raise InputError("input", str(error)) from error
        prompt_text = self.prompt_text(voice, instructions, cross_lingual=cross_lingual)
        prompt_speech = self.prompt_speech(voice, instructions, cross_lingual=cross_lingual)
        return [Segment.of(self._text.tokens(piece), prompt_text, prompt_speech) for piece in pieces]

    def prepare(self, text: str, voice: str, instructions: str | None = None) -> tuple[list[Segment], Voice]:
        """Segments and voice for one request, by the voice's name. Raises InputError naming the field."""
        features = self.voice(voice)
        return self.segments(text, features, instructions), features
