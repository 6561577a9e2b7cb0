"""The description of a difference that no cause explains."""

import numpy as np

from funcnn._numerics.arrays import max_abs
from funcnn.gradcheck.explanation.leaf import Facts, Leaf
from funcnn.gradcheck.explanation.numbers import best_factor, is_close

_MISTAKES = {"divided": "left out", "multiplied": "put in twice"}


def describe_difference(leaf: Leaf, facts: Facts) -> str:
    """Return where the largest difference is, and its pattern: constant along an axis, or a factor for each column."""
    worst = np.unravel_index(np.argmax(np.abs(leaf.by_hand - leaf.reference)), leaf.by_hand.shape)
    index = tuple(int(i) for i in worst)
    text = f"{leaf.by_hand[index]:z.6g} by hand and {leaf.reference[index]:z.6g} by autodiff at index {index}"
    difference = leaf.by_hand - leaf.reference
    if leaf.by_hand.ndim < 2:
        return text
    for axis, size in enumerate(leaf.by_hand.shape):
        mean = difference.mean(axis=axis, keepdims=True)
        if size > 1 and is_close(difference, mean, leaf.tolerance + 1e-9 * max_abs(mean)):
            return f"{text}; the difference is the same all along axis {axis}: is a mean over it missing?"
    return text + _describe_column_factors(leaf, facts)


def _describe_column_factors(leaf, facts):
    """Return which parameter holds the factors, if each column is right except for a factor of its own."""
    ratios = []
    for column in range(leaf.by_hand.shape[-1]):
        by_hand, reference = leaf.by_hand[..., column], leaf.reference[..., column]
        ratio = best_factor(by_hand, reference) if max_abs(reference) else 0.0
        if not ratio or not is_close(by_hand, ratio * reference, leaf.tolerance + 1e-9 * max_abs(by_hand)):
            return ""
        ratios.append(ratio)
    for other in facts.leaves:
        if other.param is not None and other.param.shape == (len(ratios),) and other.param.all():
            for verb, candidate in {"divided": 1 / other.param, "multiplied": other.param}.items():
                if np.allclose(ratios, candidate, rtol=1e-6):
                    return f"; every column is {verb} by its entry of {other.path}: was that factor {_MISTAKES[verb]}?"
    return "; every column is right but for a factor of its own"
