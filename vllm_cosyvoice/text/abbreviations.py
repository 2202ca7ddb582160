"""Abbreviations whose dot does not end a sentence."""

import re

# Words that occur before a name or inside a sentence.
UNFINISHED = (
    r"Mr|Mrs|Ms|Dr|Prof|St|Gen|Col|Capt|Lt|Sgt|Rev|Hon|Gov|Sen|Rep|Pres|Mt|Ft|Fr|Sr|Jr|Mme|Mlle|Messrs|Nos?|Vol|Fig|vs"
    r"|approx|incl|excl|tbsp|tsp|Figs|Eq|ca|cf|dept|est|esp|al|e\.g|i\.e|pp?|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec|bzw|Nr|etc|Inc"
    r"|Ltd|Co|Corp|Ave|Blvd|Rd"
)
UNFINISHED_END = re.compile(rf"(?<![A-Za-z0-9.])(?:{UNFINISHED}|[A-HJ-Z]|(?:[A-Za-z]\.)+[A-Za-z])\.$")
LONGEST = 12  # characters to look at: an abbreviation and its left context


def is_abbreviation(text: str, end: int) -> bool:
    """Whether the dot before `end` belongs to an abbreviation ("Dr.", "U.S.", "J.") and need not end a sentence."""
    return UNFINISHED_END.search(text[max(0, end - LONGEST) : end]) is not None
