"""Comparison of arrays in NumPy's float64."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def as_float64(array: Any) -> np.ndarray:
    """Return an array's values in NumPy's float64, or complex128 if they are complex."""
    values = np.asarray(array)
    return values.astype(np.complex128 if np.iscomplexobj(values) else np.float64)


def max_abs(array: ArrayLike) -> float:
    """Return the largest finite absolute entry, 0 if there is none."""
    sizes = np.abs(array)
    peak = np.max(sizes, initial=0.0)
    return float(peak if np.isfinite(peak) else np.max(sizes, initial=0.0, where=np.isfinite(sizes)))


def distances(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """Return the absolute difference of every entry; 0 for two equal infinities."""
    first, second = np.asarray(first), np.asarray(second)
    with np.errstate(invalid="ignore"):
        gaps = np.asarray(np.abs(first - second))
        return gaps if np.isfinite(gaps).all() else np.where(first == second, 0.0, gaps)
