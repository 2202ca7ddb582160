"""Converts Markdown, HTML and emoji to lines of plain text, as shown on a page."""

import re
from collections.abc import Iterator
from functools import cache

from emoji import replace_emoji
from markdown_it import MarkdownIt
from markdown_it.token import Token

WRAPPED = 50  # characters; a line at least this long may have been wrapped by an editor
KEYCAP = re.compile(r"([0-9#*])\ufe0f?\u20e3")  # "1️⃣" is a number in a box
LEFT_OVER = re.compile(r"[\ufe0e\ufe0f\u200d]")  # they only select the variant of an adjacent emoji
# CommonMark does not recognise bold text if Chinese quotes touch the asterisks.
LEFT_BOLD = re.compile(r"\*\*(?=\S)(.+?)(?<=\S)\*\*")
TASK_BOX = re.compile(r"\[[ xX]\] ")
HTML_BREAK = re.compile(r"</?(?:br|p|div|li|ul|ol|tr|h[1-6]|hr|s|paragraph|blockquote)\b", re.IGNORECASE)
SPACES = re.compile(r"[^\S\n]+")
NO_STOP = re.compile(r"[,，、;；:：。.!！?？…—–-][\"'”’」』）)\]]*$")


@cache
def parser() -> MarkdownIt:
    """CommonMark with tables; HTML stays within its paragraph, and `[a]: b` is plain text."""
    rules = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return rules.disable(["html_block", "reference"])


TIMES = re.compile(r"(?<=\d)\*(?=\d)")  # "5*3" is not emphasis


def lines(text: str, item_mark: str, cell_mark: str) -> list[str]:
    """The lines of `text`, to be read one after another.

    `item_mark` follows the number of a list item, `cell_mark` separates the cells of a table row.
    """
    text = LEFT_OVER.sub("", replace_emoji(KEYCAP.sub(r"\1", text), " ")) if not text.isascii() else text
    plain = "".join(_plain(parser().parse(TIMES.sub(r"\\*", text)), item_mark, cell_mark))
    plain = SPACES.sub(" ", LEFT_BOLD.sub(r"\1", plain))
    return [line.strip() for line in plain.split("\n") if line.strip()]


def join(spoken: list[str], stop: str, space: str) -> str:
    """Join lines to one text. Each line but the last gets a `stop` if it has no mark at its end, and a `space`."""
    ended = [line if NO_STOP.search(line) else line + stop for line in spoken[:-1]]
    return space.join([*ended, *spoken[-1:]])


def _plain(tokens: list[Token], item_mark: str, cell_mark: str) -> Iterator[str]:
    first_cell = True
    for token in tokens:
        if token.type == "list_item_open" and token.info:
            yield token.info + item_mark
        elif token.type in ("th_open", "td_open"):
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
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if token.type == "softbreak":
            wrapped = width >= WRAPPED or (following is not None and following.content[:1].islower())
            yield " " if wrapped else "\n"
            width = 0
        elif token.type == "hardbreak" or (token.type == "html_inline" and HTML_BREAK.match(token.content)):
            yield "\n"
            width = 0
        elif token.type in ("text", "code_inline", "image"):
            yield token.content
            width += len(token.content)
