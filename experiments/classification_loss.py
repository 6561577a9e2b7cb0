"""Squared error and cross-entropy for classification: gradients, recovery from wrong weights, whole data sets."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import funcnn as fnn
from experiments.harness.claims import Claim, Section, judge
from experiments.harness.experiment import (
    Experiment,
    ExperimentResult,
    Outcome,
    Settings,
    Table,
    checked_value_and_grad,
    experiment_part,
)
from experiments.harness.figures import Curve, Figure, lines
from experiments.harness.runner import run_command_line
from experiments.shared.classification_loss_networks import data_sets
from experiments.shared.composed_losses import after_activation, weighted_sum

WORKED_EXAMPLE = Claim(
    name="classification-worked-example",
    sentence="The example's four predictions cost 0.0375 by squared error and 0.1976 by cross-entropy.",
    section=Section.MISTAKE_MSE, statistic="exact", at_most=5e-5, quantity="the larger distance to those figures",
)  # fmt: skip
SMALL_WHEN_WRONG = Claim(
    name="classification-squared-error-small",
    sentence="At probability 0.01 for the true class, squared error's gradient is a tenth of cross-entropy's or less.",
    section=Section.MISTAKE_MSE, statistic="exact", at_most=0.1,
    quantity="gradient by the logit, squared error's over cross-entropy's",
)  # fmt: skip
SLOWEST_WHEN_WRONG = Claim(
    name="classification-squared-error-slows",
    sentence="Squared error through a sigmoid pushes less at an error of 0.99 than at an error of 0.5.",
    section=Section.MISTAKE_MSE, statistic="exact", at_most=1,
    quantity="gradient by the logit at an error of 0.99 over that at 0.5",
)  # fmt: skip
VERY_LARGE = Claim(
    name="classification-cross-entropy-large",
    sentence="At probability 0.01 for the true class, cross-entropy's gradient is ten times that at 0.5 or more.",
    section=Section.MISTAKE_MSE, statistic="exact", at_least=10,
    quantity="gradient by the logit at 0.01 over that at 0.5",
)  # fmt: skip
RECOVERY_WRONG = Claim(
    name="classification-recovery-wrong",
    sentence="From confidently wrong weights, squared error needs ten times the steps of cross-entropy or more.",
    section=Section.MISTAKE_MSE, at_least=10, seeds=100, quick_seeds=20,
    quantity="steps until 9 of 10 samples are right at rate 1, squared error's over cross-entropy's",
)  # fmt: skip
RECOVERY_SATURATED = Claim(
    name="classification-recovery-saturated",
    sentence="From saturated wrong weights, squared error needs ten times the steps of cross-entropy or more.",
    section=Section.MISTAKE_MSE, at_least=10, seeds=100, quick_seeds=20,
    quantity="steps until 9 of 10 samples are right at rate 1, 1,000 at most, by squared error over cross-entropy",
)  # fmt: skip
RECOVERY_BEST = Claim(
    name="classification-recovery-best-rate",
    sentence="With the best rate for each, from wrong weights, squared error needs twice the steps or more.",
    section=Section.MISTAKE_MSE, at_least=2, seeds=100, quick_seeds=20,
    quantity="steps until 9 of 10 samples are right, squared error's over cross-entropy's",
)  # fmt: skip

SIGMOID_PAIR = {
    "squared error": after_activation(fnn.sigmoid, fnn.mean_squared_error), "cross-entropy": fnn.sigmoid_cross_entropy
}  # fmt: skip


# The gradients --------------------------------------------------------------------------------------------------------


def logit_gradients(probability: np.ndarray) -> dict[str, np.ndarray]:
    """Return each loss's negative gradient by the logit of the true class, −∂L/∂z, by the class's probability."""
    p = jnp.asarray(probability, jnp.result_type(float))
    logits = (jnp.log(p) - jnp.log1p(-p))[:, None]

    def push(loss, logit):
        value, residuals = loss.forward(logit[None], jnp.ones_like(logit)[None])
        return -loss.backward(residuals, jnp.ones_like(value))[0, 0]

    return {name: np.asarray(jax.vmap(partial(push, loss))(logits)) for name, loss in SIGMOID_PAIR.items()}


@experiment_part("The gradient by the error", WORKED_EXAMPLE, SMALL_WHEN_WRONG, SLOWEST_WHEN_WRONG, VERY_LARGE)
def gradient_by_error(settings: Settings) -> Outcome:
    y, p = jnp.array([[1.0], [0.0], [1.0], [0.0]]), jnp.array([[0.9], [0.1], [0.8], [0.3]])
    squared, entropy = (float(loss.forward(p, y)[0]) for loss in (fnn.mean_squared_error, fnn.binary_cross_entropy))
    error = np.linspace(0.001, 0.999, 999)
    found = logit_gradients(1 - error)
    at = {
        name: dict(zip((0.01, 0.5), logit_gradients(np.array([0.01, 0.5]))[name], strict=True)) for name in SIGMOID_PAIR
    }
    mse, ce = at["squared error"], at["cross-entropy"]
    steepest = error[found["squared error"].argmax()]
    figure = Figure(
        title="Gradient by the logit against the error, squared error and cross-entropy",
        alternative="The push on the logit against the error, 1 minus the true class's probability. Cross-entropy's "
        f"is the error itself, a straight line to 1. Squared error's rises to {found['squared error'].max():.2f} at an "
        f"error of {steepest:.2f} and falls to 0 at 1; at 0.99 it is {mse[0.01]:.3f}.",
        panels=(
            lines({name: Curve(error, push) for name, push in found.items()}, x="error, 1 − p", y="push, −∂L/∂z",
                  subtitle="through a sigmoid"),
            lines({name: Curve(1 - error, push) for name, push in found.items()}, x="probability of the true class",
                  y="push, −∂L/∂z", log="xy", subtitle="the same, logarithmic"),
        ),
        caption="One sample whose target is 1. Squared error: 2 (1 − p)² p; cross-entropy: 1 − p.",
    )  # fmt: skip
    text = f"""The example's predictions cost {squared:.4f} by squared error and {entropy:.4f} by cross-entropy. Through
