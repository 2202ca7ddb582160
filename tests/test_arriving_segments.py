"""Text that arrives is spoken in segments that end where a sentence does."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from vllm_cosyvoice.text.arriving_segments import arriving_segments

ENGLISH = "Twenty letters are here. " * 40  # five tokens each, as `arriving_segments` counts
CHINESE = "今天的天气真的非常好。" * 40


async def arriving(pieces: Sequence[str], error: Exception | None = None) -> AsyncIterator[str]:
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece
    if error:
        raise error


async def collected(pieces: AsyncIterator[str]) -> list[str]:
    async def joined(part: AsyncIterator[str]) -> str:
        return "".join([piece async for piece in part])

    reading = [asyncio.create_task(joined(part)) async for part in arriving_segments(pieces)]
    return list(await asyncio.gather(*reading))


@pytest.mark.parametrize("size", [1, 3, 24, 25, 26, 5000])
@pytest.mark.parametrize(("text", "longest"), [(ENGLISH, 14 * 25), (CHINESE, 8 * 11)], ids=["English", "Chinese"])
async def test_segments_are_whole_sentences_however_the_text_is_cut(text: str, longest: int, size: int) -> None:
    found = await collected(arriving([text[start : start + size] for start in range(0, len(text), size)]))
    assert "".join(found).split() == text.split()
    assert len(found) > 2
    assert all(part.strip()[-1] in ".。" for part in found)
    assert {len(part.strip()) for part in found[:-1]} == {len(text[:longest].strip())}, "no shorter than needed"


async def test_a_short_text_is_one_segment() -> None:
    text = "Good morning. How are you? I am fine."
    assert await collected(arriving(list(text))) == [text]


async def test_a_dot_that_ends_no_sentence_ends_no_segment() -> None:
    text = "a" * 330 + " said Dr. Wang to the U.S. senator. And that was that."
    assert await collected(arriving(list(text))) == [text.removesuffix(" And that was that."), " And that was that."]


async def test_a_text_without_a_stop_is_cut_between_words() -> None:
    found = await collected(arriving(["word " * 600]))
    assert " ".join(found).split() == ["word"] * 600
    assert [len(part) <= 320 * 5 for part in found] == [True] * len(found)
    assert await collected(arriving(["1" * 700])) == ["1" * 320, "1" * 320, "1" * 60]


async def test_a_segment_is_passed_on_before_it_ends() -> None:
    async for part in arriving_segments(arriving(["Hello ", "there"], RuntimeError("The connection is lost."))):
        assert await anext(part) == "Hello "
        break


async def test_what_has_no_words_is_no_segment() -> None:
    assert await collected(arriving([" ", "…", "\n"])) == []
    assert await collected(arriving([ENGLISH[:350], " \n…"])) == [ENGLISH[:350].strip()]


async def test_an_error_reaches_the_segment_that_arrives() -> None:
    async def failing(error: Exception) -> None:
        async for part in arriving_segments(arriving(["Hello. "], error)):
            reading = part
        with pytest.raises(RuntimeError, match="lost"):
            [piece async for piece in reading]

    await failing(RuntimeError("lost"))
    with pytest.raises(RuntimeError, match="lost"):
        await collected(arriving([" "], RuntimeError("lost")))
