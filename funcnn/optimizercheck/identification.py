"""Identification of the textbook update rule of an optimizer, from its state and its updates on simple gradients.

A rule is returned only if its simulation gives the optimizer's updates on every sequence, up to rounding.
"""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from funcnn.optimizercheck.comparison import is_close
from funcnn.optimizercheck.sequences import Problem, flatten
from funcnn.optimizercheck.update_rules import Clip, UpdateRule, simulate

_FIRST_MOMENTS = {"mu", "m", "trace", "velocity", "momentum", "exp_avg"}
_SECOND_MOMENTS = {"nu", "v", "sum_of_squares", "exp_avg_sq"}
_LION_B1 = (0.9, 0.95, 0.99, 0.8, 0.5)


class Observations(NamedTuple):
    """An optimizer's updates on a problem, and its moments.

    Fields:
        problem: the sequences.
        updates: ``(sequences, steps, entries)``.
        groups: for each sequence a number; sequences of one group have the same learning rate at each step.
        before, after: the moments before the first step and after every step, by the name of their field.
        spacing: ε of the coarsest floating dtype in the computation.
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
    """Return every part of a state that has a number for each parameter, by the name of its field or key.

    Args:
        states: a tree of states with ``axes`` leading axes.
        entries: the number of parameters.
        axes: 1 for states before the first step, 2 for states after every step.
    """
    parts: dict[str, list] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(states):
        names = [getattr(key, "name", getattr(key, "key", None)) for key in path]
        name = next((name for name in names if name in _FIRST_MOMENTS | _SECOND_MOMENTS), None)
        if name is not None:
            parts.setdefault(name, []).append(leaf)
    flat = {name: flatten(leaves, axes) for name, leaves in parts.items()}
    return {name: numbers for name, numbers in flat.items() if numbers.shape[-1] == entries}


def identify(observations: Observations) -> UpdateRule | None:
    """Return the rule that gives these updates on every sequence, or ``None``."""
    with np.errstate(all="ignore"):
        for rule in _possible_rules(observations):
            simulated = simulate(rule, observations.problem).updates
            if is_close(simulated, observations.updates, observations.problem, observations.spacing):
                return rule
    return None


def round_significant(number: Any, digits: int = 12) -> float:
    """Round to so many significant digits. To twelve, only if that changes the number by at most 10⁻¹³ of it."""
    number = float(number)
    near = float(f"{number:.{digits}g}") if np.isfinite(number) else float("nan")
    return near if digits < 12 or abs(near - number) <= 1e-13 * abs(number) else number


def _possible_rules(observations) -> Iterator[UpdateRule]:
    rates = np.ones(observations.updates.shape[:2])
    for family in _families(observations, UpdateRule(rates)):
        for clip, bound in _clippings(observations, family):
            clipped = family._replace(clip=clip, bound=bound)
            for scaled, rate in _epsilons(observations, clipped):
                decayed = _add_weight_decay(observations, scaled, rate)
                yield decayed._replace(rates=_learning_rates(observations, decayed))


def _families(observations, plain) -> Iterator[UpdateRule]:
    """Yield the rules that fit the moments' names and first values, without clipping, ε and learning rates."""
    digits = 12 if observations.spacing < 1e-12 else 6
    small, zero = observations.row("small, parameters at zero"), observations.row("zero")
    g, p = observations.problem.gradients[small, 0], observations.problem.params[zero]
    first = next((observations.after[name] for name in observations.after if name in _FIRST_MOMENTS), None)
    second_name = next((name for name in observations.after if name in _SECOND_MOMENTS), None)
    second = observations.after.get(second_name)
    initial = float(np.median(observations.before[second_name])) if second_name else 0.0
    if first is None and second is None:
        yield plain
        return
    velocity_decay = 0.0
    if first is not None and second is not None and second_name == "nu" and "trace" in observations.after:
        velocity_decay, first = _velocity_decay(observations, digits), None
    if first is None:
        coupled = np.zeros_like(p)
        if second_name == "sum_of_squares":
            yield plain._replace(
                second="sum",
                initial_second=round_significant(initial),
                coupled=_leaf_medians(observations, np.sqrt(np.abs(second[zero, 0] - initial)) / p),
            )
            return
        b2 = np.median(second[zero, 0] / initial) if initial else 1 - np.median(second[small, 0] / g**2)
        b2 = round_significant(b2, digits)
        squares = np.abs(second[zero, 0] - b2 * initial) / (1 - b2)
        coupled = _leaf_medians(observations, np.sqrt(squares) / np.abs(p))
        for correction in (None, 0):
            yield plain._replace(
                second="mean", b2=b2, initial_second=round_significant(initial), velocity_decay=velocity_decay,
                coupled=coupled, second_correction=correction,
            )  # fmt: skip
        return
    share = np.median(first[small, 0] / g)
    coupled = _leaf_medians(observations, first[zero, 0] / (share * p))
    if abs(share - 1) < 1e-5:
        moved = observations.path[small, 1] * coupled
        b1 = round_significant(np.median((first[small, 1] - g - moved) / first[small, 0]), digits)
        for nesterov in ("none", "ahead"):
            yield plain._replace(first="sum", b1=b1, nesterov=nesterov, coupled=coupled)
        return
    b1 = round_significant(1 - share, digits)
    if second is None:
        for lion_b1 in _LION_B1:
            yield plain._replace(first="lion", b1=lion_b1, b2=b1)
        return
    b2 = round_significant(1 - np.median(second[small, 0] / g**2), digits)
    adam = plain._replace(first="mean", b1=b1, second="mean", b2=b2, coupled=coupled)
    for nesterov, correction in itertools.product(("none", "ahead", "same step"), (0, None)):
        yield adam._replace(nesterov=nesterov, first_correction=correction, second_correction=correction)
    growing, pulse = observations.row("growing"), observations.row("one step, then zero")
    eps = np.median(second[growing, 0] - np.abs(observations.problem.gradients[growing, 0]))
    zero_second = second[zero, :2].mean(axis=-1)
    b2 = round_significant(np.median(second[pulse, 1] / second[pulse, 0]), digits)
    eps = round_significant(zero_second[0], 8) if zero_second[0] else round_significant(max(eps, 0.0), 8)
    yield adam._replace(second="maximum", b2=b2, eps=eps, first_correction=0)


