"""Evaluation of both optimizers on every sequence: in float64, under a changing learning rate, in low precision."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from funcnn._reports.properties import PropertyReport
from funcnn.optimizercheck.comparison import absolute_differences, compare, tolerances
from funcnn.optimizercheck.report import SequenceReport
from funcnn.optimizercheck.sequences import STEPS, Problem, flatten, make_problem
from funcnn.optimizercheck.trajectories import (
    Phases,
    Trajectory,
    compute_trajectory,
    error_summary,
    incompatibility,
    single_phase,
)

LOW_PRECISION = (jnp.float32, jnp.bfloat16)
_RATE, _REDUCED_RATE = 0.05, 0.005
_CHANGING_RATE_SEQUENCES = ("random", "alternating")


class Contestant(NamedTuple):
    """One of the two optimizers.

    Fields:
        role: ``"candidate"`` or ``"reference"``.
        make: the optimizer as a function of the learning rate.
    """

    role: str
    make: Callable[[Any], Any]

    @property
    def name(self) -> str:
        return f"check_optimizer({self.role})"

    def phases(self, *rates: Any) -> Phases:
        """Return the optimizer for each of the learning rates, each for an equal number of steps."""
        return tuple(phase for rate in rates for phase in single_phase(self.make(rate), STEPS // len(rates)))


class Evaluation(NamedTuple):
    """The updates of both optimizers on some sequences.

    Fields:
        problem: the sequences.
        candidate, reference: updates, ``(sequences, steps, entries)``.
        groups: for each sequence a number; sequences of one group have the same learning rates.
        trajectories: a pair (candidate's, reference's) for each group.
    """

    problem: Problem
    candidate: np.ndarray
    reference: np.ndarray
    groups: np.ndarray
    trajectories: tuple[tuple[Trajectory, Trajectory], ...]

    @property
    def spacing(self) -> float:
        """ε of the coarsest floating dtype in either computation."""
        return max(one.spacing for pair in self.trajectories for one in pair)

    def rows(self) -> tuple[SequenceReport, ...]:
        """Return a row for each sequence."""
        allowed = tolerances(self.reference, self.problem, self.spacing)
        return compare(self.candidate, self.reference, allowed, self.problem)


def select_problem(contestants: tuple[Contestant, Contestant], params: PyTree) -> tuple[Problem, list[PropertyReport]]:
    """Return the sequences for the parameters, with extra leaves where both optimizers accept another tree."""
    problem = make_problem(params, extra_leaves=True)
    tree = _first_sequence(problem.trees(jnp.float64)[0])
    for contestant in contestants:
        why = incompatibility(contestant.make(_RATE), tree)
        if why:
            detail = f"not checked, because the {contestant.role} accepts no tree but yours ({why})"
            properties = [PropertyReport("a scalar in nested containers", True, detail)]
            return make_problem(params, extra_leaves=False), properties
    return problem, []


def evaluate(
    contestants: tuple[Contestant, Contestant], problem: Problem, has_rate: bool
) -> tuple[Evaluation, list[PropertyReport]]:
    """Evaluate both in float64 on every sequence and, for functions of the learning rate, under changing rates."""
    parts = [_evaluate_part(contestants, problem, _RATE)]
    if has_rate:
        changing = problem.select(_CHANGING_RATE_SEQUENCES)
        reduced = _add_suffix(changing, "reduced rate")
        parts.append(_evaluate_part(contestants, reduced, _RATE, _REDUCED_RATE))
        unsupported = [_unsupported_schedule(contestant, changing) for contestant in contestants]
        properties = [item for item in unsupported if item]
        if not properties:
            parts.append(_evaluate_part(contestants, _add_suffix(changing, "schedule"), _schedule))
    else:
        detail = "not checked, because both are built already; to check it pass optax.adam, not optax.adam(1e-3)"
        properties = [PropertyReport("a changing learning rate", True, detail)]
    properties += _dtype_properties(parts, "float64")
    python_reason = parts[0].trajectories[0][0].python_reason
    if python_reason:
        detail = f"step by step in Python, because {python_reason}"
        properties.append(PropertyReport("execution of the candidate", True, detail))
    return _concatenate(parts), properties


def evaluate_in_low_precision(
    contestants: tuple[Contestant, Contestant],
    problem: Problem,
    dtype: Any,
    in_float64: Evaluation,
    exact_reference: np.ndarray,
) -> tuple[SequenceReport, list[PropertyReport]]:
    """Return one row for a low-precision dtype: that of the worst sequence.

    Args:
        contestants, problem, dtype: what to evaluate.
        in_float64: the evaluation of both in float64.
        exact_reference: the reference's updates in float64, on gradients rounded to the dtype.
    """
    name, rounded = jnp.dtype(dtype).name, problem.round_to(dtype)
    params, gradients = problem.trees(dtype)
    first, second = (
        compute_trajectory(
            contestant.name, contestant.phases(_RATE), params, gradients, is_pure=not known.python_reason
        )
        for contestant, known in zip(contestants, in_float64.trajectories[0], strict=True)
    )
    candidate, reference = flatten(first.updates), flatten(second.updates)
    with np.errstate(all="ignore"):
        error = absolute_differences(reference, exact_reference)
        allowed = tolerances(reference, rounded, float(jnp.finfo(dtype).eps), error)
    # Where the reference itself is not finite, any candidate is accepted.
    allowed = np.where(np.isfinite(reference), allowed, np.inf)
    rows = compare(candidate, reference, allowed, rounded)
    part = Evaluation(rounded, candidate, reference, np.zeros(len(candidate), int), ((first, second),))
    wrong = [row for row in rows if not row.ok]
    nearest = max(rows, key=lambda row: row.difference / row.tolerance if row.tolerance else 0.0)
    worst = wrong[0] if wrong else nearest._replace(name=f"all {len(rows)}")
    return worst._replace(name=f"{worst.name}, in {name}"), _dtype_properties([part], name)


def reference_on_rounded_gradients(reference: Contestant, problem: Problem, dtype: Any) -> np.ndarray:
    """Return the reference's updates in float64, on gradients rounded to a dtype."""
    params, gradients = problem.round_to(dtype).trees(jnp.float64)
    # With its states, so that JAX reuses the program that it compiled before.
    trajectory = compute_trajectory(
        reference.name, reference.phases(_RATE), params, gradients, with_states=True, is_pure=True
    )
    return flatten(trajectory.updates)


