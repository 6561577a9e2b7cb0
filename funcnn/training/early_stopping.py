"""Early stopping: training ends when a validation figure no longer improves."""

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import numpy as np

from funcnn._checks import positive_integer


class EarlyStopping(NamedTuple):
    """Stop training when a validation figure has not improved for ``patience`` validations.

    ``fit`` then returns the parameters and state of the best validation. The optimizer's state is the newest.

    Fields:
        patience: validations without improvement after which training stops.
        monitor: the validation figure to compare: ``"loss"``, or the name of a metric given to ``fit``.
        mode: ``"min"`` where a lower figure is better, ``"max"`` where a higher one is.

    Example:
        >>> EarlyStopping(5, monitor="accuracy", mode="max")
        EarlyStopping(patience=5, monitor='accuracy', mode='max')
    """

    patience: int
    monitor: str = "loss"
    mode: Literal["min", "max"] = "min"


def is_improvement(mode: str, figure: float, best: float) -> bool:
    """Return whether a figure is better than the best so far. Any number is better than NaN."""
    return bool(np.isnan(best) > np.isnan(figure) or (figure < best if mode == "min" else figure > best))


def checked_early_stopping(given: Any, metrics: Iterable[str], has_validation: bool) -> EarlyStopping | None:
    """Return the settings of early stopping, ``None`` for none.

    Args:
        given: the argument of ``fit``.
        metrics: the names of the metrics.
        has_validation: whether ``fit`` has validation data.

    Raises:
        TypeError, ValueError: the settings are not valid, or there is no validation data.
    """
    if given is None:
        return None
    if not isinstance(given, EarlyStopping):
        raise TypeError(
            f"fit(early_stopping): expected EarlyStopping(patience) or None, got {given!r}. "
            "Pass early_stopping=EarlyStopping(5)."
        )
    patience = positive_integer("EarlyStopping(patience)", given.patience)
    if given.mode not in ("min", "max"):
        raise ValueError(
            f"EarlyStopping(mode): expected 'min' or 'max', got {given.mode!r}. "
            "Use 'min' for a loss, 'max' for a score."
        )
    if not has_validation:
        raise ValueError("fit(early_stopping): expected validation data, got none. Pass validation=(x, y).")
    figures = ("loss", *metrics)
    if given.monitor not in figures:
        raise ValueError(
            f"EarlyStopping(monitor): expected one of the validation figures {figures}, got {given.monitor!r}. "
            f"{_monitor_advice(given.monitor, figures)}"
        )
    return given._replace(patience=patience)


def _monitor_advice(name: Any, figures: tuple[str, ...]) -> str:
    """Return the name of the figure that was probably meant, or how to get such a figure."""
    for prefix in ("val_", "valid_", "validation_"):
        if str(name).startswith(prefix):
            figure = str(name).removeprefix(prefix)
            advice = f"All of them are figures on the validation data: write monitor={figure!r}"
            return f"{advice}." if figure in figures else f"{advice}, and pass metrics={{{figure!r}: …}}."
    return "Pass the metric to fit(metrics) under this name."
