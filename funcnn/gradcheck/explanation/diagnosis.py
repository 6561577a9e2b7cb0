"""The diagnosis of a wrong leaf: the first cause that explains all of its difference."""

import numpy as np

from funcnn.gradcheck.explanation.causes import DETECTORS
from funcnn.gradcheck.explanation.difference import describe_difference
from funcnn.gradcheck.explanation.leaf import Diagnosis, Facts, WrongLeaf, normalize
from funcnn.gradcheck.explanation.numbers import is_close


def diagnose(position: int, facts: Facts) -> Diagnosis:
    """Return the cause of one leaf's difference, and a sentence that describes it.

    Args:
        position: the position of the leaf in ``facts.leaves``.
        facts: every leaf, and the data of the problem.
    """
    leaf = facts.leaves[position]
    if not (np.isfinite(leaf.by_hand) & np.isfinite(leaf.reference)).all():
        return _diagnose_nonfinite(leaf)
    if not is_close(leaf.by_hand, leaf.reference, leaf.tolerance):
        wrong = WrongLeaf(leaf, normalize(leaf), position, facts)
        for detect in DETECTORS:
            diagnosis = detect(wrong)
            if diagnosis is not None:
                return diagnosis
    return "unknown", describe_difference(leaf, facts)


def _diagnose_nonfinite(leaf) -> Diagnosis:
    finite = np.isfinite(leaf.by_hand) & np.isfinite(leaf.reference)
    first = tuple(int(i) for i in np.argwhere(~finite)[0])
    values = f"{leaf.by_hand[first]} by hand and {leaf.reference[first]} by autodiff, first at index {first}"
    if np.isfinite(leaf.by_hand).all():
        return "unknown", f"{values}; autodiff has no value there, and the one by hand isn't the loss's slope"
    return "nonfinite", values
