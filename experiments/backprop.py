"""Backpropagation looked at from close by: one step with every number, and what it is worth beside other ways."""

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
from experiments.claims import Claim, Section, judge
from experiments.experiment import Experiment, Outcome, Result, Settings, Table, checked, settles
from experiments.figures import Curve, Figure, Panel, bars, lines, panel
from experiments.runner import command_line

SEEDS = {"seeds": 1_000, "quick_seeds": 400}

FORWARD_IS_SUMS = Claim(
    name="forward-is-sums-and-squashing",
    sentence="Forward propagation is weighted sums and activations, layer by layer, and nothing else.",
    section=Section.FORWARD,
    quantity="largest difference from σ(… σ(x W₁ + b₁) W₂ + b₂ …) written out in NumPy",
    at_most=1e-12, **SEEDS,
)  # fmt: skip
IS_THE_GRADIENT = Claim(
    name="hand-written-equals-autodiff",
    sentence="Going back by the chain rule gives the gradient that automatic differentiation gives.",
    section=Section.BACKPROPAGATION,
    quantity="largest difference over the largest entry of the gradient",
    at_most=1e-12, **SEEDS,
)  # fmt: skip
IS_THE_SLOPE = Claim(
    name="hand-written-equals-differences",
    sentence="It is the slope of the loss: what nudging every weight a little up and down measures.",
    section=Section.BACKPROPAGATION,
    quantity="largest difference from central differences of step 10⁻⁵, over the largest entry of the gradient",
    at_most=1e-7, **SEEDS,
)  # fmt: skip
LAYER_ABOVE = Claim(
    name="gradient-comes-from-above",
    sentence="A layer's gradient comes through the layer above: cut that one's weights, and nothing arrives.",
    section=Section.BACKPROPAGATION,
    quantity="share of networks whose lower layers get no gradient, and whose last layer still does",
    at_least=0.99, statistic="share", **SEEDS,
)  # fmt: skip
STEP_LOWERS = Claim(
    name="a-step-lowers-the-loss",
    sentence="A step against the gradient with learning rate 0.1 lowers the loss.",
    section=Section.BACKPROPAGATION,
    quantity="share of networks whose loss is lower after it",
    at_least=0.99, statistic="share", **SEEDS,
)  # fmt: skip
STEP_KEEPS_PROMISE = Claim(
    name="small-steps-keep-the-promise",
    sentence="A small enough step lowers the loss by just what the gradient promises.",
    section=Section.BACKPROPAGATION,
    quantity="fall of the loss over rate · |gradient|², at rate 0.001",
    at_least=0.99, at_most=1.01, **SEEDS,
)  # fmt: skip
COST = Claim(
    name="backward-costs-two-forwards",
    sentence="Going back costs about twice as much as going forward, however many weights there are.",
    section=Section.BACKPROPAGATION,
    source="Rumelhart, Hinton and Williams 1986; Baur and Strassen 1983: five times at most",
    quantity="operations of loss and gradient, less those of the loss, over those of the loss; layers of 256 units",
    at_least=1.5, at_most=2.5, statistic="exact",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BackpropSettings(Settings):
    """One step of backpropagation with every number, and what it is worth beside other ways."""

    sizes: tuple[int, ...] = (2, 3, 1)
    """Features, units of every hidden layer, outputs of the network that is shown."""


class Pass(NamedTuple):
    """Every number of one step.

    Fields:
        values: of the forward pass, x first: a layer's output is the next one's input.
        cotangents: the loss's slope by each of the values.
        gradients: by the layers' parameters.
    """

    values: list[Array]
    cotangents: list[Array]
    gradients: list[Any]
    loss: Array


def forward_and_back(layers: Sequence[fnn.Layer], loss: fnn.Loss, params: Sequence[Any], x: Array, y: Array) -> Pass:
    """Backpropagation, all of it: forward keeps what backward needs; back it goes from the last layer to the first."""
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
    return Pass(values, cotangents, gradients, value)


def sigmoid_layers(sizes: Sequence[int]) -> tuple[fnn.Layer, ...]:
    pairs = [(fnn.linear(before, after), fnn.sigmoid) for before, after in pairwise(sizes)]
    return tuple(layer for pair in pairs for layer in pair)


def sigmoid_network(sizes: Sequence[int]) -> fnn.Layer:
    return fnn.mlp(sizes, fnn.sigmoid, fnn.sigmoid, kernel_init=initializers.normal(1.0))


def sample(key: Array, sizes: Sequence[int], samples: int = 1) -> fnn.Batch:
    x_key, y_key = jax.random.split(key)
    x = jax.random.uniform(x_key, (samples, sizes[0]), minval=0.1).round(1)
    return fnn.Batch(x, jax.random.bernoulli(y_key, 0.5, (samples, sizes[-1])).astype(x.dtype))


def central_differences(loss_of, params: Any, step: float = 1e-5) -> Any:
    """The slope of a loss by every parameter, measured: twice as many forward passes as there are parameters."""
    flat, restore = ravel_pytree(params)
    nudges = step * jnp.eye(flat.size)
    slopes = jax.vmap(lambda nudge: (loss_of(restore(flat + nudge)) - loss_of(restore(flat - nudge))) / (2 * step))
    return restore(slopes(nudges))


# One step, number by number -------------------------------------------------------------------------------------------

RATE = 0.5
MOST_ROWS, MOST_LABELS = 60, 24


def closeness(gap: float) -> str:
    return f"to {gap:.0e}, which is rounding," if gap else "to the last bit"


def graph(sizes: Sequence[int], nodes: list[dict], edges: list[dict], value: str, subtitle: str) -> Panel:
    """Units in columns by layer, joined by their weights; every one shows its ``value`` and is hovered for the rest."""
    bare = alt.Axis(labels=False, ticks=False, domain=False, grid=False, title=None)
    places = {"x": alt.X("x:Q", axis=bare, scale=alt.Scale(domain=[-0.3, len(sizes) - 0.7], nice=False)),
              "y": alt.Y("y:Q", axis=bare, scale=alt.Scale(domain=[0, 1], nice=False))}  # fmt: skip
    signs = ("positive", "negative")
    edges = [edge | {"shown": edge[value], "size": abs(edge[value]), "sign": signs[edge[value] < 0]} for edge in edges]
    nodes = [node | {"shown": node[value]} for node in nodes]

    def told(*names):
        return [alt.Tooltip(f"{name}:{'N' if name == 'name' else 'Q'}", title=" " if name == "name" else name,
                            **({} if name == "name" else {"format": ".4f"})) for name in names]  # fmt: skip

    wires = alt.Chart(alt.Data(values=edges)).encode(**places)
    layers = [
        wires.mark_rule(opacity=0.7).encode(
            x2="x2:Q", y2="y2:Q", strokeWidth=alt.StrokeWidth("size:Q", scale=alt.Scale(range=[0.6, 5]), legend=None),
            color=alt.Color("sign:N", title=None, scale=alt.Scale(domain=list(signs)),
                            legend=alt.Legend(orient="top")),
            tooltip=told("name", "forward", "backward", "after"),
        )
    ]  # fmt: skip
    if len(edges) <= MOST_LABELS:
        layers.append(wires.mark_text(dy=-7, fontSize=10).encode(
            x="label x:Q", y="label y:Q", text=alt.Text("shown:Q", format=".3f")))  # fmt: skip
    spots = alt.Chart(alt.Data(values=nodes)).encode(**places)
    layers.append(
        spots.mark_point(style="spot", size=1_300, opacity=1).encode(tooltip=told("name", "forward", "backward"))
    )
    layers.append(spots.mark_text(style="spot-label", fontSize=10).encode(text=alt.Text("shown:Q", format=".3f")))
    return panel(alt.layer(*layers).properties(height=340), subtitle)


def graph_data(sizes: Sequence[int], params, one: Pass) -> tuple[list[dict], list[dict]]:
    """The units (their activations) and the weights between them, each with value, slope and place."""

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
    """The parameters in the order of their flattened tree: each layer's kernel by rows, then its bias."""
    names = []
    for number, (before, after) in enumerate(pairwise(sizes), start=1):
        names += [f"W{number}[{i + 1}, {j + 1}]" for i in range(before) for j in range(after)]
        names += [f"b{number}[{j + 1}]" for j in range(after)]
    return names


@settles("One step, number by number")
def one_step(settings: Settings) -> Outcome:
    sizes = getattr(settings, "sizes", BackpropSettings.sizes)
    model, loss = sigmoid_network(sizes), fnn.mean_squared_error
    key, data_key = jax.random.split(jax.random.key(settings.seed))
    params, state = model.init(key)
    batch = sample(data_key, sizes)
    checked(settings, model, loss, batch, params=params)
    one = jax.jit(partial(forward_and_back, sigmoid_layers(sizes), loss))(params, *batch)

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
        "Values flow forward through the weights, slopes flow back through the same weights",
        f"Two drawings of the same network, {shape} units in columns joined by lines. Left, what each unit gives and "
        f"each weight is; the loss is {float(one.loss):.4f}. Right, the slope of the loss by each of them, from "
        f"{', '.join(f'{float(slope):.3f}' for slope in one.cotangents[-1][0][:4])} at the output back to "
        f"{', '.join(f'{float(slope):.3f}' for slope in one.cotangents[0][0][:4])} at the inputs.",
        (
            graph(sizes, nodes, edges, "forward", f"forward: activations and weights, loss {float(one.loss):.4f}"),
            graph(sizes, nodes, edges, "backward", "backward: ∂L/∂activation and ∂L/∂weight"),
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
        Table("The values, and the slope of the loss by each", ("", "forward", "value", "backward", "∂L/∂ value"),
              tuple(flow), f"Read the values down and the slopes up. The target y is "
              f"{'  '.join(f'{target:g}' for target in batch.y[0].tolist())}."),
        Table("Every parameter, its slope three ways, and what it is after the step",
              ("parameter", "value", "by hand", "autodiff", "central differences", "after"), tuple(rows[:MOST_ROWS]),
              f"Learning rate {RATE:g}."
              + (f" The first {MOST_ROWS} of {len(rows):,}." if len(rows) > MOST_ROWS else "")),
    )  # fmt: skip

    gaps = [float(np.abs(columns[1] - other).max()) for other in columns[2:]]
    text = (
        f"A network of {shape} sigmoid units sees one sample. Forward, each layer weighs, adds and squashes; the loss "
        f"is {float(one.loss):.4f}. Back, each slope is the one from above times the step between: the chain rule. A "
        "weight's slope is what came in on its wire times the slope of what it feeds. The slopes agree with autodiff "
        f"{closeness(gaps[0])} and with central differences to {gaps[1]:.0e}. One step with learning rate {RATE:g} "
        f"takes the loss to {lower:.4f}."
    )
    return Outcome(figures=(figure,), tables=tables, text=text)


# Over many networks ---------------------------------------------------------------------------------------------------

RANDOM = (4, 6, 5, 3)
STEPS = np.logspace(-11, -1, 21)
RATES = np.logspace(-4, 2, 25)
AT = {rate: int(abs(np.log10(RATES / rate)).argmin()) for rate in (0.001, 0.1, 1)}


def relative(tree: Any, true: Any) -> Array:
    """The largest difference over the largest true entry."""
    ours, theirs = ravel_pytree(tree)[0], ravel_pytree(true)[0]
    return jnp.abs(ours - theirs).max() / jnp.abs(theirs).max()


def over_many_networks(settings: Settings) -> dict[str, Any]:
    """What is asked of every random network, by name; the networks along the first axis."""
    model, loss = sigmoid_network(RANDOM), fnn.mean_squared_error
    state = ((),) * (2 * len(RANDOM) - 2)
    checked(settings, model, loss, sample(jax.random.key(0), RANDOM, 4))
    grad = fnn.manual_value_and_grad  # what is asked about, whatever trains

    def measure(key):
        params_key, data_key = jax.random.split(key)
        params, batch = model.init(params_key)[0], sample(data_key, RANDOM, 4)
        flat, restore = ravel_pytree(params)

        def loss_of(params):
            return loss.forward(model.forward(params, state, batch.x, train=True)[0], batch.y)[0]

        (before, _), gradients = grad(model, loss)(params, state, batch)
        # Behind the barrier XLA can't take the one's results for the other's.
        apart = jax.lax.optimization_barrier(params)
        exact = fnn.autodiff_value_and_grad(model, loss)(apart, state, batch)[1]

        def difference_errors(step):
            nudged = jax.vmap(lambda nudge: loss_of(restore(flat + nudge)))
            up, down = (nudged(sign * step * jnp.eye(flat.size)) for sign in (1, -1))
            return jnp.stack([relative((up - down) / (2 * step), exact), relative((up - before) / step, exact)])

        cut = (*params[:-2], params[-2]._replace(kernel=jnp.zeros_like(params[-2].kernel)), ())
        *below, last, _ = grad(model, loss)(cut, state, batch)[1]
        promised = sum((leaf**2).sum() for leaf in jax.tree.leaves(gradients))
        falls = before - jax.vmap(
            lambda rate: loss_of(jax.tree.map(lambda value, slope: value - rate * slope, params, gradients))
        )(jnp.asarray(RATES))
        return {
            "params": params, "x": batch.x, "outputs": model.forward(params, state, batch.x, train=True)[0],
            "from autodiff": relative(gradients, exact),
            "from differences": relative(gradients, central_differences(loss_of, params)),
            "difference errors": jax.lax.map(difference_errors, jnp.asarray(STEPS)),
            "below": jnp.stack([jnp.abs(leaf).max() for leaf in jax.tree.leaves(below)]).max(),
            "last": jnp.abs(last.kernel).max(), "falls": falls, "kept": falls / (jnp.asarray(RATES) * promised),
        }  # fmt: skip

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(measure))(settings.keys_of(IS_THE_GRADIENT)))


