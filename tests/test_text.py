"""What the text front end promises: words are spoken, sentences stay whole, segments stay short, nothing is lost."""

import json
import random
import re
import shutil
import sys
import types
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from unittest.mock import Mock

import pytest

from vllm_cosyvoice.checkpoint import open_model
from vllm_cosyvoice.config import TOKEN_RATE
from vllm_cosyvoice.limits import MAX_TOKENS, MOST_PROMPT_SECONDS, MOST_SPEECH, MOST_TEXT
from vllm_cosyvoice.text import Pause, TextFrontEnd, english, markdown
from vllm_cosyvoice.text.front_end import SILENCE, segments
from vllm_cosyvoice.text.grammar import PIECE, _pieces, read_out
from vllm_cosyvoice.text.normalise import normalise
from vllm_cosyvoice.text.special_tokens import SOUNDS
from vllm_cosyvoice.text.split import (
    CHINESE_STOPS,
    ENGLISH_STOPS,
    ENOUGH,
    FULL,
    LONG,
    SHORT,
    cut,
    sentences,
    split,
)
from vllm_cosyvoice.text.tokenizer import load_tokenizer

LINES = [
    line
    for path in (Path(__file__).parent / "text_cases").glob("*.jsonl")
    for case in map(json.loads, path.read_text(encoding="utf-8").splitlines())
    for line in case["input"].split("\n")
]


def words(text: str) -> int:
    return len(text.split())


@pytest.fixture(scope="session")
def tokenizer_directory(tiny_model: Path) -> Path:
    return open_model(tiny_model).tokenizer


@pytest.fixture(scope="session")
def front_end(tokenizer_directory: Path) -> TextFrontEnd:
    return TextFrontEnd(tokenizer_directory)


# normalise


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("It costs $3.50.", "It costs three dollars fifty cents."),
        ("3", "three"),
        ("Tabs\tand  double\n\n spaces 7", "Tabs and double. spaces seven"),
        ("non-breaking\u00a0 space", "non-breaking space"),
        ("See [1], x=2 and 3🙂 for $5", "See [one], x equals two and three for five dollars"),
        ("[1] costs $5", "[one] costs five dollars"),
        ("x²", "x squared"),
        ("١٢", "twelve"),
        ("", ""),
        (" \n ", ""),
    ],
)
def test_english_is_read_out(text: str, spoken: str) -> None:
    assert normalise(text) == spoken


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("我有3个", "我有三个"),
        ("去哪儿", "去哪儿"),  # erhua is kept
        ("一\r\n二\n三", "一。二。三"),
        ("用 hello world 说", "用hello world说"),  # a space stays between two ASCII characters only
        ("用 a  b 说", "用a b说"),
        ("面积m²和m³", "面积m平方和m立方"),
        ("句子.另一句", "句子。另一句"),
        ("a - b是差", "a，b是差"),
        ("（一）【二】`三`", "一二三"),
        ("一——二", "一 二"),
        ("一，,、", "一。"),
        ("引用[1]，共3🙂个", "引用[一]，共三个"),
    ],
)
def test_chinese_is_read_out(text: str, spoken: str) -> None:
    assert normalise(text) == spoken


@pytest.mark.parametrize("sentence", ["The train leaves at 3:30pm. ", "气温23.5℃，增长了15%。"])
def test_long_text_reads_as_its_sentences_do(sentence: str) -> None:
    times = 3 * PIECE // len(sentence)
    joint = " " if sentence.endswith(" ") else ""
    assert normalise(sentence * times) == joint.join([normalise(sentence)] * times)


def test_pieces_are_short_and_join_to_the_text() -> None:
    for text in ("word. " * 500, "word " * 500, "x" * 5000, "一二三。" * 500, "", "a. " + "b" * PIECE):
        pieces = list(_pieces(text))
        assert "".join(pieces) == text
        assert all(len(piece) <= PIECE for piece in pieces)


def test_a_number_no_name_exists_for_is_read_digit_by_digit() -> None:
    assert "_" + "é".join(normalise("é" + "7" * 40).split()) == "_é" + "é".join(["seven"] * 40)


# the options of the front end


def test_a_line_without_markdown_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = [line for line in map(str.strip, LINES) if markdown.PLAIN.fullmatch(line)]
    assert len(plain) > len(LINES) / 4
    for line in plain:
        (paragraph,) = (token for token in markdown.parser().parse(line) if token.type == "inline")
        assert [(token.type, token.content) for token in paragraph.children or []] == [("text", line)]
    monkeypatch.setattr(markdown, "parser", None)
    assert markdown.lines("It's  plain: no. 1, isn't it?", ". ", ", ") == ["It's plain: no. 1, isn't it?"]


