"""A warning at the end of a run whose loss rose. It needs the losses alone, not the monitor."""

import warnings

import numpy as np

from funcnn.health.loss_curve import figure

NOISE = 3.0
"""Standard errors by which the last losses must lie above the first."""

FAR = 10.0
"""How often the last losses are the first ones where the run has too few steps to know its noise."""

LEAST = 0.1
"""The share of the first loss by which the last ones must lie above it: less may be the choice of batches."""


def warn_of_rise(name: str, step_losses: np.ndarray) -> None:
    """Warn where the mean loss of the last tenth of the steps is clearly above that of the first steps.

    Args:
        name: of the public call.
        step_losses: of all steps in order; NaN where there was no step.
    """
    losses = np.asarray(step_losses, np.float64).ravel()
    losses = losses[np.isfinite(losses)]
    if len(losses) < 2:
        return
    first, last = losses[: max(1, len(losses) // 50)], losses[-max(1, len(losses) // 10) :]
    start, end = first.mean(), last.mean()
    # The noise of the batches, by the changes from step to step: 0.954 is the median of |a − b| for normal a and b.
    noise = float(np.median(np.abs(np.diff(losses)))) / 0.954 * (1 / len(first) + 1 / len(last)) ** 0.5
    is_far_above = start > 0 and end > FAR * losses[: len(last)].max()
    if end - start > max(NOISE * noise, LEAST * abs(start)) or is_far_above:
        warnings.warn(
            f"{name}: the loss rose, from {figure(float(start))} at the first steps to {figure(float(end))} at the "
            f"last of {len(losses)}. Divide the learning rate by 10, or see what monitor=True reports: "
            "print(trained.history.health).",
            stacklevel=3,
        )
