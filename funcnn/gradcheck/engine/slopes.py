"""The third witness: slopes of the loss itself, measured by moving its parameters. No rule of differentiation is used.

Differences over h, h/2 and h/4 are extrapolated to h = 0 (Richardson), from both sides together and from each alone,
and from smaller h where the figures don't settle. What is left over says how far a slope can be trusted.

Source:
    Richardson, "The deferred approach to the limit", 1927; Ridders, "Accurate computation of F′(x) and F′(x)F″(x)",
    1982.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

_LADDER = (1.0, 2.0**-5, 2.0**-10, 2.0**5)


class Slope(NamedTuple):
    """A derivative along a direction, how far it may be off, and the derivatives on either side.

    ``evaluations`` counts the calls of the loss.
    """

    value: float
    error: float
    left: float
    right: float
    side_error: float
    evaluations: int

    @property
    def is_kink(self) -> bool:
        """Whether the two sides differ by more than either may be off."""
        return bool(abs(self.right - self.left) > 4 * self.side_error)

    def holds(self, slope: float) -> bool:
        """Whether ``slope`` lies between the two sides, as far as they are known."""
        low, high = sorted((self.left, self.right))
        return bool(low - self.side_error <= slope <= high + self.side_error)


def measured_slope(along: Callable[[float], float], spacing: float, enough: float = 0.0) -> Slope | None:
    """The slope at 0 of a function of one number.

    Args:
        along: the loss as a function of the distance along a direction.
        spacing: ε of the numbers that it is computed with; the first step is ε^⅕, where the error of the extrapolation,
            h⁶, and rounding, ε/h, are both small.
        enough: an error that is small enough to stop at.

    Returns:
        The slope from the step at which it settles best; ``None`` where the function has no finite values there.
    """
    centre, best, evaluations = along(0.0), None, 1
    if not np.isfinite(centre):
        return None
    for shrink in _ladder(spacing, centre, enough):
        step = spacing**0.2 * shrink
        ahead = np.array([along(step / 2**level) for level in range(3)])
        behind = np.array([along(-step / 2**level) for level in range(3)])
        evaluations += 6
        if not (np.isfinite(ahead).all() and np.isfinite(behind).all()):
            continue
        steps = step / 2.0 ** np.arange(3)
        size = max(np.abs(ahead).max(), np.abs(behind).max(), abs(centre))
        rounding = 4 * spacing * size / steps[-1]
        value, error = _extrapolated((ahead - behind) / (2 * steps), order=2)
        right, right_error = _extrapolated((ahead - centre) / steps, order=1)
        left, left_error = _extrapolated((centre - behind) / steps, order=1)
        found = Slope(
            value, error + rounding, left, right, max(left_error, right_error) + 8 * rounding, evaluations
        )  # fmt: skip
        if best is None or found.error < best.error:
            best = found
        best = best._replace(evaluations=evaluations)
        if best.error <= max(enough, 1e-9 * abs(best.value)):
            break
    return best


def _ladder(spacing, centre, enough):
    """The steps to try, in order: first, from the smallest, those at which rounding is far below what is enough.

    The fewer ReLUs switch within a step, the sooner a slope settles.
    """
    quiet = [shrink for shrink in _LADDER if 16 * spacing**0.8 * abs(centre) / shrink <= enough / 8]
    return (*sorted(quiet), *(shrink for shrink in _LADDER if shrink not in quiet))


def _extrapolated(differences, order):
    """The limit at step 0 of differences at h, h/2, h/4 whose error goes with h, h², … (order 1) or h², h⁴, …"""
    first = (2**order * differences[1:] - differences[:-1]) / (2**order - 1)
    power = 2 * order
    value = (2**power * first[1] - first[0]) / (2**power - 1)
    # Not the last correction alone: where ReLUs switch within a step, it is small by chance.
    return float(value), float(max(abs(value - first[1]), abs(first[1] - first[0])))
