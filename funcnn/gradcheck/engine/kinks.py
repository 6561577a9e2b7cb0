"""Kinks, points without a derivative: which units are at one, and the gradient on either side.

A ReLU at exactly 0, a tie for the maximum, |x| at 0, the edge of a clip: autodiff takes one side, or the middle, and a
hand-written gradient may take another. If the loss's program has such ties, it is differentiated with every tie decided
one way and then the other. Every gradient between the two is right, and no other number is.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from funcnn._numerics.program import Place
from funcnn.gradcheck.engine.precision import Comparison
from funcnn.gradcheck.engine.ties import Ties, coupled_ties, gradient_by_side

_MAX_KINKS = 6
_MAX_TIES = 64


class Kink(NamedTuple):
    """Operations with entries at a kink.

    Fields:
        name: the name of the first operation.
        entries: the indices of its ties.
        leaves: the paths of the parameters whose gradients depend on the side.
        sides: the operations, with whether each is on the upper side when the first one is.
        step: the difference of each gradient between the upper and the lower side.
    """

    name: str
    entries: tuple[tuple[int, ...], ...]
    leaves: tuple[str, ...]
    sides: dict[Place, bool]
    step: list[np.ndarray]

    def __str__(self) -> str:
        shown = "; ".join(map(_entry, self.entries[:4])) + ("; …" if len(self.entries) > 4 else "")
        return f"{self.name} at {shown} (it affects {', '.join(path or 'the root' for path in self.leaves)})"


class Kinks(NamedTuple):
    """The kinks of a loss at one point.

    Fields:
        kinks: the kinks that matter to a gradient.
        lower, upper: the gradient with every tie on its lower and on its upper side.
        gradient: the gradient for a position of each kink between its sides: a number from 0 to 1, or one for each
            entry.
    """

    kinks: tuple[Kink, ...]
    lower: list[np.ndarray]
    upper: list[np.ndarray]
    gradient: Callable[[Sequence[float | np.ndarray]], list[np.ndarray]]

    def nearest(self, by_hand: list[np.ndarray]) -> list[np.ndarray]:
        """Return the gradient nearest to the hand-written one among those between the sides of the kinks.

        The usual conventions come first: every tie to one side, to the other, or half. Then a share for each kink by
        least squares, and a share for each tie if there are few.
        """
        count = len(self.kinks)
        candidates = [self.lower, self.upper, self.gradient([0.5] * count)]
        scale = max(map(_largest, by_hand), default=0.0)
        if min(_gap(leaves, by_hand) for leaves in candidates) > 1e-9 * scale:
            candidates += self._fit_shares([kink.step for kink in self.kinks], by_hand, lambda shares: list(shares))
        ties = [len(kink.entries) for kink in self.kinks]
        if min(_gap(leaves, by_hand) for leaves in candidates) > 1e-9 * scale and count < sum(ties) <= _MAX_TIES:
            ends = np.cumsum([0, *ties])

            def by_kink(shares):
                return [np.asarray(shares[start:end]) for start, end in itertools.pairwise(ends)]

            moved = [self.gradient(by_kink(row)) for row in np.eye(ends[-1])]
            steps = [[after - before for before, after in zip(self.lower, one, strict=True)] for one in moved]
            candidates += self._fit_shares(steps, by_hand, by_kink)
        return min(candidates, key=lambda leaves: _gap(leaves, by_hand))

    def _fit_shares(self, steps, by_hand, by_kink) -> list[list[np.ndarray]]:
        """Return the lower side plus shares of the steps, by least squares, and the gradient with these shares."""
        from scipy.optimize import lsq_linear  # it takes as long to import as JAX does

        scales = np.array([max(map(_largest, step)) or 1.0 for step in steps])
        columns = np.stack([_flat(step) for step in steps], axis=1) / scales
        target = _flat([hand - lower for hand, lower in zip(by_hand, self.lower, strict=True)])
        rows = columns.any(axis=1) & np.isfinite(columns).all(axis=1) & np.isfinite(target)
        if not rows.any():
            return []
        shares = lsq_linear(columns[rows], target[rows], bounds=(0, scales), method="bvls").x / scales
        # A share of 0, ½ or 1 is exact; least squares is only near it.
        halves = np.round(2 * shares) / 2
        shares = np.where(np.abs(shares - halves) < 1e-6, halves, shares)
        between = [
            lower + sum(share * step[leaf] for share, step in zip(shares, steps, strict=True))
            for leaf, lower in enumerate(self.lower)
        ]
        # The gradient isn't linear in the shares if one kink follows another.
        return [between, self.gradient(by_kink(shares)), self.gradient(by_kink(np.round(shares)))]

    def sides_at(self, leaf: int, index: tuple[int, ...]) -> tuple[float, float]:
        """Return an entry on the two sides of all kinks, the smaller value first."""
        low, high = sorted((float(self.lower[leaf][index].real), float(self.upper[leaf][index].real)))
        return low, high

    def __str__(self) -> str:
        return " and ".join(map(str, self.kinks[:3])) + (" and more" if len(self.kinks) > 3 else "")


def find_kinks(comparison: Comparison, ties: Ties) -> Kinks | None:
    """Return the kinks of a loss at its parameters, if the gradient depends on their sides.

    Args:
        comparison: the loss.
        ties: the ties of its program.
    """
    program, params = comparison.program, comparison.gradients.params
    if not program or not ties:
        return None
    gradient_of = _gradient_of_groups(gradient_by_side(program, params, ties), ties)
    groups = coupled_ties(program, params, ties, comparison.spacing)
    lower, upper = (gradient_of(groups, [side] * len(groups)) for side in (0.0, 1.0))
    paths = [jax.tree_util.keystr(path).lstrip(".") for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    kinks = []
    for number, group in enumerate(groups[:_MAX_KINKS]):
        alone = [float(number == other) for other in range(len(groups))]
        step = _difference(lower, gradient_of(groups, alone))
        if not _affected_leaves(step, lower, paths):
            # Another kink's lower side may hide this one: compare from the upper sides.
            step = _difference(gradient_of(groups, [1 - share for share in alone]), upper)
        if affected := _affected_leaves(step, lower, paths):
            tie = ties[next(iter(group))]
            entries = tuple(tuple(map(int, entry)) for entry in np.argwhere(tie.mask))
            kinks.append(Kink(tie.name, entries, affected, group, step))
    if not kinks:
        return None
    sides = [kink.sides for kink in kinks]
    rest = [group for group in groups if group not in sides]

    def gradient(shares):
        whole = [share for share in shares if not np.ndim(share)]
        # Ties that don't matter follow the others if all have the same share.
        along = whole[0] if whole and len(set(whole)) == 1 and len(whole) == len(shares) else 0.0
        return gradient_of([*sides, *rest], [*shares, *[along] * len(rest)])

    return Kinks(tuple(kinks), lower, upper, gradient)


def _gradient_of_groups(by_side: Callable, ties: Ties) -> Callable[[Sequence, Sequence], list[np.ndarray]]:
    """Return the gradient as a function of groups of ties and of their shares, all other ties on the lower side."""

    def gradient_of(groups, shares):
        sides = dict.fromkeys(ties, 0.0)
        for group, share in zip(groups, shares, strict=True):
            for place, same in group.items():
                side = share if same else 1 - share
                if np.ndim(side):
                    spread = np.zeros(ties[place].mask.shape)
                    spread[ties[place].mask] = side
                    side = spread
                sides[place] = side
        return by_side(sides)

    return gradient_of


def _difference(before, after):
    return [after_leaf - before_leaf for before_leaf, after_leaf in zip(before, after, strict=True)]


def _affected_leaves(step, before, paths) -> tuple[str, ...]:
    return tuple(path for path, part, leaf in zip(paths, step, before, strict=True) if not _is_rounding(part, leaf))


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
