"""The curves of a training run."""

from typing import Any

import numpy as np

from funcnn.plots._style import COLOURS, Canvas, legend_above, new_canvas, tidy
from funcnn.training.results import History

LOG_FROM = 30.0
"""The ratio of the largest to the smallest loss from which its axis is logarithmic."""


def plot_history(history: History, *, figure: Canvas | None = None) -> Canvas:
    """Plot the loss of every epoch, and each validation metric in a panel of its own.

    The loss's axis is logarithmic where the loss falls by more than a factor of 30. The axis is epochs, from 1.

    Args:
        history: ``trained.history``, from ``train`` or ``fit``.
        figure: a matplotlib figure or subfigure to draw in; a new one by default.

    Returns:
        The figure.

    Raises:
        ModuleNotFoundError: matplotlib isn't installed.
        TypeError: history isn't a ``History``, or figure isn't a figure.

    Example:
        >>> import jax, jax.numpy as jnp, funcnn as fnn
        >>> data = (jnp.ones((4, 2)), jnp.zeros((4, 1)))
        >>> trained = fnn.train(
        ...     fnn.mlp((2, 1)), fnn.mean_squared_error, fnn.sgd(0.1), data, epochs=3, key=jax.random.key(0))
        >>> figure = plot_history(trained.history)
        >>> len(figure.axes)
        1
    """
    if not isinstance(history, History):
        raise TypeError(f"plot_history(history): expected a History, got {history!r}. Pass trained.history.")
    validation = {name: np.asarray(values, float) for name, values in history.validation.items()}
    at = np.asarray(history.validation_epochs)
    metrics = [name for name in validation if name != "loss"]
    canvas = new_canvas("plot_history", figure, (5.2 * (1 + len(metrics)), 3.4))
    panels = np.ravel(canvas.subplots(1, 1 + len(metrics), squeeze=False))

    loss = np.asarray(history.loss, float)
    curves = {"training": (np.arange(1, len(loss) + 1), loss)}
    if "loss" in validation:
        curves["validation"] = (at, validation["loss"])
    for colour, (name, (epochs, values)) in zip(COLOURS, curves.items(), strict=False):
        _draw_curve(panels[0], epochs, values, colour, name)
    tidy(panels[0], title="loss", x="epoch")
    together = np.concatenate([values for _, values in curves.values()])
    is_positive = together.size > 0 and np.isfinite(together).all() and together.min() > 0
    if is_positive and together.max() / together.min() > LOG_FROM:
        panels[0].set_yscale("log")
    legend_above(panels[0])
    for axes, name in zip(panels[1:], metrics, strict=True):
        _draw_curve(axes, at, validation[name], COLOURS[1], "validation")
        tidy(axes, title=f"{name} (validation)", x="epoch")
    return canvas


def _draw_curve(axes: Any, x: np.ndarray, y: np.ndarray, colour: str, name: str) -> None:
    # Without a marker a curve of one epoch is invisible.
    axes.plot(x, y, color=colour, label=name, marker="o" if len(x) < 2 else "", linewidth=1.8)
    axes.xaxis.get_major_locator().set_params(integer=True)
