"""The interleave of text that is still arriving with the speech it becomes."""

from collections.abc import AsyncIterator, Sequence

from vllm_cosyvoice.llm.text_stream import TextStream, Turn, small_pieces
from vllm_cosyvoice.vocabulary import FILL, START, TASK, text_ids


async def pieces(*lengths: int) -> AsyncIterator[list[int]]:
    """Text tokens 0, 1, 2, … cut into pieces of these lengths."""
    start = 0
    for length in lengths:
        yield list(range(start, start + length))
        start += length


async def play(stream: TextStream, text: AsyncIterator[Sequence[int]]) -> list[Turn]:
    """All turns of `stream`, each speaking as many tokens as it may: 1000, 1001, …"""
    turns = []
    async for turn in stream.turns(text):
        turns.append(turn)
        if turn.max_tokens is not None:
            start = 1000 + stream.speech_tokens
            stream.spoke(range(start, start + turn.max_tokens))
    return turns


def text(*numbers: int) -> list[int]:
    return text_ids(range(*numbers))


async def test_five_text_tokens_then_fifteen_speech_tokens() -> None:
    turns = await play(TextStream(), pieces(5, 5, 3))
    assert turns == [
        Turn([START, *text(5)], 15),
        Turn([START, *text(5), *range(1000, 1015), *text(5, 10)], 15),
        Turn([START, *text(5), *range(1000, 1015), *text(5, 10), *range(1015, 1030), *text(10, 13), TASK], None),
    ]


async def test_short_pieces_wait_until_five_tokens_are_there() -> None:
    assert await play(TextStream(), pieces(*[1] * 13)) == await play(TextStream(), pieces(5, 5, 3))


async def test_long_pieces_cut_small_are_as_good_as_short_ones() -> None:
    assert await play(TextStream(), small_pieces(pieces(13))) == await play(TextStream(), pieces(5, 5, 3))


async def test_text_shorter_than_a_group_is_spoken_at_once() -> None:
    assert await play(TextStream(), pieces(3)) == [Turn([START, *text(3), TASK], None)]


async def test_the_prompt_is_interleaved_before_speech_begins() -> None:
    prompt_text, speech = [50, 51, 52, 53, 54, 55, 56], list(range(100, 120))
    turns = await play(TextStream(prompt_text, speech), pieces(2, 2, 2, 2))
    groups = [START, *text_ids(prompt_text[:5]), *speech[:15], *text_ids([55, 56, 0, 1, 2]), *speech[15:]]
    assert turns[0] == Turn(groups, 10)  # the short group's 5 speech tokens are the prompt's
    assert turns[1] == Turn([*groups, *range(1000, 1010), *text(3, 8)], 15)


async def test_a_prompt_of_whole_groups_is_followed_by_a_whole_group_of_speech() -> None:
    speech = list(range(100, 130))
    turns = await play(TextStream([50] * 10, speech), pieces(1, 1))
    assert turns[0].max_tokens == 15
    assert turns[0].prompt[-15:] == speech[15:]


async def test_a_prompt_longer_than_its_text_goes_behind_all_of_the_text() -> None:
    speech = list(range(100, 140))
    turns = await play(TextStream([50] * 5, speech), pieces(2))
    assert turns == [Turn([START, *text_ids([50] * 5), *speech[:15], *text(2), TASK, *speech[15:]], None)]


async def test_asking_for_text_counts_in_the_history_only() -> None:
    stream = TextStream()
    turns = await play(stream, pieces(5, 5))
    assert stream.generated == [*range(1000, 1015), FILL, *range(1015, 1030), FILL]
    assert (stream.text_tokens, stream.speech_tokens) == (10, 30)
    assert all(FILL not in turn.prompt for turn in turns)


def test_a_turn_cut_short_goes_on_where_it_stopped() -> None:
    stream = TextStream()
    stream.add(range(5))
    stream.spoke(range(1000, 1004))
    assert stream.turn() == Turn([START, *text(5), *range(1000, 1004)], 11)


def test_there_is_no_turn_before_the_text_for_it() -> None:
    stream = TextStream()
    stream.add(range(4))
    assert stream.turn() is None
    stream.add([4])
    assert stream.turn() is not None
