"""The loss curve of a run, whether it learns, diverges or jumps, and helpers by which the rules read measures."""

import math
from typing import NamedTuple

import numpy as np

from funcnn.health.record import HealthRecord

LEARNS = 0.5
"""A run learns where it explains half of what the best constant prediction leaves."""

EXTREME, LEARNS_WELL = 10.0, 0.9
"""A measure ten times beyond its threshold may hinder also a run that learns, unless it explains nine tenths."""

_END = 0.1
_START = 0.02


class LossCurve(NamedTuple):
    """A summary of the losses of a run.

    Fields:
        start: the mean loss of the first fiftieth of the steps.
        end: that of the last tenth.
        constant: the loss of the best constant prediction; the start, where that isn't known.
        explained: (constant − end) / (constant − lowest possible): 0 for a constant prediction, 1 for a perfect one,
            negative for one worse than constant; −∞ where the final loss isn't finite.
        broke_at: the first step whose loss isn't finite, or ``None``.
        jumps: the mean change of the loss from step to step in the last half, over the loss's mean there.
    """

    start: float
    end: float
    constant: float
    explained: float
    broke_at: int | None
    jumps: float

    @property
    def learns(self) -> bool:
        return self.explained >= LEARNS

    def may_be_hindered(self, beyond: float) -> bool:
        """Whether a measure ``beyond`` times its threshold may be what hinders this run."""
        return bool(beyond > 1 and self.explained < (LEARNS_WELL if beyond >= EXTREME else LEARNS))


def loss_curve(record: HealthRecord) -> LossCurve:
    """Summarise the losses of a run."""
    losses = np.asarray(record.step_losses, np.float64).ravel()
    finite = np.isfinite(losses)
    broke_at = None if finite.all() else int(finite.argmin())
    with np.errstate(invalid="ignore", over="ignore"):
        start = float(losses[: max(1, int(_START * len(losses)))].mean())
        end = float(losses[-max(1, int(_END * len(losses))) :].mean())
        late = losses[len(losses) // 2 :]
        jumps = float(np.abs(np.diff(late)).mean() / max(np.abs(late).mean(), 1e-300)) if len(late) > 1 else 0.0
    target = record.target
    constant = target.constant_loss if math.isfinite(target.constant_loss) else start
    possible = constant - target.lowest_loss
    explained = (constant - end) / possible if possible > 0 else 0.0
    return LossCurve(start, end, constant, explained if math.isfinite(explained) else -math.inf, broke_at, jumps)


def since(record: HealthRecord, holds: np.ndarray) -> int:
    """Return the sampled step from which a condition held to the end, or else the first step at which it held."""
    held = np.flatnonzero(holds)
    if not len(held):
        return int(record.steps[0])
    broken = np.flatnonzero(~holds)
    first = broken[-1] + 1 if len(broken) and broken[-1] + 1 < len(holds) else held[0]
    return int(record.steps[first])


def sampled(record: HealthRecord, name: str) -> np.ndarray:
    """Return a measure in float64, ``(sampled, layers)``."""
    return np.asarray(getattr(record.measures, name), np.float64)


def usual(figures: np.ndarray) -> np.ndarray:
    """Return the median over the sampled steps that are finite; 0 where none is."""
    kept = figures[np.isfinite(figures).all(axis=-1)]
    return np.median(kept, axis=0) if len(kept) else np.zeros(figures.shape[-1])


def has_parameters(record: HealthRecord) -> np.ndarray:
    """Return which layers have parameters, ``(layers,)``: the norm of them or of their gradient isn't always 0."""
    return np.any((sampled(record, "parameter_norm") != 0) | (sampled(record, "gradient_norm") != 0), axis=0)


def figure(number: float) -> str:
    """Format a number with two significant digits: 0.034, 1.2e-07, 12."""
    if number == 0 or 1e-3 <= abs(number) < 1e4:
        return f"{number:.0f}" if abs(number) >= 100 else f"{number:.2g}"
    return f"{number:.1e}"


def percent(share: float) -> str:
    """Format a share as a percentage; 0% and 100% are exact."""
    return f"{min(max(100 * share, 1), 99):.0f}%" if 0 < share < 1 else f"{100 * share:.0f}%"


def outcome(curve: LossCurve) -> str:
    """Describe the end of a run as a clause."""
    if not math.isfinite(curve.end):
        return f"the loss is no finite number from step {curve.broke_at} on"
    return f"the loss ended at {figure(curve.end)}, where a constant prediction has {figure(curve.constant)}"
