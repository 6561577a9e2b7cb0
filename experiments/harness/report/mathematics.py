"""The report's prose with its equations as MathML."""

import re
from functools import cache

from markupsafe import Markup, escape

from experiments.harness.equations.mathml import WORD_JOINER, inline
from experiments.harness.equations.plain_math import (
    SUBSCRIPTS,
    SUPERSCRIPTS,
    Parser,
    Token,
    is_letter,
    parsed,
    tokens_of,
)
from experiments.harness.equations.prose import ENDINGS, Equation, equations_of, is_equation, pieces_of

EXPONENT = re.compile(r"(?<=\d)e[+\-−]?\d+")
MINUS = re.compile(r"\w\)? − \(?\w")


@cache
def set_equations(text: str) -> Markup:
    """Return prose as HTML, with its equations as ``math`` elements; everything else is escaped."""
    whole = parsed(text)
    if whole is not None and whole.has_operator and has_variable(text):
        return Markup(inline(whole.latex, text))
    pieces: list[str | Equation] = []
    for piece, is_plain in pieces_of(text):
        pieces += equations_of(piece, is_report_equation) if is_plain else [piece]
    return Markup("").join(map(_as_html, pieces, [*pieces[1:], ""]))


def _as_html(piece: str | Equation, following: str | Equation) -> Markup:
    if not isinstance(piece, Equation):
        return escape(piece)
    joiner = WORD_JOINER if isinstance(following, str) and following[:1] and following[0] in ENDINGS else Markup("")
    return Markup(inline(piece.latex, piece.text)) + joiner


def is_report_equation(found: Parser, text: str) -> bool:
    """Whether an expression of the report's prose is an equation.

    It holds a variable, so that sizes such as 8 × 8 stay as they are, and besides a relation, an operator, a call such
    as N(0, 1) or an index. A power that is written with ^ is one too.
    """
    has_script = any(character in SUPERSCRIPTS or character in SUBSCRIPTS for character in text if character != "′")
    is_set = is_equation(found, text) or found.has_call or has_script or MINUS.search(text) is not None
    return "^" in text or (is_set and has_variable(text))


def has_variable(text: str) -> bool:
    """Whether an expression holds a letter that stands for a quantity."""
    return any(_is_variable(token) for token in tokens_of(EXPONENT.sub("", text)))


def _is_variable(token: Token) -> bool:
    return token.kind == "word" and token.text[0].isalpha() and is_letter(token.text)
