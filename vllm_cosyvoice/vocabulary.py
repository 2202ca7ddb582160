"""The joint id space of all tokens that the language model reads.

    0 … 6560       speech tokens
    6561           end of speech
    6562           unused
    6563           fill: requests more text while text is still arriving
    6564, 6565     start, task: the two rows of `llm_embedding`
    6566 …         text, the tokenizer's ids shifted by `TEXT_OFFSET`

The model's head covers only the first 6,564 ids, so generated ids need no conversion.
"""

from collections.abc import Sequence

SPEECH_TOKENS = 6561
END_OF_SPEECH = 6561
UNUSED = 6562
FILL = 6563
HEAD_SIZE = 6564
START = 6564
TASK = 6565
TEXT_OFFSET = 6566


def text_ids(tokens: Sequence[int]) -> list[int]:
    """Convert tokenizer ids to ids of the joint id space."""
    return [token + TEXT_OFFSET for token in tokens]


def prompt_ids(text: Sequence[int], prompt_text: Sequence[int] = (), prompt_speech: Sequence[int] = ()) -> list[int]:
    """Build the language model's prompt: start, prompt text, text, task, prompt speech.

    `text` and `prompt_text` are tokenizer ids, `prompt_speech` speech tokens.
    """
    return [START, *text_ids(prompt_text), *text_ids(text), TASK, *prompt_speech]
