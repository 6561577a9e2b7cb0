"""Points without a derivative: which units sit on one, and what the gradient is on either side.

A ReLU at exactly 0, a tie for the maximum, |x| at 0, the edge of a clip: autodiff takes one side, or the middle, and a
gradient written by hand may take another. Where the loss's program holds such ties, it is differentiated with every
tie decided one way and then the other. Each gradient in between is right, and nothing else is: what a hand-written
gradient may do at a kink is a choice of sides, not any number.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from scipy.optimize import lsq_linear

from funcnn.gradcheck.precision import Judged
from funcnn.gradcheck.program import Place
from funcnn.gradcheck.ties import coupled_ties, find_ties, gradient_by_side

_MOST_KINKS = 6


class Kink(NamedTuple):
    """Operations with entries on a kink.

    Fields:
        name: what the first of them is called.
        entries: where its ties are.
        leaves: the paths of the parameters whose gradients depend on the side.
        sides: the operations; whether each is on the upper side when the first is.
        step: how much each gradient grows from the lower side to the upper one.
    """

    name: str
    entries: tuple[tuple[int, ...], ...]
    leaves: tuple[str, ...]
    sides: dict[Place, bool]
    step: list[np.ndarray]

    def __str__(self) -> str:
        shown = "; ".join(map(_entry, self.entries[:4])) + ("; …" if len(self.entries) > 4 else "")
        return f"{self.name} at {shown} (felt by {', '.join(path or 'the root' for path in self.leaves)})"


class Kinks(NamedTuple):
    """The kinks of a loss at one point; its gradient with every tie on its lower side, and with some on the other."""

    kinks: tuple[Kink, ...]
    lower: list[np.ndarray]
    gradient: Callable[[Sequence[Kink]], list[np.ndarray]]

    @property
    def upper(self) -> list[np.ndarray]:
        """The gradient with every kink on its upper side."""
        return self.gradient(self.kinks)

    def nearest(self, by_hand: list[np.ndarray]) -> list[np.ndarray]:
        """The gradient nearest to the hand-written one among those between the sides of the kinks."""
        scales = [max(map(_largest, kink.step)) or 1.0 for kink in self.kinks]
        columns = np.stack([_flat(kink.step) / scale for kink, scale in zip(self.kinks, scales, strict=True)], axis=1)
        wanted = _flat([hand - lower for hand, lower in zip(by_hand, self.lower, strict=True)])
        rows = columns.any(axis=1) & np.isfinite(columns).all(axis=1) & np.isfinite(wanted)
        if not rows.any():
            return self.lower
        shares = lsq_linear(columns[rows], wanted[rows], bounds=(0, np.array(scales)), method="bvls").x / scales
        # A side is a side to the last bit; least squares only comes near it.
        halves = np.round(2 * shares) / 2
        shares = np.where(np.abs(shares - halves) < 1e-6, halves, shares)
        between = [
            lower + sum(share * kink.step[leaf] for share, kink in zip(shares, self.kinks, strict=True))
            for leaf, lower in enumerate(self.lower)
        ]
        # Where kinks follow one another, the gradient isn't linear in the shares: the corner itself may be meant.
        corner = self.gradient([kink for kink, share in zip(self.kinks, shares, strict=True) if share > 0.5])
        return min(between, corner, key=lambda leaves: _gap(leaves, by_hand))

    def sides_at(self, leaf: int, index: tuple[int, ...]) -> tuple[float, float]:
        """The least and the largest that an entry can be between the sides of every kink."""
        lower, steps = self.lower[leaf][index].real, [kink.step[leaf][index].real for kink in self.kinks]
        return float(lower + sum(min(step, 0.0) for step in steps)), float(
            lower + sum(max(step, 0.0) for step in steps)
        )

    def __str__(self) -> str:
        return " and ".join(map(str, self.kinks[:3])) + (" and more" if len(self.kinks) > 3 else "")


def find_kinks(judged: Judged) -> Kinks | None:
    """The operations of a loss that sit on a kink at its parameters, where their sides differ in the gradient."""
    program, params = judged.program, judged.evaluated.params
    ties = find_ties(program, params) if program else {}
    if not program or not ties:
        return None
    by_side = gradient_by_side(program, params, ties)
    groups = coupled_ties(program, params, ties, judged.spacing)

    def gradient(kinks):
        raised = [kink.sides for kink in kinks]
        return by_side({place: up == (group in raised) for group in groups for place, up in group.items()})

    lower = gradient([])
    paths = [jax.tree_util.keystr(path).lstrip(".") for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    kinks = []
    for group in groups[:_MOST_KINKS]:
        tie = ties[next(iter(group))]
        entries = tuple(tuple(map(int, entry)) for entry in np.argwhere(tie.mask))
        kink = Kink(tie.name, entries, (), group, [])
        step = [after - before for before, after in zip(lower, gradient([kink]), strict=True)]
        felt = [path for path, part, before in zip(paths, step, lower, strict=True) if not _is_rounding(part, before)]
        if felt:
            kinks.append(kink._replace(leaves=tuple(felt), step=step))
    return Kinks(tuple(kinks), lower, gradient) if kinks else None


def _is_rounding(step, before):
    return _largest(step) <= 1e-9 * _largest(before) if np.isfinite(step).all() else False


def _largest(array):
    return float(np.max(np.abs(array), initial=0.0))


def _gap(first, second):
    return max((_largest(a - b) for a, b in zip(first, second, strict=True)), default=0.0)


def _flat(leaves):
    flat = np.concatenate([np.ravel(leaf) for leaf in leaves]) if leaves else np.zeros(0)
    return np.concatenate([flat.real, flat.imag]) if np.iscomplexobj(flat) else flat


def _entry(index):
    if not index:
        return "the scalar"
    if len(index) == 1:
        return f"entry {index[0]}"
    middle = f", position {index[1:-1]}" if len(index) > 2 else ""
    return f"sample {index[0]}{middle}, unit {index[-1]}"
