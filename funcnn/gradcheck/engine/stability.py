"""Rounding in the caller's own dtype: how much of it the problem explains, and how much the gradient adds."""

import functools
import math
from functools import partial
from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np

from funcnn._numerics.arrays import as_float64, distances, max_abs
from funcnn._numerics.precision import enable_x64, like_devices
from funcnn._numerics.program import RANDOM, default_rule, evaluate_programs, jaxpr_constants, primitive_names
from funcnn.gradcheck.engine.comparison import Pair
from funcnn.gradcheck.engine.precision import Comparison, Gradients
from funcnn.gradcheck.report import LeafReport

Stability: TypeAlias = Literal["report", "fail"]
"""What a gradient that loses digits in the caller's dtype gets: a verdict of its own, or a failure."""

_NOTICED = 0.625  # a leaf with an error below ε^⅝ of its largest entry is not marked
_KEPT = "keeps"
_REMEDY = "is it a difference of large numbers, or an overflow? Rearrange it"
_SIGNS = np.random.default_rng(3).integers(0, 2, size=1009)


def check_stability_word(name: str, stability: str) -> None:
    """Raise where ``stability`` is none of its words."""
    if stability not in get_args(Stability):
        raise ValueError(
            f"{name}(stability): expected one of {get_args(Stability)}, got {stability!r}. Choose one of these."
        )


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
    autodiff, by_hand = comparison.programs.autodiff, comparison.programs.by_hand
    if autodiff is None or by_hand is None:
        return rows
    programs, dtypes = (autodiff, by_hand), {pair.dtype for pair in pairs}
    rounded = [
        {_key(value) for value in jaxpr_constants(each.jaxpr) if _is_rounded(value, dtypes)} for each in programs
    ]
    moves = [np.zeros(pair.by_hand.shape) for pair in pairs]
    gradients = [pair.reference for pair in pairs], [pair.by_hand for pair in pairs]
    own_constants = rounded[0] - rounded[1], rounded[1] - rounded[0]
    for program, constants, gradient, skipped in zip(programs, own_constants, gradients, (1, 0), strict=True):
        for draw in range(3 if constants else 0):
            move_constant = partial(_move_constant, constants, spacing, draw)
            moved = program.outputs(jax.tree.leaves(params), default_rule, move_constant)[skipped:]
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
    is_floating = jnp.issubdtype(getattr(value, "dtype", float), jnp.floating)
    if not rounded or not is_floating or _key(value) not in rounded:
        return value
    signs = np.resize(np.roll(_SIGNS, 97 * draw + len(_key(value)[1])), np.shape(value))
    return value * jnp.asarray(1 + spacing * signs, jnp.result_type(value))


def check_stability(
    own: Gradients, comparison: Comparison, pairs: list[Pair], rows: list[LeafReport], stability: Stability = "report"
) -> list[LeafReport]:
    """Mark the leaves that are right in float64, but lose more digits in the caller's dtype than conditioning explains.

    Conditioning is how far autodiff's gradient moves when the parameters and the data are rounded once. An error that
    autodiff has too is the loss's own. A loss that draws random numbers is not checked.

    A leaf that isn't finite where autodiff's is finite is wrong. With ``stability="fail"`` so is one that loses more
    than half of its dtype's digits.
    """
    if comparison.gradients.by_hand is own.by_hand or (
        comparison.program and primitive_names(comparison.program.jaxpr) & RANDOM
    ):
        return rows  # JAX draws other random numbers in float64
    errors = _Errors(own, comparison, pairs)
    return [
        errors.judge(number, row, stability) if row.ok and np.shape(pair.own) == pair.shape else row
        for number, (row, pair) in enumerate(zip(rows, pairs, strict=True))
    ]


def is_unstable(row: LeafReport) -> bool:
    """Whether a leaf is right but loses digits that autodiff keeps."""
    return row.ok and row.cause == "unstable" and _KEPT in row.detail


