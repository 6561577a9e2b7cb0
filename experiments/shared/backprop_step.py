"""One step of backpropagation in a small network, with every value, every gradient and the loss after it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import altair as alt
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.nn import initializers
from jaxtyping import Array

import funcnn as fnn
from experiments.harness.claims import format_number
from experiments.harness.experiment import Outcome, Settings, Table, checked_value_and_grad, experiment_part
from experiments.harness.figures import Figure, Panel, panel


@dataclass(frozen=True, kw_only=True)
class BackpropSettings(Settings):
    """One step of backpropagation with every number, its agreement with other derivatives, and its cost."""

    sizes: tuple[int, ...] = (2, 3, 1)
    """Features, units of every hidden layer, outputs of the network that is shown."""


class Backpropagation(NamedTuple):
    """All values of one step of backpropagation.

    Fields:
        values: of the forward pass, x first: a layer's output is the next one's input.
        cotangents: the loss's slope by each of the values.
        gradients: by the layers' parameters.
    """

    values: list[Array]
    cotangents: list[Array]
    gradients: list[Any]
    loss: Array


def forward_and_backward(
    layers: Sequence[fnn.Layer], loss: fnn.Loss, params: Sequence[Any], x: Array, y: Array
) -> Backpropagation:
    """Run the forward pass, keeping residuals, and the backward pass from the last layer to the first."""
    values, kept = [x], []
    for layer, layer_params in zip(layers, params, strict=True):
        value, _, residuals = layer.forward(layer_params, (), values[-1], train=True)
        values.append(value)
        kept.append(residuals)
    value, loss_kept = loss.forward(values[-1], y)

    cotangents, gradients = [loss.backward(loss_kept, jnp.ones_like(value))], []
    for layer, residuals in zip(reversed(layers), reversed(kept), strict=True):
        gradient, cotangent = layer.backward(residuals, cotangents[0])
        gradients.insert(0, gradient)
        cotangents.insert(0, cotangent)
    return Backpropagation(values, cotangents, gradients, value)


def sigmoid_layers(sizes: Sequence[int]) -> tuple[fnn.Layer, ...]:
    pairs = [(fnn.linear(before, after), fnn.sigmoid) for before, after in pairwise(sizes)]
    return tuple(layer for pair in pairs for layer in pair)


def sigmoid_network(sizes: Sequence[int]) -> fnn.Layer:
    return fnn.mlp(sizes, fnn.sigmoid, fnn.sigmoid, kernel_init=initializers.normal(1.0))


def random_batch(key: Array, sizes: Sequence[int], samples: int = 1) -> fnn.Batch:
    x_key, y_key = jax.random.split(key)
    x = jax.random.uniform(x_key, (samples, sizes[0]), minval=0.1).round(1)
    return fnn.Batch(x, jax.random.bernoulli(y_key, 0.5, (samples, sizes[-1])).astype(x.dtype))


def central_differences(loss_of, params: Any, step: float = 1e-5) -> Any:
    """Return central differences of a loss by every parameter, in two forward passes for each."""
    flat, restore = ravel_pytree(params)
    nudges = step * jnp.eye(flat.size)
    slopes = jax.vmap(lambda nudge: (loss_of(restore(flat + nudge)) - loss_of(restore(flat - nudge))) / (2 * step))
    return restore(slopes(nudges))


RATE = 0.5
MOST_ROWS, MOST_LABELS = 60, 24


def describe_difference(gap: float) -> str:
    return f"to {format_number(gap, 1)}, which is rounding," if gap else "to the last bit"


def network_panel(sizes: Sequence[int], nodes: list[dict], edges: list[dict], value: str, subtitle: str) -> Panel:
    """Return a panel of units in columns by layer, joined by their weights, with ``value`` written at each."""
    bare = alt.Axis(labels=False, ticks=False, domain=False, grid=False, title=None)
    places = {"x": alt.X("x:Q", axis=bare, scale=alt.Scale(domain=[-0.3, len(sizes) - 0.7], nice=False)),
              "y": alt.Y("y:Q", axis=bare, scale=alt.Scale(domain=[0, 1], nice=False))}  # fmt: skip
    signs = ("positive", "negative")
    edges = [edge | {"shown": edge[value], "size": abs(edge[value]), "sign": signs[edge[value] < 0]} for edge in edges]
    nodes = [node | {"shown": node[value]} for node in nodes]

    def tooltips(*names):
        return [alt.Tooltip(f"{name}:{'N' if name == 'name' else 'Q'}", title=" " if name == "name" else name,
                            **({} if name == "name" else {"format": ".4f"})) for name in names]  # fmt: skip

    wires = alt.Chart(alt.Data(values=edges)).encode(**places)
    layers = [
        wires.mark_rule(opacity=0.7).encode(
            x2="x2:Q", y2="y2:Q", strokeWidth=alt.StrokeWidth("size:Q", scale=alt.Scale(range=[0.6, 5]), legend=None),
            color=alt.Color("sign:N", title=None, scale=alt.Scale(domain=list(signs)),
                            legend=alt.Legend(orient="top")),
            tooltip=tooltips("name", "forward", "backward", "after"),
        )
    ]  # fmt: skip
    if len(edges) <= MOST_LABELS:
        layers.append(wires.mark_text(dy=-7, fontSize=10).encode(
            x="label x:Q", y="label y:Q", text=alt.Text("shown:Q", format=".3f")))  # fmt: skip
    spots = alt.Chart(alt.Data(values=nodes)).encode(**places)
    layers.append(
        spots.mark_point(style="spot", size=1_300, opacity=1).encode(tooltip=tooltips("name", "forward", "backward"))
    )
    layers.append(spots.mark_text(style="spot-label", fontSize=10).encode(text=alt.Text("shown:Q", format=".3f")))
    return panel(alt.layer(*layers).properties(height=340), subtitle)


def graph_data(sizes: Sequence[int], params, one: Backpropagation) -> tuple[list[dict], list[dict]]:
    """Return the units and the weights between them, each with value, slope and position."""

    def height(unit, count):
        return (count - 1 - unit + 0.5) / count

    nodes, edges = [], []
    for column, count in enumerate(sizes):
        name = "x" if column == 0 else "a" + "₀₁₂₃₄₅₆₇₈₉"[min(column, 9)]
        for unit in range(count):
            nodes.append({
                "name": f"{name}[{unit + 1}]", "x": column, "y": height(unit, count),
                "forward": float(one.values[2 * column][0, unit]),
                "backward": float(one.cotangents[2 * column][0, unit]),
            })  # fmt: skip
    for column, (before, after) in enumerate(pairwise(sizes)):
        kernel, slope = params[2 * column].kernel, one.gradients[2 * column].kernel
        for i in range(before):
            for j in range(after):
                low, high, along = height(i, before), height(j, after), (0.3, 0.68)[i % 2]
                edges.append({
                    "name": f"W{column + 1}[{i + 1}, {j + 1}]", "x": column, "y": low, "x2": column + 1, "y2": high,
                    "label x": column + along, "label y": low + along * (high - low), "forward": float(kernel[i, j]),
                    "backward": float(slope[i, j]), "after": float(kernel[i, j] - RATE * slope[i, j]),
                })  # fmt: skip
    return nodes, edges


def parameter_names(sizes: Sequence[int]) -> list[str]:
    """Return the parameters' names in the order of their flattened tree: each kernel by rows, then its bias."""
    names = []
    for number, (before, after) in enumerate(pairwise(sizes), start=1):
        names += [f"W{number}[{i + 1}, {j + 1}]" for i in range(before) for j in range(after)]
        names += [f"b{number}[{j + 1}]" for j in range(after)]
    return names


