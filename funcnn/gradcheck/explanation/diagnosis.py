"""What is wrong with a gradient: the cause that explains all of a leaf's difference."""

import itertools
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple, TypeAlias

import numpy as np

from funcnn._numerics.arrays import max_abs
from funcnn.gradcheck.report import Cause

_MOST_SOLVED = 512


class Leaf(NamedTuple):
    """A leaf under diagnosis: its two gradients, and the parameter (``None`` for what isn't a parameter)."""

    path: str
    by_hand: np.ndarray
    reference: np.ndarray
    param: np.ndarray | None
    tolerance: float


class Facts(NamedTuple):
    """What the diagnosis knows of the problem.

    Fields:
        leaves: every leaf, right and wrong.
        sizes: numbers of this problem with their names: ``(32, "the batch size")``.
        contributions: from a leaf's position to the gradient of each sample alone, ``(samples, *shape)``, or ``None``
            where samples can't be told apart.
    """

    leaves: list[Leaf]
    sizes: Sequence[tuple[float, str]] = ()
    contributions: Callable[[int], np.ndarray | None] = lambda position: None


Finding: TypeAlias = tuple[Cause, str]


def loosened(facts: Facts, dtype_spacing: float) -> Facts:
    """The facts with tolerances as wide as the rounding of data in a dtype: what is nearly a cause is that cause."""
    leaves = [
        leaf._replace(tolerance=max(leaf.tolerance, 16 * dtype_spacing * max_abs(leaf.reference)))
        for leaf in facts.leaves
    ]
    return facts._replace(leaves=leaves)


def diagnose(position: int, facts: Facts) -> Finding:
    """The cause of one leaf's difference and a sentence on it."""
    leaf = facts.leaves[position]
    finite = np.isfinite(leaf.by_hand) & np.isfinite(leaf.reference)
    if not finite.all():
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        values = f"{leaf.by_hand[first]} by hand and {leaf.reference[first]} by autodiff, first at index {first}"
        if np.isfinite(leaf.by_hand).all():
            return "unknown", f"{values}; autodiff has no value there, and the one by hand isn't the loss's slope"
        return "nonfinite", values
    # Squares of huge or tiny gradients leave float64's range; only ratios count from here.
    unit = max(max_abs(leaf.by_hand), max_abs(leaf.reference))
    scaled = leaf._replace(
        by_hand=leaf.by_hand / unit, reference=leaf.reference / unit, tolerance=leaf.tolerance / unit
    )  # fmt: skip
    if _close(leaf.by_hand, leaf.reference, leaf.tolerance):
        return "unknown", _described(leaf, facts)
    found = (
        _zero(scaled)
        or _scaled(scaled, facts.sizes)
        or _rearranged(scaled)
        or _swapped(leaf, position, facts)
        or _offset(leaf)
        or _partly(scaled, position, facts)
        or _subset(leaf, facts.contributions(position))
    )
    return found or ("unknown", _described(leaf, facts))


def _zero(leaf) -> Finding | None:
    return None if leaf.by_hand.any() else ("zero", "zero everywhere by hand, not by autodiff")


def _scaled(leaf, sizes) -> Finding | None:
    factor = _factor(leaf.by_hand, leaf.reference)
    if max_abs(leaf.reference) <= leaf.tolerance:
        return None  # nothing but rounding to be a multiple of
    if not factor or not _close(leaf.by_hand, factor * leaf.reference, leaf.tolerance * max(1.0, abs(factor))):
        return None
    slack = max(4 * leaf.tolerance, 1e-12)
    if abs(factor + 1) <= slack:
        return "sign", "autodiff's gradient with the other sign"
    meaning = _meaning(factor, sizes, slack)
    # One entry is a multiple of any other: only a factor that means something says anything.
    if leaf.by_hand.size == 1 and not meaning and _fraction(factor, slack) is None:
        return None
    return "scaled", f"{_readable(factor, slack)} of autodiff's gradient{meaning}"


def _rearranged(leaf) -> Finding | None:
    for order in itertools.permutations(range(leaf.by_hand.ndim)):
        turned = leaf.reference.transpose(order)
        if order == tuple(range(leaf.by_hand.ndim)) or turned.shape != leaf.by_hand.shape:
            continue
        factor = _factor(leaf.by_hand, turned)
        if factor and _close(leaf.by_hand, factor * turned, leaf.tolerance * max(1.0, abs(factor))):
            slack = max(4 * leaf.tolerance, 1e-12)
            times = "" if abs(factor - 1) <= slack else f", times {_readable(factor, slack)}"
            axes = "rows and columns exchanged" if leaf.by_hand.ndim == 2 else f"its axes in the order {order}"
            return "transposed", f"autodiff's gradient with {axes}{times}"
    return None


