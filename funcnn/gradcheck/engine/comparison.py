"""The comparison of two gradients, leaf by leaf: shapes, dtypes and values, and the tolerances with their origin."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from funcnn._numerics.arrays import distances, max_abs
from funcnn._numerics.rounding import coarser_dtypes, rounding_noise
from funcnn.gradcheck.engine.precision import Comparison
from funcnn.gradcheck.report import Cause, LeafReport

_MAX_SHOWN = 48


class Tolerance(NamedTuple):
    """The largest difference that rounding explains, and the origin of this number."""

    size: float
    origin: str


class Pair(NamedTuple):
    """The hand-written gradient of a leaf and its reference, in the precision of the comparison.

    Fields:
        path, shape, dtype: of the value that is differentiated.
        own: the hand-written gradient in the caller's own dtype, as the caller's function returned it.
        by_hand, reference: both gradients.
        errors: the uncertainty of each entry of the reference; ``None`` if it has none.
    """

    path: str
    shape: tuple[int, ...]
    dtype: Any
    own: Any
    by_hand: np.ndarray
    reference: np.ndarray
    errors: np.ndarray | None = None


def relative_tolerances(comparison: Comparison, pairs: list[Pair]) -> list[Tolerance]:
    """Return ε^¾ of each leaf's largest entry: another order of the same sums may change a quarter of the digits."""
    share = comparison.spacing**0.75
    origin = f"ε^¾ = {share:.1e} of the leaf's largest entry"
    variation = comparison.variation or (0.0,) * len(pairs)
    return [
        Tolerance(share * max_abs(pair.reference) + 16 * each, origin)
        for pair, each in zip(pairs, variation, strict=True)
    ]


def noise_tolerances(comparison: Comparison, pairs: list[Pair]) -> list[Tolerance]:
    """Return ``relative_tolerances`` plus 16 times the rounding of each leaf, measured in both gradients' programs.

    For a hand-written gradient that can't be traced, 16 ε of the tree's largest entry replace its rounding, but no more
    than half of a leaf that is larger than that.
    """
    base, params = relative_tolerances(comparison, pairs), comparison.gradients.params
    autodiff, by_hand = comparison.programs.autodiff, comparison.programs.by_hand
    floors = [0.0] * len(pairs)
    origin = "16 × the rounding measured in the leaf"
    programs = {0: by_hand, 1: autodiff}  # autodiff's program returns the loss first
    known = {
        skipped: program
        for skipped, program in programs.items()
        if program is not None and not coarser_dtypes(program, comparison.spacing)
    }
    for skipped, noise in zip(known, rounding_noise(list(known.values()), params), strict=True):
        measured = noise[skipped : skipped + len(pairs)]
        floors = [max(floor, 16 * part) for floor, part in zip(floors, measured, strict=True)]
    tree = max((max_abs(pair.reference) for pair in pairs), default=0.0)
    if autodiff is None or by_hand is None:
        sizes = [max_abs(pair.reference) for pair in pairs]
        shared = 16 * comparison.spacing * tree
        floors = [max(floor, shared_floor(shared, size)) for floor, size in zip(floors, sizes, strict=True)]
        origin = "16 ε of the tree's largest entry"
    for number, pair in enumerate(pairs):
        # A leaf is nil beside the others where one gradient is 0 and the other rounds to it, or both are far below.
        ours, theirs = max_abs(pair.by_hand), max_abs(pair.reference)
        nil = comparison.spacing ** (1.0 if not ours or not theirs else 1.5) * tree
        if max(ours, theirs) <= nil:
            floors[number] = max(floors[number], 2 * nil)
    return [
        Tolerance(relative.size + floor, f"{relative.origin}, and {origin}")
        for relative, floor in zip(base, floors, strict=True)
    ]


def shared_floor(floor: float, size: float) -> float:
    """Return what the rounding of other leaves adds to a leaf's tolerance: at most half of a leaf that is larger."""
    return floor if size <= floor else min(floor, size / 2)


