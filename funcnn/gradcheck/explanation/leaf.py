"""A wrong leaf, and what its diagnosis is made from."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from funcnn._numerics.arrays import max_abs
from funcnn.gradcheck.report import Cause

Diagnosis: TypeAlias = tuple[Cause, str]
"""A cause and a sentence that describes it."""


class Leaf(NamedTuple):
    """The two gradients of a leaf, and the parameter; ``None`` for a value that isn't a parameter."""

    path: str
    by_hand: np.ndarray
    reference: np.ndarray
    param: np.ndarray | None
    tolerance: float


class Facts(NamedTuple):
    """The data of a diagnosis.

    Fields:
        leaves: every leaf, right and wrong.
        sizes: numbers of this problem with their names: ``(32, "the batch size")``.
        counts: numbers by which a mean may be divided, likewise.
        contributions: from a leaf's position to the gradient of each sample alone, ``(samples, *shape)``, or ``None``
            if there are no samples.
    """

    leaves: list[Leaf]
    sizes: Sequence[tuple[float, str]] = ()
    counts: Sequence[tuple[float, str]] = ()
    contributions: Callable[[int], np.ndarray | None] = lambda position: None


class WrongLeaf(NamedTuple):
    """A leaf with a finite difference between its gradients, as the detectors of causes get it.

    Fields:
        leaf: the leaf, in the gradient's own units.
        normalized: the same, divided by its largest entry. Squares of huge or tiny gradients leave float64's range.
        position: the leaf's position in ``facts.leaves``.
        facts: the data of the diagnosis.
    """

    leaf: Leaf
    normalized: Leaf
    position: int
    facts: Facts

    def other_leaves(self) -> Iterator[Leaf]:
        """Yield every other leaf."""
        return (leaf for number, leaf in enumerate(self.facts.leaves) if number != self.position)


def normalize(leaf: Leaf) -> Leaf:
    """Return a leaf in units of its largest entry."""
    unit = max(max_abs(leaf.by_hand), max_abs(leaf.reference))
    return leaf._replace(
        by_hand=leaf.by_hand / unit, reference=leaf.reference / unit, tolerance=leaf.tolerance / unit
    )  # fmt: skip


def loosen_tolerances(facts: Facts, dtype_spacing: float) -> Facts:
    """Return the facts with tolerances as wide as the rounding of data in a dtype with this ε."""
    leaves = [
        leaf._replace(tolerance=max(leaf.tolerance, 16 * dtype_spacing * max_abs(leaf.reference)))
        for leaf in facts.leaves
    ]
    return facts._replace(leaves=leaves)
