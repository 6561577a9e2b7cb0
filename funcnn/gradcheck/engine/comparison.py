"""Comparing two gradients leaf by leaf: shapes and dtypes first, then values; and the tolerances, with their origin."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnn._numerics.arrays import distances, max_abs
from funcnn._numerics.program import trace
from funcnn._numerics.rounding import coarser_dtypes, rounding_noise
from funcnn.gradcheck.engine.precision import Judged
from funcnn.gradcheck.report import Cause, LeafReport

_MOST_SHOWN = 48


class Tolerance(NamedTuple):
    """The largest difference that rounding explains, and where that figure comes from."""

    size: float
    origin: str


class Pair(NamedTuple):
    """One gradient by hand and by its reference, in the precision of the comparison, beside what it is a gradient of.

    ``own`` is the hand-written one as the caller's function returned it, in the caller's own dtype.
    """

    path: str
    shape: tuple[int, ...]
    dtype: Any
    own: Any
    by_hand: np.ndarray
    reference: np.ndarray


def relative_tolerances(judged: Judged, pairs: list[Pair]) -> list[Tolerance]:
    """ε^¾ of each leaf's largest entry: a quarter of the digits are left to the different order of the same sums."""
    share = judged.spacing**0.75
    origin = f"ε^¾ = {share:.1e} of the leaf's largest entry"
    return [Tolerance(share * max_abs(pair.reference), origin) for pair in pairs]


def noise_tolerances(judged: Judged, pairs: list[Pair]) -> list[Tolerance]:
    """On top of ``relative_tolerances``, 16 times the rounding in each leaf, measured in both gradients' programs.

    Where a hand-written gradient can't be traced, 16 ε of the tree's largest entry stand in for its rounding, but no
    more than half of a leaf that is larger than that.
    """
    base, params = relative_tolerances(judged, pairs), judged.evaluated.params
    autodiff_program = trace(jax.grad(judged.evaluated.loss), params)
    floors = [0.0] * len(pairs)
    origin = "16 × the rounding measured in the leaf"
    for program in (autodiff_program, judged.gradient_program):
        if program is not None and not coarser_dtypes(program, judged.spacing):
            measured = rounding_noise(program, params)[: len(pairs)]
            floors = [max(floor, 16 * noise) for floor, noise in zip(floors, measured, strict=True)]
    if autodiff_program is None or judged.gradient_program is None:
        tree = 16 * judged.spacing * max((max_abs(pair.reference) for pair in pairs), default=0.0)
        sizes = [max_abs(pair.reference) for pair in pairs]
        floors = [max(floor, shared_floor(tree, size)) for floor, size in zip(floors, sizes, strict=True)]
        origin = "16 ε of the tree's largest entry"
    return [
        Tolerance(relative.size + floor, f"{relative.origin}, and {origin}")
        for relative, floor in zip(base, floors, strict=True)
    ]


def shared_floor(floor: float, size: float) -> float:
    """What the rounding of other leaves adds to a leaf's tolerance: no more than half of a leaf that is larger."""
    return floor if size <= floor else min(floor, size / 2)


def compare(pair: Pair, tolerance: Tolerance) -> LeafReport:
    """One row of a report. A difference in values has the cause ``unknown`` until it is diagnosed."""
    cause: Cause | None = None
    worst: tuple[int, ...] = ()
    detail, values, difference, exact = "", (math.nan, math.nan), math.nan, False
    if np.shape(pair.own) != pair.shape or pair.by_hand.shape != pair.reference.shape:
        cause, detail = "shape", f"shape {np.shape(pair.own)} where the value has {pair.shape}"
        detail += _same_numbers(pair)
    else:
        gaps = distances(pair.by_hand, pair.reference)
        if gaps.size:
            worst = tuple(int(i) for i in np.unravel_index(np.argmax(gaps), gaps.shape))  # a NaN before all else
            values, difference = (pair.by_hand[worst].item(), pair.reference[worst].item()), float(gaps[worst])
        else:
            difference = 0.0
        exact = bool(np.array_equal(pair.by_hand, pair.reference))
        given = getattr(pair.own, "dtype", pair.dtype)  # a Python number has none, and takes any
        # NumPy computes in float64 whatever JAX is set to: more digits than the value's are no mistake of NumPy's.
        is_wider = isinstance(pair.own, np.ndarray | np.generic) and np.promote_types(given, pair.dtype) == given
        if given != pair.dtype and not (is_wider and jnp.issubdtype(given, jnp.inexact)):
            cause, detail = "dtype", f"dtype {given} where the value has {pair.dtype}"
        elif not difference <= tolerance.size:
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
        tolerance=tolerance.size,
        cause=cause,
        detail=detail,
        tolerance_origin=tolerance.origin,
        worst=worst,
        by_hand=values[0],
        by_autodiff=values[1],
        differences=() if cause in (None, "shape") else _picture(pair.by_hand - pair.reference),
    )


def _same_numbers(pair):
    numbers, reference = np.squeeze(pair.by_hand), np.squeeze(pair.reference)
    for word, candidate in {"": numbers, ", transposed": numbers.T}.items():
        if candidate.shape == reference.shape and np.allclose(candidate, reference, rtol=1e-5, atol=0):
            return f"; the numbers are right{word}"
    has_axis_more = numbers.ndim == reference.ndim + 1 and numbers.shape[1:] == reference.shape
    if has_axis_more and np.allclose(numbers.sum(axis=0), reference, rtol=1e-5):
        return "; right once summed over the first axis: the samples' gradients add up"
    return ""


def _picture(differences):
    """At most 48 rows and columns, each entry the largest of its block."""
    flat = np.real(differences)
    rows = flat.reshape(1, -1) if flat.ndim < 2 else flat.reshape(flat.shape[0], -1)
    for axis in (0, 1):
        starts = np.unique(np.linspace(0, rows.shape[axis], _MOST_SHOWN, endpoint=False).astype(int))
        if rows.shape[axis] > _MOST_SHOWN:
            high, low = np.maximum.reduceat(rows, starts, axis=axis), np.minimum.reduceat(rows, starts, axis=axis)
            rows = np.where(high > -low, high, low)
    return tuple(tuple(map(float, row)) for row in rows)