def _velocity_decay(observations, digits) -> float:
    """Return μ of a velocity after the scaling: the ratio of an update without a gradient to the one before."""
    updates = observations.updates[observations.row("one step, then zero")]
    return round_significant(np.median(updates[1] / updates[0]), digits)


def _clippings(observations, family) -> Iterator[tuple[Clip, float]]:
    """Yield the kinds and bounds of clipping that fit the first huge gradient, as the moments or the update show it."""
    huge, small = observations.row("huge"), observations.row("small, parameters at zero")
    gradients, updates = observations.problem.gradients, observations.updates
    first = next((observations.after[name] for name in observations.after if name in _FIRST_MOMENTS), None)
    second = next((observations.after[name] for name in observations.after if name in _SECOND_MOMENTS), None)
    if first is not None and not family.velocity_decay:
        share = np.median(first[small, 0] / gradients[small, 0])
        clipped = first[huge, 0] / share
    elif second is not None:
        share = 1.0 if family.second == "sum" else 1 - family.b2
        clipped = np.sqrt(np.maximum(second[huge, 0] - family.b2 * family.initial_second, 0) / share)
    else:
        clipped = updates[huge, 0] / np.median(updates[small, 0] / gradients[small, 0])
    g, starts = gradients[huge, 0][None], observations.problem.starts
    sizes = np.abs(clipped)
    if np.allclose(sizes, np.abs(g[0]), rtol=1e-6):
        yield "none", 0.0
        return
    bounds: dict[Clip, float] = {
        "value": float(sizes.max()),
        "global norm": float(np.sqrt((sizes**2).sum())),
        "leaf norm": float(np.sqrt(np.add.reduceat(sizes**2, starts).max())),
    }
    yield from ((kind, round_significant(bound, 8)) for kind, bound in bounds.items())


