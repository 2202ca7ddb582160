"""TeX formulas as plain text with the usual signs: "\\frac{1}{2} \\leq x" → "1/2 ≤ x"."""

import re

FORMULA = re.compile(
    r"\$\$([^$]+)\$\$|(?<![\w$\\])\$(?=[^\s\d$])([^$\n]{1,200})(?<=\S)\$(?![\w$])"
    r"|\\\(((?:(?!\\\)).){1,500})\\\)|\\\[((?:(?!\\\]).){1,500}\\?)\\\]",
    re.DOTALL,
)
SIGNS = {
    "times": "×", "cdot": "×", "div": "÷", "pm": "±", "leq": "≤", "le": "≤", "geq": "≥", "ge": "≥", "neq": "≠",
    "ne": "≠", "approx": "≈", "infty": "∞", "to": "→", "rightarrow": "→", "implies": "→", "sqrt": "√", "ldots": "…",
    "dots": "…", "lt": "<", "gt": ">",
}  # fmt: skip
LAYOUT = re.compile(
    r"\\(?:left|right|big|Big|displaystyle|text|mathrm|mathbf|mathit|mathbb|operatorname|boxed|quad|qquad)(?![A-Za-z])"
    r"|\\(?:begin|end)\{\w+\*?\}|\\[,;:! ]|\\\\|&"
)
FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
EXPONENT = re.compile(r"\^\{([^{}]*)\}")
INDEX = re.compile(r"_(?:\{([^{}]*)\}|(\w))")
ROOT = re.compile(r"\\sqrt\s*\{([^{}]*)\}")
MINUS = re.compile(r"(?<![\^\d.])-(?!\d)|(?<=\d)-|(?<=\s)-(?=\s)")
COMMAND = re.compile(r"\\([A-Za-z]+)")
BRACE = re.compile(r"\\([%$#&_{}])|[{}]")


def without_tex(text: str) -> str:
    """`text` with its formulas, between dollars or backslashes with brackets, as plain text."""
    return FORMULA.sub(lambda formula: _plain(next(filter(None, formula.groups()))), text)


def _plain(formula: str) -> str:
    formula = INDEX.sub(r" \1\2", LAYOUT.sub(" ", formula))
    formula = ROOT.sub(r"√(\1)", EXPONENT.sub(r"^\1", formula))
    formula = FRACTION.sub(_fraction, FRACTION.sub(_fraction, formula))
    formula = COMMAND.sub(lambda command: SIGNS.get(command[1], command[1] + " "), formula)
    return BRACE.sub(r"\1", MINUS.sub("−", formula)).strip()


def _fraction(match: re.Match[str]) -> str:
    """A fraction of two numbers as it is usually written; other ones as a division."""
    above, below = match[1].strip(), match[2].strip()
    return f"{above}/{below}" if (above + below).isdecimal() else f"{above} ÷ {below}"
