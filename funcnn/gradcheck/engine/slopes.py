"""Slopes of the loss, measured by moving its parameters: the third witness, which uses no rule of differentiation.

Differences over h, h/2 and h/4 are extrapolated to h = 0 (Richardson), from both sides together and from each alone,
and from smaller h if they don't converge. The last corrections of the extrapolation estimate the error.

Source:
    Richardson, "The deferred approach to the limit", 1927; Ridders, "Accurate computation of F′(x) and F′(x)F″(x)",
    1982.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

_STEP_FACTORS = (1.0, 2.0**-5, 2.0**-10, 2.0**5)
_LONGEST_STEP = 2.0  # in units of a direction, which is as large as the parameters


class Slope(NamedTuple):
    """A derivative along a direction.

    Fields:
        value, error: the derivative and its estimated error.
        left, right, side_error: the one-sided derivatives and their error.
        evaluations: the number of calls of the loss.
    """

    value: float
    error: float
    left: float
    right: float
    side_error: float
    evaluations: int

    @property
    def is_kink(self) -> bool:
        """Whether the two sides differ by more than their errors."""
        return bool(abs(self.right - self.left) > 4 * self.side_error)

    def holds(self, slope: float) -> bool:
        """Whether ``slope`` lies between the two sides, within their error."""
        low, high = sorted((self.left, self.right))
        return bool(low - self.side_error <= slope <= high + self.side_error)


def measure_slope(along: Callable[[float], float], spacing: float, enough: float = 0.0) -> Slope | None:
    """Return the slope at 0 of a function of one number.

    Args:
        along: the loss as a function of the distance along a direction.
        spacing: ε of the arithmetic; the first step is ε^⅕, where the error of the extrapolation, h⁶, and rounding,
            ε/h, are both small.
        enough: the error at which the measurement stops.

    Returns:
        The slope with the smallest error of all steps; ``None`` if the function has no finite values there.
    """

    def losses(distances):
        return np.array([[along(float(distance))] for distance in distances])

    return measure_slopes(losses, spacing, enough)[0]


def measure_slopes(
    losses: Callable[[np.ndarray], np.ndarray],
    spacing: float,
    enough: float | np.ndarray = 0.0,
    resolution: float = 0.0,
) -> list[Slope | None]:
    """Return the slopes at 0 along several directions, as ``measure_slope`` does along one.

    Args:
        losses: from distances ``(points,)`` to the loss at each distance along each direction,
            ``(points, directions)``.
        spacing: as for ``measure_slope``.
        enough: the same, or one for each direction.
        resolution: the size of the jumps by which the loss changes, if it is larger than its rounding to ``spacing``.
    """
    centre = losses(np.zeros(1))[0]
    enough = np.broadcast_to(enough, centre.shape)
    best: list[Slope | None] = [None] * len(centre)
    evaluations = 1
    size = float(np.max(np.abs(centre), initial=0.0))
    for shrink in _step_factors(spacing, size, float(np.max(enough, initial=0.0))):
        is_done = all(slope and _is_enough(slope, each) for slope, each in zip(best, enough, strict=True))
        if is_done or not np.isfinite(centre).any():
            break
        steps = spacing**0.2 * shrink / 2.0 ** np.arange(3)
        values = losses(np.concatenate([steps, -steps]))
        evaluations += 6
        for number, start in enumerate(centre):
            slope = _slope(values[:3, number], values[3:, number], start, steps, (spacing, resolution), evaluations)
            known = best[number]
            if slope is not None and (known is None or slope.error < known.error):
                best[number] = slope
        best = [slope and slope._replace(evaluations=evaluations) for slope in best]
    return best


def _is_enough(slope, enough):
    return slope.error <= max(enough, 1e-9 * abs(slope.value))


def _slope(ahead, behind, centre, steps, digits, evaluations) -> Slope | None:
    """Return the slope by the losses at three steps ahead and behind; ``None`` if one isn't finite."""
    if not (np.isfinite(ahead).all() and np.isfinite(behind).all() and np.isfinite(centre)):
        return None
    (spacing, resolution), size = digits, max(np.abs(ahead).max(), np.abs(behind).max(), abs(centre))
    rounding = max(4 * spacing * size, 2 * resolution) / steps[-1]
    value, error = _extrapolate((ahead - behind) / (2 * steps), order=2)
    right, right_error = _extrapolate((ahead - centre) / steps, order=1)
    left, left_error = _extrapolate((centre - behind) / steps, order=1)
    side_error = max(left_error, right_error) + 8 * rounding
    return Slope(value, error + rounding, left, right, side_error, evaluations)


def _step_factors(spacing, centre, enough):
    """Return the steps in the order in which they are tried, in units of the first step.

    Those at which rounding is far below ``enough`` come first, from the smallest. Fewer ReLUs switch within a small
    step, so the slope converges sooner.
    """
    factors = [shrink for shrink in _STEP_FACTORS if spacing**0.2 * shrink <= _LONGEST_STEP]
    accurate = [shrink for shrink in factors if 16 * spacing**0.8 * abs(centre) / shrink <= enough / 8]
    return (*sorted(accurate), *(shrink for shrink in factors if shrink not in accurate))


def _extrapolate(differences, order):
    """Return the limit of differences at h, h/2, h/4 for h → 0; their errors are h, h², … (order 1) or h², h⁴, …"""
    first = (2**order * differences[1:] - differences[:-1]) / (2**order - 1)
    power = 2 * order
    value = (2**power * first[1] - first[0]) / (2**power - 1)
    # The last correction alone may be small by chance if ReLUs switch within a step.
    return float(value), float(max(abs(value - first[1]), abs(first[1] - first[0])))
