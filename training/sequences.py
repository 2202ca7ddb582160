"""What the language model is trained on: the very sequences that it is asked to continue."""

from collections.abc import Sequence
from dataclasses import dataclass

from vllm_cosyvoice.llm.text_stream import TEXT_GROUP, TextStream
from vllm_cosyvoice.segment import Segment
from vllm_cosyvoice.vocabulary import END_OF_SPEECH

IGNORED = -100  # a position whose next token is given, not generated


@dataclass(frozen=True)
class Example:
    """One sequence."""

    ids: list[int]  # of the one space, see `vocabulary`
    targets: list[int]  # behind each id what is to come, or IGNORED


def whole(
    text: Sequence[int], speech: Sequence[int], prompt_text: Sequence[int] = (), prompt_speech: Sequence[int] = ()
) -> Example:
    """Text known at the start. The prompt's speech is learned too."""
    prompt = Segment.of(text, prompt_text, prompt_speech).prompt
    given = len(prompt) - len(prompt_speech) - 1
    return Example([*prompt, *speech], [*[IGNORED] * given, *prompt_speech, *speech, END_OF_SPEECH])


def streamed(
    text: Sequence[int], speech: Sequence[int], prompt_text: Sequence[int] = (), prompt_speech: Sequence[int] = ()
) -> Example:
    """Text that arrives by fives, as `text_stream` interleaves it. Speech that is over before its text is `whole`."""
    stream = TextStream(prompt_text, prompt_speech)
    left = list(speech)
    generated: dict[int, int] = {}  # position → the token behind it

    def speak(prompt: list[int], tokens: Sequence[int]) -> None:
        generated.update({len(prompt) - 1 + index: token for index, token in enumerate(tokens)})
        stream.spoke(tokens)

    for start in range(0, len(text), TEXT_GROUP):
        stream.add(text[start : start + TEXT_GROUP])
        if turn := stream.turn():
            assert turn.max_tokens is not None
            if len(left) < turn.max_tokens:
                return whole(text, speech, prompt_text, prompt_speech)
            speak(turn.prompt, left[: turn.max_tokens])
            del left[: turn.max_tokens]
    stream.end()
    turn = stream.turn()
    assert turn is not None
    speak(turn.prompt, [*left, END_OF_SPEECH])
    ids = [*turn.prompt, *left]
    return Example(ids, [generated.get(position, IGNORED) for position in range(len(ids))])
