"""Backpropagation: one step with every number, its agreement with other derivatives, and its cost."""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

import funcnn as fnn
from experiments.harness.claims import Claim, Section, format_number, judge
from experiments.harness.experiment import (
    Experiment,
    ExperimentResult,
    Outcome,
    Settings,
    checked_value_and_grad,
    experiment_part,
)
from experiments.harness.figures import Curve, Figure, bars, lines
from experiments.harness.runner import run_command_line
from experiments.shared.backprop_step import (
    BackpropSettings,
    central_differences,
    describe_difference,
    one_step,
    random_batch,
    sigmoid_network,
)

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

RANDOM = (4, 6, 5, 3)
STEPS = np.logspace(-11, -1, 21)
RATES = np.logspace(-4, 2, 25)
AT = {rate: int(abs(np.log10(RATES / rate)).argmin()) for rate in (0.001, 0.1, 1)}


def relative_difference(tree: Any, true: Any) -> Array:
    """Return the largest difference over the largest true entry."""
    ours, theirs = ravel_pytree(tree)[0], ravel_pytree(true)[0]
    return jnp.abs(ours - theirs).max() / jnp.abs(theirs).max()


def measure_networks(settings: Settings) -> dict[str, Any]:
    """Return the measurements of all random networks, by name, with the networks along the first axis."""
    model, loss = sigmoid_network(RANDOM), fnn.mean_squared_error
    state = ((),) * (2 * len(RANDOM) - 2)
    checked_value_and_grad(settings, model, loss, random_batch(jax.random.key(0), RANDOM, 4))
    grad = fnn.manual_value_and_grad  # the subject of the claims, also with --grad autodiff

    def measure(key):
        params_key, data_key = jax.random.split(key)
        params, batch = model.init(params_key)[0], random_batch(data_key, RANDOM, 4)
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
            return jnp.stack(
                [relative_difference((up - down) / (2 * step), exact), relative_difference((up - before) / step, exact)]
            )

        cut = (*params[:-2], params[-2]._replace(kernel=jnp.zeros_like(params[-2].kernel)), ())
        *below, last, _ = grad(model, loss)(cut, state, batch)[1]
        promised = sum((leaf**2).sum() for leaf in jax.tree.leaves(gradients))
        falls = before - jax.vmap(
            lambda rate: loss_of(jax.tree.map(lambda value, slope: value - rate * slope, params, gradients))
        )(jnp.asarray(RATES))
        return {
            "params": params, "x": batch.x, "outputs": model.forward(params, state, batch.x, train=True)[0],
            "from autodiff": relative_difference(gradients, exact),
            "from differences": relative_difference(gradients, central_differences(loss_of, params)),
            "difference errors": jax.lax.map(difference_errors, jnp.asarray(STEPS)),
            "below": jnp.stack([jnp.abs(leaf).max() for leaf in jax.tree.leaves(below)]).max(),
            "last": jnp.abs(last.kernel).max(), "falls": falls, "kept": falls / (jnp.asarray(RATES) * promised),
        }  # fmt: skip

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(measure))(settings.keys_of(IS_THE_GRADIENT)))


def numpy_forward(params: Any, x: np.ndarray) -> np.ndarray:
    """Compute the networks' outputs in NumPy: σ(… σ(x W₁ + b₁) W₂ + b₂ …)."""
    for kernel, bias in params[::2]:
        x = 1 / (1 + np.exp(-(x @ kernel + bias[:, None])))
    return x


def differences_figure(found: dict[str, Any]) -> Figure:
    low, middle, high = np.percentile(found["difference errors"], [2.5, 50, 97.5], axis=0)
    central, one_sided = middle.T
    curves = {
        name: Curve(STEPS, middle[:, way], low[:, way], high[:, way])
        for way, name in enumerate(("central differences", "one-sided differences"))
    }
    rounding = max(float(jnp.finfo(float).eps) / 2, float(found["from autodiff"].max()))
    curves["backpropagation by hand (at most)"] = Curve(STEPS[[0, -1]], np.full(2, rounding))
    return Figure(
        "Relative error of measured slopes by the step of the difference, beside backpropagation",
        f"Relative error of measured slopes by the step they are measured with, on logarithmic axes. Both curves are "
        f"V-shaped: central differences are best near {format_number(STEPS[central.argmin()], 1)} with "
        f"{format_number(central.min(), 1)}, one-sided ones near {format_number(STEPS[one_sided.argmin()], 1)} with "
        f"{format_number(one_sided.min(), 1)}. Backpropagation's error is {format_number(rounding, 1)} at most.",
        (lines(curves, x="step of the difference", y="largest relative error", log="xy"),),
        f"Beside automatic differentiation, over {len(found['x']):,} random networks of 4, 6, 5 and 3 sigmoid units in "
        "float64; bands hold 95% of them.",
    )


