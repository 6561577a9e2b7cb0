"""Rules on the steps: too large, too small, or without effect."""

import math
from collections.abc import Iterator

import numpy as np

from funcnn.health.course import Course, figure, has_parameters, outcome, percent, sampled, since, usual
from funcnn.health.kinds import Finding
from funcnn.health.record import HealthRecord, RecipeFacts

LARGE = 0.1
"""Steps that move a layer by this share of its own norm: a hundred times the usual 10⁻³. Ten of them replace it."""

TEARS = 0.5
"""A step that moves a layer by half of its norm: what the initialization provided for is gone with two of them."""

SHORT_WAY = 0.1
"""A run that moved every layer by less than this share of its norm in all, had every step gone the same way, is still
near its initial parameters: what it predicts is nearly linear in the few changes that it made."""

JUMPY = 3.2
"""Mean change of the loss from step to step over the loss, times √batch. The mean of n squared normal errors changes by
2/√π √(2/n) = 1.6/√n of itself from one mini-batch to the next; this is twice as much."""

LITTLE = 0.2
"""A run that explains less than a fifth of what the best constant prediction leaves: as much is learned by heart."""


def rate_too_high(record: HealthRecord, facts: RecipeFacts, course: Course) -> Iterator[Finding]:
    """The loss diverges, or is no better and jumps, while the steps are large beside the parameters."""
    # A layer that begins at 0 moves by many times its own norm until it has one.
    rows = has_parameters(record) & (sampled(record, "parameter_norm")[0] != 0)
    if not rows.any():
        return
    ratios = np.asarray(record.update_ratios, np.float64)[:, rows]
    is_number = np.asarray(np.isfinite(ratios).all(axis=1))
    ratios = np.where(np.isfinite(ratios), ratios, np.inf)
    early = ratios[: max(1, len(ratios) // 4)]
    largest = early.max()
    diverges = course.broke_at is not None or course.end > 2 * max(course.constant, 0.0)
    jumpy = course.jumps * facts.batch_size**0.5 > JUMPY
    lasts = np.median(ratios.max(axis=1)) >= LARGE
    if not course.has_room_for(largest / LARGE) or not (diverges or lasts or jumpy or largest >= TEARS):
        return
    # The step that shows it best: the largest that still is a number.
    readable = np.where(is_number[: len(early), None], early, -1.0)
    sample, column = np.unravel_index(readable.argmax(), early.shape)
    name = record.names[np.flatnonzero(rows)[column]]
    first = since(record, np.asarray((ratios >= LARGE).any(axis=1)))
    step, moved = int(record.steps[sample]), figure(early[sample, column])
    yield Finding(
        "learning rate too high",
        name,
        first if course.broke_at is None else min(first, course.broke_at),
        f"Step {step} moves {name} by {moved} times its own norm, where 0.001 is usual; {outcome(course)}"
        + (f", and changes by {percent(min(course.jumps, 1.0))} from step to step." if jumpy else "."),
        "Divide the learning rate by 10 until the loss falls steadily.",
    )


def rate_too_low(record: HealthRecord, facts: RecipeFacts, course: Course) -> Iterator[Finding]:
    """All steps together, had they gone one way, would have moved no layer far."""
    rows = has_parameters(record)
    if course.broke_at is not None or not rows.any():
        return
    ratios = np.asarray(record.update_ratios, np.float64)[:, rows]
    if not np.isfinite(ratios).all():
        return
    steps = len(np.ravel(record.step_losses))
    ways = ratios.mean(axis=0) * steps
    farthest = int(ways.argmax())
    if ways[farthest] == 0 or not course.has_room_for(SHORT_WAY / ways[farthest]):
        return
    name = record.names[np.flatnonzero(rows)[farthest]]
    yield Finding(
        "learning rate too low",
        name,
        int(record.steps[0]),
        f"A step moves even {name}, the quickest layer, by {figure(usual(ratios)[farthest])} of its own norm, where "
        f"0.001 is usual: {percent(ways[farthest])} in {steps} steps; {outcome(course)}.",
        "Multiply the learning rate by 10 until the loss falls or begins to jump, then go one step back.",
    )


def no_fall(record: HealthRecord, facts: RecipeFacts, course: Course) -> Iterator[Finding]:
    """The run ends no better than a constant prediction, in training or on data that it didn't see."""
    validation = np.asarray(record.validation_losses, np.float64)
    steps = len(np.ravel(record.step_losses))
    at_end = f"After {steps} steps {outcome(course)}"
    remedy = (
        "Check that the rows of x and y still belong together, that the gradients reach the optimizer, and whether the "
        "features can tell the targets at all: try to learn twenty samples by heart."
    )
    if has_parameters(record).any() and not np.any(record.update_ratios):
        yield Finding("loss doesn't fall", None, int(record.steps[0]), f"In {steps} steps no parameter moved.", remedy)
    elif course.explained < LITTLE:
        yield Finding("loss doesn't fall", None, int(record.steps[0]), f"{at_end}.", remedy)
    elif len(validation) and math.isfinite(record.target.constant_loss):
        possible = record.target.constant_loss - record.target.lowest_loss
        best = float(np.min(validation, initial=math.inf, where=np.isfinite(validation)))
        if possible > 0 and (record.target.constant_loss - best) / possible < LITTLE:
            sentence = f"{at_end}, but on the validation data it never got below {figure(best)}: it learned by heart."
            yield Finding("loss doesn't fall", None, int(record.steps[0]), sentence, remedy)
