"""Diagnosis of a candidate: the one change to the reference's update rule that reproduces the candidate's updates."""

from typing import NamedTuple

import numpy as np

from funcnn.optimizercheck.comparison import is_close
from funcnn.optimizercheck.fitting import fit_coefficients
from funcnn.optimizercheck.mutations import Mutation, mutations
from funcnn.optimizercheck.report import OptimizerCause
from funcnn.optimizercheck.sequences import Problem
from funcnn.optimizercheck.update_rules import UpdateRule, simulate

_SCREENING_SEQUENCES = ("random", "zero", "tiny", "huge")
_SCREENING_STEPS = 4
_MAX_DETAILS = 3


class Diagnosis(NamedTuple):
    """A cause and a sentence that describes it."""

    cause: OptimizerCause
    detail: str


def diagnose(
    rule: UpdateRule | None, problem: Problem, candidate: np.ndarray, reference: np.ndarray, spacing: float
) -> Diagnosis:
    """Return the cause of a difference in float64.

    Args:
        rule: the reference's update rule, or ``None`` if it was not identified.
        problem: the sequences.
        candidate, reference: the updates on them.
        spacing: ε of the coarsest floating dtype in either computation.
    """
    multiple = _constant_multiple(problem, candidate, reference, spacing)
    if rule is None:
        if multiple:
            return multiple
        detail = "the reference follows no known update rule, so no change of it can be tried"
        return Diagnosis("unknown", detail)
    found = [mutation for mutation in mutations(rule) if _is_reproduced(mutation.rule, problem, candidate, spacing)]
    found = found or list(fit_coefficients(rule, problem, candidate, spacing))
    if found:
        cause, detail = found[0].cause, found[0].detail
        others = [mutation.detail for mutation in found[1:]]
        others += [multiple.detail] if multiple and cause not in ("sign", "rate_scaled") else []
        equivalent = [other for other in dict.fromkeys(others) if other != detail][: _MAX_DETAILS - 1]
        return Diagnosis(cause, "; or, equivalently here, ".join([detail, *equivalent]))
    pair = _find_two_mutations(rule, problem, candidate, spacing)
    if pair:
        first, second = pair
        detail = f"two changes: {first.detail}; and {second.detail} ({first.cause}, {second.cause})"
        return Diagnosis("several", detail)
    return Diagnosis("unknown", "no single known change of the reference's update rule gives the candidate's updates")


def _is_reproduced(rule, problem, candidate, spacing) -> bool:
    """Return whether the simulated rule gives the candidate's updates."""
    known = np.isfinite(rule.rates).all(axis=0)
    simulated = simulate(rule, problem).updates
    # Only the rate of the last steps can be unknown. Those steps are left out.
    if not known.all():
        steps = int(np.argmin(known))
        simulated, candidate = simulated[:, :steps], candidate[:, :steps]
        problem = problem._replace(gradients=problem.gradients[:, :steps])
    return is_close(candidate, simulated, problem, spacing)


def _constant_multiple(problem, candidate, reference, spacing) -> Diagnosis | None:
    """Return a diagnosis if every update is a constant times the reference's. No update rule is needed for that."""
    finite = np.isfinite(candidate) & np.isfinite(reference) & (reference != 0)
    factor = float(np.median(candidate[finite] / reference[finite])) if finite.any() else 0.0
    if not factor or not is_close(candidate, factor * reference, problem, spacing):
        return None
    return Diagnosis("sign" if factor < 0 else "rate_scaled", f"every update is {factor:.6g} times the reference's")


def _find_two_mutations(rule, problem, candidate, spacing) -> tuple[Mutation, Mutation] | None:
    """Return two mutations that reproduce the candidate together.

    A few steps of a few sequences screen the pairs before they are compared on all.
    """
    names = [name for name in _SCREENING_SEQUENCES if name in problem.names]
    few = problem.select(names, _SCREENING_STEPS)
    rows = [problem.names.index(name) for name in names]
    expected = candidate[rows, :_SCREENING_STEPS]
    for first in mutations(rule):
        for second in mutations(first.rule):
            short = second.rule._replace(rates=second.rule.rates[rows, :_SCREENING_STEPS])
            if is_close(expected, simulate(short, few).updates, few, spacing) and _is_reproduced(
                second.rule, problem, candidate, spacing
            ):
                return first, second
    return None
