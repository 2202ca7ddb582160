"""Parts of the patterns of several rules."""

HAN = r"\u4e00-\u9fff"
AMOUNT = r"\d+(?:\.\d+)?"
DASH = r"\s?[-–—~～‐至到]{1,2}\s?"
ALONE = r"(?<![\d.,/:-])"
ENDED = r"(?![\d/:-]|[.,]\d)"
