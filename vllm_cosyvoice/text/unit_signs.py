"""Units that are one character: "㎏" → "kg", "㎡" → "m²"."""

import re
import unicodedata

from vllm_cosyvoice.text.rules import Rule

SUPERSCRIPTS = str.maketrans("23", "²³")
UNIT_SIGN: Rule = (
    re.compile("[\u3380-\u33df]"),
    lambda match: unicodedata.normalize("NFKC", match[0]).translate(SUPERSCRIPTS),
)
