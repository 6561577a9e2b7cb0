"""What is wrong with a gradient: the cause that explains all of a leaf's difference."""

from fractions import Fraction

import numpy as np

from funcnn.gradcheck.report import Cause, LeafReport


def diagnose_leaf(by_hand: np.ndarray, by_autodiff: np.ndarray, tolerance: float) -> tuple[Cause, str]:
    """The cause of a leaf's difference and a sentence on it, from the two gradients of one shape.

    Example:
        >>> import numpy as np
        >>> diagnose_leaf(np.array([-1.0, 2.0]), np.array([1.0, -2.0]), 1e-12)
        ('sign', "autodiff's gradient with the other sign")
    """
    finite = np.isfinite(by_hand) & np.isfinite(by_autodiff)
    if not finite.all():
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        return "nonfinite", f"{by_hand[first]} by hand and {by_autodiff[first]} by autodiff, first at index {first}"
    # Squares of huge or tiny gradients leave float64's range; only ratios count from here.
    unit = max(float(np.abs(array).max()) for array in (by_hand, by_autodiff))
    by_hand, by_autodiff, tolerance = by_hand / unit, by_autodiff / unit, tolerance / unit
    if not by_hand.any():
        return "zero", "zero everywhere by hand, not by autodiff"
    if by_hand.ndim == 2 and by_hand.shape[0] == by_hand.shape[1] and _close(by_hand, by_autodiff.T, tolerance):
        return "transposed", "autodiff's gradient with rows and columns exchanged"
    size = np.vdot(by_autodiff, by_autodiff).real
    factor = float(np.vdot(by_autodiff, by_hand).real / size) if size else 0.0
    if factor and _close(by_hand, factor * by_autodiff, tolerance * max(1.0, abs(factor))):
        if abs(factor + 1) <= 4 * tolerance:
            return "sign", "autodiff's gradient with the other sign"
        return "scaled", f"{_readable(factor, tolerance)} of autodiff's gradient{_known_factor(factor, tolerance)}"
    worst = np.unravel_index(np.argmax(np.abs(by_hand - by_autodiff)), by_hand.shape)
    place = tuple(int(i) for i in worst)
    ours, reference = by_hand[place] * unit, by_autodiff[place] * unit
    apart = f"{abs(ours - reference):.2g} apart"
    return "unknown", f"{ours:.6g} by hand and {reference:.6g} by autodiff at index {place}, {apart}"


def diagnose_tree(leaves: tuple[LeafReport, ...]) -> str:
    """A paragraph on the whole tree; leaves that are wrong in the same way are one finding."""
    wrong = [leaf for leaf in leaves if not leaf.ok]
    if not leaves:
        return "There are no parameters to compare."
    if not wrong:
        return f"The gradients agree in {'the one leaf' if len(leaves) == 1 else f'all {len(leaves)} leaves'}."
    findings: dict[str, list[str]] = {}
    for leaf in wrong:
        findings.setdefault(f"{leaf.cause}: {leaf.detail}", []).append(leaf.path or "the root")
    lines = [
        f"The gradient by hand is wrong in {len(wrong)} of {len(leaves)} {'leaf' if len(leaves) == 1 else 'leaves'}."
    ]
    lines += [f"{', '.join(paths)}: {finding}" for finding, paths in findings.items()]
    return "\n".join(lines)


def _close(first, second, tolerance):
    return bool(np.all(np.abs(first - second) <= tolerance))


def _readable(factor, tolerance):
    fraction = Fraction(factor).limit_denominator(1000)
    exact = fraction != 0 and abs(float(fraction) / factor - 1) <= 4 * tolerance
    return str(fraction) if exact else f"{factor:.9g}"


def _known_factor(factor, tolerance):
    if abs(factor / 0.5 - 1) <= 4 * tolerance:
        return "; the derivative of a square brings a factor 2: was it left out?"
    if abs(factor / 2 - 1) <= 4 * tolerance:
        return "; a loss with ½ of a square has no factor 2 in its gradient: was one put in?"
    return ""
