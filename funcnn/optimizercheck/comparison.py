"""Two optimizers' updates beside each other: which step differs first, and how far rounding may take them apart."""

import numpy as np

from funcnn.gradcheck.comparison import distances
from funcnn.optimizercheck.report import SequenceReport
from funcnn.optimizercheck.sequences import Problem

_FLOAT64 = float(np.finfo(np.float64).eps)


def share_of(spacing: float) -> tuple[float, str]:
    """The part of an update that rounding may change, by ε of the coarsest numbers in the arithmetic.

    In float64 ε^¾: a quarter of the digits is left to another order of the same operations. In anything coarser √ε,
    for there 1 − β₂ᵗ alone loses three digits of seven.
    """
    if spacing <= _FLOAT64:
        return _FLOAT64**0.75, f"ε^¾ = {_FLOAT64**0.75:.1e}"
    return spacing**0.5, f"√ε = {spacing**0.5:.1e} of the coarser float inside"


def tolerances(reference: np.ndarray, problem: Problem, spacing: float, lost: np.ndarray | None = None) -> np.ndarray:
    """The largest difference that rounding explains, for every entry of ``(sequences, steps, entries)``.

    A share of the entry's largest update so far, for moments remember; 16 ε of the leaf's, for norms mix its entries;
    and 2 ε of the leaf's largest parameter, for an update may be the difference of two parameters. ``lost``, what the
    reference itself loses in a lower dtype, counts 16 times.
    """
    spacing = max(spacing, _FLOAT64)
    with np.errstate(all="ignore"):
        sizes = np.where(np.isfinite(reference), np.abs(reference), 0.0)
        largest = np.maximum.accumulate(sizes, axis=1)
        moved = np.abs(np.cumsum(np.where(np.isfinite(reference), reference, 0.0), axis=1) + problem.params[:, None])
        allowed = share_of(spacing)[0] * largest + 16 * spacing * _by_leaf(largest, problem)
        allowed += 2 * spacing * _by_leaf(np.maximum.accumulate(moved, axis=1), problem)
        allowed += 2 * spacing * _by_leaf(np.abs(problem.params), problem)[:, None]
        if lost is not None:
            allowed += 16 * _by_leaf(np.maximum.accumulate(np.nan_to_num(lost, nan=np.inf), axis=1), problem)
    return np.nan_to_num(allowed, nan=np.inf)


def gaps(candidate: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Entry by entry; two NaNs are no distance apart, one is an infinite one."""
    apart = distances(candidate, reference)
    both = np.isnan(candidate) & np.isnan(reference)
    return np.where(both, 0.0, np.where(np.isnan(apart), np.inf, apart))


def agree(candidate: np.ndarray, reference: np.ndarray, problem: Problem, spacing: float) -> bool:
    """Whether two optimizers' updates differ by rounding alone."""
    return bool((gaps(candidate, reference) <= tolerances(reference, problem, spacing)).all())


def compared(
    candidate: np.ndarray, reference: np.ndarray, allowed: np.ndarray, problem: Problem
) -> tuple[SequenceReport, ...]:
    """A row for each sequence."""
    apart = gaps(candidate, reference)
    rows = zip(problem.names, candidate, reference, apart, allowed, strict=True)
    return tuple(_row(*row, problem) for row in rows)


def _row(name, candidate, reference, apart, allowed, problem) -> SequenceReport:
    """The first step that differs, and there the entry that differs most; without one, the nearest to the tolerance."""
    with np.errstate(all="ignore"):
        excess = np.nan_to_num(apart / allowed, nan=0.0, posinf=np.finfo(float).max)
    wrong = ~(apart <= allowed)
    ok = not wrong.any()
    step = int(np.argmax(excess.max(axis=1))) if ok else int(np.argmax(wrong.any(axis=1)))
    entry = int(np.argmax(np.where(wrong[step], excess[step], -1.0) if not ok else excess[step]))
    path, index = problem.place(entry)
    return SequenceReport(
        name, ok, None if ok else step + 1, path, index,
        float(candidate[step, entry]), float(reference[step, entry]),
        float(apart[step, entry]), float(allowed[step, entry]),
    )  # fmt: skip


def _by_leaf(numbers: np.ndarray, problem: Problem) -> np.ndarray:
    """Every entry replaced by the largest of its leaf."""
    sizes = np.diff([*problem.starts, numbers.shape[-1]])
    return np.repeat(np.maximum.reduceat(numbers, problem.starts, axis=-1), sizes, axis=-1)
