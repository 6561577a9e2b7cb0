"""The measured reference, where autodiff can't be evaluated: the loss's slope by each entry, with its uncertainty."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from funcnn._numerics.arrays import as_float64, max_abs
from funcnn.gradcheck.engine.directions import losses_along, predicted_slope, random_direction, slopes_along
from funcnn.gradcheck.engine.precision import Comparison

_MAX_MEASURED = 1024
_SAMPLED = 128
_SMALLEST_LEAF = 1e-6  # of the largest one: a smaller leaf is measured as if it had that size
_TRUSTED = 4  # an error estimated from the last corrections may be too small by such a factor


class Reference(NamedTuple):
    """The gradient that the hand-written one is compared with.

    Fields:
        values: an array for each leaf.
        errors: for each leaf the uncertainty of each entry, ``None`` for autodiff's. An entry that wasn't measured has
            the hand-written value and no error.
        at_kinks: for each leaf where the entry lies between two one-sided slopes, as the hand-written value does.
        measured: the number of measured entries.
    """

    values: list[np.ndarray]
    errors: list[np.ndarray] | None = None
    at_kinks: list[np.ndarray] | None = None
    measured: int = 0


def reference_of(comparison: Comparison) -> Reference:
    """Return autodiff's gradient, or, where autodiff wasn't evaluated, the measured one."""
    if comparison.by_autodiff is not None:
        return Reference([as_float64(leaf) for leaf in jax.tree.leaves(comparison.by_autodiff)])
    return _measure(comparison)


def with_loss_noise(comparison: Comparison) -> Comparison:
    """Return the comparison with the digits of the loss, where its program doesn't show them: ε and the resolution.

    Code that JAX doesn't see, NumPy's or a callback's, may compute in float32. Along a straight line a smooth loss has
    third differences near 0; what remains of them is rounding. Where the loss doesn't change from step to step, its
    resolution is the jump at larger steps.
    """
    random = np.random.default_rng(8)
    leaves = range(len(jax.tree.leaves(comparison.gradients.params)))
    losses = losses_along(comparison, [random_direction(comparison, random, leaves)])
    for step in (3e-6, 3e-5, 3e-4, 3e-3, 3e-2):
        try:
            values = losses(step * np.arange(12.0))[:, 0]
        except Exception:  # the caller's loss may reject other parameters
            return comparison
        size = np.max(np.abs(values))
        if not np.isfinite(values).all() or not size:
            return comparison
        jumps = np.abs(np.diff(values))
        if not jumps.any():
            continue
        is_smooth = np.count_nonzero(jumps) >= len(jumps) - 1
        noise = np.median(np.abs(np.diff(values, 3))) if is_smooth else np.median(jumps[jumps > 0])
        spacing = max(comparison.spacing, float(noise) / size / 2)
        return comparison._replace(spacing=spacing, resolution=float(noise))
    return comparison


def _measure(comparison) -> Reference:
    by_hand = [as_float64(leaf) for leaf in jax.tree.leaves(comparison.gradients.by_hand)]
    params = [np.asarray(leaf) for leaf in jax.tree.leaves(comparison.gradients.params)]
    places = _places(params)
    directions = [_unit(params, number, index, part) for number, index, part in places]
    sizes = np.array([max_abs(leaf) if np.isfinite(leaf).all() else 0.0 for leaf in by_hand])
    sizes = np.maximum(sizes, _SMALLEST_LEAF * np.max(sizes, initial=0.0))
    enough = 1e-7 * sizes[[number for number, _, _ in places]]
    slopes = slopes_along(comparison, directions, enough=enough)
    values = [
        hand.copy() if hand.shape == param.shape else np.full(param.shape, np.nan)
        for hand, param in zip(by_hand, params, strict=True)
    ]
    errors, at_kinks = [np.zeros(param.shape) for param in params], [np.zeros(param.shape, bool) for param in params]
    for (number, index, part), direction, slope, least in zip(places, directions, slopes, enough / 4, strict=True):
        step = float(np.abs(direction[number][index]))
        given = by_hand[number][index] if by_hand[number].shape == params[number].shape else np.nan
        # By JAX's convention a gradient is the conjugate: moving the imaginary part measures minus its own.
        ours = step * (np.real(given) if part == 1 else -np.imag(given))
        if slope is None:
            values[number][index], errors[number][index] = np.nan, np.inf
            continue
        measured = slope.value
        if slope.is_kink and slope.holds(float(ours)):
            measured, at_kinks[number][index] = float(ours), True
        else:
            errors[number][index] = max(errors[number][index], least / step, _TRUSTED * slope.error / step)
        values[number][index] = (
            measured / step + 1j * np.imag(values[number][index])
            if part == 1 and np.iscomplexobj(values[number])
            else measured / step
            if part == 1
            else np.real(values[number][index]) - 1j * measured / step
        )
    return Reference(values, errors, at_kinks, len(places))


def _places(params: Sequence[np.ndarray]) -> list[tuple[int, tuple, Any]]:
    """Return the entries to measure, ``(leaf, index, 1 or 1j)``: all, or as many of each leaf if there are too many."""
    total = sum(param.size for param in params)
    random, places = np.random.default_rng(9), []
    share = _SAMPLED // max(len(params), 1) + 1
    for number, param in enumerate(params):
        entries = np.arange(param.size)
        if total > _MAX_MEASURED and param.size > share:
            entries = np.sort(random.choice(param.size, share, replace=False))
        for entry in entries:
            index = tuple(int(i) for i in np.unravel_index(entry, param.shape))
            places += [(number, index, part) for part in ((1, 1j) if np.iscomplexobj(param) else (1,))]
    return places


def _unit(params, number, index, part) -> list[np.ndarray]:
    direction = [np.zeros_like(param) for param in params]
    direction[number][index] = part * max(1.0, float(np.abs(params[number][index])))
    return direction


def wrong_leaves_along_directions(comparison: Comparison, gradient: list[np.ndarray]) -> list[int]:
    """Return the leaves whose hand-written gradient isn't the slope along random directions.

    Entries that weren't measured alone are measured together here.
    """
    random, directions, numbers = np.random.default_rng(10), [], []
    for number, leaf in enumerate(gradient):
        if np.shape(leaf) == np.shape(jax.tree.leaves(comparison.gradients.params)[number]) and np.isfinite(leaf).all():
            directions += [random_direction(comparison, random, [number]) for _ in range(2)]
            numbers += [number, number]
    wrong = []
    for number, direction, slope in zip(numbers, directions, slopes_along(comparison, directions), strict=True):
        predicted, size = predicted_slope(gradient, direction)
        if slope is not None and abs(slope.value - predicted) > 10 * slope.error + 1e-7 * size:
            wrong.append(number)
    return sorted(set(wrong))
