"""The verdict: which gradient agrees with the measured slope of the loss, a witness that shares no rule with either."""

from typing import NamedTuple

import numpy as np

from funcnn.gradcheck.engine.comparison import Pair
from funcnn.gradcheck.engine.directions import (
    align_signs,
    direction_of_differences,
    has_stop_gradient,
    predicted_slope,
    random_direction,
    slope_along,
    slopes_along,
)
from funcnn.gradcheck.engine.kinks import Kinks
from funcnn.gradcheck.engine.precision import Comparison
from funcnn.gradcheck.engine.slopes import Slope
from funcnn.gradcheck.report import Verdict

NO_SLOPE = "the loss is not finite around the parameters, so its slope can't be measured"
"""The reason where the loss has no values to measure."""

_CONFIRMED = 3e-4  # coarse and cheap, because two gradients that share no code agree already
_MAX_LEAVES = 8
_MAX_ENTRIES = 64


class Decision(NamedTuple):
    """A verdict and its reason.

    Fields:
        verdict, reason: as in ``GradientReport``.
        cleared: the positions of the leaves in which the hand-written gradient is right and autodiff's differs, with
            whether they are at a kink.
        blamed: the positions of the leaves in which both gradients are wrong.
    """

    verdict: Verdict
    reason: str
    cleared: dict[int, bool]
    blamed: tuple[int, ...] = ()


def confirm(comparison: Comparison, pairs: list[Pair], kinks: Kinks | None) -> Decision:
    """Return the verdict if both gradients agree: whether the loss has that slope."""
    random, contradicted = np.random.default_rng(0), None
    for _ in range(2):
        gradient = [pair.reference for pair in pairs]
        direction = align_signs(random_direction(comparison, random, range(len(pairs))), gradient)
        measured = _measure(comparison, gradient, direction, frozen=False, share=_CONFIRMED)
        if has_stop_gradient(comparison) and measured and not _is_near(*measured):
            measured = _measure(comparison, gradient, direction, share=_CONFIRMED)
        if measured is None:
            unmeasured = "the loss can't be measured there"
            if not np.isfinite(np.asarray(comparison.gradients.value)):
                unmeasured = f"but the loss is {comparison.gradients.value} there, and has no slope"
            return Decision("agrees", f"by hand and autodiff agree; {unmeasured}", {})
        slope, predicted, size = measured
        if _is_near(slope, predicted, size):
            trust = (abs(slope.value - predicted) + slope.error) / size if size else 0.0
            digits = f"to {max(trust, 1e-16):.0e}" if trust < 0.01 else "as far as it can be measured"
            return Decision("agrees", f"the measured slope of the loss confirms both {digits}", {})
        if kinks or slope.is_kink or abs(slope.value - predicted) <= max(100 * slope.error, 1e-4 * size):
            return Decision("agrees", "by hand and autodiff agree; no single slope can be measured there", {})
        contradicted = f"the loss has the slope {slope.value:z.6g} where both say {predicted:z.6g}"
    reason = f"so is autodiff: {contradicted}"
    return Decision("hand-written wrong", reason, {}, _contradicted_leaves(comparison, pairs))


def _contradicted_leaves(comparison, pairs) -> tuple[int, ...]:
    """Return the leaves whose gradients aren't the loss's slope; every leaf if there are too many to measure each."""
    everywhere = tuple(range(len(pairs)))
    if len(pairs) > _MAX_LEAVES:
        return everywhere
    random, blamed = np.random.default_rng(6), []
    for number in everywhere:
        measured = _measure(
            comparison, [pair.reference for pair in pairs], random_direction(comparison, random, [number])
        )
        if measured and not _is_near(*measured):
            blamed.append(number)
    return tuple(blamed) or everywhere


def _measure(comparison, gradient, direction, frozen=True, share=1e-6) -> tuple[Slope, float, float] | None:
    """Return the loss's slope along a direction, the slope by a gradient, and the sum of the sizes of its terms.

    The slope is measured to ``share`` of that sum, or as well as possible.
    """
    predicted, size = predicted_slope([_replace_nonfinite(leaf) for leaf in gradient], direction)
    slope = slope_along(comparison, direction, is_frozen=frozen, enough=share * size)
    return None if slope is None else (slope, predicted, size)


def _is_near(slope, predicted, size) -> bool:
    """Whether a slope is as predicted. ReLUs that switch within a step make its error larger than its estimate."""
    return bool(abs(slope.value - predicted) <= 10 * slope.error + 1e-5 * size)