def _swapped(leaf, position, facts) -> Finding | None:
    for number, other in enumerate(facts.leaves):
        if number == position or other.reference.shape != leaf.by_hand.shape or leaf.by_hand.size == 0:
            continue
        tolerance = max(leaf.tolerance, other.tolerance)
        if _close(leaf.by_hand, other.reference, tolerance) and not _close(other.reference, leaf.reference, tolerance):
            return "swapped", f"the gradient of {other.path or 'the root'}: were the two exchanged?"
    return None


def _offset(leaf) -> Finding | None:
    if leaf.param is None or leaf.param.shape != leaf.by_hand.shape or not leaf.param.size:
        return None
    difference = leaf.by_hand - leaf.reference
    for name, direction in {"the parameter": leaf.param, "the parameter's sign": np.sign(leaf.param)}.items():
        if direction is not leaf.param and np.ptp(direction.real) == 0:
            continue  # a constant is an offset, but not by the parameter
        coefficient = _factor(difference, direction)
        slack = leaf.tolerance + 1e-9 * max_abs(difference)
        # One entry is off by a multiple of any parameter: only a plain number says anything.
        is_plain = leaf.param.size > 1 or _fraction(coefficient, 1e-9) is not None
        if coefficient and is_plain and _close(difference, coefficient * direction, slack):
            what = "left out" if coefficient < 0 else "put in, or counted twice"
            return "offset_by_parameter", (
                f"autodiff's gradient plus {_readable(coefficient, 1e-8)} times {name}: "
                f"was a weight decay of {_readable(abs(coefficient), 1e-8)} {what}?"
            )
    return None


