"""Converts Markdown, HTML and emoji to lines of plain text, as shown on a page."""

import re
from collections.abc import Iterator
from functools import cache

from emoji import emojize, replace_emoji
from markdown_it import MarkdownIt
from markdown_it.token import Token

from vllm_cosyvoice.text.tex import without_tex

WRAPPED = 50  # characters; a line at least this long may have been wrapped by an editor
KEYCAP = re.compile(r"([0-9#*])\ufe0f?\u20e3")  # "1️⃣" is a number in a box
# Characters that nobody sees: selectors of emoji, joiners, marks of the direction, control characters.
INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u00ad\u200b\u200d-\u200f\u202a-\u202e\u2060-\u2069\ufe0e\ufe0f\ufeff]"
)
# Signs that decorate a text: bullets, ticks, stars.
LIST_SIGN = re.compile(r"^([^\S\n]*)[•◦‣⁃▪●■◆►▶➤→][^\S\n]*(?=\S)", re.MULTILINE)  # an item that Markdown does not know
DECORATION = re.compile("[•◦‣⁃▪▫●○■□☐☑☒◆◇◉★☆✓✔✗✘✦✧❖►▶◀▸※¶†‡]")
BEFORE_MARK = re.compile(r"[^\S\n]+(?=[!?.,;:！？。，](?:\s|$))")
EMOTICON = re.compile(
    r"(?<!\S)(?:[:;=]['’]?-?[()DPp|/\\]|[xX]D|\^_*\^|-_+-|[oO]_[oO]|T_T|¯\\?\\_\(ツ\)_/¯)(?![^\s.,!?])"
    r"|(?<=\S )<3+(?=\s*$)",
    re.MULTILINE,
)
SHORT_NAME = re.compile(r"(?<![\w:]):(?:[a-z][a-z0-9_]+|[+-]1):(?![\w:])")  # ":smile:" is an emoji by its name
CIRCLED = re.compile("[\u2460-\u2473]")  # ① to ⑳ number the items of a list
SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
# CommonMark does not recognise bold text if Chinese quotes touch the asterisks.
LEFT_BOLD = re.compile(r"\*\*(?=\S)(.+?)(?<=\S)\*\*")
COMPARISON = re.compile(r"^([^\S\n]*)>(?=[=\d$€£])", re.MULTILINE)  # ">100" is no quotation
TASK_BOX = re.compile(r"\[[ xX]\] ")
HTML_BREAK = re.compile(
    r"</?(?:br|p|div|li|ul|ol|t[rdh]|d[tld]|h[1-6]|hr|s|paragraph|blockquote|summary|details|figcaption|option)\b",
    re.IGNORECASE,
)
SPACES = re.compile(r"[^\S\n]+")
NO_STOP = re.compile(r"[,，、;；:：。.!！?？…—–-][\"'”’」』）)\]]*$")


@cache
def parser() -> MarkdownIt:
    """CommonMark with tables; HTML stays within its paragraph, and `[a]: b` is plain text."""
    rules = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return rules.disable(["html_block", "reference"])


PLAIN = re.compile(r"[^\W\d_](?:[^\W_]|[ .,;:?!'’，。！？、；：-])*")  # a line that Markdown does not change
TIMES = re.compile(r"(?<=\d)\*(?=\d)")  # "5*3" is not emphasis


# What is hidden on a page or refers to another place of it.
SCRIPT = re.compile(r"<(script|style)\b[^<>]*>.*?</\1\s*>", re.DOTALL | re.IGNORECASE)
NOTE = re.compile(r"^\[\^[\w-]+\]:[^\S\n]*|\[\^[\w-]+\]", re.MULTILINE)
TARGET = re.compile(r"^\[[^\[\]\n]+\]:[^\S\n]*<?https?://\S*.*$", re.MULTILINE)  # of "[text][1]"
REFERENCE = re.compile(r"(?<![\w\]])\[(?=[^\W\d])([^\[\]\n]{1,200})\]\[[\w-]+\](?!\()")
CITATION = re.compile(r"(?:(?<=[a-z]{3})|(?<=[.,;:!?”\"]))(?:\[[1-9]\d{0,2}(?:\s?[,–-]\s?\d{1,3})*\])+(?![\w(])")
MARKED = re.compile(r"(?<![\w=])==(?=[^\s=])([^=\n]+)(?<=\S)==(?![\w=])")
ALIAS = re.compile(r"<sub\s+alias\s*=\s*([\"'])([^\"'<>]*)\1\s*>[^<>]*</sub>", re.IGNORECASE)
SPELLED = re.compile(
    r"""<say-as\b[^<>]*\binterpret-as\s*=\s*["'](?:characters|digits|spell-out|verbatim)["'][^<>]*>([\w\s]*)</say-as\s*>""",
    re.IGNORECASE,
)
RAISED = re.compile(r"(?:(?<=\d)|(?<=\b\w)|(?<=\)))<sup>(-?\d{1,3})</sup>", re.IGNORECASE)
ALTERNATIVE = re.compile(r"""<img\b[^<>]*\balt\s*=\s*(["'])([^"'<>]*)\1""", re.IGNORECASE)


