"""Explanations of a loss that does not fall: parameters that start equal or decay to 0, and heavy dropout.

An explanation replaces the findings that are its consequences.
"""

from collections.abc import Iterator

import numpy as np

from funcnn.health.kinds import Finding
from funcnn.health.loss_curve import LossCurve, figure, has_parameters, outcome, percent, sampled, since
from funcnn.health.record import HealthRecord, ModelFacts

SHRUNK = 0.1
"""The share of its first norm that is left of a layer. Where gradients decide, norms of kernels grow or stay."""

NOISY = 0.8
"""A drop rate p multiplies the signal by noise of the variance p/(1 − p): four times the signal's square here. For
several layers, 1 − p is the product of theirs."""

EQUAL = 1e-5
"""The largest standard deviation between equal units over the size of their outputs: rounding in float32."""

SIGNIFICANT = 3.0
"""Standard errors between the means of the first and of the last tenth of the losses."""


def zero_start(record: HealthRecord, facts: ModelFacts, curve: LossCurve) -> Iterator[Finding]:
    """Find models of several layers whose parameters are all 0 at the first step."""
    cotangent = sampled(record, "cotangent")[0]
    starts_at_zero = not sampled(record, "parameter_norm")[0].any() and has_parameters(record).any()
    if curve.learns or not starts_at_zero or cotangent.all():
        return
    last = int(np.flatnonzero(cotangent == 0)[-1])
    yield Finding(
        "loss doesn't fall",
        record.names[last],
        int(record.steps[0]),
        f"All parameters are 0 at the first step: the units of a layer are all alike and stay alike, and no gradient "
        f"reaches {record.names[last]}. After {np.size(record.step_losses)} steps {outcome(curve)}.",
        "Draw the parameters at random: leave params out, or use model.init(key).",
    )


def equal_units(record: HealthRecord, facts: ModelFacts, curve: LossCurve) -> Iterator[Finding]:
    """Find hidden layers whose units are equal at the first step and at the last: equal weights get equal gradients."""
    between, spread = sampled(record, "between_units"), sampled(record, "spread")
    size = np.maximum(spread, abs(sampled(record, "mean")))
    with np.errstate(invalid="ignore"):
        is_equal = (between <= EQUAL * size) & (spread > 0)
    rows = np.flatnonzero(has_parameters(record))[:-1]
    found = rows[is_equal[0, rows] & is_equal[-1, rows]]
    if curve.learns or not len(found):
        return
    yield Finding(
        "loss doesn't fall",
        record.names[found[0]],
        int(record.steps[0]),
        f"The units of {record.names[found[0]]} are all alike at the first step and stay alike: they start with equal "
        f"weights, so that they get equal gradients. After {np.size(record.step_losses)} steps {outcome(curve)}.",
        "Draw the parameters at random: leave params out, or use model.init(key).",
    )


def decay(record: HealthRecord, facts: ModelFacts, curve: LossCurve) -> Iterator[Finding]:
    """Find runs in which the parameters of every layer go to 0, or of most: a mask may spare the others from decay."""
    norms = sampled(record, "parameter_norm")
    rows = np.flatnonzero(norms[0] != 0)
    if curve.learns or not len(rows) or not np.isfinite(norms).all():
        return
    left = norms[:, rows] / norms[0, rows]
    shrunk = np.flatnonzero(left[-1] < SHRUNK)
    if 2 * len(shrunk) < len(rows):
        return
    left = left[:, shrunk]
    name = record.names[rows[shrunk[int(left[-1].argmax())]]]
    where = "every layer" if len(shrunk) == len(rows) else f"{len(shrunk)} of {len(rows)} layers"
    yield Finding(
        "loss doesn't fall",
        name,
        since(record, left.max(axis=1) < SHRUNK),
        f"The parameters go to 0 in {where}; of the norm of {name}, the slowest, {figure(left[-1].max())} is left. "
        f"Their decay wins over the gradients; {outcome(curve)}.",
        "Divide the weight decay by 10 until the loss falls: 1e-4 to 1e-2 are usual.",
    )


def thinned(record: HealthRecord, facts: ModelFacts, curve: LossCurve) -> Iterator[Finding]:
    """Find a loss that falls slowly under heavy dropout: it is the loss of a thinned network."""
    rates = np.array([layer.drop_rate for layer in facts.layers])
    rate, row = 1 - float(np.prod(1 - rates)), int(rates.argmax())
    if curve.learns or rate < NOISY or not _falls(np.ravel(record.step_losses)):
        return
    if rates[row] >= NOISY:
        drops = f"{record.names[row]} drops {percent(rates[row])} of its input in training."
    else:
        count = np.count_nonzero(rates)
        drops = f"{count} layers drop entries in training, and {percent(rate)} of the paths through them are cut."
    yield Finding(
        "loss doesn't fall",
        record.names[row],
        int(record.steps[0]),
        f"{drops} The training loss is that of a thinned network; it falls slowly, from {figure(curve.start)} to "
        f"{figure(curve.end)}.",
        "Judge the run by a validation loss, which is that of the whole network, or drop fewer: 0.1 to 0.5 are usual.",
    )


def _falls(losses: np.ndarray) -> bool:
    """Return whether the mean of the last tenth of the losses is significantly below that of the first."""
    tenth = max(2, len(losses) // 10)
    first, last = np.asarray(losses[:tenth], np.float64), np.asarray(losses[-tenth:], np.float64)
    return bool(first.mean() - last.mean() > SIGNIFICANT * np.sqrt((first.var() + last.var()) / tenth))
