"""What is spoken in training: Debian's `fortunes` (BSD) for running text, the examples of `wordnet-base` (WordNet's
licence, free) for plain sentences, sentences by grammar over the word list of `wamerican-small` (SCOWL, free) for rare
words, each normalised by our own front end; also words and phrases alone.

Needs the packages and the front end, so it runs where those are; the others read the file that it writes.
"""

import json
import random
import re
from pathlib import Path

from training.sentences import DEVELOPMENT, HELD_OUT, VOICE_TRANSCRIPT
from vllm_cosyvoice.text.normalise import normalise

FORTUNES = Path("/usr/share/games/fortunes")
WORDNET = Path("/usr/share/wordnet")
WORDS = Path("/usr/share/dict/american-english-small")
PICTURES = {"art", "ascii-art"}  # files of drawings
EXAMPLE = re.compile(r'"([^"]+)"')  # in the explanation of a meaning
SENTENCE = re.compile(r"[A-Z][A-Za-z0-9 ,;:'-]+[.!?]")
FEWEST_WORDS, MOST_WORDS = 2, 26
BY_GRAMMAR = 0.35  # share of sentences that are
JOINED = 0.2  # share of texts of two sentences
WORDS_ALONE, PHRASES = 0.65, 0.25  # so many for each sentence
LONGEST_PHRASE = 4  # words
ALIKE = 0.5  # share of sentences by grammar whose words begin alike: one's place in those is easily mistaken

TEMPLATES = (
    "The {} and the {} are {}.",
    "Why is the {} so {}?",
    "I said {}, not {}.",
    "He wants {} or {}, but never {}.",
    "Please write {} under {}.",
    "There was a {} in every {}.",
    "They called it {}, and we called it {}.",
    "{}, {} and {}.",
    "My {} has seen your {}.",
    "She thinks about {} {} and {}.",
    "{}.",
    "Nothing is as {} as a {} {}.",
    "From the {} of the {} to the {} of the {}.",
    "The {} by the {} is in the {} of the {}.",
    "It is not a {} but a {}, and not a {} but a {}.",
    "The more {}, the more {}.",
)


def write_texts(path: Path, count: int, seed: int = 0) -> None:
    """Write `count` normalised sentences as a JSON list, in an order that `seed` decides; words and phrases follow.

    Raises:
        FileNotFoundError: a package is missing.
    """
    for needed, package in ((FORTUNES, "fortunes"), (WORDNET, "wordnet-base"), (WORDS, "wamerican-small")):
        if not needed.exists():
            raise FileNotFoundError(f"{needed} is missing: apt-get install {package}")
    draw = random.Random(seed)
    found = sorted(fortunes() | examples())
    running: list[str] = []
    words = [word for word in WORDS.read_text(encoding="utf-8").split() if word.isascii() and word.isalpha()]
    alike = by_beginning(words)
    forbidden = {plain(text) for text in (*HELD_OUT, *DEVELOPMENT, VOICE_TRANSCRIPT)}
    texts: dict[str, None] = {}
    while len(texts) < count:
        running = running or draw.sample(found, len(found))  # all of them again: new are those of two sentences
        parts = [
            by_grammar(draw, words, alike) if draw.random() < BY_GRAMMAR or not running else running.pop()
            for _ in range(2 if draw.random() < JOINED else 1)
        ]
        if not forbidden & {plain(part) for part in parts}:
            texts[normalise(" ".join(parts))] = None
    sentences = list(texts)
    texts |= dict.fromkeys(draw.sample(words, min(len(words), int(WORDS_ALONE * count))))
    texts |= dict.fromkeys(phrase(draw, words, sentences) for _ in range(int(PHRASES * count)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(texts), indent=0, ensure_ascii=False), encoding="utf-8")


def fortunes() -> set[str]:
    """The plain English sentences of the fortune files."""
    found: set[str] = set()
    for file in FORTUNES.iterdir():
        if file.suffix or file.name in PICTURES:
            continue
        for fortune in file.read_text(encoding="utf-8", errors="replace").split("\n%\n"):
            found.update(filter(usual, SENTENCE.findall(" ".join(fortune.split()))))
    return found


def examples() -> set[str]:
    """What WordNet gives to show how words are used, as sentences."""
    found: set[str] = set()
    for file in WORDNET.glob("data.*"):
        for line in file.read_text(encoding="utf-8").splitlines():
            for example in EXAMPLE.findall(line.partition(" | ")[2]):  # the licence, at the top, has no such bar
                sentence = example.strip()
                sentence = sentence[0].upper() + sentence[1:]
                found.add(sentence if sentence[-1] in ".!?" else f"{sentence}.")
    return set(filter(usual, filter(SENTENCE.fullmatch, found)))


def usual(sentence: str) -> bool:
    """Whether it is as long as what is asked for."""
    return FEWEST_WORDS <= len(sentence.split()) <= MOST_WORDS


def by_beginning(words: list[str]) -> dict[str, list[str]]:
    """The words by their first letter and by their first two."""
    found: dict[str, list[str]] = {}
    for word in words:
        for start in {word[:1], word[:2]}:
            found.setdefault(start, []).append(word)
    return found


def by_grammar(draw: random.Random, words: list[str], alike: dict[str, list[str]]) -> str:
    """One sentence of chance words, or of such as begin alike, if there are enough."""
    template = draw.choice(TEMPLATES)
    count = template.count("{}")
    if draw.random() < ALIKE:
        near = alike[draw.choice(words)[:2]]
        words = near if len(near) >= count else words
    sentence = template.format(*draw.sample(words, count))
    return sentence[0].upper() + sentence[1:]


def phrase(draw: random.Random, words: list[str], sentences: list[str]) -> str:
    """A few words that end as within a sentence: chance ones, or such as follow each other in one of `sentences`."""
    length = draw.randint(2, LONGEST_PHRASE)
    if draw.random() < 0.5:
        return " ".join(draw.sample(words, length))
    told = draw.choice(sentences).split()
    start = draw.randrange(max(1, len(told) - length))
    return " ".join(told[start : start + length]).strip(" .,;:!?'-")


def plain(text: str) -> str:
    """The words alone, for comparing."""
    return " ".join(re.findall(r"[a-z']+", text.lower()))
