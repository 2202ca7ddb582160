"""Text that is still arriving, interleaved with the speech it becomes: 5 text tokens, 15 speech tokens, and so on.

No model here, only the bookkeeping: which ids the language model reads next, and how many tokens it may add.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass

from vllm_cosyvoice.vocabulary import FILL, START, TASK, text_ids

TEXT_GROUP = 5
SPEECH_GROUP = 15


@dataclass(frozen=True)
class Turn:
    """One run of the language model."""

    prompt: list[int]  # ids of the one space
    max_tokens: int | None  # speech tokens until more text is due; None: to the end of speech


class TextStream:
    """The sequence of one request: give it text with `add` and `end`, and speech tokens with `spoke`.

    The prompt's text goes ahead of the incoming text, the prompt's speech in groups behind it. Each piece of text lets
    one group in at most, so that the sequence depends on the pieces and never on when they came. For speech that
    keeps up with the text, pieces should be at most 5 tokens: see `small_pieces`.
    """

    def __init__(self, prompt_text: Sequence[int] = (), prompt_speech: Sequence[int] = ()) -> None:
        self._ids = [START]
        self._text = text_ids(prompt_text)  # not yet in the sequence
        self._prompt_speech = list(prompt_speech)  # not yet in the sequence
        self._until_fill = SPEECH_GROUP - len(prompt_speech) % SPEECH_GROUP
        self._wants_text = not prompt_speech
        self._ended = False
        self.generated: list[int] = []  # speech tokens, and a fill for each time that more text was asked for
        self.text_tokens = 0  # that have arrived, without the prompt's
        self.speech_tokens = 0  # that were generated, fills not counted

    def add(self, text: Sequence[int]) -> None:
        """The next piece of text (tokenizer ids)."""
        self._text += text_ids(text)
        self.text_tokens += len(text)
        while self._prompt_speech and len(self._text) >= TEXT_GROUP:
            self._take_text()
            self._ids += self._prompt_speech[:SPEECH_GROUP]
            del self._prompt_speech[:SPEECH_GROUP]
        if not self._prompt_speech and self._wants_text and len(self._text) >= TEXT_GROUP:
            self._take_text()
            self._wants_text = False

    def end(self) -> None:
        """No more text. What is left of the prompt's speech follows the text, as when all text is known at first."""
        self._ids += [*self._text, TASK, *self._prompt_speech]
        self._ended = True

    def turn(self) -> Turn | None:
        """What to generate now; None while more text must come first."""
        if self._ended:
            return Turn(list(self._ids), None)
        if self._prompt_speech or self._wants_text:
            return None
        return Turn(list(self._ids), self._until_fill)

    def spoke(self, tokens: Sequence[int]) -> None:
        """Speech tokens that the current turn generated; after the last of them more text is wanted."""
        self._ids += tokens
        self.generated += tokens
        self.speech_tokens += len(tokens)
        self._until_fill -= len(tokens)
        if not self._ended and self._until_fill == 0:
            self.generated.append(FILL)
            self._until_fill = SPEECH_GROUP
            self._wants_text = True

    async def turns(self, text: AsyncIterator[Sequence[int]]) -> AsyncGenerator[Turn, None]:
        """The turns that `text` leads to; the caller runs each, through `spoke`, before it asks for the next."""
        async for piece in text:
            self.add(piece)
            if turn := self.turn():
                yield turn
        self.end()
        yield Turn(list(self._ids), None)

    def _take_text(self) -> None:
        self._ids += self._text[:TEXT_GROUP]
        del self._text[:TEXT_GROUP]


async def small_pieces(text: AsyncIterator[Sequence[int]]) -> AsyncIterator[Sequence[int]]:
    """The same text in pieces of one group, the last of what is left, however it was cut.

    So speech keeps up with text that comes in long pieces, and the sequence depends on the text alone.
    """
    waiting: list[int] = []
    async for piece in text:
        waiting += piece
        while len(waiting) >= TEXT_GROUP:
            yield waiting[:TEXT_GROUP]
            del waiting[:TEXT_GROUP]
    if waiting:
        yield waiting