def _partly(leaf, position, facts) -> Finding | None:
    """Single entries, rows or columns."""
    wrong = np.abs(leaf.by_hand - leaf.reference) > leaf.tolerance
    count, size = int(wrong.sum()), wrong.size
    if count == size:
        return None
    if wrong.ndim >= 2 and (found := _slices(leaf, wrong)):
        return found
    is_formula = 2 * count > size and not _one_way(leaf, wrong.nonzero()[0], 0)
    if wrong.ndim == 1 and not is_formula and (sibling := _same_units(wrong, position, facts)):
        return "unit", f"{_listed('entry', 'entries', np.flatnonzero(wrong))} wrong, as the same units of {sibling} are"
    if count <= max(1, size // (4 if wrong.ndim < 2 else 20)):
        places = [tuple(int(i) for i in place) for place in np.argwhere(wrong)[:4]]
        first = places[0]
        shown = ", ".join(map(str, places)) + (", …" if count > 4 else "")
        ratio = f"{leaf.by_hand[first] / leaf.reference[first]:.6g} of" if leaf.reference[first] else "nonzero for 0 by"
        return "element", f"{count} of {size} entries wrong, the rest right: {shown}; the first is {ratio} autodiff's"
    return None


def _slices(leaf, wrong) -> Finding | None:
    """Wrong rows or columns, where all that is wrong lies in them and most of them is wrong."""
    best = None
    for axis in range(wrong.ndim):
        others = tuple(other for other in range(wrong.ndim) if other != axis)
        inside = wrong.sum(axis=others)
        indices = np.flatnonzero(inside)
        thickness = wrong.size // wrong.shape[axis]
        # A dead unit's entries are 0 and right either way, so a wrong row need not be wrong throughout.
        nonzero = (np.maximum(np.abs(leaf.by_hand), np.abs(leaf.reference)) > leaf.tolerance).sum(axis=others)
        filled = wrong.sum() / max(int(nonzero[indices].sum()), 1)
        whole = thickness > 1 and len(indices) < wrong.shape[axis] and filled >= 0.5 and wrong.sum() > 1
        if whole and (best is None or filled * thickness > best[0]):
            best = filled * thickness, axis, indices
    if best is None:
        return None
    _, axis, indices = best
    names = {0: ("row", "rows"), wrong.ndim - 1: ("column", "columns")}
    one, many = names.get(axis, (f"axis {axis}: slice", f"axis {axis}: slices"))
    if axis == 0 and leaf.path in ("x", "dx"):
        return "subset_of_batch", f"{_listed('sample', 'samples', indices)} wrong, the rest right"
    found = _one_way(leaf, indices, axis)
    # Where most rows are wrong in no one way, a whole formula is, and the right ones are so by chance.
    if not found and 2 * len(indices) > wrong.shape[axis]:
        return None
    there = f": there {found[1]}" if found else ""
    return "unit", f"{_listed(one, many, indices)} wrong, the rest right{there}"


def _one_way(leaf, indices, axis) -> Finding | None:
    """What all of some rows or columns have in common: zero, or a factor."""
    part = leaf._replace(by_hand=leaf.by_hand.take(indices, axis), reference=leaf.reference.take(indices, axis))
    return _zero(part) or _scaled(part, [])


def _same_units(wrong, position, facts):
    """The path of another leaf whose last axis is wrong at just these indices."""
    for number, other in enumerate(facts.leaves):
        if number == position or other.by_hand.ndim < 2 or other.by_hand.shape != other.reference.shape:
            continue
        if other.by_hand.shape[-1] == wrong.size:
            there = np.abs(other.by_hand - other.reference) > other.tolerance
            if np.array_equal(there.any(axis=tuple(range(there.ndim - 1))), wrong):
                return other.path
    return None


def _subset(leaf, contributions) -> Finding | None:
    """The gradient of some samples: by least squares where it has more entries than samples, else the likely ones."""
    if contributions is None:
        return None
    samples = len(contributions)
    rows, wanted = contributions.reshape(samples, -1), leaf.by_hand.ravel()
    share = _factor(leaf.reference, rows.sum(axis=0))
    together = share * rows.sum(axis=0)
    if not share or not _close(together, leaf.reference.ravel(), 1e-6 * max_abs(leaf.reference)):
        return None  # the loss isn't a mean over samples
    # A subset explains the difference, and isn't just as near as the whole batch is.
    slack = min(leaf.tolerance + 1e-10 * max_abs(leaf.by_hand), 1e-3 * max_abs(leaf.by_hand - leaf.reference))
    chosen = _by_least_squares(rows, wanted, share, slack)
    chosen = _likely_subset(rows, wanted, share, slack) if chosen is None else chosen
    if chosen is None:
        return None
    only = 2 * chosen.sum() <= samples
    listed = _listed("sample", "samples", np.flatnonzero(chosen if only else ~chosen), verb=False)
    return "subset_of_batch", f"only {listed} of {samples} in it" if only else f"{listed} of {samples} left out"


def _by_least_squares(rows, wanted, share, slack):
    """The samples with a weight of their own, where the others have none."""
    samples, entries = rows.shape
    if entries < samples or samples > _MOST_SOLVED:
        return None
    some = np.random.default_rng(7).permutation(entries)[: 4 * samples]
    weights = np.linalg.lstsq(rows[:, some].T, wanted[some], rcond=None)[0] / share
    chosen = np.abs(weights) > 0.5 * np.abs(weights).max()
    fitted = weights[chosen].mean() * share * rows[chosen].sum(axis=0)
    return chosen if chosen.sum() < samples and _close(wanted, fitted, slack) else None


def _likely_subset(rows, wanted, share, slack):
    """The first samples or the last, one sample, or all but one; with the mean's divisor, their own, or none."""
    samples = len(rows)
    numbers, whole, first = np.arange(samples), rows.sum(axis=0), rows.cumsum(axis=0)
    candidates = [
        (first[:-1], numbers[:-1] + 1, lambda n: numbers <= n),
        (whole - first[:-1], samples - 1 - numbers[:-1], lambda n: numbers > n),
        (rows, np.ones(samples), lambda n: numbers == n),
        (whole - rows, np.full(samples, samples - 1), lambda n: numbers != n),
    ]
    even = rows[::2].sum(axis=0)[None]
    candidates += [(even, np.array([len(rows[::2])]), lambda n: numbers % 2 == 0)]
    candidates += [(whole - even, np.array([len(rows[1::2])]), lambda n: numbers % 2 == 1)]
    for sums, counts, chosen in candidates:
        for divisor in (np.ones(len(sums)), samples / counts, np.full(len(sums), samples)):
            gaps = np.abs(share * divisor[:, None] * sums - wanted).max(axis=1)
            if gaps.min(initial=np.inf) <= slack:
                return chosen(int(gaps.argmin()))
    return None


def _described(leaf, facts) -> str:
    """Where the largest difference is, and what it looks like."""
    worst = np.unravel_index(np.argmax(np.abs(leaf.by_hand - leaf.reference)), leaf.by_hand.shape)
    place = tuple(int(i) for i in worst)
    ours, reference = leaf.by_hand[place], leaf.reference[place]
    text = f"{ours:.6g} by hand and {reference:.6g} by autodiff at index {place}"
    difference = leaf.by_hand - leaf.reference
    if leaf.by_hand.ndim >= 2:
        for axis, size in enumerate(leaf.by_hand.shape):
            mean = difference.mean(axis=axis, keepdims=True)
            if size > 1 and _close(difference, mean, leaf.tolerance + 1e-9 * max_abs(mean)):
                return f"{text}; the difference is the same all along axis {axis}: is a mean over it missing?"
        return text + _factors_by_column(leaf, facts)
    return text


def _factors_by_column(leaf, facts):
    """Where each column is right but for a factor of its own: which parameter those factors are."""
    ratios = []
    for column in range(leaf.by_hand.shape[-1]):
        ours, reference = leaf.by_hand[..., column], leaf.reference[..., column]
        ratio = _factor(ours, reference) if max_abs(reference) else 0.0
        if not ratio or not _close(ours, ratio * reference, leaf.tolerance + 1e-9 * max_abs(ours)):
            return ""
        ratios.append(ratio)
    for other in facts.leaves:
        if other.param is not None and other.param.shape == (len(ratios),) and other.param.all():
            for word, candidate in {"divided": 1 / other.param, "multiplied": other.param}.items():
                if np.allclose(ratios, candidate, rtol=1e-6):
                    return f"; every column is {word} by its entry of {other.path}: was that factor {_MISTAKES[word]}?"
    return "; every column is right but for a factor of its own"


_MISTAKES = {"divided": "left out", "multiplied": "put in twice"}


def _factor(numbers, reference):
    """The constant that makes ``reference`` nearest to ``numbers``."""
    unit = max_abs(reference)
    if not unit:
        return 0.0
    flat = np.ravel(reference) / unit
    return float(np.vdot(flat, np.ravel(numbers)).real / np.vdot(flat, flat).real / unit)


def _meaning(factor, sizes, slack):
    def is_about(value):
        return abs(factor / value - 1) <= slack

    if is_about(0.5):
        return "; the derivative of a square brings a 2: was it left out?"
    if is_about(2):
        return "; a loss with ½ of a square has no 2 in its gradient: was one put in?"
    known = [(value, word) for value, word in sizes if value not in (0, 1)]
    for value, word in known:
        if is_about(value):
            return f"; that is {word}: " + _too_much(word)
        if is_about(1 / value):
            return f"; that is one over {word}: " + _too_little(word)
    for times in (2, 0.5, -1, -2, -0.5):
        for value, word in known[:1]:
            if is_about(times * value) or is_about(times / value):
                return f"; that is {times:g} {'times' if is_about(times * value) else 'over'} {word}"
    if any(is_about(10.0**-power) for power in range(1, 7)):
        return "; is it the learning rate? It belongs to the optimizer"
    return ""


def _too_much(word):
    return "was the mean left out?" if "argument" not in word else "does it belong in the gradient?"


def _too_little(word):
    return (
        "was a mean taken where the gradient adds up, or taken twice?" if "argument" not in word else "is it left out?"
    )


def _fraction(factor, slack):
    fraction = Fraction(factor).limit_denominator(1000 if slack < 1e-8 else 20)
    return fraction if fraction != 0 and abs(float(fraction) / factor - 1) <= slack else None


def _readable(factor, slack):
    fraction = _fraction(factor, slack)
    if fraction is None or (abs(fraction) < Fraction(1, 20) or fraction.denominator > 100):
        return f"{factor:.9g}"
    return str(fraction)


def _listed(one, many, indices, verb=True):
    shown = ", ".join(map(str, indices[:6])) + (", …" if len(indices) > 6 else "")
    single = len(indices) == 1
    return f"{one if single else many} {shown}" + (f" {'is' if single else 'are'}" if verb else "")


def _close(first, second, tolerance):
    return bool(np.all(np.abs(first - second) <= tolerance))