class _Errors:
    """The errors of both gradients in the caller's dtype. Autodiff's and the conditioning are computed on demand."""

    def __init__(self, own, comparison, pairs):
        self.own, self.comparison, self.pairs = own, comparison, pairs
        self.tree = max((max_abs(pair.by_hand) for pair in pairs), default=0.0)

    @functools.cached_property
    def of_autodiff(self) -> list[float]:
        """Return autodiff's error in each leaf; 0 without autodiff."""
        if self.comparison.by_autodiff is None:
            return [0.0] * len(self.pairs)
        with enable_x64(self.own.is_x64):
            leaves = [as_float64(leaf) for leaf in jax.tree.leaves(self.own.autodiff())]
        return [_max_distance(leaf, pair.reference) for leaf, pair in zip(leaves, self.pairs, strict=True)]

    @functools.cached_property
    def conditioning(self) -> list[float]:
        """Return how far each leaf of the gradient moves when the inputs are rounded once."""
        moved = _round_inputs(self.comparison, max(float(jnp.finfo(pair.dtype).eps) for pair in self.pairs))
        if moved is None:
            return [0.0] * len(self.pairs)
        gaps = [_max_distance(leaf, pair.reference) for leaf, pair in zip(moved[1], self.pairs, strict=True)]
        return [gap if np.isfinite(gap) else 0.0 for gap in gaps]

    @functools.cached_property
    def is_loss_lost(self) -> bool:
        value, in_float64 = np.complex128(self.own.value), np.complex128(self.comparison.gradients.value)
        with np.errstate(all="ignore"):
            return not abs(value - in_float64) <= 1e-3 * abs(value)

    def judge(self, number: int, row: LeafReport, stability: Stability) -> LeafReport:
        """Return the row of a leaf, marked if it loses digits."""
        pair = self.pairs[number]
        spacing = self._spacing(pair)
        scale = max_abs(pair.by_hand)
        is_beyond_range = scale > float(jnp.finfo(pair.dtype).max)
        if (spacing <= self.comparison.spacing and not self.comparison.narrow) or is_beyond_range:
            return row
        if row.cause == "noise" and row.relative_difference > 1e-3 and np.isfinite(as_float64(pair.own)).all():
            return row  # a gradient that is only rounding is so in any dtype
        error = _max_distance(as_float64(pair.own), pair.by_hand)
        # A leaf much smaller than the others is their rounding, such as a bias before batch normalization.
        size = self.tree if scale < spacing * self.tree else scale
        floor = max(64 * spacing * self.tree, 4 * float(jnp.finfo(pair.dtype).tiny))
        if error <= max(spacing**_NOTICED * size, floor):
            return row
        # A cast loses up to half a spacing of its dtype; the entries of one gradient may happen to lose less.
        most = max(error, 0.5 * self._cast_spacing(pair) * size)
        return self._describe(number, row, error, scale, stability, most > max(spacing**0.5 * size, floor))

    def _remedy(self, pair) -> str:
        """Return what to look at: a cast on the way, or the formula."""
        if self._cast_spacing(pair):
            return f"by hand it is rounded to {self.comparison.narrow} on the way"
        return _REMEDY

    def _cast_spacing(self, pair) -> float:
        """Return ε of the dtype to which the gradient by hand is rounded on the way; 0 if the loss has no more."""
        narrow = self.comparison.narrow
        spacing = float(jnp.finfo(narrow).eps) if narrow else 0.0
        return spacing if spacing > self._spacing(pair) else 0.0

    def _spacing(self, pair) -> float:
        """Return ε of the leaf's dtype, or of the coarser one in which the loss itself is written."""
        narrow = self.comparison.loss_narrow or pair.dtype
        return max(float(jnp.finfo(pair.dtype).eps), float(jnp.finfo(narrow).eps))

    def _describe(self, number, row, error, scale, stability, is_half_lost) -> LeafReport:
        pair, autodiffs, explained = self.pairs[number], self.of_autodiff[number], self.conditioning[number]
        share = error / scale if scale else np.inf
        lost = "not finite" if error == np.inf else f"off by {share:.1e} of the largest entry"
        if error <= 64 * explained:
            if not is_half_lost:
                return row
            detail = f"in {pair.dtype} {lost}, as rounding the parameters and the data once already explains"
            return row._replace(cause=row.cause or "noise", detail=row.detail or detail)
        is_loss_finite = bool(np.isfinite(np.complex128(self.own.value)))
        if error == np.inf and np.isfinite(autodiffs) and (is_loss_finite or self.comparison.by_autodiff is not None):
            beside = "the loss" if self.comparison.by_autodiff is None else "autodiff's"
            detail = (
                f"right in float64, but in the caller's {pair.dtype} not finite, where {beside} is finite: {_REMEDY}"
            )
            return row._replace(ok=False, cause="unstable", detail=detail)
        if error <= 16 * autodiffs and (self.is_loss_lost or error <= 0.1 * scale or error == np.inf):
            if not is_half_lost:
                return row
            detail = f"right, but in {pair.dtype} it is {lost}, and autodiff's too: the loss itself loses the digits"
            return row._replace(cause="unstable", detail=detail)
        whole = _digits(float(jnp.finfo(pair.dtype).eps), np.inf)
        digits, theirs = _digits(share, whole), _digits(autodiffs / scale if scale else np.inf, whole)
        beside = "" if self.comparison.by_autodiff is None else f", autodiff's {theirs:.1f}"
        detail = (
            f"right in float64, but in the caller's {pair.dtype} {lost}: it {_KEPT} {digits:.1f} of {whole:.1f} "
            f"digits{beside}; {self._remedy(pair)}"
        )
        is_wrong = stability == "fail" and is_half_lost
        return row._replace(ok=not is_wrong, cause="unstable", detail=detail)


