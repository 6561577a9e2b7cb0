"""Equations in prose: stretches that are a whole expression and hold a relation, or an operator beside a letter that
isn't ASCII. Everything else stays as written.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from experiments.harness.equations.plain_math import (
    RELATIONS,
    SIGNS,
    TIMES,
    NotMathematicsError,
    Parser,
    Token,
    parsed,
    tokens_of,
)

CODE = re.compile(r"``.+?``|:\w+:`[^`]+`|`[^`]+`_?|\*\*?[^*\s][^*]*\*\*?|\bhttps?://\S+|\"[^\"]*\"")
"""Code, roles, emphasis, addresses and titles, which hold no equation."""
ENDINGS = ".,;:)!?"


def is_equation(found: Parser, text: str) -> bool:
    """Whether an expression holds a relation, or an operator beside a letter that isn't ASCII."""
    is_foreign = any(ord(character) > 127 and character not in "−–…" for character in text)
    return found.has_relation or (found.has_operator and is_foreign)


Judge = Callable[[Parser, str], bool]


class Equation(NamedTuple):
    """An equation of a text: as it is written there, and as LaTeX."""

    text: str
    latex: str


def pieces_of(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the pieces of a text in their order, and whether each is plain prose."""
    at = 0
    for match in CODE.finditer(text):
        yield text[at : match.start()], True
        yield match.group(), False
        at = match.end()
    yield text[at:], True


def equations_of(text: str, judge: Judge = is_equation) -> Iterator[str | Equation]:
    """Yield the pieces of plain prose in their order: words as they are, and equations.

    Args:
        text: the prose.
        judge: tells which expressions are equations.
    """
    tokens = tokens_of(text)
    at, number = 0, 0
    while number < len(tokens):
        found = _longest_equation(text, tokens, number, judge)
        if found is None:
            number += 1
            continue
        start, (stop, equation) = tokens[number].start, found
        yield text[at:start]
        yield equation
        at, number = start + len(equation.text), stop
    yield text[at:]


def _longest_equation(text: str, tokens: list[Token], number: int, judge: Judge) -> tuple[int, Equation] | None:
    """Return the longest equation from a token on, and the number of the token after it."""
    start = tokens[number].start
    if start and not (text[start - 1].isspace() or text[start - 1] in "("):
        return None
    if _is_article(tokens, number):
        return None
    parser = Parser(tokens[number:])
    with contextlib.suppress(NotMathematicsError):
        parser.expression()
    for stop in range(number + parser.place, number + 1, -1):
        end = tokens[stop - 1].end
        if end < len(text) and not (text[end].isspace() or text[end] in ENDINGS):
            continue
        if stop - number > 2 and _ends_in_article(text, tokens[stop - 2], tokens[stop - 1]):
            continue
        whole = parsed(text[start:end])
        if whole is not None and judge(whole, text[start:end]):
            return stop, Equation(text[start:end], whole.latex)
    return None


def _is_article(tokens: list[Token], number: int) -> bool:
    """Whether a letter is a word, and not on the left of a relation or of an operator."""
    if tokens[number].text not in ("a", "A", "I") or number + 1 == len(tokens):
        return False
    following = tokens[number + 1]
    return following.text not in RELATIONS and (following.kind != "symbol" or following.text in "(∂Σ√")


def _ends_in_article(text: str, before: Token, last: Token) -> bool:
    """Whether the last letter is an article: no operator is before it, and a word follows."""
    if last.text != "a" or before.end == last.start or before.text in (*RELATIONS, *SIGNS, *TIMES, "/", "∂"):
        return False
    return re.match(r"\s[^\W\d_]{2}", text[last.end :]) is not None
