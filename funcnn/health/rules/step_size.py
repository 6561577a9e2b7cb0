"""Rules on the size of the steps: too large, too small, or without effect."""

import math
from collections.abc import Iterator

import numpy as np

from funcnn.health.kinds import Finding
from funcnn.health.loss_curve import LossCurve, figure, has_parameters, outcome, percent, sampled, since, usual
from funcnn.health.record import HealthRecord, ModelFacts

LARGE = 0.1
"""A step of this share of the layer's norm: a hundred times the usual 10⁻³. Ten such steps replace the parameters."""

DESTRUCTIVE = 0.5
"""A step of half the layer's norm: two such steps replace the initial parameters."""

SHORT_WAY = 0.1
"""The sum of all steps of a layer as a share of its norm. Below this the parameters are still near their initial
values, and the prediction is nearly linear in the change."""

JUMPY = 3.2
"""Mean change of the loss from step to step over the loss, times √batch. The mean of n squared normal errors changes by
2/√π √(2/n) = 1.6/√n of itself from one mini-batch to the next; this is twice as much."""

LITTLE = 0.2
"""A run that explains less than a fifth of what the best constant prediction leaves may only have memorised samples."""


def rate_too_high(record: HealthRecord, facts: ModelFacts, curve: LossCurve) -> Iterator[Finding]:
    """Find runs whose loss diverges, or jumps without getting better, while the steps are large."""
    # The first steps of a layer that starts at 0 are many times its norm.
    rows = has_parameters(record) & (sampled(record, "parameter_norm")[0] != 0)
    if not rows.any():
        return
    ratios = np.asarray(record.update_ratios, np.float64)[:, rows]
    is_number = np.asarray(np.isfinite(ratios).all(axis=1))
    ratios = np.where(np.isfinite(ratios), ratios, np.inf)
    early = ratios[: max(1, len(ratios) // 4)]
    largest = early.max()
    diverges = curve.broke_at is not None or curve.end > 2 * max(curve.constant, 0.0)
    jumpy = curve.jumps * facts.batch_size**0.5 > JUMPY
    lasts = np.median(ratios.max(axis=1)) >= LARGE
    if not curve.may_be_hindered(largest / LARGE) or not (diverges or lasts or jumpy or largest >= DESTRUCTIVE):
        return
    # The largest step that is finite shows it best.
    readable = np.where(is_number[: len(early), None], early, -1.0)
    sample, column = np.unravel_index(readable.argmax(), early.shape)
    name = record.names[np.flatnonzero(rows)[column]]
    first = since(record, np.asarray((ratios >= LARGE).any(axis=1)))
    step, moved = int(record.steps[sample]), figure(early[sample, column])
    yield Finding(
        "learning rate too high",
        name,
        first if curve.broke_at is None else min(first, curve.broke_at),
        f"Step {step} moves {name} by {moved} times its own norm, where 0.001 is usual; {outcome(curve)}"
        + (f", and changes by {percent(min(curve.jumps, 1.0))} from step to step." if jumpy else "."),
        "Divide the learning rate by 10 until the loss falls steadily.",
    )


def rate_too_low(record: HealthRecord, facts: ModelFacts, curve: LossCurve) -> Iterator[Finding]:
    """Find runs in which the sum of all step sizes is small for every layer."""
    rows = has_parameters(record)
    if curve.broke_at is not None or not rows.any():
        return
    ratios = np.asarray(record.update_ratios, np.float64)[:, rows]
    if not np.isfinite(ratios).all():
        return
    steps = len(np.ravel(record.step_losses))
    ways = ratios.mean(axis=0) * steps
    farthest = int(ways.argmax())
    if ways[farthest] == 0 or not curve.may_be_hindered(SHORT_WAY / ways[farthest]):
        return
    name = record.names[np.flatnonzero(rows)[farthest]]
    yield Finding(
        "learning rate too low",
        name,
        int(record.steps[0]),
        f"A step moves even {name}, the quickest layer, by {figure(usual(ratios)[farthest])} of its own norm, where "
        f"0.001 is usual: {percent(ways[farthest])} in {steps} steps; {outcome(curve)}.",
        "Multiply the learning rate by 10 until the loss falls or begins to jump, then go one step back.",
    )


def no_fall(record: HealthRecord, facts: ModelFacts, curve: LossCurve) -> Iterator[Finding]:
    """Find runs that end no better than a constant prediction, in training or on the validation data."""
    validation = np.asarray(record.validation_losses, np.float64)
    steps = len(np.ravel(record.step_losses))
    at_end = f"After {steps} steps {outcome(curve)}"
    remedy = (
        "Check that the rows of x and y still belong together, that the gradients reach the optimizer, and whether the "
        "features determine the targets at all: try to overfit twenty samples."
    )
    if has_parameters(record).any() and not np.any(record.update_ratios):
        yield Finding("loss doesn't fall", None, int(record.steps[0]), f"In {steps} steps no parameter moved.", remedy)
    elif curve.explained < LITTLE:
        yield Finding("loss doesn't fall", None, int(record.steps[0]), f"{at_end}.", remedy)
    elif len(validation) and math.isfinite(record.target.constant_loss):
        possible = record.target.constant_loss - record.target.lowest_loss
        best = float(np.min(validation, initial=math.inf, where=np.isfinite(validation)))
        if possible > 0 and (record.target.constant_loss - best) / possible < LITTLE:
            sentence = f"{at_end}, but on the validation data it never got below {figure(best)}: it overfits."
            yield Finding("loss doesn't fall", None, int(record.steps[0]), sentence, remedy)
