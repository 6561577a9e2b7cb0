"""The classes that a network with two inputs predicts over the plane."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from funcnn._checks import check_is_layer, checked_pair, positive_integer
from funcnn.layers.traversal import output_leaf, spec_of
from funcnn.plots._style import COLOURS, INK, MARKERS, Canvas, legend_above, new_canvas, tidy
from funcnn.training.predict import predict
from funcnn.types import Batch, Layer, Params, State

MARGIN = 0.12


def plot_decision_boundary(
    model: Layer,
    params: Params,
    state: State,
    data: Batch | tuple[Any, Any],
    *,
    resolution: int = 200,
    figure: Canvas | None = None,
) -> Canvas:
    """Plot the predicted class at every point of the plane, the boundaries between the classes, and the samples.

    A network with one output predicts class 1 above the middle of its output's range: above 0.5 after ``sigmoid``,
    above 0 for logits and after ``tanh``. With several outputs the largest one is the predicted class.

    Args:
        model: a model with two input features.
        params, state: its parameters and running statistics.
        data: samples, x ``(samples, 2)``, and y: labels ``(samples,)`` or ``(samples, 1)``, or one-hot rows.
        resolution: points of the grid along each axis.
        figure: a matplotlib figure or subfigure to draw in; a new one by default.

    Returns:
        The figure.

    Raises:
        ModuleNotFoundError: matplotlib isn't installed.
        ValueError, TypeError: data with another number of features or more than ten classes, parameters that don't fit
            the model, a figure that isn't one.

    Example:
        >>> import jax, funcnn as fnn
        >>> model = fnn.mlp((2, 8, 2))
        >>> params, state = model.init(jax.random.key(0))
        >>> data = fnn.datasets.moons(20, key=jax.random.key(1))
        >>> figure = plot_decision_boundary(model, params, state, data, resolution=20)
        >>> len(figure.axes)
        1
    """
    check_is_layer("plot_decision_boundary(model)", model)
    resolution = positive_integer("plot_decision_boundary(resolution)", resolution)
    x, y = (np.asarray(part) for part in checked_pair("plot_decision_boundary(data)", data))
    if x.ndim != 2 or x.shape[1] != 2 or len(x) == 0:
        raise ValueError(
            f"plot_decision_boundary(data): expected x of shape (samples, 2), got {x.shape}. "
            "Train on two features: only a network of two has a boundary in the plane."
        )
    labels = _labels(y, len(x))
    axis_x, axis_y = (_axis(column, resolution) for column in x.T)
    grid = np.stack(np.meshgrid(axis_x, axis_y), axis=-1).reshape(-1, 2)
    output = np.asarray(predict(model, params, state, jnp.asarray(grid.astype(x.dtype))), float)
    predicted, margins = _classes(model, output)
    classes = max(int(labels.max()) + 1, output.shape[-1], 2)
    if classes > len(COLOURS):
        raise ValueError(
            f"plot_decision_boundary: expected at most {len(COLOURS)} classes, got {classes}. Plot fewer of them."
        )
    from matplotlib.colors import ListedColormap

    canvas = new_canvas("plot_decision_boundary", figure, (4.8, 4.6))
    axes = canvas.subplots()
    size = (resolution, resolution)
    pale = ListedColormap([_paler(colour) for colour in COLOURS[:classes]])
    axes.pcolormesh(
        axis_x, axis_y, predicted.reshape(size), cmap=pale, vmin=-0.5, vmax=classes - 0.5, shading="nearest",
        rasterized=True,
    )  # fmt: skip
    for values in margins:
        values = values.reshape(size)
        if values.min() < 0 < values.max():
            axes.contour(axis_x, axis_y, values, levels=[0], colors=INK, linewidths=1.2)
    for number in range(classes):
        chosen = labels == number
        axes.scatter(
            x[chosen, 0], x[chosen, 1],
            s=26, marker=MARKERS[number], color=COLOURS[number], edgecolors="white", linewidths=0.6,
            label=f"class {number}",
        )  # fmt: skip
    tidy(axes, x="x[0]", y="x[1]", grid=False)
    axes.set_xlim(axis_x[0], axis_x[-1])
    axes.set_ylim(axis_y[0], axis_y[-1])
    legend_above(axes, columns=4)
    return canvas


def _labels(y: np.ndarray, samples: int) -> np.ndarray:
    """Return the class of each sample as an integer."""
    if y.ndim == 2 and y.shape[1] > 1:
        y = y.argmax(axis=1)
    y = y.reshape(-1)
    if len(y) != samples:
        raise ValueError(
            f"plot_decision_boundary(data): expected a target for each of {samples} samples, got {len(y)}. "
            "Pass labels (samples,), or one-hot rows (samples, classes)."
        )
    # Targets of tanh and of the hinge loss are −1 and 1.
    y = np.where(y < 0, 0, y)
    labels = y.astype(int)
    if (labels != y).any():
        raise ValueError(
            "plot_decision_boundary(data): expected class labels, got values between them. Pass labels 0, 1, 2, …"
        )
    return labels


def _axis(column: np.ndarray, resolution: int) -> np.ndarray:
    low, high = float(column.min()), float(column.max())
    margin = MARGIN * (high - low) or 1.0
    return np.linspace(low - margin, high + margin, resolution)


def _classes(model: Layer, output: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the predicted class of each point, and for each boundary a value that changes its sign there."""
    if output.ndim != 2:
        raise ValueError(
            f"plot_decision_boundary(model): expected outputs of shape (samples, outputs), got {output.shape}. "
            "Plot a classifier of single samples."
        )
    if output.shape[1] == 1:
        leaf = output_leaf(model)
        low, high = (-math.inf, math.inf) if leaf is None else spec_of(leaf.layer).output_range
        threshold = (low + high) / 2 if math.isfinite(low) and math.isfinite(high) else 0.0
        margin = output[:, 0] - threshold
        return (margin > 0).astype(int), [margin]
    return output.argmax(axis=1), [
        output[:, number] - np.delete(output, number, axis=1).max(axis=1) for number in range(output.shape[1])
    ]


def _paler(colour: str) -> tuple[float, ...]:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    return tuple(1 - 0.3 * (1 - channel) for channel in channels)
