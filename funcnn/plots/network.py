"""A small network as a graph: values in its units, weights and gradients on its edges."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from funcnn._checks import check_is_layer, check_is_loss
from funcnn.layers.linear import LinearParams
from funcnn.layers.nodes import Node, backward_nodes, forward_nodes
from funcnn.layers.traversal import structure_of
from funcnn.plots._style import COLOURS, INK, Canvas, new_canvas
from funcnn.types import Layer, Loss, Params, State

MOST_UNITS = 24
MOST_LABELLED_EDGES = 32
ACROSS, DOWN, RADIUS = 5.2, 1.9, 0.44
POSITIVE, NEGATIVE = COLOURS[2], COLOURS[0]


class Edges(NamedTuple):
    """The kernel between two columns of units, ``(units, units)``, and its gradient, ``None`` without a loss."""

    kernel: np.ndarray
    gradient: np.ndarray | None


def draw_network(
    model: Layer,
    params: Params,
    state: State,
    x: Any,
    *,
    target: Any = None,
    loss: Loss | None = None,
    figure: Canvas | None = None,
) -> Canvas:
    """Draw a network of linear layers and activations at one sample.

    A circle is a unit, with its activation inside. An edge is a weight: red above 0, blue and dashed below 0, wider
    where it is larger. With a target and a loss the gradient ∂L/∂w stands below each weight. Numbers are left out where
    there are more than 32 edges.

    Args:
        model: a chain of ``linear`` layers and activations, such as ``mlp`` without skip connections.
        params, state: its parameters and running statistics.
        x: one sample, ``(features,)`` or ``(1, features)``.
        target: its target, of the shape that the loss takes for a batch of one or without the batch axis.
        loss: any loss; both or neither of target and loss.
        figure: a matplotlib figure or subfigure to draw in; a new one by default.

    Returns:
        The figure.

    Raises:
        ModuleNotFoundError: matplotlib isn't installed.
        ValueError, TypeError: several samples, a layer that isn't linear and changes the number of units, more than 24
            units in a column, a target without a loss or a loss without a target.

    Example:
        >>> import jax, funcnn as fnn
        >>> model = fnn.mlp((2, 2, 1), activation=fnn.sigmoid)
        >>> params, state = model.init(jax.random.key(0))
        >>> figure = draw_network(model, params, state, [1.0, 0.0], target=[1.0], loss=fnn.mean_squared_error)
        >>> len(figure.axes[0].patches)
        5
    """
    check_is_layer("draw_network(model)", model)
    if (target is None) != (loss is None):
        raise ValueError("draw_network: expected both target and loss, got one of them. Pass both, or neither.")
    columns, edges = _values(model, params, state, _one_sample(x), target, loss)
    places = [_column_places(number, len(values)) for number, values in enumerate(columns)]
    width, height = ACROSS * (len(columns) - 1) + 2, DOWN * (max(map(len, columns)) - 1) + 2.4
    canvas = new_canvas("draw_network", figure, (0.52 * width, 0.52 * height + 0.3))
    axes = canvas.subplots()
    is_labelled = sum(edge.kernel.size for edge in edges) <= MOST_LABELLED_EDGES
    widest = max((float(np.abs(edge.kernel).max()) for edge in edges), default=1.0) or 1.0
    for number, edge in enumerate(edges):
        _draw_edges(axes, places[number], places[number + 1], edge, widest)
    if is_labelled:
        for number, edge in enumerate(edges):
            _label_edges(axes, places[number], places[number + 1], edge)
    _draw_units(axes, places, columns)
    axes.set_aspect("equal")
    axes.set_xlim(-1, width - 1)
    axes.set_ylim(_top(places) - height + 0.4, _top(places) + 0.5)
    axes.set_axis_off()
    has_gradient = is_labelled and loss is not None
    axes.set_title(
        "units: activations; edges: weights" + (", and below them ∂L/∂w" if has_gradient else ""),
        loc="left", fontsize=10, color=INK,
    )  # fmt: skip
    return canvas


def _one_sample(x: Any) -> jnp.ndarray:
    sample = jnp.asarray(x)
    sample = sample[None, :] if sample.ndim == 1 else sample
    if sample.ndim != 2 or sample.shape[0] != 1:
        raise ValueError(
            f"draw_network(x): expected one sample, (features,) or (1, features), got shape {sample.shape}. Pass x[0]."
        )
    return sample


def _has_sums(node: Node) -> bool:
    """Whether a node or one below it adds the outputs of its parts."""
    structure = structure_of(node.layer) if node.parts else None
    return (structure is not None and structure.adds) or any(map(_has_sums, node.parts))


def _values(
    model: Layer, params: Params, state: State, x: jnp.ndarray, target: Any, loss: Loss | None
) -> tuple[list[np.ndarray], list[Edges]]:
    """Return the activations of each column of units, and the edges between the columns."""

    def run(layer, params, state, x, key):
        y, _, residuals = layer.forward(params, state, x, train=False, key=key)
        return y, residuals

    whole = forward_nodes(model, params, state, x, None, run)
    leaves = whole.leaves()
    if _has_sums(whole):
        raise ValueError(
            "draw_network(model): expected a chain of linear layers and activations, got outputs that are added, as "
            "in skip connections. "
            "Use plot_signals for such a model."
        )
    gradients: dict[str, Any] = {}
    if loss is not None:
        _keep_gradients(whole, loss, target, gradients)
    columns, edges = [np.asarray(x, float)[0]], []
    for leaf in leaves:
        values = np.asarray(leaf.y, float).reshape(-1)
        if isinstance(leaf.params, LinearParams):
            found = gradients.get(leaf.place)
            gradient = None if found is None else np.asarray(found.kernel, float)
            edges.append(Edges(np.asarray(leaf.params.kernel, float), gradient))
            columns.append(values)
        elif values.shape == columns[-1].shape:
            columns[-1] = values
        else:
            raise ValueError(
                f"draw_network(model): expected linear layers and activations, got {leaf.name}, which changes the "
                "number of units. Use plot_signals for such a model."
            )
    if max(map(len, columns)) > MOST_UNITS:
        raise ValueError(
            f"draw_network(model): expected at most {MOST_UNITS} units in a layer, got {max(map(len, columns))}. "
            "Use plot_signals for a model of this size."
        )
    return columns, edges


def _keep_gradients(whole: Any, loss: Loss, target: Any, gradients: dict[str, Any]) -> None:
    check_is_loss("draw_network(loss)", loss)
    target = jnp.asarray(target)
    if not jnp.issubdtype(target.dtype, jnp.integer):
        target = target.astype(whole.y.dtype)
    batch = target if target.ndim and target.shape[0] == 1 and target.ndim == whole.y.ndim else target[None]
    value, residuals = loss.forward(whole.y, batch)

    def pull_back(node, dy):
        dparams, dx = node.layer.backward(node.result, dy)
        gradients[node.place] = dparams
        return dparams, dx

    backward_nodes(whole, loss.backward(residuals, jnp.ones_like(value)), pull_back)


def _column_places(number: int, units: int) -> np.ndarray:
    """Return the places of a column's units, ``(units, 2)``, from the top down and centred."""
    heights = DOWN * ((units - 1) / 2 - np.arange(units))
    return np.stack([np.full(units, ACROSS * number), heights], axis=1)


