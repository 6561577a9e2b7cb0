"""Both optimizers on every sequence: in float64, while the learning rate changes, and in fewer digits."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from funcnn.gradcheck.report import PropertyReport
from funcnn.optimizercheck.comparison import compared, gaps, tolerances
from funcnn.optimizercheck.report import SequenceReport
from funcnn.optimizercheck.runs import Phases, Run, phases_of, reason, run, takes
from funcnn.optimizercheck.sequences import STEPS, Problem, awkward, flattened

LOWER = (jnp.float32, jnp.bfloat16)
_RATE, _DROPPED = 0.05, 0.005
_CHANGING = ("random", "alternating")


class Party(NamedTuple):
    """One of the two: ``"candidate"`` or ``"reference"``, and how to build it for a learning rate."""

    word: str
    make: Callable[[Any], Any]

    @property
    def name(self) -> str:
        return f"check_optimizer({self.word})"

    def phases(self, *rates: Any) -> Phases:
        """The optimizer for each of these rates, for an equal share of the steps."""
        return tuple(phase for rate in rates for phase in phases_of(self.make(rate), STEPS // len(rates)))


class Asked(NamedTuple):
    """Both optimizers on some sequences.

    ``groups`` numbers the learning rates; ``runs`` are the candidate's and the reference's, one for each part.
    """

    problem: Problem
    candidate: np.ndarray
    reference: np.ndarray
    groups: np.ndarray
    runs: tuple[tuple[Run, Run], ...]

    @property
    def spacing(self) -> float:
        """ε of the coarsest floats inside either."""
        return max(one.spacing for pair in self.runs for one in pair)

    def rows(self) -> tuple[SequenceReport, ...]:
        """A row for each sequence."""
        allowed = tolerances(self.reference, self.problem, self.spacing)
        return compared(self.candidate, self.reference, allowed, self.problem)


def problem_for(parties: tuple[Party, Party], params: PyTree) -> tuple[Problem, list[PropertyReport]]:
    """The sequences for the parameters and what stands beside them; for those alone, where one takes no other tree."""
    problem = awkward(params, beside=True)
    tree = _first(problem.trees(jnp.float64)[0])
    for party in parties:
        why = takes(party.make(_RATE), tree)
        if why:
            detail = f"not asked, for the {party.word} takes no tree but yours ({why})"
            return awkward(params, beside=False), [PropertyReport("a scalar in nested containers", True, detail)]
    return problem, []


def in_float64(parties: tuple[Party, Party], problem: Problem, has_rate: bool) -> tuple[Asked, list[PropertyReport]]:
    """Every sequence, and where the learning rate can be chosen, some while it changes."""
    parts = [_part(parties, problem, _RATE)]
    if has_rate:
        changing = problem.chosen(_CHANGING)
        parts.append(_part(parties, _named(changing, "the rate dropped"), _RATE, _DROPPED))
        properties = [_no_schedule(party, changing) for party in parties]
        if not any(properties):
            parts.append(_part(parties, _named(changing, "under a schedule"), _schedule))
    else:
        detail = "not asked, for both were built already; pass optax.adam, not optax.adam(1e-3), to have that too"
        properties = [PropertyReport("a changing learning rate", True, detail)]
    found = [item for item in properties if item] + _kept(parts, "float64")
    why_python = parts[0].runs[0][0].why_python
    if why_python:
        found.append(PropertyReport("how the candidate ran", True, f"step by step in Python, for {why_python}"))
    return _together(parts), found


def in_lower(
    parties: tuple[Party, Party], problem: Problem, dtype: Any, wide: Asked, in_float64: np.ndarray
) -> tuple[SequenceReport, list[PropertyReport]]:
    """One row for a lower dtype: its worst sequence.

    Args:
        parties, problem, dtype: whom and what to ask, and in which dtype.
        wide: both in float64.
        in_float64: the reference's updates in float64, on gradients rounded to the dtype.
    """
    name, rounded = jnp.dtype(dtype).name, problem.rounded(dtype)
    params, gradients = problem.trees(dtype)
    first, second = (
        run(party.name, party.phases(_RATE), params, gradients, known=not known.why_python)
        for party, known in zip(parties, wide.runs[0], strict=True)
    )
    candidate, reference = flattened(first.updates), flattened(second.updates)
    with np.errstate(all="ignore"):
        allowed = tolerances(reference, rounded, float(jnp.finfo(dtype).eps), gaps(reference, in_float64))
    # Where the reference's own digits are gone, a candidate that has a number is no worse.
    allowed = np.where(np.isfinite(reference), allowed, np.inf)
    rows = compared(candidate, reference, allowed, rounded)
    part = Asked(rounded, candidate, reference, np.zeros(len(candidate), int), ((first, second),))
    wrong = [row for row in rows if not row.ok]
    nearest = max(rows, key=lambda row: row.difference / row.tolerance if row.tolerance else 0.0)
    worst = wrong[0] if wrong else nearest._replace(name=f"all {len(rows)}")
    return worst._replace(name=f"{worst.name}, in {name}"), _kept([part], name)


def reference_on_rounded(reference: Party, problem: Problem, dtype: Any) -> np.ndarray:
    """The reference's updates in float64, on gradients rounded to a dtype."""
    params, gradients = problem.rounded(dtype).trees(jnp.float64)
    # With its states, as it was compiled before.
    done = run(reference.name, reference.phases(_RATE), params, gradients, with_states=True, known=True)
    return flattened(done.updates)


def _schedule(count):
    return 0.1 / (1 + 0.25 * count)


def _named(problem, words) -> Problem:
    return problem._replace(names=tuple(f"{name}, {words}" for name in problem.names))


def _no_schedule(party, problem) -> PropertyReport | None:
    """That an optimizer takes no schedule, and why."""
    try:
        why = takes(party.make(_schedule), _first(problem.trees(jnp.float64)[0]))
    except ValueError as error:
        why = reason(error)
    detail = f"not asked, for the {party.word} takes none ({why}); the rate was dropped halfway"
    return PropertyReport("a schedule of the learning rate", True, detail) if why else None


def _part(parties, problem, *rates) -> Asked:
    params, gradients = problem.trees(jnp.float64)
    first, second = (
        run(party.name, party.phases(*rates), params, gradients, with_states=party is parties[1]) for party in parties
    )
    candidate, reference = flattened(first.updates), flattened(second.updates)
    return Asked(problem, candidate, reference, np.zeros(len(candidate), int), ((first, second),))


def _together(parts) -> Asked:
    problem = parts[0].problem._replace(
        names=tuple(name for part in parts for name in part.problem.names),
        params=np.concatenate([part.problem.params for part in parts]),
        gradients=np.concatenate([part.problem.gradients for part in parts]),
    )
    candidate = np.concatenate([part.candidate for part in parts])
    reference = np.concatenate([part.reference for part in parts])
    groups = np.concatenate([np.full(len(part.candidate), number) for number, part in enumerate(parts)])
    return Asked(problem, candidate, reference, groups, tuple(pair for part in parts for pair in part.runs))


def _kept(parts, dtype) -> list[PropertyReport]:
    """What the candidate's updates and state don't keep, where the reference's do."""
    mine = dict.fromkeys(change for part in parts for change in part.runs[0][0].changes)
    theirs = {change for part in parts for change in part.runs[0][1].changes}
    changes = [change for change in mine if change not in theirs]
    return [PropertyReport(f"dtypes of updates and state, in {dtype}", not changes, "; ".join(changes))]


def _first(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), tree)
