"""The counts of a problem by which people divide: entries, lengths of axes, unmasked entries, one less."""

from collections.abc import Sequence

import jax
import numpy as np

from funcnn.gradcheck.explanation.problem import Problem

_LARGEST = 10**7


def counts(problem: Problem) -> list[tuple[float, str]]:
    """Return the counts of the arguments with their names, the plain ones first."""
    found: list[tuple[float, str]] = []
    masks: list[tuple[float, str]] = []
    for position, argument in enumerate(problem.arguments):
        for path, leaf in jax.tree_util.tree_leaves_with_path(argument):
            if not isinstance(leaf, jax.Array | np.ndarray) or not leaf.ndim or leaf.dtype.kind not in "biuf":
                continue
            name = f"argument {position + 1} after the parameters{jax.tree_util.keystr(path)}"
            masks += _unmasked(np.asarray(leaf), name)
            found += [(length, f"the length of axis {axis} of {name}") for axis, length in enumerate(leaf.shape)]
            found.append((leaf.size, f"the number of entries of {name}"))
    one_less = [(value - 1, f"one less than {name}") for value, name in found]
    unique: dict[float, str] = {}
    for value, name in (*found, *masks, *one_less):
        if 1 < value <= _LARGEST:
            unique.setdefault(float(value), name)
    return list(unique.items())


def _unmasked(array, name) -> list[tuple[float, str]]:
    """Return how many entries a mask lets through, in all and in each row."""
    if array.dtype.kind not in "bf" or not np.isin(array, (0, 1)).all() or array.all():
        return []
    rows = np.unique(array.reshape(len(array), -1).sum(axis=1))
    found = [(float(array.sum()), f"the number of entries that {name} lets through")]
    return found + ([(float(rows[0]), f"the number that {name} lets through in each row")] if len(rows) == 1 else [])


def meaning_of_ratio(factor: float, known: Sequence[tuple[float, str]], slack: float) -> str:
    """Return which two counts a factor is the ratio of, as the end of a sentence; empty if none."""
    for right, right_name in known:
        for wrong, wrong_name in known:
            if wrong != right and abs(factor * wrong / right - 1) <= slack:
                return f"; is it divided by {wrong:g}, {wrong_name}, in the place of {right:g}, {right_name}?"
    return ""
