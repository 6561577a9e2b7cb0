"""Rounding in the caller's own dtype: how much of it the problem explains, and how much the gradient adds."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from funcnn._numerics.arrays import as_float64, distances, max_abs
from funcnn._numerics.program import RANDOM, default_rule, jaxpr_constants, primitive_names, trace
from funcnn.gradcheck.engine.comparison import Pair
from funcnn.gradcheck.engine.precision import Comparison, Gradients, evaluate
from funcnn.gradcheck.report import LeafReport

_SIGNS = np.random.default_rng(3).integers(0, 2, size=1009)


def accept_rounded_data(comparison: Comparison, pairs: list[Pair], rows: list[LeafReport]) -> list[LeafReport]:
    """Accept the leaves whose difference comes from the rounding of the caller's data.

    Probabilities in float32 add up to 1 to seven digits only. A formula that assumes that they add up to 1 is wrong by
    as much in float64. Such a difference changes completely when the data are rounded again; a mistake does not.
    """
    spacing = max((float(jnp.finfo(pair.dtype).eps) for pair in pairs), default=0.0)
    if spacing <= comparison.spacing or all(row.ok for row in rows):
        return rows
    moved = _round_inputs(comparison, spacing)
    if moved is None:
        return rows
    accepted = []
    for row, pair, by_hand, reference in zip(rows, pairs, *moved, strict=True):
        if row.cause != "unknown" or not np.isfinite(pair.by_hand - pair.reference).all():
            accepted.append(row)
            continue
        before, after = pair.by_hand - pair.reference, by_hand - reference
        conditioning = max(_max_distance(by_hand, pair.by_hand), _max_distance(reference, pair.reference))
        small = _max_distance(pair.by_hand, pair.reference) <= 64 * conditioning
        # Rounding that breaks a tie moves a gradient far, and explains nothing.
        small &= conditioning <= spacing**0.5 * max(max_abs(by_hand), float(np.abs(comparison.gradients.value)))
        if small and _max_distance(after, before) >= 0.1 * max_abs(before):
            detail = f"the difference is the rounding of the data to {pair.dtype}"
            row = row._replace(ok=True, cause=None, detail=detail, differences=())
        accepted.append(row)
    return accepted


def accept_rounded_constants(comparison: Comparison, pairs: list[Pair], rows: list[LeafReport]) -> list[LeafReport]:
    """Accept the leaves whose difference comes from constants that one of the functions has in the caller's dtype.

    √2 in float32 is wrong in the eighth digit. Constants of both functions are data.
    """
    params = comparison.gradients.params
    spacing = max((float(jnp.finfo(pair.dtype).eps) for pair in pairs), default=0.0)
    if spacing <= comparison.spacing or all(row.ok for row in rows):
        return rows
    autodiff, by_hand = trace(jax.grad(comparison.gradients.loss), params), comparison.gradient_program
    if autodiff is None or by_hand is None:
        return rows
    programs, dtypes = (autodiff, by_hand), {pair.dtype for pair in pairs}
    rounded = [
        {_key(value) for value in jaxpr_constants(each.jaxpr) if _is_rounded(value, dtypes)} for each in programs
    ]
    moves = [np.zeros(pair.by_hand.shape) for pair in pairs]
    gradients = [pair.reference for pair in pairs], [pair.by_hand for pair in pairs]
    own_constants = rounded[0] - rounded[1], rounded[1] - rounded[0]
    for program, constants, gradient in zip(programs, own_constants, gradients, strict=True):
        for draw in range(3 if constants else 0):
            move_constant = partial(_move_constant, constants, spacing, draw)
            moved = program.outputs(jax.tree.leaves(params), default_rule, move_constant)
            moves = [
                np.maximum(*both) for both in zip(moves, map(distances, map(as_float64, moved), gradient), strict=True)
            ]
    accepted = []
    for row, pair, move in zip(rows, pairs, moves, strict=True):
        if row.cause == "unknown" and max_abs(move) <= spacing**0.5 * max_abs(pair.reference):
            gaps = distances(pair.by_hand, pair.reference)
            if np.all(gaps <= row.tolerance + 16 * move):
                detail = f"the difference is the rounding of a constant to {pair.dtype}"
                row = row._replace(ok=True, cause=None, detail=detail, differences=())
        accepted.append(row)
    return accepted


def _key(value):
    return np.shape(value), np.asarray(value, np.complex128).tobytes()


def _is_rounded(value, dtypes) -> bool:
    """Whether a constant has exactly the digits of one of the dtypes, and too many of them to be an exact number."""
    if not jnp.issubdtype(getattr(value, "dtype", float), jnp.floating):
        return False
    numbers = np.asarray(value, np.float64)
    fractions = np.frexp(numbers)[0]
    for dtype in dtypes:
        few = 2.0 ** (jnp.finfo(dtype).nmant // 2)
        if np.array_equal(numbers.astype(dtype), numbers) and np.any(np.round(fractions * few) != fractions * few):
            return True
    return False


def _move_constant(rounded, spacing, draw, value):
    """Return a constant with another last digit if it is in ``rounded``."""
    if not rounded or _key(value) not in rounded:
        return value
    signs = np.resize(np.roll(_SIGNS, 97 * draw + len(_key(value)[1])), np.shape(value))
    return value * jnp.asarray(1 + spacing * signs, jnp.result_type(value))


def check_stability(
    own: Gradients, comparison: Comparison, pairs: list[Pair], rows: list[LeafReport]
) -> list[LeafReport]:
    """Mark the leaves that are right in float64, but lose more digits in the caller's dtype than conditioning explains.

    A leaf with an error below √ε of its largest entry is not marked. Conditioning is how far autodiff's gradient moves
    when the parameters and the data are rounded once. An error that autodiff has too is the loss's own, unless almost
    no digits remain. A loss that draws random numbers is not checked.
    """
    if comparison.gradients is own or (comparison.program and primitive_names(comparison.program.jaxpr) & RANDOM):
        return rows  # JAX draws other random numbers in float64
    own_autodiff = [as_float64(leaf) for leaf in jax.tree.leaves(own.by_autodiff)]
    conditioning: list[float] | None = None
    value, in_float64 = np.complex128(own.value), np.complex128(comparison.gradients.value)
    with np.errstate(all="ignore"):
        is_lost = not np.abs(value - in_float64) <= 1e-3 * np.abs(value)
    checked = []
    for number, (row, pair) in enumerate(zip(rows, pairs, strict=True)):
        spacing = float(jnp.finfo(pair.dtype).eps)
        scale = max_abs(pair.by_hand)
        tree = max(max_abs(other.by_hand) for other in pairs)
        beyond_range = scale > float(jnp.finfo(pair.dtype).max)
        if not row.ok or spacing <= comparison.spacing or np.shape(pair.own) != pair.shape or beyond_range:
            checked.append(row)
            continue
        if row.cause == "noise" and row.relative_difference > 1e-3 and np.isfinite(as_float64(pair.own)).all():
            checked.append(row)  # a gradient that is only rounding is so in any dtype
            continue
        ours, autodiffs = (
            _max_distance(as_float64(pair.own), pair.by_hand),
            _max_distance(own_autodiff[number], pair.reference),
        )
        # A leaf much smaller than the others is their rounding, such as a bias before batch normalization.
        compared_to = tree if scale < spacing * tree else scale
        if ours > max(spacing**0.5 * compared_to, 64 * spacing * tree, 4 * float(jnp.finfo(pair.dtype).tiny)):
            conditioning = conditioning or _conditioning(comparison, pairs, spacing)
            row = _with_cause(row, pair, ours, autodiffs, conditioning[number], scale, is_lost)
        checked.append(row)
    return checked


def _with_cause(row, pair, ours, autodiffs, explained, scale, loss_is_lost):
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


def _conditioning(comparison, pairs, spacing) -> list[float]:
    """Return how far each leaf of autodiff's gradient moves when the inputs are rounded once."""
    moved = _round_inputs(comparison, spacing)
    gaps = (
        [0.0] * len(pairs)
        if moved is None
        else [_max_distance(m, p.reference) for m, p in zip(moved[1], pairs, strict=True)]
    )
    return [gap if np.isfinite(gap) else 0.0 for gap in gaps]


def _max_distance(own, reference):
    gaps = distances(own, reference)
    return float(np.max(np.where(np.isnan(gaps), np.inf, gaps), initial=0.0))


def _round_inputs(comparison, spacing) -> tuple[list[np.ndarray], list[np.ndarray]] | None:
    """Return both gradients with the last digit of every floating input changed, toward 0 to stay within bounds."""

    def rounded(leaf):
        if not isinstance(leaf, jax.Array | np.ndarray) or not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf
        return leaf * (1 - spacing * np.resize(_SIGNS, leaf.shape)).astype(leaf.real.dtype)

    gradients = comparison.gradients
    arguments = jax.tree.map(rounded, gradients.arguments)
    try:
        moved = evaluate(gradients.loss_fn, gradients.grad_fn, arguments, gradients.calls)
    except Exception:  # the caller's function may reject such data
        return None
    return [as_float64(leaf) for leaf in jax.tree.leaves(moved.by_hand)], [
        as_float64(leaf) for leaf in jax.tree.leaves(moved.by_autodiff)
    ]