def arbitrate(comparison: Comparison, pairs: list[Pair], disputed: list[int], kinks: Kinks | None) -> Decision:
    """Return the verdict if the gradients differ: which of them the loss agrees with.

    Args:
        comparison: the loss.
        pairs: every leaf.
        disputed: the positions of the leaves that differ.
        kinks: the kinks of the loss.
    """
    value = comparison.gradients.value
    if not np.isfinite(np.asarray(value)):
        return Decision("undecided", f"the loss is {value} there, and has no slope", {})
    missing = [number for number in disputed if not np.isfinite(pairs[number].reference).all()]
    missing = [number for number in missing if np.isfinite(pairs[number].by_hand).all()]
    finite = [number for number in disputed if np.isfinite(pairs[number].reference - pairs[number].by_hand).all()]
    at_kinks = {number: _is_slope_at_kink(comparison, pairs, number) for number in missing}
    cleared = {number: at_kink for number, at_kink in at_kinks.items() if at_kink is not None}
    verdicts: list[Decision] = []
    if finite:
        first = _arbitrate_finite(comparison, pairs, finite, kinks)
        if first.verdict == "undecided" and 1 < len(finite) <= _MAX_LEAVES:
            verdicts += [_arbitrate_finite(comparison, pairs, [number], kinks) for number in finite]
        else:
            verdicts.append(first)
    for decision in verdicts:
        cleared |= decision.cleared
    if all(number in cleared for number in disputed):
        reason = verdicts[0].reason if verdicts else "it isn't finite where the loss has a slope, the one given by hand"
        return Decision("agrees" if all(cleared.values()) else "autodiff wrong", reason, cleared)
    worst = next((decision for decision in verdicts if decision.verdict == "hand-written wrong"), None)
    worst = worst or next((decision for decision in verdicts if decision.verdict == "undecided"), None)
    if worst is None:
        return Decision("hand-written wrong", "it isn't finite, or not the slope that the loss has", cleared)
    return worst._replace(cleared=cleared)


def _arbitrate_finite(comparison, pairs, leaves, kinks) -> Decision:
    """Measure along the difference of the two gradients, the direction that tells them apart best."""
    differences = {number: pairs[number].by_hand - pairs[number].reference for number in leaves}
    direction = direction_of_differences(comparison, [pair.reference for pair in pairs], differences)
    by_hand, _ = predicted_slope([pair.by_hand for pair in pairs], direction)
    by_autodiff, _ = predicted_slope([_replace_nonfinite(pair.reference) for pair in pairs], direction)
    slope = slope_along(comparison, direction)
    if slope is None:
        return Decision("undecided", NO_SLOPE, {})
    gap = abs(by_hand - by_autodiff)
    figures = (
        f"along their difference the loss has the slope {slope.value:z.6g}, by hand it is {by_hand:z.6g}, "
        f"by autodiff {by_autodiff:z.6g}"
    )
    if kinks is None and slope.is_kink and _is_between_sides(comparison, pairs, leaves):
        sides = f"the loss has the slopes {slope.left:z.6g} and {slope.right:z.6g} on its two sides there"
        return Decision("agrees", f"{sides}, and the gradient by hand lies between them", dict.fromkeys(leaves, True))
    if slope.error > gap / 8:
        return Decision("undecided", f"{figures}: they are nearer to each other than it can be measured", {})
    if abs(slope.value - by_hand) <= gap / 8 and _is_right_in_random_directions(comparison, pairs, leaves):
        return Decision("autodiff wrong", figures, dict.fromkeys(leaves, False))
    if abs(slope.value - by_autodiff) <= gap / 8 or kinks:
        return Decision("hand-written wrong", figures, {})
    return Decision("undecided", f"{figures}: neither", {})


def _is_right_in_random_directions(comparison, pairs, leaves) -> bool:
    random = np.random.default_rng(1)
    for _ in range(2):
        measured = _measure(comparison, [pair.by_hand for pair in pairs], random_direction(comparison, random, leaves))
        if measured is None or not _is_near(*measured):
            return False
    return True


def _is_slope_at_kink(comparison, pairs, number) -> bool | None:
    """Return whether a leaf is at a kink, if it is the loss's slope where autodiff's isn't finite; ``None`` if not."""
    random, at_kink = np.random.default_rng(2), False
    missing = ~np.isfinite(pairs[number].reference)
    for _ in range(2):
        direction = random_direction(comparison, random, [number])
        direction[number] = np.where(missing, direction[number], 0.0)
        measured = _measure(comparison, [pair.by_hand for pair in pairs], direction)
        if measured is None:
            return None
        slope, predicted, _ = measured
        if slope.is_kink and slope.holds(predicted):
            at_kink = True
        elif not _is_near(*measured):
            return None
    return at_kink


def _is_between_sides(comparison, pairs, leaves) -> bool:
    """Whether every disputed entry lies between its own two one-sided derivatives."""
    entries = []
    for number in leaves:
        different = np.abs(pairs[number].by_hand - pairs[number].reference) > 1e-9 * np.abs(pairs[number].by_hand)
        entries += [(number, tuple(index)) for index in np.argwhere(different)]
    if len(entries) > _MAX_ENTRIES or any(np.iscomplexobj(pairs[number].by_hand) for number in leaves):
        return False
    directions = []
    for number, index in entries:
        direction = [np.zeros_like(pair.reference) for pair in pairs]
        direction[number][index] = 1.0
        directions.append(direction)
    for (number, index), slope in zip(entries, slopes_along(comparison, directions), strict=True):
        if slope is None or not slope.holds(float(pairs[number].by_hand[index])):
            return False
    return True


def _replace_nonfinite(gradient) -> np.ndarray:
    """Return a gradient with zeros in the place of its infinities and NaNs."""
    return np.where(np.isfinite(gradient), gradient, 0.0)
