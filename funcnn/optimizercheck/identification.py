"""Which textbook recipe an optimizer follows, read from its state and from its answers to plain gradients.

A recipe counts only where its simulation gives the optimizer's updates on every sequence, to rounding.
"""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from funcnn.optimizercheck.comparison import agree
from funcnn.optimizercheck.recipes import Clip, Recipe, simulate
from funcnn.optimizercheck.sequences import Problem, flattened

_FIRST = {"mu", "m", "trace", "velocity", "momentum", "exp_avg"}
_SECOND = {"nu", "v", "sum_of_squares", "exp_avg_sq"}
_LION_SHARES = (0.9, 0.95, 0.99, 0.8, 0.5)


class Observed(NamedTuple):
    """An optimizer's updates on a problem, and its moments before and after the steps, by their field's name.

    ``groups`` numbers the learning rates: sequences of one group have the same at each step.
    """

    problem: Problem
    updates: np.ndarray
    groups: np.ndarray
    before: dict[str, np.ndarray]
    after: dict[str, np.ndarray]
    spacing: float

    def row(self, name: str) -> int:
        return self.problem.names.index(name)

    @property
    def path(self) -> np.ndarray:
        """The parameters at every step."""
        moved = np.cumsum(self.updates, axis=1) + self.problem.params[:, None]
        return np.concatenate([self.problem.params[:, None], moved[:, :-1]], axis=1)


def moments(states: PyTree, entries: int, axes: int) -> dict[str, np.ndarray]:
    """Every part of a state that has a number for each parameter, by the name of its field or key."""
    parts: dict[str, list] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(states):
        names = [getattr(key, "name", getattr(key, "key", None)) for key in path]
        name = next((name for name in names if name in _FIRST | _SECOND), None)
        if name is not None:
            parts.setdefault(name, []).append(leaf)
    flat = {name: flattened(leaves, axes) for name, leaves in parts.items()}
    return {name: numbers for name, numbers in flat.items() if numbers.shape[-1] == entries}


def identified(observed: Observed) -> Recipe | None:
    """The recipe that gives these updates on every sequence, or ``None``."""
    with np.errstate(all="ignore"):
        for recipe in _possible(observed):
            simulated = simulate(recipe, observed.problem).updates
            if agree(simulated, observed.updates, observed.problem, observed.spacing):
                return recipe
    return None


def nice(number: Any, digits: int = 12) -> float:
    """The nearest number of so many digits, where it is no further than rounding; of twelve digits, by 10⁻¹³."""
    number = float(number)
    near = float(f"{number:.{digits}g}") if np.isfinite(number) else float("nan")
    return near if digits < 12 or abs(near - number) <= 1e-13 * abs(number) else number


def _possible(observed) -> Iterator[Recipe]:
    rates = np.ones(observed.updates.shape[:2])
    for family in _families(observed, Recipe(rates)):
        for clip, bound in _clips(observed, family):
            bounded = family._replace(clip=clip, bound=bound)
            for scaled, rate in _epsilons(observed, bounded):
                decayed = _decoupled(observed, scaled, rate)
                yield decayed._replace(rates=_rates(observed, decayed))