def written_out(params: Any, x: np.ndarray) -> np.ndarray:
    """What the networks answer, by NumPy: σ(… σ(x W₁ + b₁) W₂ + b₂ …)."""
    for kernel, bias in params[::2]:
        x = 1 / (1 + np.exp(-(x @ kernel + bias[:, None])))
    return x


def figure_of_differences(found: dict[str, Any]) -> Figure:
    low, middle, high = np.percentile(found["difference errors"], [2.5, 50, 97.5], axis=0)
    central, one_sided = middle.T
    curves = {
        name: Curve(STEPS, middle[:, way], low[:, way], high[:, way])
        for way, name in enumerate(("central differences", "one-sided differences"))
    }
    rounding = max(float(jnp.finfo(float).eps) / 2, float(found["from autodiff"].max()))
    curves["backpropagation by hand (at most)"] = Curve(STEPS[[0, -1]], np.full(2, rounding))
    return Figure(
        "Measured slopes are never as good as backpropagation's: long steps bend, short ones round",
        f"Relative error of measured slopes by the step they are measured with, on logarithmic axes. Both curves are "
        f"V-shaped: central differences are best near {STEPS[central.argmin()]:.0e} with {central.min():.0e}, "
        f"one-sided ones near {STEPS[one_sided.argmin()]:.0e} with {one_sided.min():.0e}. Backpropagation's error is "
        f"{rounding:.0e} at most.",
        (lines(curves, x="step of the difference", y="largest relative error", log="xy"),),
        f"Beside automatic differentiation, over {len(found['x']):,} random networks of 4, 6, 5 and 3 sigmoid units in "
        "float64; bands hold 95% of them.",
    )