def compare(pair: Pair, tolerance: Tolerance) -> LeafReport:
    """Return the row of a report. A difference in values has the cause ``unknown`` until it is diagnosed."""
    cause: Cause | None = None
    worst: tuple[int, ...] = ()
    detail, values, difference, exact = "", (math.nan, math.nan), math.nan, False
    if np.shape(pair.own) != pair.shape or pair.by_hand.shape != pair.reference.shape:
        cause, detail = "shape", f"shape {np.shape(pair.own)} where the value has {pair.shape}"
        detail += _describe_equal_numbers(pair)
    else:
        gaps = distances(pair.by_hand, pair.reference)
        excess = gaps if pair.errors is None else np.where(np.isfinite(gaps), np.maximum(gaps - pair.errors, 0.0), gaps)
        if gaps.size:
            worst = tuple(
                int(i) for i in np.unravel_index(np.argmax(excess), gaps.shape)
            )  # the first NaN, if there is one
            values, difference = (pair.by_hand[worst].item(), pair.reference[worst].item()), float(gaps[worst])
            beyond = float(excess[worst])
        else:
            difference = beyond = 0.0
        exact = bool(np.array_equal(pair.by_hand, pair.reference))
        given = getattr(pair.own, "dtype", pair.dtype)  # a Python number has no dtype, and fits any
        # NumPy computes in float64 whatever JAX is set to: a wider dtype of NumPy is no mistake.
        is_wider = isinstance(pair.own, np.ndarray | np.generic) and np.promote_types(given, pair.dtype) == given
        if given != pair.dtype and not (is_wider and jnp.issubdtype(given, jnp.inexact)):
            cause, detail = "dtype", f"dtype {given} where the value has {pair.dtype}"
        elif not beyond <= tolerance.size:
            cause = "unknown"
    scale = max_abs(pair.reference)
    return LeafReport(
        path=pair.path,
        shape=pair.shape,
        dtype=str(pair.dtype),
        ok=cause is None,
        exact=exact,
        max_abs_difference=difference,
        relative_difference=difference / scale if scale else (0.0 if difference == 0 else difference * math.inf),
        tolerance=tolerance.size + (max_abs(pair.errors) if pair.errors is not None else 0.0),
        cause=cause,
        detail=detail,
        tolerance_origin=tolerance.origin,
        worst=worst,
        by_hand=values[0],
        by_autodiff=values[1],
        differences=() if cause in (None, "shape") else _blocks(pair.by_hand - pair.reference),
    )


def _describe_equal_numbers(pair):
    numbers, reference = np.squeeze(pair.by_hand), np.squeeze(pair.reference)
    for word, candidate in {"": numbers, ", transposed": numbers.T}.items():
        if candidate.shape == reference.shape and np.allclose(candidate, reference, rtol=1e-5, atol=0):
            return f"; the numbers are right{word}"
    has_axis_more = numbers.ndim == reference.ndim + 1 and numbers.shape[1:] == reference.shape
    if has_axis_more and np.allclose(numbers.sum(axis=0), reference, rtol=1e-5):
        return "; right once summed over the first axis: the samples' gradients add up"
    return ""


def _blocks(differences):
    """Return at most 48 rows and columns of the differences, each entry the largest of its block."""
    flat = np.real(differences)
    rows = flat.reshape(1, -1) if flat.ndim < 2 else flat.reshape(flat.shape[0], -1)
    for axis in (0, 1):
        starts = np.unique(np.linspace(0, rows.shape[axis], _MAX_SHOWN, endpoint=False).astype(int))
        if rows.shape[axis] > _MAX_SHOWN:
            high, low = np.maximum.reduceat(rows, starts, axis=axis), np.minimum.reduceat(rows, starts, axis=axis)
            rows = np.where(high > -low, high, low)
    return tuple(tuple(map(float, row)) for row in rows)