def _families(observed, plain) -> Iterator[Recipe]:
    """What the moments' names and their first values allow, without clipping, ε and rates."""
    digits = 12 if observed.spacing < 1e-12 else 6
    small, zero = observed.row("small, parameters at zero"), observed.row("zero")
    g, p = observed.problem.gradients[small, 0], observed.problem.params[zero]
    first = next((observed.after[name] for name in observed.after if name in _FIRST), None)
    second_name = next((name for name in observed.after if name in _SECOND), None)
    second = observed.after.get(second_name)
    start = float(np.median(observed.before[second_name])) if second_name else 0.0
    if first is None and second is None:
        yield plain
        return
    after = 0.0
    if first is not None and second is not None and second_name == "nu" and "trace" in observed.after:
        after, first = _velocity_after(observed, digits), None
    if first is None:
        coupled = np.zeros_like(p)
        if second_name == "sum_of_squares":
            yield plain._replace(
                second="sum",
                start=nice(start),
                coupled=_per_leaf(observed, np.sqrt(np.abs(second[zero, 0] - start)) / p),
            )
            return
        b2 = np.median(second[zero, 0] / start) if start else 1 - np.median(second[small, 0] / g**2)
        b2 = nice(b2, digits)
        coupled = _per_leaf(observed, np.sqrt(np.abs(second[zero, 0] - b2 * start) / (1 - b2)) / np.abs(p))
        for correction in (None, 0):
            yield plain._replace(
                second="mean", b2=b2, start=nice(start), after=after, coupled=coupled, corrected_second=correction
            )
        return
    share = np.median(first[small, 0] / g)
    coupled = _per_leaf(observed, first[zero, 0] / (share * p))
    if abs(share - 1) < 1e-5:
        moved = observed.path[small, 1] * coupled
        b1 = nice(np.median((first[small, 1] - g - moved) / first[small, 0]), digits)
        for nesterov in ("none", "ahead"):
            yield plain._replace(first="sum", b1=b1, nesterov=nesterov, coupled=coupled)
        return
    b1 = nice(1 - share, digits)
    if second is None:
        for ahead in _LION_SHARES:
            yield plain._replace(first="lion", b1=ahead, b2=b1)
        return
    b2 = nice(1 - np.median(second[small, 0] / g**2), digits)
    adam = plain._replace(first="mean", b1=b1, second="mean", b2=b2, coupled=coupled)
    for nesterov, corrected in itertools.product(("none", "ahead", "same step"), (0, None)):
        yield adam._replace(nesterov=nesterov, corrected_first=corrected, corrected_second=corrected)
    growing = observed.row("growing")
    eps = np.median(second[growing, 0] - np.abs(observed.problem.gradients[growing, 0]))
    zero_second = second[zero, :2].mean(axis=-1)
    b2 = nice(
        np.median(second[observed.row("one step, then zero"), 1] / second[observed.row("one step, then zero"), 0]),
        digits,
    )
    eps = nice(zero_second[0], 8) if zero_second[0] else nice(max(eps, 0.0), 8)
    yield adam._replace(second="maximum", b2=b2, eps=eps, corrected_first=0)


def _velocity_after(observed, digits) -> float:
    """μ of a velocity behind the scaling: what a step without a gradient keeps of the one before."""
    updates = observed.updates[observed.row("one step, then zero")]
    return nice(np.median(updates[1] / updates[0]), digits)


def _clips(observed, family) -> Iterator[tuple[Clip, float]]:
    """How the first huge gradient arrived in the moments, or in the update where there is none."""
    huge, small = observed.row("huge"), observed.row("small, parameters at zero")
    gradients, updates = observed.problem.gradients, observed.updates
    first = next((observed.after[name] for name in observed.after if name in _FIRST), None)
    second = next((observed.after[name] for name in observed.after if name in _SECOND), None)
    if first is not None and not family.after:
        share = np.median(first[small, 0] / gradients[small, 0])
        arrived = first[huge, 0] / share
    elif second is not None:
        share = 1.0 if family.second == "sum" else 1 - family.b2
        arrived = np.sqrt(np.maximum(second[huge, 0] - family.b2 * family.start, 0) / share)
    else:
        arrived = updates[huge, 0] / np.median(updates[small, 0] / gradients[small, 0])
    g, starts = gradients[huge, 0][None], observed.problem.starts
    sizes = np.abs(arrived)
    if np.allclose(sizes, np.abs(g[0]), rtol=1e-6):
        yield "none", 0.0
        return
    bounds: dict[Clip, float] = {
        "value": float(sizes.max()),
        "global norm": float(np.sqrt((sizes**2).sum())),
        "leaf norm": float(np.sqrt(np.add.reduceat(sizes**2, starts).max())),
    }
    yield from ((kind, nice(bound, 8)) for kind, bound in bounds.items())


