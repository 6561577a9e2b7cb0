"""Causes ``transposed`` and ``swapped``: the right numbers in another place."""

import itertools

from funcnn.gradcheck.explanation.leaf import Diagnosis, WrongLeaf
from funcnn.gradcheck.explanation.numbers import best_factor, format_factor, is_close


def detect_transposed(wrong: WrongLeaf) -> Diagnosis | None:
    """Return ``transposed`` if the leaf is autodiff's gradient with its axes in another order, times a constant."""
    leaf = wrong.normalized
    for order in itertools.permutations(range(leaf.by_hand.ndim)):
        transposed = leaf.reference.transpose(order)
        if order == tuple(range(leaf.by_hand.ndim)) or transposed.shape != leaf.by_hand.shape:
            continue
        factor = best_factor(leaf.by_hand, transposed)
        if factor and is_close(leaf.by_hand, factor * transposed, leaf.tolerance * max(1.0, abs(factor))):
            slack = max(4 * leaf.tolerance, 1e-12)
            times = "" if abs(factor - 1) <= slack else f", times {format_factor(factor, slack)}"
            axes = "rows and columns exchanged" if leaf.by_hand.ndim == 2 else f"its axes in the order {order}"
            return "transposed", f"autodiff's gradient with {axes}{times}"
    return None


def detect_swapped(wrong: WrongLeaf) -> Diagnosis | None:
    """Return ``swapped`` if the leaf is autodiff's gradient of another leaf."""
    leaf = wrong.leaf
    for other in wrong.other_leaves():
        if other.reference.shape != leaf.by_hand.shape or leaf.by_hand.size == 0:
            continue
        tolerance = max(leaf.tolerance, other.tolerance)
        is_others = is_close(leaf.by_hand, other.reference, tolerance)
        if is_others and not is_close(other.reference, leaf.reference, tolerance):
            return "swapped", f"the gradient of {other.path or 'the root'}: were the two exchanged?"
    return None