def _schedule(count):
    return 0.1 / (1 + 0.25 * count)


def _add_suffix(problem, suffix) -> Problem:
    return problem._replace(names=tuple(f"{name}, {suffix}" for name in problem.names))


def _unsupported_schedule(contestant, problem) -> PropertyReport | None:
    """Return the reason why an optimizer accepts no schedule, or ``None`` if it accepts one."""
    try:
        why = incompatibility(contestant.make(_schedule), _first_sequence(problem.trees(jnp.float64)[0]))
    except ValueError as error:
        why = error_summary(error)
    detail = f"not checked, because the {contestant.role} accepts none ({why}); the rate was reduced halfway"
    return PropertyReport("a schedule of the learning rate", True, detail) if why else None


def _evaluate_part(contestants, problem, *rates) -> Evaluation:
    params, gradients = problem.trees(jnp.float64)
    first, second = (
        compute_trajectory(
            contestant.name, contestant.phases(*rates), params, gradients, with_states=contestant is contestants[1]
        )
        for contestant in contestants
    )
    candidate, reference = flatten(first.updates), flatten(second.updates)
    return Evaluation(problem, candidate, reference, np.zeros(len(candidate), int), ((first, second),))


def _concatenate(parts) -> Evaluation:
    problem = parts[0].problem._replace(
        names=tuple(name for part in parts for name in part.problem.names),
        params=np.concatenate([part.problem.params for part in parts]),
        gradients=np.concatenate([part.problem.gradients for part in parts]),
    )
    candidate = np.concatenate([part.candidate for part in parts])
    reference = np.concatenate([part.reference for part in parts])
    groups = np.concatenate([np.full(len(part.candidate), number) for number, part in enumerate(parts)])
    return Evaluation(
        problem, candidate, reference, groups, tuple(pair for part in parts for pair in part.trajectories)
    )


def _dtype_properties(parts, dtype) -> list[PropertyReport]:
    """Report the changes of dtype in the candidate's updates and state that the reference's don't have."""
    of_candidate = dict.fromkeys(change for part in parts for change in part.trajectories[0][0].changes)
    of_reference = {change for part in parts for change in part.trajectories[0][1].changes}
    changes = [change for change in of_candidate if change not in of_reference]
    return [PropertyReport(f"dtypes of updates and state, in {dtype}", not changes, "; ".join(changes))]


def _first_sequence(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), tree)