def _digits(error: float, most: float) -> float:
    return max(0.0, min(most, -math.log10(error))) if error else most


def _max_distance(own, reference):
    gaps = distances(own, reference)
    return float(np.max(np.where(np.isnan(gaps), np.inf, gaps), initial=0.0))


def _round_inputs(comparison, spacing) -> tuple[list[np.ndarray], list[np.ndarray]] | None:
    """Return both gradients with the last digit of every floating input changed, toward 0 to stay within bounds."""

    def rounded(leaf):
        if not isinstance(leaf, jax.Array | np.ndarray) or not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf
        factors = 1 - spacing * np.resize(_SIGNS, leaf.shape)
        return _as_kind(np.asarray(leaf) * factors, leaf)

    if comparison.narrow:
        return None  # the caller's functions round to fewer digits than the comparison
    gradients, programs = comparison.gradients, comparison.programs
    arguments = jax.tree.map(rounded, gradients.arguments)
    try:
        if programs.by_hand is not None and (programs.autodiff is not None or comparison.by_autodiff is None):
            return _run_with(comparison, arguments)
        moved = gradients._replace(arguments=arguments)
        by_hand = moved.gradient(moved.params)
        reference = by_hand if comparison.by_autodiff is None else moved.autodiff()
    except Exception:  # the caller's function may reject such data
        return None
    ours, theirs = ([as_float64(leaf) for leaf in jax.tree.leaves(tree)] for tree in (by_hand, reference))
    return ours, theirs


def _as_kind(array, like):
    """Return a NumPy array in the dtype and of the kind of another array."""
    array = array.astype(like.dtype)
    return like_devices(array, like) if isinstance(like, jax.Array) else array


def _run_with(comparison, arguments):
    """Return both gradients by their programs, with other arguments in the places of those of the trace.

    Without autodiff the hand-written gradient, which is right, stands for both.
    """
    known = {
        _key(leaf): new
        for leaf, new in zip(jax.tree.leaves(comparison.gradients.arguments), jax.tree.leaves(arguments), strict=True)
        if isinstance(leaf, jax.Array | np.ndarray) and jnp.issubdtype(leaf.dtype, jnp.inexact)
    }
    programs = [
        program._replace(
            jaxpr=program.jaxpr.replace(consts=[_replaced(known, value) for value in program.jaxpr.consts])
        )
        for program in (comparison.programs.by_hand, comparison.programs.autodiff)
        if program is not None
    ]
    comparison.gradients.calls["gradient"] += len(programs)
    by_hand, *autodiff = evaluate_programs(programs, jax.tree.leaves(arguments[0]))
    reference = autodiff[0][1:] if autodiff else by_hand
    return [as_float64(leaf) for leaf in by_hand], [as_float64(leaf) for leaf in reference]


def _replaced(known, value):
    is_floating = jnp.issubdtype(jnp.result_type(value), jnp.inexact)
    return known.get(_key(value), value) if is_floating else value
