"""Comparison of two optimizers' updates: tolerances, and the first step that differs."""

import numpy as np

from funcnn._numerics.arrays import distances
from funcnn.optimizercheck.report import SequenceReport
from funcnn.optimizercheck.sequences import Problem

_FLOAT64 = float(np.finfo(np.float64).eps)


def relative_tolerance(spacing: float) -> tuple[float, str]:
    """Return the share of an update that rounding may change, and its formula as text.

    In float64 it is ε^¾, which leaves a quarter of the digits to another order of the same operations. In a coarser
    dtype it is √ε, because 1 − β₂ᵗ alone loses three of seven digits there.

    Args:
        spacing: ε of the coarsest floating dtype in the computation.
    """
    if spacing <= _FLOAT64:
        return _FLOAT64**0.75, f"ε^¾ = {_FLOAT64**0.75:.1e}"
    return spacing**0.5, f"√ε = {spacing**0.5:.1e} of the coarser float inside"


def tolerances(reference: np.ndarray, problem: Problem, spacing: float, error: np.ndarray | None = None) -> np.ndarray:
    """Return the largest difference that rounding explains, for every entry of ``(sequences, steps, entries)``.

    It is the sum of: a share of the entry's largest update so far, because moments accumulate; 16 ε of the leaf's
    largest update, because norms mix its entries; and 2 ε of the leaf's largest parameter, because an update may be the
    difference of two parameters.

    Args:
        reference: the reference's updates.
        problem: the sequences.
        spacing: ε of the coarsest floating dtype in the computation.
        error: the rounding error of the reference in a lower dtype, counted 16 times.
    """
    spacing = max(spacing, _FLOAT64)
    with np.errstate(all="ignore"):
        sizes = np.where(np.isfinite(reference), np.abs(reference), 0.0)
        largest = np.maximum.accumulate(sizes, axis=1)
        moved = np.abs(np.cumsum(np.where(np.isfinite(reference), reference, 0.0), axis=1) + problem.params[:, None])
        allowed = relative_tolerance(spacing)[0] * largest + 16 * spacing * _leaf_maximum(largest, problem)
        allowed += 2 * spacing * _leaf_maximum(np.maximum.accumulate(moved, axis=1), problem)
        allowed += 2 * spacing * _leaf_maximum(np.abs(problem.params), problem)[:, None]
        if error is not None:
            errors = np.maximum.accumulate(np.nan_to_num(error, nan=np.inf), axis=1)
            allowed += 16 * _leaf_maximum(errors, problem)
    return np.nan_to_num(allowed, nan=np.inf)


def absolute_differences(candidate: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the absolute difference of every entry: 0 where both are NaN, infinite where one is."""
    difference = distances(candidate, reference)
    both = np.isnan(candidate) & np.isnan(reference)
    return np.where(both, 0.0, np.where(np.isnan(difference), np.inf, difference))


def is_close(candidate: np.ndarray, reference: np.ndarray, problem: Problem, spacing: float) -> bool:
    """Return whether two optimizers' updates differ only by rounding."""
    return bool((absolute_differences(candidate, reference) <= tolerances(reference, problem, spacing)).all())


def compare(
    candidate: np.ndarray, reference: np.ndarray, allowed: np.ndarray, problem: Problem
) -> tuple[SequenceReport, ...]:
    """Return a row for each sequence."""
    differences = absolute_differences(candidate, reference)
    rows = zip(problem.names, candidate, reference, differences, allowed, strict=True)
    return tuple(_row(*row, problem) for row in rows)


def _row(name, candidate, reference, differences, allowed, problem) -> SequenceReport:
    """Return the entry that differs most at the first step that differs, else the entry nearest to its tolerance."""
    with np.errstate(all="ignore"):
        excess = np.nan_to_num(differences / allowed, nan=0.0, posinf=np.finfo(float).max)
    wrong = ~(differences <= allowed)
    ok = not wrong.any()
    step = int(np.argmax(excess.max(axis=1))) if ok else int(np.argmax(wrong.any(axis=1)))
    entry = int(np.argmax(np.where(wrong[step], excess[step], -1.0) if not ok else excess[step]))
    path, index = problem.locate(entry)
    return SequenceReport(
        name, ok, None if ok else step + 1, path, index,
        float(candidate[step, entry]), float(reference[step, entry]),
        float(differences[step, entry]), float(allowed[step, entry]),
    )  # fmt: skip


def _leaf_maximum(numbers: np.ndarray, problem: Problem) -> np.ndarray:
    """Replace every entry by the largest of its leaf."""
    sizes = np.diff([*problem.starts, numbers.shape[-1]])
    return np.repeat(np.maximum.reduceat(numbers, problem.starts, axis=-1), sizes, axis=-1)