def _epsilons(observations, rule) -> Iterator[tuple[UpdateRule, float]]:
    """Yield rules with ε and the first α, solved from a plain and a vanishing gradient at parameters of zero.

    The first update of a sequence has the size α n/(√(v + ε_root) + ε), where n and v are known.
    """
    simulated = simulate(rule, observations.problem, observations.path)
    names = ("parameters at zero", "vanishing", "small, parameters at zero", "huge")
    plain, vanishing, small, huge = (_first_steps(observations, simulated, name) for name in names)
    if rule.second in ("none", "maximum"):
        yield rule, float(np.median(plain[1] / plain[0]))
        return
    (inverse, v), (inverse_0, v_0) = plain, vanishing
    digits = 8 if rule.initial_second else 12
    rate = np.median((np.sqrt(v) - np.sqrt(v_0)) / (inverse - inverse_0))
    eps = np.median(rate * inverse_0 - np.sqrt(v_0))
    yield rule._replace(eps=_zero_if_negligible(eps, v_0, digits)), rate
    rate = np.sqrt(np.median((v - v_0) / (inverse**2 - inverse_0**2)))
    root = np.median((rate * inverse_0) ** 2 - v_0)
    yield rule._replace(eps_root=_zero_if_negligible(root, v_0, digits)), rate
    rate = np.median(np.sqrt(huge[1]) / huge[0])
    together = np.median(rate * inverse_0)
    for inverse, v in (plain, small):
        rest = rate * inverse - together
        root = np.median((v - rest**2) / (2 * rest))
        eps, eps_root = round_significant(together - root, 8), round_significant(root**2, 8)
        yield rule._replace(eps=eps, eps_root=eps_root), rate


def _first_steps(observations, simulated, name):
    """Return n divided by the size of the first update, and v, of every entry."""
    row = observations.row(name)
    return np.abs(simulated.numerators[row, 0] / observations.updates[row, 0]), simulated.seconds[row, 0]


def _zero_if_negligible(number, square, digits) -> float:
    return round_significant(number, digits) if number > 1e-14 * np.sqrt(np.median(square)) else 0.0


def _add_weight_decay(observations, rule, rate) -> UpdateRule:
    """Add the weight decay outside the moments, which is the update of a zero gradient."""
    if np.any(rule.coupled):
        return rule
    row = observations.row("zero")
    decay = _leaf_medians(observations, -observations.updates[row, 0] / (rate * observations.problem.params[row]))
    is_plain = rule.first == rule.second == "none"
    return rule._replace(coupled=decay) if is_plain else rule._replace(decoupled=decay)


def _leaf_medians(observations, numbers) -> Any:
    """Return the median of each leaf's entries, because weight decay may be masked. One number if all are equal."""
    sizes = np.diff([*observations.problem.starts, numbers.size])
    parts = np.split(numbers, observations.problem.starts[1:])
    medians = [round_significant(np.median(part), 8) if part.size else 0.0 for part in parts]
    medians = [0.0 if abs(median) < 1e-13 or not np.isfinite(median) else median for median in medians]
    return medians[0] if len(set(medians)) == 1 else np.repeat(medians, sizes)


def _learning_rates(observations, rule) -> np.ndarray:
    """Return α at every step of every sequence, estimated from the random gradients of each group."""
    with_rate_one = rule._replace(rates=np.ones(observations.updates.shape[:2]), velocity_decay=0.0)
    directions = -simulate(with_rate_one, observations.problem, observations.path).updates
    before = np.concatenate([np.zeros_like(observations.updates[:, :1]), observations.updates[:, :-1]], axis=1)
    moved = rule.velocity_decay * before - observations.updates
    rates = np.ones(observations.updates.shape[:2])
    names = observations.problem.names
    for group in np.unique(observations.groups):
        rows = observations.groups == group
        row = next(row for row in np.flatnonzero(rows) if names[row].startswith("random"))
        estimates = (directions[row] * moved[row]).sum(axis=1) / (directions[row] ** 2).sum(axis=1)
        if np.ptp(estimates) <= 1e-9 * np.abs(estimates).max():
            estimates = np.full_like(estimates, np.median(estimates))
        digits = 12 if observations.spacing < 1e-12 else 6
        rates[rows] = [round_significant(rate, digits) for rate in estimates]
    return rates