@experiment_part("One step, number by number")
def one_step(settings: Settings) -> Outcome:
    sizes = getattr(settings, "sizes", BackpropSettings.sizes)
    model, loss = sigmoid_network(sizes), fnn.mean_squared_error
    key, data_key = jax.random.split(jax.random.key(settings.seed))
    params, state = model.init(key)
    batch = random_batch(data_key, sizes)
    checked_value_and_grad(settings, model, loss, batch, params=params)
    one = jax.jit(partial(forward_and_backward, sigmoid_layers(sizes), loss))(params, *batch)

    def loss_of(params):
        return loss.forward(model.forward(params, state, batch.x, train=True)[0], batch.y)[0]

    by_autodiff, by_nudging = jax.jit(lambda params: (jax.grad(loss_of)(params), central_differences(loss_of, params)))(
        params
    )
    columns = [np.asarray(ravel_pytree(tree)[0]) for tree in (params, tuple(one.gradients), by_autodiff, by_nudging)]
    after = jax.tree.map(lambda value, slope: value - RATE * slope, params, tuple(one.gradients))
    lower = float(loss_of(after))
    rows = [
        (name, *(f"{number:.10f}" for number in numbers), f"{numbers[0] - RATE * numbers[1]:.6f}")
        for name, *numbers in zip(parameter_names(sizes), *columns, strict=True)
    ]
    shape = " → ".join(map(str, sizes))

    nodes, edges = graph_data(sizes, params, one)
    figure = Figure(
        "Values of the forward pass and slopes of the backward pass, by unit and weight",
        f"Two drawings of the same network, {shape} units in columns joined by lines. Left, what each unit gives and "
        f"each weight is; the loss is {float(one.loss):.4f}. Right, the slope of the loss by each of them, from "
        f"{', '.join(f'{float(slope):.3f}' for slope in one.cotangents[-1][0][:4])} at the output back to "
        f"{', '.join(f'{float(slope):.3f}' for slope in one.cotangents[0][0][:4])} at the inputs.",
        (
            network_panel(
                sizes, nodes, edges, "forward", f"forward: activations and weights, loss {float(one.loss):.4f}"
            ),
            network_panel(sizes, nodes, edges, "backward", "backward: ∂L/∂activation and ∂L/∂weight"),
        ),
        "Sigmoid units, squared error, one sample. Thicker lines are larger numbers. Hover a unit or a weight for both "
        "its numbers. Other networks: --sizes 3 5 4 2.",
    )
    flow = []
    for position, (value, slope) in enumerate(zip(one.values, one.cotangents, strict=True)):
        layer = (position + 1) // 2
        name = "x" if position == 0 else f"{'z' if position % 2 else 'a'}{layer}"
        rule = "" if position == 0 else f"a{layer - 1} W{layer} + b{layer}" if position % 2 else f"σ(z{layer})"
        if position == len(one.values) - 1:
            back = f"2 (a{layer} − y)/{sizes[-1]}"
        elif position % 2:
            back = f"∂L/∂a{layer} · a{layer} (1 − a{layer})"
        else:
            back = f"∂L/∂z{layer + 1} · W{layer + 1}ᵀ"
        rule = rule.replace("a0 ", "x ")
        words = ["  ".join(f"{number:.4f}" for number in array[0].tolist()) for array in (value, slope)]
        flow.append((name, rule, words[0], back, words[1]))
    tables = (
        Table("Values and the slopes of the loss by them", ("", "forward", "value", "backward", "∂L/∂ value"),
              tuple(flow), f"Read the values down and the slopes up. The target y is "
              f"{'  '.join(f'{target:g}' for target in batch.y[0].tolist())}."),
        Table("Parameters, their slopes three ways, and their values after the step",
              ("parameter", "value", "by hand", "autodiff", "central differences", "after"), tuple(rows[:MOST_ROWS]),
              f"Learning rate {RATE:g}."
              + (f" The first {MOST_ROWS} of {len(rows):,}." if len(rows) > MOST_ROWS else "")),
    )  # fmt: skip

    gaps = [float(np.abs(columns[1] - other).max()) for other in columns[2:]]
    text = (
        f"A network of {shape} sigmoid units sees one sample. A layer computes a weighted sum and its sigmoid; the "
        f"loss is {float(one.loss):.4f}. Back, each slope is the one from above times the local derivative: the chain "
        "rule. A weight's slope is its input times the slope at its output. The slopes agree with autodiff "
        f"{describe_difference(gaps[0])} and with central differences to {format_number(gaps[1], 1)}. One step with "
        f"learning rate {RATE:g} takes the loss to {lower:.4f}."
    )
    return Outcome(figures=(figure,), tables=tables, text=text)