a sigmoid, cross-entropy's push on the logit is the error itself. Squared error's has the sigmoid's slope as a factor
too: strongest at an error of {steepest:.2f}, it falls off where the network is surest and wrong. At p = 0.01 it is
{mse[0.01]:.4f} against {ce[0.01]:.2f}: the chapter is right. Its very large gradient for cross-entropy is one by the
probability, 1/p; what reaches the logit is never larger than 1, here {ce[0.01] / ce[0.5]:.2f} times that at
p = 0.5."""
    return Outcome(
        results=(
            judge(WORKED_EXAMPLE, [max(abs(squared - 0.0375), abs(entropy - 0.1976))]),
            judge(SMALL_WHEN_WRONG, [mse[0.01] / ce[0.01]]),
            judge(SLOWEST_WHEN_WRONG, [mse[0.01] / mse[0.5]]),
            judge(
                VERY_LARGE, [ce[0.01] / ce[0.5]], "by the probability it would be 50 times, before the sigmoid's slope"
            ),
        ),
        figures=(figure,),
        text=text,
    )


# Recovery -------------------------------------------------------------------------------------------------------------

STARTS = {"right": 1.0, "zero": 0.0, "wrong": -1.0, "saturated": -2.5}
"""The first weights, in multiples of those that give the classes probabilities of 0.01 and 0.99 on average."""
NEURON_RATES = np.geomspace(0.1, 1000, 9)
RATE_ONE = 2
STEPS = 1000
SAMPLES = 100


def two_clouds(key: jax.Array) -> tuple[fnn.Batch, jax.Array]:
    """Return two clouds of points, and the kernel of a neuron that separates them with z = ±log 99 at their centres."""
    turn, spread = jax.random.split(key)
    angle = jax.random.uniform(turn, maxval=2 * np.pi)
    centre = 1.5 * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
    y = (jnp.arange(SAMPLES)[:, None] % 2).astype(centre.dtype)
    x = (2 * y - 1) * centre[None] + 0.5 * jax.random.normal(spread, (SAMPLES, 2))
    return fnn.Batch(x, y), np.log(99) * (centre / (centre @ centre))[:, None]


@experiment_part("Recovery from a wrong start", RECOVERY_WRONG, RECOVERY_SATURATED, RECOVERY_BEST)
def recovery(settings: Settings) -> Outcome:
    neuron, losses = fnn.linear(2, 1), tuple(SIGMOID_PAIR.values())
    data, _ = two_clouds(jax.random.key(0))
    make = checked_value_and_grad(
        settings, neuron, weighted_sum(jnp.ones(2), losses), fnn.Batch(data.x[:4], data.y[:4])
    )

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None, None, None))
    @partial(jax.vmap, in_axes=(None, 0, None, None))
    @partial(jax.vmap, in_axes=(None, None, 0, None))
    @partial(jax.vmap, in_axes=(None, None, None, 0))
    def steps_needed(weights, multiple, rate, key):
        data, kernel = two_clouds(key)
        loss, optimizer = weighted_sum(weights, losses), fnn.sgd(rate)

        def step(params, _):
            right = fnn.binary_accuracy(fnn.sigmoid_forward(fnn.predict(neuron, params, (), data.x))[0], data.y)
            found = fnn.train(neuron, loss, optimizer, data, epochs=1, key=key, grad=make, params=params, state=())
            return found.params, right >= 0.9

        params = fnn.LinearParams(multiple * kernel, jnp.zeros(1, kernel.dtype))
        _, good = jax.lax.scan(step, params, None, length=STEPS)
        return jnp.where(good.any(), good.argmax(), STEPS)

    floating = jnp.result_type(float)
    steps = np.asarray(
        steps_needed(
            jnp.eye(2, dtype=floating), jnp.array(list(STARTS.values()), floating), jnp.asarray(NEURON_RATES, floating),
            settings.keys_of(RECOVERY_WRONG),
        )
    )  # fmt: skip
    return recovery_outcome(steps)


def recovery_outcome(steps: np.ndarray) -> Outcome:
    """Return the outcome of the steps by loss, start, rate and seed."""
    wrong = list(STARTS).index("wrong")
    best = steps.mean(axis=3).argmin(axis=2)
    at_best = np.take_along_axis(steps, best[..., None, None], axis=2)[:, :, 0]
    at_one = steps[:, :, RATE_ONE]
    ratio_one, ratio_best = (at[0, wrong] / np.maximum(at[1, wrong], 1) for at in (at_one, at_best))
    ratio_saturated = at_one[0, -1] / np.maximum(at_one[1, -1], 1)
    stuck = (at_one[0, -1] == STEPS).mean()
    panels = tuple(
        lines({name: Curve(NEURON_RATES, steps[i, start].mean(axis=1)) for i, name in enumerate(SIGMOID_PAIR)},
              x="learning rate", y="mean steps", log="xy", subtitle=f"from {name} weights")
        for start, name in ((wrong, "wrong"), (wrong + 1, "saturated"))
    )  # fmt: skip
    rows = tuple(
        (start, name, f"{at_one[i, j].mean():.1f}", f"{at_best[i, j].mean():.1f}", f"{NEURON_RATES[best[i, j]]:.3g}")
        for j, start in enumerate(STARTS)
        for i, name in enumerate(SIGMOID_PAIR)
    )
    squared, entropy = at_one[:, wrong].mean(axis=1)
    figure = Figure(
        title="Steps to nine of ten right by learning rate, squared error and cross-entropy",
        alternative="Mean steps until nine of ten samples are right against the learning rate, from wrong and from "
        f"saturated weights. From wrong ones at rate 1: squared error {squared:.0f}, cross-entropy {entropy:.0f}; at "
        f"the best rates {at_best[0, wrong].mean():.1f} and {at_best[1, wrong].mean():.1f}.",
        panels=panels,
        caption=f"One neuron, two clouds of {SAMPLES} points, all of them a step. Wrong: the classes exchanged, with "
        f"probabilities of 0.01 at the centres; saturated: 2.5 times those weights. {STEPS} where they don't suffice.",
    )  # fmt: skip
    text = f"""From weights that have the classes exchanged, squared error needs {squared:.0f} steps at rate 1 and
