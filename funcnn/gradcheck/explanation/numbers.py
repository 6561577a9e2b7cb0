"""Factors between two arrays, closeness, and numbers as text."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from funcnn._numerics.arrays import max_abs

_MOST_CHANCE = 1e-2


def is_close(first: Any, second: Any, tolerance: float) -> bool:
    """Whether no entry differs by more than ``tolerance``."""
    return bool(np.all(np.abs(first - second) <= tolerance))


def best_factor(numbers: Any, reference: Any) -> float:
    """Return the constant c for which c times ``reference`` is nearest to ``numbers``, by least squares."""
    unit = max_abs(reference)
    if not unit:
        return 0.0
    flat = np.ravel(reference) / unit
    return float(np.vdot(flat, np.ravel(numbers)).real / np.vdot(flat, flat).real / unit)


def simple_fraction(factor: float, slack: float) -> Fraction | None:
    """Return the fraction of small integers within the relative distance ``slack`` of a factor, if there is one.

    There are many fractions of large integers, so that one of them is near to any factor by chance: it is none.
    """
    fraction = Fraction(factor).limit_denominator(1000 if slack < 1e-8 else 20)
    is_rare = abs(fraction.numerator) * fraction.denominator * slack <= _MOST_CHANCE
    return fraction if fraction != 0 and is_rare and abs(float(fraction) / factor - 1) <= slack else None


def is_ratio_of_digits(factor: float) -> bool:
    """Whether a factor is a ratio of two integers of at most twelve, to nine digits."""
    fraction = Fraction(factor).limit_denominator(12)
    return 0 < abs(fraction.numerator) <= 12 and abs(float(fraction) / factor - 1) <= 1e-9


def format_factor(factor: float, slack: float) -> str:
    """Return a factor as a fraction if it is a simple one, as a decimal number otherwise."""
    fraction = simple_fraction(factor, slack)
    if fraction is None or (
        (abs(fraction) < Fraction(1, 20) or fraction.denominator > 100) and fraction.numerator != 1
    ):
        return f"{factor:.9g}"
    return str(fraction)


def list_indices(singular: str, plural: str, indices: Sequence[int] | np.ndarray, *, verb: bool = True) -> str:
    """Return at most six indices with their noun: ``rows 0, 3 are``."""
    shown = ", ".join(map(str, indices[:6])) + (", …" if len(indices) > 6 else "")
    is_one = len(indices) == 1
    return f"{singular if is_one else plural} {shown}" + (f" {'is' if is_one else 'are'}" if verb else "")


def format_sum(factors: Sequence[float], texts: Sequence[str], slack: float = 1e-7) -> str:
    """Return a sum of terms with factors: ``1 − 2 h``."""
    parts = []
    for factor, text in zip(factors, texts, strict=True):
        number = format_factor(abs(factor), slack)
        term = number if text == "1" else text if number == "1" else f"{number} {text}"
        parts.append(("−" if factor < 0 else "+", term))
    first, *rest = sorted(parts, key=lambda part: part[0] == "−")
    return (first[0] if first[0] == "−" else "") + first[1] + "".join(f" {sign} {term}" for sign, term in rest)
