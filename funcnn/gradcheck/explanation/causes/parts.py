"""Causes ``element`` and ``unit``: some entries, rows or columns are wrong, the rest is right."""

import numpy as np

from funcnn.gradcheck.explanation.causes.factors import common_factor
from funcnn.gradcheck.explanation.leaf import Diagnosis, Leaf, WrongLeaf
from funcnn.gradcheck.explanation.numbers import list_indices


def detect_part(wrong: WrongLeaf) -> Diagnosis | None:
    """Return ``element`` or ``unit`` if only some entries, rows or columns are wrong.

    Rows of x are samples: their cause is ``subset_of_batch``.
    """
    leaf = wrong.normalized
    is_wrong = np.abs(leaf.by_hand - leaf.reference) > leaf.tolerance
    count, size = int(is_wrong.sum()), is_wrong.size
    if count == size:
        return None
    if is_wrong.ndim >= 2 and (found := _wrong_slices(leaf, is_wrong)):
        return found
    is_formula = 2 * count > size and not _shared_cause(leaf, is_wrong.nonzero()[0], 0)
    if is_wrong.ndim == 1 and not is_formula and (other := _leaf_with_the_same_units(wrong, is_wrong)):
        indices = list_indices("entry", "entries", np.flatnonzero(is_wrong))
        return "unit", f"{indices} wrong, as the same units of {other} are"
    if count <= max(1, size // (4 if is_wrong.ndim < 2 else 20)):
        places = [tuple(int(i) for i in place) for place in np.argwhere(is_wrong)[:4]]
        first = places[0]
        shown = ", ".join(map(str, places)) + (", …" if count > 4 else "")
        ratio = f"{leaf.by_hand[first] / leaf.reference[first]:.6g} of" if leaf.reference[first] else "nonzero for 0 by"
        return "element", f"{count} of {size} entries wrong, the rest right: {shown}; the first is {ratio} autodiff's"
    return None


def _wrong_slices(leaf: Leaf, is_wrong: np.ndarray) -> Diagnosis | None:
    """Return a cause if all wrong entries are in some rows or columns, and most entries there are wrong."""
    best = None
    for axis in range(is_wrong.ndim):
        others = tuple(other for other in range(is_wrong.ndim) if other != axis)
        inside = is_wrong.sum(axis=others)
        indices = np.flatnonzero(inside)
        thickness = is_wrong.size // is_wrong.shape[axis]
        # A dead unit's entries are 0 in both gradients, so a wrong row need not be wrong throughout.
        nonzero = (np.maximum(np.abs(leaf.by_hand), np.abs(leaf.reference)) > leaf.tolerance).sum(axis=others)
        filled = is_wrong.sum() / max(int(nonzero[indices].sum()), 1)
        is_slice = thickness > 1 and len(indices) < is_wrong.shape[axis] and filled >= 0.5 and is_wrong.sum() > 1
        if is_slice and (best is None or filled * thickness > best[0]):
            best = filled * thickness, axis, indices
    if best is None:
        return None
    _, axis, indices = best
    names = {0: ("row", "rows"), is_wrong.ndim - 1: ("column", "columns")}
    one, many = names.get(axis, (f"axis {axis}: slice", f"axis {axis}: slices"))
    if axis == 0 and leaf.path in ("x", "dx"):
        return "subset_of_batch", f"{list_indices('sample', 'samples', indices)} wrong, the rest right"
    shared = _shared_cause(leaf, indices, axis)
    # If most rows are wrong without a shared cause, the whole formula is wrong and the other rows are right by chance.
    if not shared and 2 * len(indices) > is_wrong.shape[axis]:
        return None
    there = f": there {shared[1]}" if shared else ""
    return "unit", f"{list_indices(one, many, indices)} wrong, the rest right{there}"


def _shared_cause(leaf, indices, axis) -> Diagnosis | None:
    """Return the factor that some rows or columns have in common."""
    return common_factor(
        leaf._replace(by_hand=leaf.by_hand.take(indices, axis), reference=leaf.reference.take(indices, axis))
    )


def _leaf_with_the_same_units(wrong: WrongLeaf, is_wrong: np.ndarray) -> str | None:
    """Return the path of another leaf whose last axis is wrong at exactly these indices."""
    for other in wrong.other_leaves():
        if other.by_hand.ndim < 2 or other.by_hand.shape != other.reference.shape:
            continue
        if other.by_hand.shape[-1] == is_wrong.size:
            there = np.abs(other.by_hand - other.reference) > other.tolerance
            if np.array_equal(there.any(axis=tuple(range(there.ndim - 1))), is_wrong):
                return other.path
    return None