cross-entropy {entropy:.0f}, {ratio_one.mean():.1f} times as many. From saturated ones {stuck:.0%} of the squared
error's runs aren't there after {STEPS:,} steps. With a rate of its own, squared error needs
{at_best[0, wrong].mean():.1f} and cross-entropy {at_best[1, wrong].mean():.1f}: a small gradient that has the right
direction is mended by a large rate, on a problem as simple as this."""
    columns = ("start", "loss", "steps at rate 1", "steps at the best rate", "best rate")
    return Outcome(
        results=(
            judge(RECOVERY_WRONG, ratio_one),
            judge(RECOVERY_SATURATED, ratio_saturated, f"{stuck:.0%} of squared error's runs weren't there by then"),
            judge(RECOVERY_BEST, ratio_best, "a single neuron can be turned around by one step that is large enough"),
        ),
        figures=(figure,),
        tables=(Table("Steps to nine of ten right", columns, rows),),
        text=text,
    )


EXPERIMENT = Experiment(
    name="classification_loss",
    order=9.2,
    title="Squared error and cross-entropy for classification",
    introduction="The chapter says never to use mean squared error for classification, since its gradient vanishes "
    "where a sigmoid is confidently wrong. Hui and Belkin found square loss on raw outputs as good as cross-entropy. "
    "The gradients are compared exactly, then a neuron's way out of wrong weights, then networks on three data sets, "
    "each loss at its own best rate.",
    parts=(gradient_by_error, recovery, data_sets),
)


def run(settings: Settings) -> ExperimentResult:
    return EXPERIMENT.run(settings)


if __name__ == "__main__":
    run_command_line(EXPERIMENT)