def _draw_edges(axes: Any, sources: np.ndarray, ends: np.ndarray, edge: Edges, widest: float) -> None:
    for (i, j), weight in np.ndenumerate(edge.kernel):
        axes.plot(
            *np.stack([sources[i], ends[j]], axis=1), color=POSITIVE if weight >= 0 else NEGATIVE, alpha=0.75,
            linestyle="-" if weight >= 0 else (0, (4, 2)), linewidth=0.5 + 3 * abs(weight) / widest, zorder=1,
        )  # fmt: skip


def _label_edges(axes: Any, sources: np.ndarray, ends: np.ndarray, edge: Edges) -> None:
    """Write the weight on each edge where the other edges and labels are farthest."""
    lines = {index: (sources[index[0]], ends[index[1]]) for index, _ in np.ndenumerate(edge.kernel)}
    taken: list[np.ndarray] = []
    for index, (start, end) in lines.items():
        others = [line for other, line in lines.items() if other != index]
        candidates = [start + share * (end - start) for share in np.linspace(0.27, 0.73, 24)]
        best = max(candidates, key=lambda place: _clearance(place, others, taken))
        taken.append(best)
        text = _number(f"{edge.kernel[index]:.2f}")
        if edge.gradient is not None:
            text += "\n" + _number(f"{edge.gradient[index]:.1g}")
        angle = float(np.degrees(np.arctan2(end[1] - start[1], end[0] - start[0])))
        axes.text(
            *best, text, ha="center", va="center", rotation=angle, rotation_mode="anchor", fontsize=7, color=INK,
            linespacing=1.0, zorder=2, bbox={"boxstyle": "square,pad=0.12", "facecolor": "white", "edgecolor": "none"},
        )  # fmt: skip


def _clearance(place: np.ndarray, lines: list[tuple[np.ndarray, np.ndarray]], taken: list[np.ndarray]) -> float:
    """Return the distance from a place to the nearest line or a third of that to the nearest label."""
    to_lines = [_distance(place, *line) for line in lines]
    to_labels = [float(np.linalg.norm(place - label)) / 3 for label in taken]
    return min([*to_lines, *to_labels, ACROSS])


def _distance(place: np.ndarray, start: np.ndarray, end: np.ndarray) -> float:
    along = end - start
    share = float(np.clip((place - start) @ along / (along @ along), 0, 1))
    return float(np.linalg.norm(place - start - share * along))


def _draw_units(axes: Any, places: list[np.ndarray], columns: list[np.ndarray]) -> None:
    from matplotlib.patches import Circle

    for column, values in zip(places, columns, strict=True):
        for place, value in zip(column, values, strict=True):
            axes.add_patch(Circle(tuple(place), RADIUS, facecolor="white", edgecolor=INK, linewidth=1.2, zorder=3))
            axes.text(*place, _number(f"{value:.2f}"), ha="center", va="center", fontsize=8, color=INK, zorder=4)
    for number, column in enumerate(places):
        name = "input" if number == 0 else "output" if number == len(places) - 1 else f"hidden {number}"
        axes.text(column[0, 0], _top(places), name, ha="center", va="bottom", fontsize=9, color=INK)


def _top(places: list[np.ndarray]) -> float:
    """Return the height above the highest unit at which the names of the columns stand."""
    return max(float(column[0, 1]) for column in places) + RADIUS + 0.25


def _number(text: str) -> str:
    """Return a formatted number with a minus sign, and zero without one."""
    return "0" if float(text) == 0 else text.replace("-", "−")