def figure_of_steps(found: dict[str, Any]) -> Figure:
    low, middle, high = np.percentile(found["kept"], [2.5, 50, 97.5], axis=0)
    lower = (found["falls"] > 0).mean(axis=0)
    return Figure(
        "The gradient's promise holds for small steps and breaks for long ones",
        f"Left, the fall of the loss over what the gradient promises, by learning rate: {middle[0]:.3f} at the "
        f"smallest, {middle[AT[1]]:.2f} at rate 1, {middle[-1]:.3f} at 100. Right, the share of networks whose loss "
        f"falls: {lower[0]:.0%} at the smallest rate, {lower[-1]:.0%} at 100.",
        (
            lines({"fall / promise": Curve(RATES, middle, low, high)}, x="learning rate",
                  y="fall / (rate · |gradient|²)", log="x", thresholds={"just as promised": 1}),
            lines({"share": Curve(RATES, lower)}, x="learning rate", y="share of networks whose loss falls", log="x",
                  range_y=(0, 1.02)),
        ),
        f"One step of each of {len(found['x']):,} random networks of 4, 6, 5 and 3 sigmoid units on 4 samples of its "
        "own; the band holds 95% of them.",
    )  # fmt: skip


@settles(
    "Is it the gradient, and does following it help?",
    FORWARD_IS_SUMS, IS_THE_GRADIENT, IS_THE_SLOPE, LAYER_ABOVE, STEP_LOWERS, STEP_KEEPS_PROMISE,
)  # fmt: skip
def many_networks(settings: Settings) -> Outcome:
    found = over_many_networks(settings)
    forward_gap = abs(found["outputs"] - written_out(found["params"], found["x"])).max(axis=(1, 2))
    severed = (found["below"] == 0) & (found["last"] > 0)
    lower, kept = found["falls"] > 0, found["kept"]
    parameters = sum(before * after + after for before, after in pairwise(RANDOM))
    text = (
        f"Over {len(severed):,} random networks backpropagation written by hand agrees with automatic differentiation "
        f"{closeness(found['from autodiff'].max()).rstrip(',')}. Measuring the slope by nudging "
        f"agrees to {found['from differences'].max():.0e}, about as well as such a measurement can, and takes "
        f"{2 * parameters} forward passes for {parameters} parameters.\n\n"
        "That a layer's gradient comes through the layer above can be shown with scissors: with the last layer's "
        f"weights set to 0, the gradient of all layers below was exactly 0 in {severed.mean():.1%} of the networks, "
        "while the last layer still got its own.\n\n"
        f"One step with learning rate 0.1 lowered the loss of {lower[:, AT[0.1]].mean():.1%} of the networks. At rate "
        f"0.001 the loss fell by {kept[:, AT[0.001]].mean():.4f} times what a straight line would give. The gradient "
        f"knows the slope where it stands and nothing of what comes after: at rate 100 the loss rises in "
        f"{1 - lower[:, -1].mean():.0%} of the networks."
    )
    return Outcome(
        (
            judge(FORWARD_IS_SUMS, forward_gap),
            judge(IS_THE_GRADIENT, found["from autodiff"]),
            judge(IS_THE_SLOPE, found["from differences"]),
            judge(LAYER_ABOVE, severed),
            judge(STEP_LOWERS, lower[:, AT[0.1]]),
            judge(STEP_KEEPS_PROMISE, kept[:, AT[0.001]]),
        ),
        (figure_of_differences(found), figure_of_steps(found)),
        text=text,
    )