def test_a_small_number_is_spelled_as_wetext_does_but_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = [str(number) for number in range(0, 1000, 7)]
    assert [english.read(number) for number in numbers] == [read_out(number, "en") for number in numbers]
    monkeypatch.setattr(english, "read_out", lambda text, language: f"({text})")
    assert english.read("Numbers 0, 17 and 105; 1234 is longer.") == (
        "Numbers zero, seventeen and one hundred and five; (one thousand two hundred thirty four) is longer."
    )


def test_without_normalising_the_text_is_only_split(front_end: TextFrontEnd) -> None:
    text = "It costs $3.50 at 10:30. **See** www.example.com. Dr. Wang left."
    assert front_end.segments(text, normalize=False) == [text]
    assert "".join(front_end.segments(text * 30, normalize=False)) == text * 30


def test_a_language_is_told_or_given(front_end: TextFrontEnd) -> None:
    assert front_end.segments("10") == ["ten."]
    for language, spoken in {
        "zh": "十。",
        "yue": "十。",
        "ja": "十。",
        "ko": "십.",
        "de-AT": "zehn.",
        "xx": "10.",
    }.items():
        assert front_end.segments("10", language=language) == [spoken]
    with pytest.raises(ValueError, match="'klingonisch' is not a code"):
        front_end.segments("10", language="klingonisch")


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("SQL and sql, MySQL.", "sequel and sequel, MySQL."),
        ("**SQL** 5", "sequel five."),
        ("C++ is GPT-4o.", "see plus plus is G P T four oh."),
        ("重庆有3个，SQL好", "崇庆有三个，sequel好。"),
        ("Use SQL, not 重庆 alone", "Use sequel, not 崇庆 alone。"),
    ],
)
def test_words_are_spelled_as_the_caller_says(tokenizer_directory: Path, text: str, spoken: str) -> None:
    words = {"SQL": "sequel", "重庆": "崇庆", "C++": "see plus plus"}
    front_end = TextFrontEnd(tokenizer_directory, pronunciations=words)
    assert front_end.segments(text, pronunciations={"GPT-4o": "G P T four oh"}) == [spoken]
    assert front_end.segments("SQL", pronunciations={"SQL": "S Q L"}) == ["S Q L."]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("One.[pause:1.5s]Two 2", ["One.", Pause(1.5), "Two two."]),
        ("[pause:500ms] Hi [PAUSE: 2s]", [Pause(0.5), "Hi.", Pause(2)]),
        ('Hello <break time="1.5s"/> world', ["Hello.", Pause(1.5), "world."]),
        ("a<break time='250ms'></break>b <break/> c", ["a.", Pause(0.25), "b c."]),
        ("价格[pause:10s]5", ["价格。", Pause(10), "五。"]),
        ("No pause [paused:1s]", ["No pause [paused:one second]."]),
    ],
)
def test_pauses_stand_between_the_segments(front_end: TextFrontEnd, text: str, pieces: list[str | Pause]) -> None:
    assert front_end.pieces(text) == pieces


def test_segments_leave_pauses_out(front_end: TextFrontEnd) -> None:
    assert front_end.segments('Hello <break time="1s"/> world [pause:1s] 5.') == ["Hello world five."]
    assert front_end.segments("[pause:1s] ... [pause:1s]") == []


@pytest.mark.parametrize(
    "pause", ["[pause]", "[pause:]", "[pause:-1s]", "[pause:1]", "[pause:xs]", '<break time="soon"/>']
)
def test_a_pause_that_cannot_be_read_is_refused(front_end: TextFrontEnd, pause: str) -> None:
    with pytest.raises(ValueError, match="can't be read"):
        front_end.pieces(f"a {pause} b")


def test_a_pause_has_a_bound(front_end: TextFrontEnd) -> None:
    for text in ("a [pause:10.1s]", '<break time="11000ms"/> a'):
        with pytest.raises(ValueError, match="at most 10 s"):
            front_end.segments(text)


# split


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Wait... what?!", ["Wait.", " what?"]),
        ("He said “No!” and left.", ["He said “No!”", " and left."]),
        ('"One." "Two."', ['"One."', ' "Two."']),
        ("One!!” Two.", ["One!”", " Two."]),
        ("...One.", ["One."]),
        ('."One.', ['"One.']),  # a closing quote before anything was said; the reference fails here
        ("...", []),
        ('."."', []),
    ],
)
def test_sentences_end_at_stops(text: str, expected: list[str]) -> None:
    assert sentences(text if text[-1] in ENGLISH_STOPS else text + ".", ENGLISH_STOPS) == expected