def lines(text: str, item_mark: str, cell_mark: str) -> list[str]:
    """The lines of `text`, to be read one after another.

    `item_mark` follows the number of a list item, `cell_mark` separates the cells of a table row.
    """
    if ":" in text:
        text = SHORT_NAME.sub(lambda name: emojize(name[0], language="alias"), text)
    if not text.isascii():
        text = _without_pictures(text, item_mark)
    text = EMOTICON.sub("", INVISIBLE.sub("", text))
    if "[" in text:
        text = REFERENCE.sub(r"\1", TARGET.sub("", CITATION.sub("", NOTE.sub("", text))))
    if "<" in text:
        text = SPELLED.sub(lambda spelled: " ".join("".join(spelled[1].split())), text)
        text = RAISED.sub(r"^\1", ALIAS.sub(r"\2", SCRIPT.sub(" ", text)))
    text = MARKED.sub(r"\1", COMPARISON.sub(r"\1\\>", text))
    if "$" in text or "\\" in text:
        text = without_tex(text)
    if not PLAIN.fullmatch(text):
        text = "".join(_plain(parser().parse(TIMES.sub(r"\\*", text)), item_mark, cell_mark))
    plain = SPACES.sub(" ", LEFT_BOLD.sub(r"\1", text))
    return [line.strip() for line in plain.split("\n") if line.strip()]


def _without_pictures(text: str, item_mark: str) -> str:
    """`text` without emoji and signs that only decorate."""
    text = KEYCAP.sub(r"\1", text)
    bare = DECORATION.sub(" ", replace_emoji(LIST_SIGN.sub(r"\1- ", text), " "))
    if bare != text:
        bare = BEFORE_MARK.sub("", bare)
    return CIRCLED.sub(lambda sign: f" {ord(sign[0]) - 0x245F}{item_mark}", bare).translate(SUBSCRIPTS)


def join(spoken: list[str], stop: str, space: str) -> str:
    """Join lines to one text. Each line but the last gets a `stop` if it has no mark at its end, and a `space`."""
    ended = [line if NO_STOP.search(line) else line + stop for line in spoken[:-1]]
    return space.join([*ended, *spoken[-1:]])


def _plain(tokens: list[Token], item_mark: str, cell_mark: str) -> Iterator[str]:
    first_cell = True
    for place, token in enumerate(tokens):
        if token.type == "list_item_open" and token.info:
            yield token.info + item_mark
        elif token.type in ("th_open", "td_open"):
            if tokens[place + 1].content:
                yield "" if first_cell else cell_mark
                first_cell = False
        elif token.type in ("code_block", "fence"):
            yield token.content + "\n"
        elif token.type in ("tr_close", "heading_close", "paragraph_close"):
            yield "\n"
            first_cell = True
        elif token.type == "inline":
            yield TASK_BOX.sub("", "".join(_inline(token.children or [])), count=1)


def _inline(tokens: list[Token]) -> Iterator[str]:
    width = 0  # of the current line
    for token, following in zip(tokens, [*tokens[1:], None], strict=False):  # there may be no token
        if token.type == "softbreak":
            wrapped = width >= WRAPPED or (following is not None and following.content[:1].islower())
            yield " " if wrapped else "\n"
            width = 0
        elif token.type == "hardbreak" or (token.type == "html_inline" and HTML_BREAK.match(token.content)):
            yield "\n"
            width = 0
        elif token.type == "html_inline" and (picture := ALTERNATIVE.match(token.content)):
            yield picture[2]
        elif token.type in ("text", "code_inline", "image"):
            yield token.content
            width += len(token.content)
