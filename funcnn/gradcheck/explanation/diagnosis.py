"""The diagnosis of wrong leaves: the first cause that explains all of a leaf's difference."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from funcnn._numerics.arrays import max_abs
from funcnn._numerics.precision import allow_promotion, copy_arrays
from funcnn._numerics.rounding import coarser_dtypes
from funcnn.gradcheck.explanation.causes import EXACT, LOOSE, Detector
from funcnn.gradcheck.explanation.counts import counts
from funcnn.gradcheck.explanation.difference import describe_difference
from funcnn.gradcheck.explanation.forward_pass import record
from funcnn.gradcheck.explanation.leaf import Diagnosis, Facts, Leaf, WrongLeaf, loosen_tolerances, normalize
from funcnn.gradcheck.explanation.mutations import ALONE, FAMILIES, LAST, OF_TIES
from funcnn.gradcheck.explanation.numbers import is_close
from funcnn.gradcheck.explanation.problem import Problem
from funcnn.gradcheck.explanation.recording import record_numpy
from funcnn.gradcheck.explanation.search import Target, search
from funcnn.gradcheck.explanation.situation import Situation
from funcnn.gradcheck.report import LeafReport

_NEAR = 1e-6  # between the gradient by a recorded program and the measured one
_ROUNDING = 1e-10
_SHARE_ALONE = 0.3  # of the work of the first search
_SHARE_LAST = 0.2


def diagnose_leaves(
    problem: Problem,
    rows: Sequence[LeafReport],
    by_hand: Sequence[np.ndarray],
    references: Sequence[Sequence[np.ndarray]],
) -> list[LeafReport]:
    """Return the rows of a report with the causes of their differences.

    Args:
        problem: the loss, and the point.
        rows: a row for each parameter. Those with the cause ``unknown`` and no detail are diagnosed.
        by_hand: the gradient by hand, an array for each row.
        references: what the gradient by hand may mean, likewise: autodiff's gradient, and at a kink either side. The
            one that explains most leaves is taken.
    """
    if all(row.cause != "unknown" or row.detail for row in rows):
        return list(rows)
    with allow_promotion():
        diagnoses = [_diagnose_by(problem, rows, by_hand, reference) for reference in references]
    return min(diagnoses, key=_count_unexplained)


def _diagnose_by(problem, rows, by_hand, reference) -> list[LeafReport]:
    params = [np.asarray(leaf) for leaf in jax.tree.leaves(problem.params)]
    leaves = [
        Leaf(row.path, ours, expected, param, row.tolerance)
        for row, ours, expected, param in zip(rows, by_hand, reference, params, strict=True)
    ]
    if problem.program is None:
        problem, leaves = _with_recorded_program(problem, leaves)
    facts = Facts(leaves, problem.sizes(), counts(problem), problem.contributions)
    loose = loosen_tolerances(facts, max((float(jnp.finfo(row.dtype).eps) for row in rows), default=0.0))

    sought = [number for number, row in enumerate(rows) if row.cause == "unknown" and not row.detail]
    found = {
        number: diagnosis
        for number in sought
        if (diagnosis := detect(number, facts, EXACT) or detect(number, loose, EXACT)) is not None
    }
    if len(found) < len(sought):
        found |= diagnose_by_program(problem, loose, [number for number in sought if number not in found])

    def with_cause(row, number):
        if number not in sought:
            return row
        diagnoses = (found.get(number) or detect(number, facts, LOOSE) or detect(number, loose, LOOSE),)
        cause, detail = diagnoses[0] or ("unknown", describe_difference(facts.leaves[number], facts))
        coarse = _describe_coarse_dtypes(problem, row) if cause == "unknown" else ""
        if coarse:
            cause, detail = "dtype", detail + coarse
        return row._replace(cause=cause, detail=detail)

    return [with_cause(row, number) for number, row in enumerate(rows)]


def _describe_coarse_dtypes(problem, row) -> str:
    """Return that a gradient rounds to a coarser dtype than the loss, if it is right to the digits of that dtype."""
    program = problem.gradient_program
    for dtype in coarser_dtypes(program, problem.spacing) if program else ():
        if row.relative_difference <= float(jnp.finfo(dtype).eps) ** 0.75:
            return f"; by hand it is rounded to {dtype} on the way, and right to the digits of that"
    return ""


def _count_unexplained(rows):
    """Return the number of leaves without a cause, and the number of different causes."""
    return sum(row.cause == "unknown" for row in rows), len({row.cause for row in rows})


def diagnose(position: int, facts: Facts) -> Diagnosis:
    """Return the cause of one leaf's difference, and a sentence that describes it.

    Args:
        position: the position of the leaf in ``facts.leaves``.
        facts: every leaf, and the data of the problem.
    """
    return detect(position, facts, (*EXACT, *LOOSE)) or ("unknown", describe_difference(facts.leaves[position], facts))


def detect(position: int, facts: Facts, detectors: Sequence[Detector]) -> Diagnosis | None:
    """Return what the first of some detectors says of a leaf that explains its difference."""
    leaf = facts.leaves[position]
    if not (np.isfinite(leaf.by_hand) & np.isfinite(leaf.reference)).all():
        return _diagnose_nonfinite(leaf)
    if is_close(leaf.by_hand, leaf.reference, leaf.tolerance):
        return None
    wrong = WrongLeaf(leaf, normalize(leaf), position, facts)
    return next((diagnosis for detector in detectors if (diagnosis := detector(wrong)) is not None), None)


def diagnose_by_program(problem: Problem, facts: Facts, sought: Sequence[int]) -> dict[int, Diagnosis]:
    """Return the causes that wrong backward passes of the loss confirm, by the positions of the leaves.

    Args:
        problem: the loss.
        facts: every leaf, with tolerances as wide as the rounding of the data.
        sought: the positions of the leaves without a cause. A wrong backward pass that explains them may explain
            others as well.
    """
    tape = record(problem.program, problem.params) if problem.program is not None else None
    if tape is None:
        return {}
    target = Target(tape, facts, sought)
    situation = Situation(tape, problem, target)
    results = search(target, (family(situation) for family in FAMILIES))
    if not results and (other := situation.with_first_winners()) is not None:
        results = search(other.target, (family(other) for family in OF_TIES), _SHARE_ALONE)
    found = {number: result.diagnosis for result in results[::-1] for number in result.explained}
    left = [number for number in sought if number not in found and detect(number, facts, LOOSE) is None]
    if left:
        results = search(target, (family(situation) for family in LAST), _SHARE_LAST)
        # One mistake that explains all leaves is likelier than several.
        of_all = any(result.explained >= set(sought) for result in results)
        replaced = set(sought) if of_all else set(left)
        found |= {number: result.diagnosis for result in results for number in result.explained & replaced}
    left = [number for number in left if number not in found]
    # Of one leaf alone, the searches below would be those above.
    for number in left if len(facts.leaves) > 1 else ():
        alone = situation.of_one_leaf(number)
        for result in search(alone.target, (family(alone) for family in ALONE), _SHARE_ALONE / len(left)):
            cause, detail = result.diagnosis
            found[number] = cause, f"{detail}, for the gradient of {facts.leaves[number].path or 'it'} alone"
    return found


def _with_recorded_program(problem: Problem, leaves: list[Leaf]) -> tuple[Problem, list[Leaf]]:
    """Return the problem with the program of a loss in NumPy, and the leaves with the gradient by this program.

    Both are unchanged where the program's value isn't that of the loss, or where its gradient isn't the measured one.
    """
    program = record_numpy(problem.loss, problem.params, problem.arguments) if problem.loss is not None else None
    tape = record(program, problem.params) if program is not None else None
    if problem.loss is None or tape is None:
        return problem, leaves
    value, there = tape.values[tape.result], problem.loss(*copy_arrays((problem.params, *problem.arguments)))
    size = max((max_abs(leaf.reference) for leaf in leaves), default=0.0)
    is_same = abs(value - there) <= _NEAR * abs(value) and all(
        is_close(gradient, leaf.reference, leaf.tolerance + _NEAR * size)
        for gradient, leaf in zip(tape.right_gradient, leaves, strict=True)
    )
    if not is_same:
        return problem, leaves
    rounding = max(_ROUNDING, 64 * problem.spacing)

    def exact(leaf, gradient):
        tolerance = min(leaf.tolerance, rounding * max(max_abs(gradient), _NEAR * size))
        is_wrong = np.any(np.abs(leaf.by_hand - leaf.reference) > leaf.tolerance)
        return leaf._replace(reference=gradient, tolerance=tolerance) if is_wrong else leaf

    leaves = [exact(leaf, gradient) for leaf, gradient in zip(leaves, tape.right_gradient, strict=True)]
    return problem._replace(program=program), leaves


def _diagnose_nonfinite(leaf) -> Diagnosis:
    finite = np.isfinite(leaf.by_hand) & np.isfinite(leaf.reference)
    first = tuple(int(i) for i in np.argwhere(~finite)[0])
    values = f"{leaf.by_hand[first]} by hand and {leaf.reference[first]} by autodiff, first at index {first}"
    if np.isfinite(leaf.by_hand).all():
        return "unknown", f"{values}; autodiff has no value there, and the one by hand isn't the loss's slope"
    return "nonfinite", values
