"""The gradient in the caller's own dtype, judged by the one in float64: rounding that the problem explains, or more."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from funcnn._numerics.arrays import as_float64, distances, max_abs
from funcnn._numerics.program import RANDOM, default_rule, jaxpr_constants, primitive_names, trace
from funcnn.gradcheck.engine.comparison import Pair
from funcnn.gradcheck.engine.precision import Evaluated, Judged, evaluate
from funcnn.gradcheck.report import LeafReport

_SIGNS = np.random.default_rng(3).integers(0, 2, size=1009)


def rounded_data(judged: Judged, pairs: list[Pair], rows: list[LeafReport]) -> list[LeafReport]:
    """Clear the rows whose difference is made by the rounding of the data that the caller gave.

    Probabilities in float32 add up to 1 to seven digits only, and a formula that takes them to add up to 1 is off by
    as much in float64. Such a difference changes altogether when the data are rounded anew; a mistake's doesn't.
    """
    spacing = max((float(jnp.finfo(pair.dtype).eps) for pair in pairs), default=0.0)
    if spacing <= judged.spacing or all(row.ok for row in rows):
        return rows
    moved = _rounded_anew(judged, spacing)
    if moved is None:
        return rows
    cleared = []
    for row, pair, by_hand, reference in zip(rows, pairs, *moved, strict=True):
        if row.cause != "unknown" or not np.isfinite(pair.by_hand - pair.reference).all():
            cleared.append(row)
            continue
        before, after = pair.by_hand - pair.reference, by_hand - reference
        conditioning = max(_error(by_hand, pair.by_hand), _error(reference, pair.reference))
        small = _error(pair.by_hand, pair.reference) <= 64 * conditioning
        # Rounding that breaks a tie moves a gradient far, and clears nothing.
        small &= conditioning <= spacing**0.5 * max(max_abs(by_hand), float(np.abs(judged.evaluated.value)))
        if small and _error(after, before) >= 0.1 * max_abs(before):
            detail = f"the difference is the rounding of the data to {pair.dtype}"
            row = row._replace(ok=True, cause=None, detail=detail, differences=())
        cleared.append(row)
    return cleared


def rounded_constants(judged: Judged, pairs: list[Pair], rows: list[LeafReport]) -> list[LeafReport]:
    """Clear the rows whose difference is made by constants that one of the functions keeps in the caller's dtype.

    √2 kept in float32 is off in the eighth digit, and right in float32. Constants of both functions are data.
    """
    params = judged.evaluated.params
    spacing = max((float(jnp.finfo(pair.dtype).eps) for pair in pairs), default=0.0)
    if spacing <= judged.spacing or all(row.ok for row in rows):
        return rows
    autodiff, by_hand = trace(jax.grad(judged.evaluated.loss), params), judged.gradient_program
    if autodiff is None or by_hand is None:
        return rows
    programs, dtypes = (autodiff, by_hand), {pair.dtype for pair in pairs}
    kept = [{_key(value) for value in jaxpr_constants(each.jaxpr) if _is_rounded(value, dtypes)} for each in programs]
    moves = [np.zeros(pair.by_hand.shape) for pair in pairs]
    gradients = [pair.reference for pair in pairs], [pair.by_hand for pair in pairs]
    for program, rounded, gradient in zip(programs, (kept[0] - kept[1], kept[1] - kept[0]), gradients, strict=True):
        for draw in range(3 if rounded else 0):
            moved = program.outputs(jax.tree.leaves(params), default_rule, partial(_moved, rounded, spacing, draw))
            moves = [
                np.maximum(*both) for both in zip(moves, map(distances, map(as_float64, moved), gradient), strict=True)
            ]
    cleared = []
    for row, pair, move in zip(rows, pairs, moves, strict=True):
        if row.cause == "unknown" and max_abs(move) <= spacing**0.5 * max_abs(pair.reference):
            gaps = distances(pair.by_hand, pair.reference)
            if np.all(gaps <= row.tolerance + 16 * move):
                detail = f"the difference is the rounding of a constant to {pair.dtype}"
                row = row._replace(ok=True, cause=None, detail=detail, differences=())
        cleared.append(row)
    return cleared


def _key(value):
    return np.shape(value), np.asarray(value, np.complex128).tobytes()


def _is_rounded(value, dtypes) -> bool:
    """Whether a constant's digits are those of a caller's dtype, and too many of them to be exact."""
    if not jnp.issubdtype(getattr(value, "dtype", float), jnp.floating):
        return False
    numbers = np.asarray(value, np.float64)
    fractions = np.frexp(numbers)[0]
    for dtype in dtypes:
        few = 2.0 ** (jnp.finfo(dtype).nmant // 2)
        if np.array_equal(numbers.astype(dtype), numbers) and np.any(np.round(fractions * few) != fractions * few):
            return True
    return False


def _moved(rounded, spacing, draw, value):
    """A constant with another last digit, where it is one of those that may have been rounded."""
    if not rounded or _key(value) not in rounded:
        return value
    signs = np.resize(np.roll(_SIGNS, 97 * draw + len(_key(value)[1])), np.shape(value))
    return value * jnp.asarray(1 + spacing * signs, jnp.result_type(value))


def judge_stability(own: Evaluated, judged: Judged, pairs: list[Pair], rows: list[LeafReport]) -> list[LeafReport]:
    """Mark the rows, right in float64, that lose more digits in the caller's dtype than its conditioning explains.

    A loss that draws random numbers isn't judged. A leaf off by less than √ε of its largest entry is left alone.
    Beyond that, what the same gradient moves by when the parameters and the data are rounded once is conditioning; what
    autodiff loses as well is the loss's own, unless next to nothing is left.
    """
    if judged.evaluated is own or (judged.program and primitive_names(judged.program.jaxpr) & RANDOM):
        return rows  # in float64 JAX draws other random numbers
    own_autodiff = [as_float64(leaf) for leaf in jax.tree.leaves(own.by_autodiff)]
    conditioning: list[float] | None = None
    value, in_float64 = np.complex128(own.value), np.complex128(judged.evaluated.value)
    with np.errstate(all="ignore"):
        is_lost = not np.abs(value - in_float64) <= 1e-3 * np.abs(value)
    judged_rows = []
    for number, (row, pair) in enumerate(zip(rows, pairs, strict=True)):
        spacing = float(jnp.finfo(pair.dtype).eps)
        scale = max_abs(pair.by_hand)
        tree = max(max_abs(other.by_hand) for other in pairs)
        beyond_range = scale > float(jnp.finfo(pair.dtype).max)
        if not row.ok or spacing <= judged.spacing or np.shape(pair.own) != pair.shape or beyond_range:
            judged_rows.append(row)
            continue
        if row.cause == "noise" and row.relative_difference > 1e-3 and np.isfinite(as_float64(pair.own)).all():
            judged_rows.append(row)  # a gradient of nothing but rounding is that in any dtype
            continue
        ours, autodiffs = _error(as_float64(pair.own), pair.by_hand), _error(own_autodiff[number], pair.reference)
        # A leaf that vanishes beside the others is rounding of theirs, as a bias before batch normalization is.
        compared_to = tree if scale < spacing * tree else scale
        if ours > max(spacing**0.5 * compared_to, 64 * spacing * tree, 4 * float(jnp.finfo(pair.dtype).tiny)):
            conditioning = conditioning or _conditioning(judged, pairs, spacing)
            row = _named(row, pair, ours, autodiffs, conditioning[number], scale, is_lost)
        judged_rows.append(row)
    return judged_rows


def _named(row, pair, ours, autodiffs, explained, scale, loss_is_lost):
    lost = "not finite" if ours == np.inf else f"off by {ours / scale if scale else np.inf:.1e} of the largest entry"
    if ours <= 64 * explained:
        detail = f"in {pair.dtype} {lost}, as rounding the parameters and the data once already explains"
        return row._replace(cause=row.cause or "noise", detail=row.detail or detail)
    if ours <= 16 * autodiffs and (loss_is_lost or ours <= 0.1 * scale):
        detail = f"right, but in {pair.dtype} it is {lost}, and autodiff's too: the loss itself loses the digits"
        return row._replace(cause="unstable", detail=detail)
    detail = (
        f"right in float64, but in the caller's {pair.dtype} {lost}, where autodiff's is "
        f"{'exact' if not autodiffs else f'off by {autodiffs / scale if scale else np.inf:.1e}'}: "
        "an overflow, or a difference of large numbers? Rearrange it"
    )
    return row._replace(ok=False, cause="unstable", detail=detail)


def _conditioning(judged, pairs, spacing) -> list[float]:
    """How far each leaf of autodiff's gradient moves when the inputs are rounded once."""
    moved = _rounded_anew(judged, spacing)
    gaps = (
        [0.0] * len(pairs) if moved is None else [_error(m, p.reference) for m, p in zip(moved[1], pairs, strict=True)]
    )
    return [gap if np.isfinite(gap) else 0.0 for gap in gaps]


def _error(own, reference):
    gaps = distances(own, reference)
    return float(np.max(np.where(np.isnan(gaps), np.inf, gaps), initial=0.0))


def _rounded_anew(judged, spacing) -> tuple[list[np.ndarray], list[np.ndarray]] | None:
    """Both gradients when every floating input loses its last digit, toward 0 so that no bound is passed."""

    def rounded(leaf):
        if not isinstance(leaf, jax.Array | np.ndarray) or not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf
        return leaf * (1 - spacing * np.resize(_SIGNS, leaf.shape)).astype(leaf.real.dtype)

    evaluated = judged.evaluated
    arguments = jax.tree.map(rounded, evaluated.arguments)
    try:
        moved = evaluate(evaluated.loss_fn, evaluated.grad_fn, arguments, evaluated.calls)
    except Exception:  # the caller's function may refuse such data
        return None
    return [as_float64(leaf) for leaf in jax.tree.leaves(moved.by_hand)], [
        as_float64(leaf) for leaf in jax.tree.leaves(moved.by_autodiff)
    ]
