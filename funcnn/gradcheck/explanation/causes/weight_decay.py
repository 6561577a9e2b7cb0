"""Cause ``offset_by_parameter``: a multiple of the parameter, of its rows or of its sign is missing or added."""

import numpy as np

from funcnn._numerics.arrays import max_abs
from funcnn.gradcheck.explanation.leaf import Diagnosis, WrongLeaf
from funcnn.gradcheck.explanation.numbers import best_factor, format_factor, is_close, simple_fraction


def detect_offset_by_parameter(wrong: WrongLeaf) -> Diagnosis | None:
    """Return ``offset_by_parameter`` if the difference is a multiple of the parameter or of its sign."""
    leaf = wrong.leaf
    if leaf.param is None or leaf.param.shape != leaf.by_hand.shape or not leaf.param.size:
        return None
    difference = leaf.by_hand - leaf.reference
    for name, direction in {"the parameter": leaf.param, "the parameter's sign": np.sign(leaf.param)}.items():
        if direction is not leaf.param and np.ptp(direction.real) == 0:
            continue  # a constant is an offset, but not by the parameter
        coefficient = best_factor(difference, direction)
        slack = leaf.tolerance + 1e-9 * max_abs(difference)
        # One entry is off by a multiple of any parameter: it needs a simple factor.
        is_plain = leaf.param.size > 1 or simple_fraction(coefficient, 1e-9) is not None
        if coefficient and is_plain and is_close(difference, coefficient * direction, slack):
            mistake = "left out" if coefficient < 0 else "put in, or counted twice"
            return "offset_by_parameter", (
                f"autodiff's gradient plus {format_factor(coefficient, 1e-8)} times {name}: "
                f"was a weight decay of {format_factor(abs(coefficient), 1e-8)} {mistake}?"
            )
    return _detect_counted_rows(leaf, difference)


def _detect_counted_rows(leaf, difference) -> Diagnosis | None:
    """Return ``offset_by_parameter`` if each row is off by a number of times a multiple of the parameter's row."""
    if leaf.param.ndim < 2 or np.iscomplexobj(difference):
        return None
    rows, off = (array.reshape(len(array), -1) for array in (leaf.param, difference))
    lengths = (rows**2).sum(axis=1)
    if rows.shape[1] < 2 or not lengths.all():
        return None
    factors = (rows * off).sum(axis=1) / lengths
    if not np.all(np.abs(off - factors[:, None] * rows) <= leaf.tolerance + 1e-9 * max_abs(difference)):
        return None
    is_off = np.abs(factors) > 1e-9 * max_abs(factors)
    unit = float(factors[is_off][np.argmin(np.abs(factors[is_off]))])
    if np.min(factors / unit) < -1 - 1e-7:
        unit = -unit  # of a row that is not used
    times = factors / unit
    is_counted = np.all(np.abs(times - np.round(times)) <= 1e-7) and times.min() >= -1 - 1e-7
    if is_off.sum() < 2 or not is_counted:
        return None
    counted = ", ".join(str(round(number)) for number in times[:12]) + (", …" if len(times) > 12 else "")
    return "offset_by_parameter", (
        f"autodiff's gradient plus {format_factor(unit, 1e-8)} times the parameter, {counted} times in its rows: "
        f"was a weight decay of {format_factor(abs(unit), 1e-8)} counted once for each use of a row?"
    )
