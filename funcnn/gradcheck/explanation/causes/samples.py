"""Causes ``subset_of_batch``, the gradient of some samples only, and ``accumulated``, of parts that a buffer keeps."""

import numpy as np

from funcnn._numerics.arrays import max_abs
from funcnn.gradcheck.explanation.leaf import Diagnosis, WrongLeaf
from funcnn.gradcheck.explanation.numbers import best_factor, format_factor, is_close, list_indices

_MAX_SOLVED = 512


def detect_subset_of_batch(wrong: WrongLeaf) -> Diagnosis | None:
    """Return ``subset_of_batch`` if the leaf is the gradient of some samples of a loss that is a mean over samples.

    The samples come from least squares if the leaf has more entries than there are samples. Otherwise the likely
    subsets are tried: the first or last samples, one sample, all but one, every second one.
    """
    leaf, contributions = wrong.leaf, wrong.facts.contributions(wrong.position)
    if contributions is None:
        return None
    samples = len(contributions)
    rows, by_hand = contributions.reshape(samples, -1), leaf.by_hand.ravel()
    share = best_factor(leaf.reference, rows.sum(axis=0))
    if not share or not is_close(share * rows.sum(axis=0), leaf.reference.ravel(), 1e-6 * max_abs(leaf.reference)):
        return None  # the loss isn't a mean over samples
    # A subset must explain the difference, and must not be as near as the whole batch is.
    slack = min(leaf.tolerance + 1e-10 * max_abs(leaf.by_hand), 1e-3 * max_abs(leaf.by_hand - leaf.reference))
    chosen = _least_squares_subset(rows, by_hand, share, slack)
    chosen = _likely_subset(rows, by_hand, share, slack) if chosen is None else chosen
    if chosen is None:
        return _weighted(rows, by_hand, share, slack)
    is_minority = 2 * chosen.sum() <= samples
    listed = list_indices("sample", "samples", np.flatnonzero(chosen if is_minority else ~chosen), verb=False)
    return "subset_of_batch", f"only {listed} of {samples} in it" if is_minority else f"{listed} of {samples} left out"


def _weighted(rows, by_hand, share, slack) -> Diagnosis | None:
    """Return ``accumulated`` or ``subset_of_batch`` if parts of the batch have unequal weights."""
    samples, entries = rows.shape
    for size in range(1, samples):
        # A buffer that is added after each part, and keeps the parts before.
        times = -(-samples // size) - np.arange(samples) // size
        if is_close(by_hand, share * (times @ rows), slack):
            words = f"of {times[0]} parts of the batch, of {size} samples each,"
            return "accumulated", f"{words} every one is added again with each that follows"
    gaps = np.abs(share * (rows.sum(axis=0) + rows) - by_hand).max(axis=1)
    if gaps.min(initial=np.inf) <= slack:
        return "subset_of_batch", f"sample {int(gaps.argmin())} of {samples} is counted twice"
    if entries < samples or samples > _MAX_SOLVED:
        return None
    weights = np.linalg.lstsq(rows.T, by_hand, rcond=None)[0] / share
    levels = np.unique(np.round(weights, 6))
    if 1 < len(levels) <= 3 and len(levels) < samples / 2 and is_close(by_hand, share * weights @ rows, slack):
        parts = [
            f"{list_indices('sample', 'samples', np.flatnonzero(np.abs(weights - level) < 1e-5), verb=False)} "
            f"with the weight {format_factor(float(level), 1e-5)}"
            for level in levels
        ]
        return "subset_of_batch", ", ".join(parts)
    return None


def _least_squares_subset(rows, by_hand, share, slack):
    """Return a mask of the samples with a large weight, if the others have none."""
    samples, entries = rows.shape
    if entries < samples or samples > _MAX_SOLVED:
        return None
    some = np.random.default_rng(7).permutation(entries)[: 4 * samples]
    weights = np.linalg.lstsq(rows[:, some].T, by_hand[some], rcond=None)[0] / share
    chosen = np.abs(weights) > 0.5 * np.abs(weights).max()
    gradient = weights[chosen].mean() * share * rows[chosen].sum(axis=0)
    return chosen if chosen.sum() < samples and is_close(by_hand, gradient, slack) else None


def _likely_subset(rows, by_hand, share, slack):
    """Return a mask of a likely subset, whose sum is divided by the batch size, by its own size, or by nothing."""
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
    for sums, counts, mask in candidates:
        for divisor in (np.ones(len(sums)), samples / counts, np.full(len(sums), samples)):
            gaps = np.abs(share * divisor[:, None] * sums - by_hand).max(axis=1)
            if gaps.min(initial=np.inf) <= slack:
                return mask(int(gaps.argmin()))
    return None