@pytest.mark.parametrize(("chinese", "stop"), [(True, "。"), (False, ".")])
def test_a_missing_stop_is_added(chinese: bool, stop: str) -> None:
    assert split("word", chinese, len) == ["word" + stop]
    assert split("word!", chinese, len) == ["word!"]
    assert split("", chinese, len) == []


@pytest.mark.parametrize(
    ("sentence_lengths", "segment_lengths"),
    [
        ([61, 20], [61, 20]),  # 81 is too much
        ([61, 19, 30], [80, 30]),  # 80 is not
        ([60, 30], [90]),  # 60 is not enough to close, however long the next sentence
        ([61, 30], [61, 30]),
        ([60, 120, 30], [180, 30]),  # a sentence of up to 120 is never cut
        ([80, 19], [99]),  # a last segment under 20 joins the one before
        ([80, 20], [80, 20]),
        ([5], [5]),
    ],
)
def test_sentences_are_packed(sentence_lengths: list[int], segment_lengths: list[int]) -> None:
    chinese = "".join("一" * (length - 1) + "。" for length in sentence_lengths)
    assert [len(part) for part in split(chinese, True, len)] == segment_lengths
    english = " ".join("w " * (length - 1) + "w." for length in sentence_lengths)
    assert [words(part) for part in split(english, False, words)] == segment_lengths


def test_a_text_with_few_characters_is_not_measured() -> None:
    measured: list[str] = []

    def length(text: str) -> int:
        measured.append(text)
        return len(text)

    assert split("A. Ä.", chinese=False, length=length) == ["A. Ä."]
    assert all("Ä" in text for text in measured)
    assert measured


def test_a_longer_sentence_is_cut() -> None:
    assert [len(part) for part in split("一" * 60 + "。" + "二" * 61 + "，" + "三" * 61, True, len)] == [61, 62, 62]


def random_texts(seed: int, alphabet: str, count: int = 300) -> Iterator[str]:
    generator = random.Random(seed)
    for _ in range(count):
        yield "".join(generator.choice(alphabet) for _ in range(generator.randrange(1, 400)))


@pytest.mark.parametrize(
    ("chinese", "alphabet", "stops"),
    [
        (True, "一二三四五六七八九十。，？：”“a .!", CHINESE_STOPS),
        (False, 'abcdefg hij klm no .?!;:,"”“', ENGLISH_STOPS),
    ],
)
def test_splitting_loses_nothing_but_stops_and_keeps_segments_in_bounds(
    chinese: bool, alphabet: str, stops: str
) -> None:
    length = len if chinese else words
    no_stops = str.maketrans("", "", stops)
    for text in random_texts(1, alphabet):
        parts = split(text, chinese, length)
        assert "".join(parts).translate(no_stops) == (text.translate(no_stops) if parts else "".join(parts))
        assert parts or not text.strip(stops + '"”')
        longest = min(LONG, max((length(sentence) for sentence in sentences(text + ".", stops)), default=0))
        for part in parts[:-1]:
            assert length(part) > ENOUGH
        for part in parts:
            assert length(part) <= max(FULL, ENOUGH + longest) + SHORT
        assert not any(a in stops and b in stops for part in parts for a, b in pairwise(part))


# the whole front end


@pytest.mark.parametrize("text", ["", "  \n\t"])
def test_an_empty_text_is_refused(front_end: TextFrontEnd, text: str) -> None:
    for method in (front_end.segments, front_end.pieces):
        with pytest.raises(ValueError, match="nothing to speak"):
            method(text)


@pytest.mark.parametrize("text", [".", "...", "。", "！！！", '."', "?! ,", ". .", "🙂", "<|endofprompt|>", "—"])
def test_text_without_words_is_a_short_silence(front_end: TextFrontEnd, text: str) -> None:
    assert front_end.segments(text) == []
    assert front_end.pieces(text) == [Pause(SILENCE)]


def test_text_without_words_is_as_long_as_its_pauses(front_end: TextFrontEnd) -> None:
    assert front_end.pieces("[pause:1s] ... [pause:1.5s]") == [Pause(2.5)]
    assert front_end.pieces("[pause:0s]") == [Pause(SILENCE)]
    assert front_end.pieces("umm", pronunciations={"umm": ""}) == [Pause(SILENCE)]


def test_half_a_surrogate_pair_is_refused(front_end: TextFrontEnd) -> None:
    for method in (front_end.segments, front_end.normalise, front_end.tokens):
        with pytest.raises(ValueError, match=r"'\\ud800' at position 1"):
            method("a\ud800")


