"""Causes ``clipped`` and ``normalized``: a gradient that is limited entry by entry, or divided by its length."""

import numpy as np

from funcnn._numerics.arrays import max_abs
from funcnn.gradcheck.explanation.leaf import Diagnosis, WrongLeaf
from funcnn.gradcheck.explanation.numbers import best_factor, is_close, simple_fraction


def detect_clipped(wrong: WrongLeaf) -> Diagnosis | None:
    """Return ``clipped`` if the entries beyond a limit are at the limit, and all others are right."""
    leaf = wrong.leaf
    limit = max_abs(leaf.by_hand)
    if np.iscomplexobj(leaf.by_hand) or not limit:
        return None
    beyond = np.abs(leaf.reference) > limit + leaf.tolerance
    is_limited = is_close(np.clip(leaf.reference, -limit, limit), leaf.by_hand, leaf.tolerance)
    # One entry alone at a limit of no meaning is as likely an entry that is wrong.
    if not is_limited or not beyond.any() or (beyond.sum() < 2 and simple_fraction(limit, 1e-9) is None):
        return None
    return "clipped", f"autodiff's gradient clipped to ±{limit:.6g}: {int(beyond.sum())} of {beyond.size} entries"


def detect_normalized(wrong: WrongLeaf) -> Diagnosis | None:
    """Return ``normalized`` if all leaves are divided by one number, and the length by hand is a round number."""
    leaf = wrong.leaf
    factor = best_factor(leaf.by_hand, leaf.reference)
    if leaf.by_hand.size < 2 or not 0 < factor < 1:
        return None
    slack = max(8 * leaf.tolerance / max_abs(leaf.reference), 1e-9)
    fraction = simple_fraction(factor, slack)
    if fraction is not None and fraction.denominator < 200:
        return None
    own = float(np.linalg.norm(leaf.by_hand))
    tree = float(np.sqrt(sum(np.linalg.norm(each.by_hand) ** 2 for each in wrong.facts.leaves)))
    everywhere = all(
        is_close(each.by_hand, factor * each.reference, each.tolerance + slack * max_abs(each.reference))
        for each in wrong.facts.leaves
    )
    is_multiple = is_close(leaf.by_hand, factor * leaf.reference, leaf.tolerance)
    for length, words, applies in ((tree, "the whole gradient", everywhere), (own, "the leaf", is_multiple)):
        is_round = abs(float(f"{length:.1e}") / length - 1) <= min(slack, 1e-6)
        if applies and is_round:
            return "normalized", f"autodiff's gradient times {factor:.6g}: {words} has the length {length:.2g} by hand"
    return None
