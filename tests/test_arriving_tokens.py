"""Text that arrives in pieces: tokens, groups and sentences are those of the whole text, wherever it was cut."""

import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from tools.random_checkpoint.words import CHINESE, ENGLISH
from vllm_cosyvoice.checkpoint import open_model
from vllm_cosyvoice.llm.text_stream import small_pieces
from vllm_cosyvoice.text import ArrivingText
from vllm_cosyvoice.text.arriving_sentences import Granularity, sentences
from vllm_cosyvoice.text.special_tokens import SOUNDS
from vllm_cosyvoice.text.tokenizer import load_tokenizer

HARD = [
    *("'s", "'ll", "’", "。", "，", "？！", "!", "...", "<", "[", "[br", "<|", "|>", "]", "\x1c", "\x85"),
    *("\n", "\n\n", " ", "  ", "\t", "\u00a0", "\u3000", "3", "1.5", "²", "½", "œ", "👍🏽", "\u200d"),
    *("é", "e\u0301", "한국", "ᄒ", "ᅡ", "ᆫ", "क", "ि", "ไทย", "か", "が", "か\u3099", "カー"),
]
WORDS = [*ENGLISH.split()[:60], *CHINESE.split()[-60:], *SOUNDS, *HARD]


@pytest.fixture(scope="session")
def tokenizer(tiny_model: Path) -> Tokenizer:
    return load_tokenizer(open_model(tiny_model).tokenizer)


@pytest.fixture(scope="session")
def arriving(tokenizer: Tokenizer) -> ArrivingText:
    return ArrivingText(tokenizer)


async def each(pieces: Sequence[str]) -> AsyncIterator[str]:
    for piece in pieces:
        yield piece


def cut(text: str, draw: random.Random) -> list[str]:
    """`text` in random pieces, now and then an empty one, or in single characters."""
    if draw.random() < 0.2:
        return list(text)
    places = sorted(draw.choices(range(len(text) + 1), k=draw.randint(0, 8)))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


def written(draw: random.Random, words: Sequence[str] = WORDS) -> str:
    return "".join(draw.choice(["", " "]) + draw.choice(words) for _ in range(draw.randint(1, 12)))


async def test_tokens_are_those_of_the_whole_text(tokenizer: Tokenizer, arriving: ArrivingText) -> None:
    draw = random.Random(0)
    for _ in range(5000):
        text = written(draw)
        pieces = cut(text, draw)
        tokens = [token async for some in arriving.tokens(each(pieces)) for token in some]
        assert tokens == tokenizer.encode(text.strip(), add_special_tokens=False).ids, pieces


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Hello there, friend", ["Hello", " there", ",", " friend"]),
        ("isn't", ["isn", "'t"]),
        ("a [laughter] b", ["a", " [laughter]", " b"]),
        ("21.5", ["2", "1", ".5"]),
        ("今天天气很好，你", ["今天", "天气", "很", "好", "，你"]),
        (" \n ", []),
    ],
)
async def test_what_is_certain_does_not_wait(
    tokenizer: Tokenizer, arriving: ArrivingText, text: str, parts: list[str]
) -> None:
    found = [tokenizer.decode(some, skip_special_tokens=False) async for some in arriving.tokens(each(list(text)))]
    assert found == parts


async def test_half_a_character_is_refused(arriving: ArrivingText) -> None:
    with pytest.raises(ValueError, match="half a character"):
        await anext(arriving.tokens(each(["a \ud83d"])))


async def test_groups_are_the_same_wherever_the_tokens_were_cut() -> None:
    async def pieces(*lengths: int) -> AsyncIterator[Sequence[int]]:
        start = 0
        for length in lengths:
            yield range(start, start + length)
            start += length

    whole = [list(piece) async for piece in small_pieces(pieces(13))]
    assert whole == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12]]
    for lengths in ((1,) * 13, (4, 0, 9), (6, 6, 1), (3, 7, 3)):
        assert [list(piece) async for piece in small_pieces(pieces(*lengths))] == whole


@pytest.mark.parametrize(
    ("text", "granularity", "expected"),
    [
        ("It costs 3.50 today. Fine!", "sentence", ["It costs 3.50 today.", "Fine!"]),
        ('He said "Go away!" Then left. ', "sentence", ['He said "Go away!"', "Then left."]),
        ("Mr. Smith is here.\nYes", "sentence", ["Mr. Smith is here.", "Yes"]),
        (
            "We saw Dr. Wang of the U.S. Army. Then we left.",
            "sentence",
            ["We saw Dr. Wang of the U.S. Army.", "Then we left."],
        ),
        ("Use a bag, e.g. this one. At 5 p.m. we go.", "sentence", ["Use a bag, e.g. this one.", "At 5 p.m. we go."]),
        ("It was Dr.", "sentence", ["It was Dr."]),
        ("He is at Acme Inc. in Boston. Then he left.", "sentence", ["He is at Acme Inc. in Boston.", "Then he left."]),
        ("请联系Dr. Wang先生。版本2.4.1发布了。", "sentence", ["请联系Dr. Wang先生。", "版本2.4.1发布了。"]),
        ("Wait... what?! No.", "sentence", ["Wait...", "what?!", "No."]),
        ("今天天气很好。我们去公园玩吧！！好", "sentence", ["今天天气很好。", "我们去公园玩吧！！", "好"]),
        ("他说：“你好吗？”我很好。", "sentence", ["他说：“你好吗？”", "我很好。"]),
        ("First this, then 1,000 of that: done", "clause", ["First this,", "then 1,000 of that:", "done"]),
        ("今天天气很好，我们去公园玩", "clause", ["今天天气很好，", "我们去公园玩"]),
        ("First this, then that. ?! ...", "sentence", ["First this, then that."]),
        ("?! ... ", "sentence", ["?! ..."]),  # the only one, so it is spoken, as silence
        (" \n ", "sentence", []),
    ],
)
async def test_sentences(text: str, granularity: Granularity, expected: list[str]) -> None:
    draw = random.Random(0)
    for pieces in (list(text), [text], *(cut(text, draw) for _ in range(20))):
        assert [sentence async for sentence in sentences(each(pieces), granularity)] == expected


async def test_no_word_is_lost_between_sentences() -> None:
    draw = random.Random(1)
    unmarked = [word for word in WORDS if "|" not in word]
    for _ in range(500):
        text = written(draw, unmarked)
        spoken = [sentence async for sentence in sentences(each(cut(text, draw)), draw.choice(["sentence", "clause"]))]
        letters = [character for character in "".join(spoken) if character.isalnum()]
        assert letters == [character for character in text if character.isalnum()]
