"""LaTeX as MathML: browsers draw it without a script and without a request, and screen readers read it."""

import re

from latex2mathml.converter import convert
from markupsafe import Markup, escape

WORD_JOINER = Markup("&#8288;")
"""Keeps a mark of punctuation on the line of the formula before it."""

LONGEST_LINE = 20
"""Characters of a formula that fit into a line of a phone."""

AFTER_OPERATOR = re.compile(r"(<mo(?![^>]*postfix)[^>]*>[^<\]]*</mo>)<mo>&#x02212;</mo>")
"""A minus after a relation, a comma or an opening bracket, which is a sign and not a difference."""


def to_mathml(latex: str, display: str) -> str:
    """Return LaTeX as a ``math`` element; tables have fractions and sums of full size."""
    # HTML knows the element without its namespace.
    mathml = re.sub(r' xmlns="[^"]*"', "", convert(latex, display=display), count=1)
    mathml = AFTER_OPERATOR.sub(r'\1<mo form="prefix">&#x02212;</mo>', mathml)
    return re.sub(r"<mtable\b", '<mtable displaystyle="true"', mathml)


def inline(latex: str, alternative: str = "") -> str:
    """Return LaTeX as mathematics within a line. A browser breaks no line inside it: on a phone a wide one scrolls.

    Args:
        latex: the formula.
        alternative: the formula in plain text, for what reads no MathML.
    """
    mathml = to_mathml(latex, "inline")
    if alternative:
        mathml = mathml.replace("<math ", f'<math alttext="{escape(alternative)}" ', 1)
    is_wide = len(re.sub(r"\\[a-zA-Z]+|[{}_^ ]", "", latex)) > LONGEST_LINE
    return f'<span class="math-wide">{mathml}</span>' if is_wide else mathml
