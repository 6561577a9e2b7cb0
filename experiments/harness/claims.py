"""Claims, which are fixed before the measurement, and their verdicts.

A claim is data: a sentence, a quantity, a threshold. Its verdict is computed from the values of many seeds. It holds
where the whole 95% interval meets the threshold, fails where none of it does, and is undecided otherwise.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 4_999
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

Verdict = Literal["holds", "fails", "undecided"]


class Section(StrEnum):
    """The chapter's sections, in the order of the report. Every section has a claim."""

    WHAT = "What neural networks are"
    WHY_APPROXIMATION = "Why they matter: universal approximation"
    WHY_FEATURES = "Why they matter: feature learning"
    WHY_FOUNDATION = "Why they matter: foundation of deep learning"
    WHY_STATE_OF_THE_ART = "Why they matter: state of the art"
    WHY_SCALE = "Why they matter: scale"
    PERCEPTRON = "1. The perceptron"
    ACTIVATIONS = "2. Activation functions"
    MLP = "3. The multi-layer perceptron"
    FORWARD = "4. Forward propagation"
    LOSSES = "5. Loss functions"
    BACKPROPAGATION = "6. Backpropagation"
    DESCENT = "7. Gradient descent and its variants"
    VANISHING = "8. Vanishing and exploding gradients"
    EXAMPLES = "The worked examples"
    MISTAKE_SIGMOID = "Mistakes: sigmoid in deep networks"
    MISTAKE_SCALING = "Mistakes: inputs that aren't scaled"
    MISTAKE_SOFTMAX = "Mistakes: softmax taken for independent probabilities"
    MISTAKE_MSE = "Mistakes: mean squared error for classification"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One sentence that a measurement can confirm or refute.

    Fields:
        name: its anchor in the report.
        sentence: the claim in our words.
        section: the section of the chapter that makes the claim or that it concerns.
        source: the paper that makes the claim, where it isn't the chapter: authors, year, place.
        quantity: the measured quantity of every seed, with its unit.
        at_least, at_most: the bounds of the quantity, fixed before the measurement.
        statistic: the mean or median of the seeds' values, the share of seeds (values 0 and 1), or ``"exact"`` for one
            deterministic figure.
        seeds, quick_seeds: the number of seeds in the full and in the quick run.
    """

    name: str
    sentence: str
    section: Section
    quantity: str
    source: str = ""
    at_least: float = -np.inf
    at_most: float = np.inf
    statistic: Literal["mean", "median", "share", "exact"] = "mean"
    seeds: int = 100
    quick_seeds: int = 20

    def __post_init__(self):
        if not self.at_least <= self.at_most or (np.isinf(self.at_least) and np.isinf(self.at_most)):
            raise ValueError(f"Claim {self.name!r}: expected at_least ≤ at_most, got {self.at_least}, {self.at_most}.")


@dataclass(frozen=True, kw_only=True)
class ClaimResult:
    """The measurement of a claim and its verdict.

    Fields:
        estimate, low, high: the statistic and its 95% interval.
        values: the values of the seeds.
        remark: a note for readers, such as the distance to a paper's value.
    """

    claim: Claim
    estimate: float
    low: float
    high: float
    verdict: Verdict
    values: tuple[float, ...] = field(repr=False)
    remark: str = ""

    @property
    def seeds(self) -> int:
        return len(self.values)


def judge(claim: Claim, values: ArrayLike, remark: str = "") -> ClaimResult:
    """Return the verdict on a claim: its statistic's 95% interval against its threshold.

    Means and medians have a percentile bootstrap interval over seeds. A share has the exact interval of Clopper and
    Pearson (1934), since the bootstrap's has no width where all seeds agree. An exact figure is its own interval.
    """
    values = np.asarray(values, float).ravel()
    if not values.size or not np.isfinite(values).all():
        raise ValueError(
            f"judge({claim.name!r}): expected finite values, got {values}. Count a failed run as a finite value."
        )
    if claim.statistic == "exact" and values.size != 1:
        raise ValueError(f"judge({claim.name!r}): expected one exact figure, got {values.size}.")
    if claim.statistic == "share" and not np.isin(values, (0, 1)).all():
        raise ValueError(f"judge({claim.name!r}): expected 0 or 1 for every seed, got {np.unique(values)}.")
    if claim.statistic != "exact" and values.size < 2:
        raise ValueError(f"judge({claim.name!r}): expected the values of two seeds or more, got one.")
    low, high = interval(values, claim.statistic)
    estimate = np.median(values) if claim.statistic == "median" else values.mean()
    return ClaimResult(
        claim=claim, estimate=float(estimate), low=low, high=high, verdict=verdict(claim, low, high),
        values=tuple(values.tolist()), remark=remark,
    )  # fmt: skip


def interval(values: np.ndarray, statistic: str = "mean") -> tuple[float, float]:
    """Return the 95% interval of a statistic over seeds."""
    if statistic == "share":
        exact = stats.binomtest(int(values.sum()), values.size).proportion_ci(CONFIDENCE, method="exact")
        return float(exact.low), float(exact.high)
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    measure = np.median if statistic == "median" else np.mean
    bounds = stats.bootstrap(
        (values,), measure, confidence_level=CONFIDENCE, n_resamples=RESAMPLES, method="percentile",
        rng=np.random.default_rng(0), batch=max(1, 10**6 // values.size),
    ).confidence_interval  # fmt: skip
    return float(bounds.low), float(bounds.high)


def verdict(claim: Claim, low: float, high: float) -> Verdict:
    """Return the verdict on a claim from the interval of its statistic."""
    if claim.at_least <= low and high <= claim.at_most:
        return "holds"
    if high < claim.at_least or claim.at_most < low:
        return "fails"
    return "undecided"


def format_threshold(claim: Claim) -> str:
    """Format the threshold: ``at most 0.01``, ``0.45 to 0.55``."""
    if np.isinf(claim.at_least):
        return f"at most {format_number(claim.at_most)}"
    if np.isinf(claim.at_most):
        return f"at least {format_number(claim.at_least)}"
    if claim.at_least == claim.at_most:
        return f"exactly {format_number(claim.at_least)}"
    return f"{format_number(claim.at_least)} to {format_number(claim.at_most)}"


def format_number(value: float, digits: int = 4) -> str:
    """Format a number with so many digits, powers of ten in superscripts, and a minus sign."""
    if abs(value) < 1e6 and (value == round(value) or abs(value) >= 1000):
        return f"{value:z,.0f}".replace("-", "−")
    return format_power(f"{value:.{digits}g}")


def format_power(figure: str) -> str:
    """Write the exponent of a number's text as a power of ten: ``2e-05`` is 2·10⁻⁵."""
    mantissa, _, exponent = figure.partition("e")
    power = "·10" + str(int(exponent)).translate(SUPERSCRIPTS) if exponent else ""
    return (mantissa + power).replace("-", "−")