def steps_figure(found: dict[str, Any]) -> Figure:
    low, middle, high = np.percentile(found["kept"], [2.5, 50, 97.5], axis=0)
    lower = (found["falls"] > 0).mean(axis=0)
    return Figure(
        "Fall of the loss over the gradient's prediction, and share of networks with a fall, by learning rate",
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


@experiment_part(
    "Gradients and steps of many networks",
    FORWARD_IS_SUMS, IS_THE_GRADIENT, IS_THE_SLOPE, LAYER_ABOVE, STEP_LOWERS, STEP_KEEPS_PROMISE,
)  # fmt: skip
def many_networks(settings: Settings) -> Outcome:
    found = measure_networks(settings)
    forward_gap = abs(found["outputs"] - numpy_forward(found["params"], found["x"])).max(axis=(1, 2))
    severed = (found["below"] == 0) & (found["last"] > 0)
    lower, kept = found["falls"] > 0, found["kept"]
    parameters = sum(before * after + after for before, after in pairwise(RANDOM))
    text = (
        f"Over {len(severed):,} random networks backpropagation written by hand agrees with automatic differentiation "
        f"{describe_difference(found['from autodiff'].max()).rstrip(',')}. Measuring the slope by nudging "
        f"agrees to {format_number(found['from differences'].max(), 1)}, about as well as such a measurement can, and "
        f"takes {2 * parameters} forward passes for {parameters} parameters.\n\n"
        "A layer's gradient comes through the layer above: with the last layer's "
        f"weights set to 0, the gradient of all layers below was exactly 0 in {severed.mean():.1%} of the networks, "
        "while the last layer still got its own.\n\n"
        f"One step with learning rate 0.1 lowered the loss of {lower[:, AT[0.1]].mean():.1%} of the networks. At rate "
        f"0.001 the loss fell by {kept[:, AT[0.001]].mean():.4f} times what a straight line would give. The gradient "
        f"is the slope at one point and doesn't predict the loss farther away: at rate 100 the loss rises in "
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
        (differences_figure(found), steps_figure(found)),
        text=text,
    )


# What it costs --------------------------------------------------------------------------------------------------------


def count_operations(function, *given) -> float:
    """Return the floating-point operations of a compiled program, as XLA counts them."""
    return float(jax.jit(function).lower(*given).compile().cost_analysis()["flops"])


@experiment_part("The cost of a gradient", COST)
def cost(settings: Settings) -> Outcome:
    costs, parameters = {}, {}
    for width in (16, 256):
        model, loss = sigmoid_network((width, width, width, width)), fnn.mean_squared_error
        params, state = jax.eval_shape(model.init, jax.random.key(0))
        batch = jax.eval_shape(lambda key, width=width: random_batch(key, (width, width), 64), jax.random.key(0))
        grad = fnn.manual_value_and_grad(model, loss)

        def only_loss(params, state, batch, model=model, loss=loss):
            return loss.forward(model.forward(params, state, batch.x, train=True)[0], batch.y)[0]

        costs[width] = [count_operations(only_loss, params, state, batch), count_operations(grad, params, state, batch)]
        parameters[width] = sum(leaf.size for leaf in jax.tree.leaves(params))
    ratios = {width: (whole - forward) / forward for width, (forward, whole) in costs.items()}
    compared = {}
    for width, (forward, whole) in costs.items():
        compared[f"{width} units: loss and gradient by backpropagation"] = whole / forward
        compared[f"{width} units: by central differences"] = 2.0 * parameters[width]
    figure = Figure(
        "Cost of a gradient by backpropagation and by central differences",
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
        f"{2 * parameters[256]:,} forward passes. These are operations, not seconds: their speed "
        "depends on the machine."
    )
    return Outcome((judge(COST, ratios[256]),), (figure,), text=text)


EXPERIMENT = Experiment(
    name="backprop",
    order=6.1,
    title="Backpropagation, one step at a time",
    introduction=(
        "Backpropagation finds how much the loss changes with every single weight, by going through the network once "
        "forward and once back. Here one step is laid out with all its numbers. Then many networks show whether it "
        "is the gradient, whether a step along it lowers the loss, and what it costs."
    ),
    parts=(one_step, many_networks, cost),
    precision="float64",
)


def run(settings: Settings) -> ExperimentResult:
    return EXPERIMENT.run(settings)


if __name__ == "__main__":
    run_command_line(EXPERIMENT, BackpropSettings)