def _epsilons(observed, recipe) -> Iterator[tuple[Recipe, float]]:
    """ε and the first α together, from a plain and a vanishing gradient, each at parameters of zero.

    A row's first update has the size α n/(√(v + ε_root) + ε), where n and v are known.
    """
    simulated = simulate(recipe, observed.problem, observed.path)
    names = ("parameters at zero", "vanishing", "small, parameters at zero", "huge")
    plain, vanishing, small, huge = (_first_steps(observed, simulated, name) for name in names)
    if recipe.second in ("none", "maximum"):
        yield recipe, float(np.median(plain[1] / plain[0]))
        return
    (inverse, v), (inverse_0, v_0) = plain, vanishing
    digits = 8 if recipe.start else 12
    rate = np.median((np.sqrt(v) - np.sqrt(v_0)) / (inverse - inverse_0))
    eps = np.median(rate * inverse_0 - np.sqrt(v_0))
    yield recipe._replace(eps=_or_zero(eps, v_0, digits)), rate
    rate = np.sqrt(np.median((v - v_0) / (inverse**2 - inverse_0**2)))
    root = np.median((rate * inverse_0) ** 2 - v_0)
    yield recipe._replace(eps_root=_or_zero(root, v_0, digits)), rate
    rate = np.median(np.sqrt(huge[1]) / huge[0])
    together = np.median(rate * inverse_0)
    for inverse, v in (plain, small):
        rest = rate * inverse - together
        root = np.median((v - rest**2) / (2 * rest))
        yield recipe._replace(eps=nice(together - root, 8), eps_root=nice(root**2, 8)), rate


def _first_steps(observed, simulated, name):
    """n over the size of the first update, and v, of every entry."""
    row = observed.row(name)
    return np.abs(simulated.numerators[row, 0] / observed.updates[row, 0]), simulated.seconds[row, 0]


def _or_zero(number, beside, digits) -> float:
    return nice(number, digits) if number > 1e-14 * np.sqrt(np.median(beside)) else 0.0


def _decoupled(observed, recipe, rate) -> Recipe:
    """Weight decay beside the moments: what a zero gradient moves."""
    if np.any(recipe.coupled):
        return recipe
    row = observed.row("zero")
    decay = _per_leaf(observed, -observed.updates[row, 0] / (rate * observed.problem.params[row]))
    is_plain = recipe.first == recipe.second == "none"
    return recipe._replace(coupled=decay) if is_plain else recipe._replace(decoupled=decay)


def _per_leaf(observed, numbers) -> Any:
    """The median of each leaf's entries: decay may be masked. A plain number where all are the same."""
    sizes = np.diff([*observed.problem.starts, numbers.size])
    parts = np.split(numbers, observed.problem.starts[1:])
    medians = [nice(np.median(part), 8) if part.size else 0.0 for part in parts]
    medians = [0.0 if abs(median) < 1e-13 or not np.isfinite(median) else median for median in medians]
    return medians[0] if len(set(medians)) == 1 else np.repeat(medians, sizes)


def _rates(observed, recipe) -> np.ndarray:
    """α at every step of every sequence, from each group's random gradients."""
    ones = recipe._replace(rates=np.ones(observed.updates.shape[:2]), after=0.0)
    directions = -simulate(ones, observed.problem, observed.path).updates
    before = np.concatenate([np.zeros_like(observed.updates[:, :1]), observed.updates[:, :-1]], axis=1)
    moved = recipe.after * before - observed.updates
    rates = np.ones(observed.updates.shape[:2])
    for group in np.unique(observed.groups):
        rows = observed.groups == group
        chosen = next(row for row in np.flatnonzero(rows) if observed.problem.names[row].startswith("random"))
        along = (directions[chosen] * moved[chosen]).sum(axis=1) / (directions[chosen] ** 2).sum(axis=1)
        along = np.full_like(along, np.median(along)) if np.ptp(along) <= 1e-9 * np.abs(along).max() else along
        rates[rows] = [nice(rate, 12 if observed.spacing < 1e-12 else 6) for rate in along]
    return rates
