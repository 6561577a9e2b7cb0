"""The activations and the gradients of a network, layer by layer."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from funcnn._checks import check_is_layer, check_is_loss, checked_pair
from funcnn.layers.nodes import Node, backward_nodes, forward_nodes
from funcnn.plots._style import COLOURS, Canvas, legend_above, new_canvas, tidy
from funcnn.types import Batch, Layer, Loss, Params, State

SHARES = (0.05, 0.5, 0.95)
MOST_NAMES = 40


class Signal(NamedTuple):
    """A leaf layer's name, its output y and the cotangent of y."""

    name: str
    y: np.ndarray
    dy: np.ndarray


def plot_signals(
    model: Layer,
    params: Params,
    state: State,
    loss: Loss,
    batch: Batch | tuple[Any, Any],
    *,
    key: PRNGKeyArray | None = None,
    figure: Canvas | None = None,
) -> Canvas:
    """Plot the size of every layer's output, and of the loss's gradient by that output, in one training step.

    Both panels show the absolute values of a layer's entries on a logarithmic axis: the median, and the middle 90%. A
    gradient that falls from the right to the left by a constant factor for each layer vanishes exponentially. Entries
    that are exactly 0, such as those of units that ReLU switches off, are left out and counted in a third panel.

    Args:
        model: any layer. The layers inside combinators are shown one by one.
        params, state: its parameters and running statistics.
        loss: any loss.
        batch: inputs and targets.
        key: a random key, for models that draw random numbers in training.
        figure: a matplotlib figure or subfigure to draw in; a new one by default.

    Returns:
        The figure.

    Raises:
        ModuleNotFoundError: matplotlib isn't installed.
        ValueError, TypeError: model isn't a layer, loss isn't a loss, a batch that doesn't fit them.

    Example:
        >>> import jax, funcnn as fnn
        >>> model = fnn.mlp((2, 8, 2))
        >>> params, state = model.init(jax.random.key(0))
        >>> data = fnn.datasets.moons(20, key=jax.random.key(1))
        >>> figure = plot_signals(model, params, state, fnn.softmax_cross_entropy, data)
        >>> [axes.get_title(loc="left") for axes in figure.axes]
        ['|y|, outputs', '|∂L/∂y|, gradients', 'share of zeros']
    """
    check_is_layer("plot_signals(model)", model)
    check_is_loss("plot_signals(loss)", loss)
    x, y = checked_pair("plot_signals(batch)", batch)
    signals = measured_signals(model, params, state, loss, Batch(jnp.asarray(x), jnp.asarray(y)), key)
    places = np.arange(len(signals))
    canvas = new_canvas("plot_signals", figure, (max(5.5, 0.34 * min(len(signals), MOST_NAMES) + 2), 7.0))
    outputs, gradients, zeros = canvas.subplots(3, 1, sharex=True, height_ratios=(3, 3, 2))
    for axes, values, colour, title in (
        (outputs, [signal.y for signal in signals], COLOURS[0], "|y|, outputs"),
        (gradients, [signal.dy for signal in signals], COLOURS[2], "|∂L/∂y|, gradients"),
    ):
        _draw_sizes(axes, places, values, colour)
        tidy(axes, title=title)
    for name, field, colour, marker in (("y", "y", COLOURS[0], "o"), ("∂L/∂y", "dy", COLOURS[2], "s")):
        shares = [float((getattr(signal, field) == 0).mean()) for signal in signals]
        zeros.plot(places, shares, color=colour, marker=marker, markersize=4, linewidth=1.2, label=name)
    zeros.set_ylim(-0.05, 1.05)
    tidy(zeros, title="share of zeros", x="layer, from the input to the output")
    legend_above(zeros)
    every = -(-len(signals) // MOST_NAMES)
    zeros.set_xticks(places[::every], [signal.name for signal in signals][::every], rotation=90, fontsize=8)
    return canvas


def measured_signals(
    model: Layer, params: Params, state: State, loss: Loss, batch: Batch, key: PRNGKeyArray | None
) -> list[Signal]:
    """Return the output and its cotangent of every leaf layer, by the hand-written passes, in forward order."""

    def run(layer, params, state, x, key):
        y, _, residuals = layer.forward(params, state, x, train=True, key=key)
        return y, residuals

    model_node = forward_nodes(model, params, state, batch.x, key, run)
    value, residuals = loss.forward(model_node.y, batch.y)
    cotangents: list[Signal] = []

    def pull_back(node: Node, dy):
        cotangents.append(Signal(node.name, np.asarray(node.y, float), np.asarray(dy, float)))
        return node.layer.backward(node.result, dy)

    backward_nodes(model_node, loss.backward(residuals, jnp.ones_like(value)), pull_back)
    found = {signal.name: signal for signal in cotangents}
    return [found[leaf.name] for leaf in model_node.leaves()]


def _draw_sizes(axes: Any, places: np.ndarray, values: list[np.ndarray], colour: str) -> None:
    rows = []
    for array in values:
        sizes = np.abs(array[np.isfinite(array) & (array != 0)])
        rows.append(np.quantile(sizes, SHARES) if sizes.size else np.full(len(SHARES), np.nan))
    low, middle, high = np.array(rows).T
    axes.vlines(places, low, high, color=colour, alpha=0.45, linewidth=4)
    axes.plot(places, middle, color=colour, marker="o", markersize=4, linewidth=1.2)
    if np.isfinite(middle).any():
        axes.set_yscale("log")
