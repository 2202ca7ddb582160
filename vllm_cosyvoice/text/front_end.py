"""Converts a caller's text to segments and tokens."""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path

from vllm_cosyvoice.limits import MOST_TEXT
from vllm_cosyvoice.text.characters import check_characters, has_markup, has_words
from vllm_cosyvoice.text.normalise import NO_WORDS, is_unspaced, load, normalise, spoken_language
from vllm_cosyvoice.text.pauses import Pause, split_at_pauses
from vllm_cosyvoice.text.special_tokens import SOUNDS
from vllm_cosyvoice.text.split import cut, split
from vllm_cosyvoice.text.tokenizer import load_tokenizer
from vllm_cosyvoice.text.ttsfrd import load_ttsfrd

SILENCE = 0.2  # seconds, for a text without words: as short as a comma's pause, and whole frames in every audio format
REMEMBERED = 500  # texts whose tokens stay in memory


class TextFrontEnd:
    """Normalises, splits and tokenizes text for one model. Its methods are thread-safe."""

    def __init__(
        self,
        tokenizer: Path,
        pronunciations: Mapping[str, str] = NO_WORDS,
        special_tokens: tuple[str, ...] = SOUNDS,
    ) -> None:
        """Load everything in advance, so that the first request does not wait.

        `tokenizer`: the tokenizer's directory. `pronunciations`: words → their spelling for the model.
        `special_tokens`: see `ModelFamily`.
        """
        self._tokenizer = load_tokenizer(tokenizer, special_tokens)
        # Each sentence is tokenized several times, to measure it and to speak it, and a voice's transcript every time.
        self._ids = lru_cache(REMEMBERED)(self._encode)
        self._special_tokens = special_tokens
        self._pronunciations = pronunciations
        self._ttsfrd = load_ttsfrd(tokenizer.parent)
        if self._ttsfrd is None:
            load()

    def segments(
        self,
        text: str,
        *,
        normalize: bool = True,
        language: str | None = None,
        pronunciations: Mapping[str, str] = NO_WORDS,
    ) -> list[str]:
        """Normalise `text` and split it into segments to speak one after another, without its pauses.

        Without `normalize`, the text is split but not changed. `language` is a code such as "en"; without one, it is
        detected from the script and the words of the text. `pronunciations` are added to those of the front end.

        Raises ValueError for an empty text, and for an invalid pause or language code.
        """
        parts = _parts(text)
        spoken = " ".join(part for part in parts if isinstance(part, str)) if len(parts) > 1 else text
        return self._segments(spoken, normalize, language, pronunciations)

    def pieces(
        self,
        text: str,
        *,
        normalize: bool = True,
        language: str | None = None,
        pronunciations: Mapping[str, str] = NO_WORDS,
    ) -> list[str | Pause]:
        """Like `segments`, but with the pauses in `text`, in order. A pause also ends a segment.

        A text without words is one pause: as long as its own pauses, and at least `SILENCE`.
        Raises ValueError, see `segments`.
        """
        parts = _parts(text)
        code = language or spoken_language(" ".join(part for part in parts if isinstance(part, str)), None)
        pieces: list[str | Pause] = []
        for part in parts:
            if isinstance(part, Pause):
                pieces.append(part)
            elif has_words(part):
                pieces += self._segments(part, normalize, code, pronunciations)
        if not any(isinstance(piece, str) for piece in pieces):
            return [Pause(max(SILENCE, sum(piece.seconds for piece in parts if isinstance(piece, Pause))))]
        return pieces

    def normalise(self, text: str, language: str | None = None, pronunciations: Mapping[str, str] = NO_WORDS) -> str:
        """Normalise `text` for a prompt, without splitting. Raises ValueError for an invalid language code."""
        check_characters(text)
        words = {**self._pronunciations, **pronunciations}
        return text if has_markup(text) else normalise(text, language, words, self._ttsfrd, self._special_tokens)

    def tokens(self, text: str) -> list[int]:
        """Tokenizer ids of `text`, unchanged; special tokens in it are encoded as such."""
        return list(self._ids(text))

    def _encode(self, text: str) -> tuple[int, ...]:
        check_characters(text)
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _segments(
        self, text: str, normalize: bool, language: str | None, pronunciations: Mapping[str, str]
    ) -> list[str]:
        check_characters(text)
        code = spoken_language(text, language)
        change = partial(self.normalise, language=code, pronunciations=pronunciations) if normalize else str
        return segments(text, change, lambda part: len(self._ids(part)), code)


def _parts(text: str) -> list[str | Pause]:
    """Split `text` at its pauses. Raises ValueError for an empty text."""
    if not text.strip():
        raise ValueError("There is nothing to speak: the text is empty. Send at least one word.")
    return split_at_pauses(text)


def segments(
    text: str, normalise: Callable[[str], str], length: Callable[[str], int], language: str | None = None
) -> list[str]:
    """Split `text` into segments of at most `MOST_TEXT` tokens each; `length` counts tokens.

    Text with markup is not normalised, and only cut where it is too long. Text without words has no segments.
    """
    check_characters(text)
    if has_markup(text):
        pieces = [text]
    elif is_unspaced(spoken_language(text, language)):
        pieces = split(normalise(text), chinese=True, length=len)
    else:
        pieces = split(normalise(text), chinese=False, length=length)
    return [part for piece in pieces for part in cut(piece, MOST_TEXT, length) if has_words(part)]