def test_markup_passes_as_it_is(front_end: TextFrontEnd) -> None:
    text = " <|endofprompt|>Keep 123.  As. Is "
    assert front_end.segments(text) == [text]
    assert front_end.normalise(text) == text


def test_prompt_form_is_normalised_but_not_split(front_end: TextFrontEnd) -> None:
    assert front_end.normalise(" I have 2. You too ") == "I have two. You too"


def test_segments_without_a_word_are_dropped() -> None:
    sentence = "一" * 79 + "。"
    assert segments(sentence + "…" * SHORT + "。", normalise, len) == [sentence]


def test_english_segments_are_bounded_in_tokens(front_end: TextFrontEnd) -> None:
    sentence = "The quiet voice speaks slowly in the evening."
    parts = front_end.segments(" ".join([sentence] * 60))
    size = len(front_end.tokens(" " + sentence))
    assert len(parts) > 1
    assert "".join(parts) == " ".join([sentence] * 60)
    assert all(ENOUGH < len(front_end.tokens(part)) <= max(FULL, ENOUGH + size) for part in parts[:-1])


@pytest.mark.parametrize(
    "text",
    [
        "word " * 800,
        "x" * 4000,
        "没有标点的中文" * 150,
        "<|endofprompt|>" + "Hello there, my friend. " * 160,
        "<strong>" + "never stopping " * 250 + "</strong>",
        "[laughter] he " * 400,
    ],
)
def test_no_segment_is_longer_than_a_decoder_takes(front_end: TextFrontEnd, text: str) -> None:
    assert MOST_SPEECH + MOST_PROMPT_SECONDS * TOKEN_RATE <= MAX_TOKENS
    parts = front_end.segments(text)
    assert len(parts) > 1
    shortest = MOST_TEXT / 4 if "<|" in text else SHORT
    assert all(shortest <= len(front_end.tokens(part)) <= MOST_TEXT for part in parts)
    assert all(part.count("[") == part.count("]") and part.count("<") == part.count(">") for part in parts)
    assert re.findall(r"\w+", "".join(parts)) == re.findall(r"\w+", text)


@pytest.mark.parametrize(
    "text",
    [
        "没有标点的中文" * 200,
        "今天天气很好，我们去公园散步，" * 100,
        "カタカナ" * 350,
        "word " * 1400,
        "한국어 문장 " * 300,
    ],
)
def test_text_without_a_stop_is_cut_to_the_length_of_sentences(front_end: TextFrontEnd, text: str) -> None:
    length = len if ord(text[0]) in range(0x3000, 0xA000) else lambda part: len(front_end.tokens(part))
    parts = front_end.segments(text)
    assert all(SHORT <= length(part) <= ENOUGH + FULL for part in parts)
    if "，" in text:
        assert all(part[-1] in "，。" for part in parts)


@pytest.mark.parametrize(
    "text", ["Dr. Wang来了", "Mr. Smith has 3.5 of www.example.com at 10:30.", "J. K. Rowling. U.S. law."]
)
def test_no_sentence_ends_within_a_word(text: str) -> None:
    stops = CHINESE_STOPS if "来" in text else ENGLISH_STOPS
    assert len(sentences(text + ("" if text.endswith(".") else "。"), stops)) <= 2
    assert sentences("See Dr. Wang. He is in.", ENGLISH_STOPS) == ["See Dr. Wang.", " He is in."]


def test_a_sentence_is_cut_where_it_is_heard_least() -> None:
    assert cut("one two, three four five", 20, len) == ["one two,", " three four five"]
    assert cut("one two three four", 10, len) == ["one two ", "three four"]
    assert cut("Yes. And then, he went", 14, len) == ["Yes. And then,", " he went"]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_any_text_is_spoken_or_refused(front_end: TextFrontEnd, language: str) -> None:
    alphabet = (
        "aB 01289.,?!:\"'\\{}<>|[]()$€%+-=/&#@~_`—…“”‘’，。？！（）【】²½℃\n\t\u3000\u00a0\u200b🙂é\x00\x07\ufeff"
    )
    for text in random_texts(2, alphabet + ("我今年月元" if language == "zh" else ""), count=80):
        try:
            parts = front_end.segments(text)
        except ValueError as error:
            assert "nothing to speak" in str(error)
        else:
            letters = [character for character in text if character.isascii() and character.isalpha()]
            spoken = iter("".join(parts))
            assert all(letter in spoken for letter in letters), text  # every letter, in order


