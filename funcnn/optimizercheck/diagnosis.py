"""What a candidate does otherwise: the one change to the reference's recipe that gives the candidate's updates."""

from typing import NamedTuple

import numpy as np

from funcnn.optimizercheck.comparison import agree
from funcnn.optimizercheck.fitting import fitted
from funcnn.optimizercheck.recipes import Recipe, simulate
from funcnn.optimizercheck.report import OptimizerCause
from funcnn.optimizercheck.sequences import Problem
from funcnn.optimizercheck.slips import Slip, slips

_QUICK = ("random", "zero", "tiny", "huge")
_QUICK_STEPS = 4
_MOST_NAMED = 3


class Finding(NamedTuple):
    """A cause and a sentence on it."""

    cause: OptimizerCause
    detail: str


def diagnose(
    recipe: Recipe | None, problem: Problem, candidate: np.ndarray, reference: np.ndarray, spacing: float
) -> Finding:
    """The cause of a difference in float64.

    Args:
        recipe: the reference's, or ``None`` where it follows none that is known.
        problem: the sequences; ``candidate`` and ``reference`` are the updates on them.
        spacing: ε of the coarsest numbers in either's arithmetic.
    """
    multiple = _multiple(problem, candidate, reference, spacing)
    if recipe is None:
        if multiple:
            return multiple
        return Finding(
            "unknown", "the reference follows no recipe that is known here, so none of its slips can be tried"
        )
    found = [slip for slip in slips(recipe) if _reproduces(slip.recipe, problem, candidate, spacing)]
    found = found or list(fitted(recipe, problem, candidate, spacing))
    if found:
        cause, detail = found[0].cause, found[0].detail
        others = [slip.detail for slip in found[1:]]
        others += [multiple.detail] if multiple and cause not in ("sign", "rate_scaled") else []
        also = [other for other in dict.fromkeys(others) if other != detail][: _MOST_NAMED - 1]
        return Finding(cause, "; or, which comes to the same here, ".join([detail, *also]))
    pair = _two(recipe, problem, candidate, spacing)
    if pair:
        first, second = pair
        return Finding("several", f"two things: {first.detail}; and {second.detail} ({first.cause}, {second.cause})")
    return Finding("unknown", "no single slip that is known here gives the candidate's updates")


def _reproduces(recipe, problem, candidate, spacing) -> bool:
    known = np.isfinite(recipe.rates).all(axis=0)
    simulated = simulate(recipe, problem).updates
    # A rate that nobody knows is the last step's: it moves nothing before it.
    if not known.all():
        steps = int(np.argmin(known))
        simulated, candidate = simulated[:, :steps], candidate[:, :steps]
        problem = problem._replace(gradients=problem.gradients[:, :steps])
    return agree(candidate, simulated, problem, spacing)


def _multiple(problem, candidate, reference, spacing) -> Finding | None:
    """Whether every update is the reference's times one number: no recipe is needed to see that."""
    finite = np.isfinite(candidate) & np.isfinite(reference) & (reference != 0)
    factor = float(np.median(candidate[finite] / reference[finite])) if finite.any() else 0.0
    if not factor or not agree(candidate, factor * reference, problem, spacing):
        return None
    return Finding("sign" if factor < 0 else "rate_scaled", f"every update is {factor:.6g} times the reference's")


def _two(recipe, problem, candidate, spacing) -> tuple[Slip, Slip] | None:
    """Two slips at once, told by a few steps of a few sequences before they are held against all."""
    names = [name for name in _QUICK if name in problem.names]
    few = problem.chosen(names, _QUICK_STEPS)
    rows = [problem.names.index(name) for name in names]
    wanted = candidate[rows, :_QUICK_STEPS]
    for first in slips(recipe):
        for second in slips(first.recipe):
            quick = second.recipe._replace(rates=second.recipe.rates[rows, :_QUICK_STEPS])
            if agree(wanted, simulate(quick, few).updates, few, spacing) and _reproduces(
                second.recipe, problem, candidate, spacing
            ):
                return first, second
    return None