# What it costs --------------------------------------------------------------------------------------------------------


def operations(function, *given) -> float:
    """Floating-point operations of a compiled program, as XLA counts them."""
    return float(jax.jit(function).lower(*given).compile().cost_analysis()["flops"])


@settles("What does it cost?", COST)
def what_it_costs(settings: Settings) -> Outcome:
    costs, parameters = {}, {}
    for width in (16, 256):
        model, loss = sigmoid_network((width, width, width, width)), fnn.mean_squared_error
        params, state = jax.eval_shape(model.init, jax.random.key(0))
        batch = jax.eval_shape(lambda key, width=width: sample(key, (width, width), 64), jax.random.key(0))
        grad = fnn.manual_value_and_grad(model, loss)

        def only_loss(params, state, batch, model=model, loss=loss):
            return loss.forward(model.forward(params, state, batch.x, train=True)[0], batch.y)[0]

        costs[width] = [operations(only_loss, params, state, batch), operations(grad, params, state, batch)]
        parameters[width] = sum(leaf.size for leaf in jax.tree.leaves(params))
    ratios = {width: (whole - forward) / forward for width, (forward, whole) in costs.items()}
    compared = {}
    for width, (forward, whole) in costs.items():
        compared[f"{width} units: loss and gradient by backpropagation"] = whole / forward
        compared[f"{width} units: by central differences"] = 2.0 * parameters[width]
    figure = Figure(
        "Backpropagation costs a few forward passes, measuring by nudges hundreds of thousands",
        "Cost of a gradient in forward passes, on a logarithmic axis: "
        + "; ".join(f"{name} {value:,.1f}" for name, value in compared.items())
        + ".",
        (bars(compared, x="cost in forward passes", log=True),),
        "Three layers of equal width, 64 samples; operations counted by XLA in the compiled programs. Central "
        "differences need two forward passes for every parameter.",
    )
    text = (
        f"With layers of 256 units, going back costs {ratios[256]:.2f} times as many operations as going forward (with "
        f"16 units {ratios[16]:.2f}): two matrix products a layer, one for its weights and one for the layer below, "
        "where forward has one; the first layer needs no slope by the inputs, which saves some. That doesn't depend on "
        f"the number of weights. Nudging each of the {parameters[256]:,} weights up and down would take "
        f"{2 * parameters[256]:,} forward passes. These are operations, not seconds: how fast they run is the "
        "machine's affair."
    )
    return Outcome((judge(COST, ratios[256]),), (figure,), text=text)


EXPERIMENT = Experiment(
    name="backprop",
    title="Backpropagation, one step at a time",
    introduction=(
        "Backpropagation finds how much the loss changes with every single weight, by going through the network once "
        "forward and once back. Here one step is laid out with all its numbers, and then asked of many networks: is it "
        "really the gradient, does following it help, and what does it cost?"
    ),
    parts=(one_step, many_networks, what_it_costs),
    precision="float64",
)


def run(settings: Settings) -> Result:
    return EXPERIMENT.run(settings)


if __name__ == "__main__":
    command_line(EXPERIMENT, BackpropSettings)