@pytest.mark.parametrize("language", ["de", "es", "fr", "it", "ja", "ko", "nl", "pt", "ru"])
def test_no_text_raises_in_any_language(language: str) -> None:
    alphabet = "aI VX.,:;/-–~+=()[]$€₽%°º№½²0123456789１２٣๔①hкгмюеoª \n'’\u200b\u202e\x07🙂"
    for text in random_texts(3, alphabet, count=15):
        normalise(text, language)
    for mark in "0I-/.:, €":
        normalise(f"1{mark}" * 500, language)


# tokens


def test_a_text_is_tokenized_once(tokenizer_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    front_end = TextFrontEnd(tokenizer_directory)
    tokenizer = Mock(wraps=front_end._tokenizer)
    monkeypatch.setattr(front_end, "_tokenizer", tokenizer)
    (segment,) = front_end.segments("One sentence.")
    front_end.tokens(segment).clear()
    assert front_end.tokens(segment) == load_tokenizer(tokenizer_directory).encode("One sentence.").ids
    assert [call.args[0] for call in tokenizer.encode.mock_calls].count("One sentence.") == 1


def test_text_is_tokenized_without_loss(tokenizer_directory: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_directory)
    text = "The quiet voice, 今天我们 [breath] naïve <strong>and</strong> 🙂"
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_special_tokens_take_the_next_free_ids_in_order(tokenizer_directory: Path, front_end: TextFrontEnd) -> None:
    given = json.loads((tokenizer_directory / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    known = {token["content"]: int(number) for number, token in given.items()}
    first_free = max(known.values()) + 1
    added = [token for token in SOUNDS if token not in known]
    assert len(known) == 3
    assert [front_end.tokens(token) for token in known] == [[number] for number in known.values()]
    assert [front_end.tokens(token) for token in added] == [[first_free + i] for i in range(len(added))]


def test_special_tokens_inside_text_are_one_token_each(front_end: TextFrontEnd) -> None:
    assert front_end.tokens("a[breath]b") == [
        *front_end.tokens("a"),
        *front_end.tokens("[breath]"),
        *front_end.tokens("b"),
    ]
    assert front_end.tokens("") == []


# ttsfrd is closed and can't be installed here; the fake has its interface


class FakeTtsfrdEngine:
    def initialize(self, resource: str) -> bool:
        return (Path(resource) / "ok").exists()

    def set_lang_type(self, kind: str) -> None:
        assert kind == "pinyinvg"

    def do_voicegen_frd(self, text: str) -> str:
        return json.dumps({"sentences": [{"text": f"read({text})"}, {"text": "."}]})


@pytest.fixture
def fake_ttsfrd(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("ttsfrd")
    module.TtsFrontendEngine = FakeTtsfrdEngine  # type: ignore[attr-defined]  # a module made at run time
    module.__spec__ = types.SimpleNamespace(name="ttsfrd")  # type: ignore[assignment]  # find_spec wants one
    monkeypatch.setitem(sys.modules, "ttsfrd", module)


@pytest.mark.usefixtures("fake_ttsfrd")
def test_ttsfrd_reads_the_text_where_it_is_installed(tmp_path: Path, tokenizer_directory: Path) -> None:
    tokenizer = tmp_path / "model" / tokenizer_directory.name
    shutil.copytree(tokenizer_directory, tokenizer)
    resource = tmp_path / "CosyVoice-ttsfrd" / "resource"
    assert TextFrontEnd(tokenizer).normalise("5 apples") == "five apples"  # installed without its resources
    resource.mkdir(parents=True)
    assert TextFrontEnd(tokenizer).normalise("5 apples") == "five apples"  # with damaged ones
    (resource / "ok").touch()
    assert TextFrontEnd(tokenizer).normalise(" 5 apples ") == "read(5 apples)."
    assert TextFrontEnd(tokenizer).normalise("<|a|> 5") == "<|a|> 5"


def test_words_of_a_pronunciation_table_may_be_empty_or_fold_their_case_oddly(front_end: TextFrontEnd) -> None:
    (said,) = front_end.segments("Good morning, İstanbul.", pronunciations={"": "x", "istanbul": "East and bull"})
    assert said == "Good morning, İstanbul."
    (said,) = front_end.segments("Good morning, Istanbul.", pronunciations={"": "x", "istanbul": "East and bull"})
    assert said == "Good morning, East and bull."


def test_all_pauses_of_a_text_have_a_bound(front_end: TextFrontEnd) -> None:
    assert len(front_end.pieces("Wait." + 6 * "[pause:10s]")) == 7
    with pytest.raises(ValueError, match="60 s in total"):
        front_end.pieces("Wait." + 7 * "[pause:10s]")
