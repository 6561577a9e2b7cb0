"""Causes ``zero``, ``scaled`` and ``sign``: the whole leaf is a multiple of autodiff's gradient."""

from collections.abc import Sequence

from funcnn._numerics.arrays import max_abs
from funcnn.gradcheck.explanation.counts import meaning_of_ratio
from funcnn.gradcheck.explanation.leaf import Diagnosis, Leaf, WrongLeaf
from funcnn.gradcheck.explanation.numbers import best_factor, format_factor, is_close, simple_fraction


def detect_zero(wrong: WrongLeaf) -> Diagnosis | None:
    """Return ``zero`` if every entry by hand is 0."""
    return _zero(wrong.leaf)


def detect_scaled(wrong: WrongLeaf) -> Diagnosis | None:
    """Return ``scaled`` or ``sign`` if the leaf is autodiff's gradient times a constant."""
    return _scaled(wrong.normalized, wrong.facts.sizes, wrong.facts.counts, shared=_shared_factors(wrong))


def _shared_factors(wrong: WrongLeaf) -> list[float]:
    """Return the factors of the other leaves that are multiples of autodiff's gradient, of more than one entry."""
    found = []
    for leaf in wrong.other_leaves():
        same_shape = leaf.by_hand.shape == leaf.reference.shape and leaf.by_hand.size > 1
        if not same_shape or max_abs(leaf.reference) <= leaf.tolerance:
            continue
        factor = best_factor(leaf.by_hand, leaf.reference)
        if factor != 1 and is_close(leaf.by_hand, factor * leaf.reference, leaf.tolerance * max(1.0, abs(factor))):
            found.append(factor)
    return found


def common_factor(leaf: Leaf) -> Diagnosis | None:
    """Return ``zero``, ``scaled`` or ``sign`` for a part of a leaf."""
    return _zero(leaf) or _scaled(leaf, (), ())


def _zero(leaf):
    return None if leaf.by_hand.any() else ("zero", "zero everywhere by hand, not by autodiff")


def _scaled(leaf, sizes, counts, shared=()) -> Diagnosis | None:
    factor = best_factor(leaf.by_hand, leaf.reference)
    if max_abs(leaf.reference) <= leaf.tolerance:
        return None  # the reference is only rounding
    if not factor or not is_close(leaf.by_hand, factor * leaf.reference, leaf.tolerance * max(1.0, abs(factor))):
        return None
    slack = max(4 * leaf.tolerance, 1e-12)
    if abs(factor + 1) <= slack:
        return "sign", "autodiff's gradient with the other sign"
    meaning = _meaning(factor, sizes, slack) or meaning_of_ratio(factor, counts, slack)
    # One entry is a multiple of any other number: it needs a factor that has a meaning, or that of another leaf.
    is_shared = any(abs(factor / other - 1) <= slack for other in shared)
    if leaf.by_hand.size == 1 and not meaning and not is_shared and simple_fraction(factor, slack) is None:
        return None
    number = format_factor(factor, slack)
    return "scaled", f"{number} {'of' if '/' in number else 'times'} autodiff's gradient{meaning}"


def _meaning(factor: float, sizes: Sequence[tuple[float, str]], slack: float) -> str:
    """Return what a factor is in this problem: a power rule's 2, the batch size, a width, a learning rate."""

    def is_about(value):
        return abs(factor / value - 1) <= slack

    if is_about(0.5):
        return "; the derivative of a square brings a 2: was it left out?"
    if is_about(2):
        return "; a loss with ½ of a square has no 2 in its gradient: was one put in?"
    known = [(value, name) for value, name in sizes if value not in (0, 1)]
    for value, name in known:
        if is_about(value):
            return f"; that is {name}: " + _question_if_multiplied(name)
        if is_about(1 / value):
            return f"; that is one over {name}: " + _question_if_divided(name)
    for times in (2, 0.5, -1, -2, -0.5):
        for value, name in known[:1]:
            if is_about(times * value) or is_about(times / value):
                return f"; that is {times:g} {'times' if is_about(times * value) else 'over'} {name}"
    if any(is_about(10.0**-power) for power in range(1, 7)):
        return "; is it the learning rate? It belongs to the optimizer"
    return ""


def _question_if_multiplied(name):
    return "was the mean left out?" if "argument" not in name else "does it belong in the gradient?"


def _question_if_divided(name):
    if "argument" in name:
        return "is it left out?"
    return "was a mean taken where the gradient adds up, or taken twice?"
