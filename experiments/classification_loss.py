"""Squared error or cross-entropy for classification: their gradients, recovery from wrong starts, whole data sets."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

import funcnn as fnn
from experiments.claims import Claim, Section, judge
from experiments.data import DataSet, digits, mnist, split_and_scale
from experiments.experiment import Experiment, Outcome, Result, Settings, Table, checked, settles
from experiments.figures import Curve, Figure, bars, lines
from experiments.runner import command_line

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


class Sets(NamedTuple):
    """The claims on one data set."""

    never: Claim
    slow: Claim
    comparable: Claim


def claims_on(name: str, where: str) -> Sets:
    common = {"seeds": 20, "quick_seeds": 6}
    return Sets(
        Claim(
            name=f"classification-{name}-never", section=Section.LOSSES, at_least=1, **common,
            sentence=f"On {where} squared error costs a point of accuracy or more against cross-entropy.",
            quantity="points of test accuracy, cross-entropy's minus those of squared error on sigmoids, best rates",
        ),
        Claim(
            name=f"classification-{name}-slow", section=Section.MISTAKE_MSE, at_least=2, **common,
            sentence=f"On {where} squared error takes twice the epochs of cross-entropy or more.",
            quantity="epochs to 90% of the validation samples right, squared error on sigmoids over cross-entropy",
        ),
        Claim(
            name=f"classification-{name}-comparable", section=Section.LOSSES, at_least=-0.5, **common,
            sentence=f"On {where} squared error on the raw outputs is as accurate as cross-entropy.",
            source="Hui and Belkin 2021, Evaluation of neural architectures trained with square loss vs cross-entropy",
            quantity="points of test accuracy, squared error's on raw outputs minus cross-entropy's, best rates",
        ),
    )  # fmt: skip


CANCER, DIGITS, MNIST = (
    claims_on("cancer", "breast cancer"), claims_on("digits", "8 × 8 digits"), claims_on("mnist", "MNIST")
)  # fmt: skip


# Losses on logits -----------------------------------------------------------------------------------------------------


def after(activation: fnn.Layer, loss: fnn.Loss) -> fnn.Loss:
    """A loss of what an activation makes of the logits."""

    def forward(logits, target):
        activated, _, kept = activation.forward((), (), logits, train=True)
        value, residuals = loss.forward(activated, target)
        return value, (kept, residuals)

    def backward(residuals, dloss):
        kept, rest = residuals
        return activation.backward(kept, loss.backward(rest, dloss))[1]

    return fnn.Loss(forward, backward)


def weighted(weights: jax.Array, losses: tuple[fnn.Loss, ...]) -> fnn.Loss:
    """A weighted sum of losses; with the weights of one loss alone, which may be vmapped, it is that loss."""

    def forward(prediction, target):
        values, residuals = zip(*(loss.forward(prediction, target) for loss in losses), strict=True)
        return weights @ jnp.stack(values), residuals

    def backward(residuals, dloss):
        each = [
            loss.backward(kept, dloss * weight) for loss, kept, weight in zip(losses, residuals, weights, strict=True)
        ]
        return sum(each[1:], each[0])

    return fnn.Loss(forward, backward)


SIGMOID_PAIR = {
    "squared error": after(fnn.sigmoid, fnn.mean_squared_error), "cross-entropy": fnn.sigmoid_cross_entropy
}  # fmt: skip
CLASS_LOSSES = {
    "cross-entropy": fnn.softmax_cross_entropy,
    "squared error on sigmoids": after(fnn.sigmoid, fnn.mean_squared_error),
    "squared error on softmax": after(fnn.softmax, fnn.mean_squared_error),
    "squared error on raw outputs": fnn.mean_squared_error,
}
ENTROPY, SIGMOIDS, SOFTMAX, RAW = range(4)


# The gradients --------------------------------------------------------------------------------------------------------


def pushes(probability: np.ndarray) -> dict[str, np.ndarray]:
    """How hard each loss pushes the logit of the true class up, −∂L/∂z, by the probability that the class has."""
    p = jnp.asarray(probability, jnp.result_type(float))
    logits = (jnp.log(p) - jnp.log1p(-p))[:, None]

    def push(loss, logit):
        value, residuals = loss.forward(logit[None], jnp.ones_like(logit)[None])
        return -loss.backward(residuals, jnp.ones_like(value))[0, 0]

    return {name: np.asarray(jax.vmap(partial(push, loss))(logits)) for name, loss in SIGMOID_PAIR.items()}


@settles("The push by the error", WORKED_EXAMPLE, SMALL_WHEN_WRONG, SLOWEST_WHEN_WRONG, VERY_LARGE)
def push_by_error(settings: Settings) -> Outcome:
    y, p = jnp.array([[1.0], [0.0], [1.0], [0.0]]), jnp.array([[0.9], [0.1], [0.8], [0.3]])
    squared, entropy = (float(loss.forward(p, y)[0]) for loss in (fnn.mean_squared_error, fnn.binary_cross_entropy))
    error = np.linspace(0.001, 0.999, 999)
    found = pushes(1 - error)
    at = {name: dict(zip((0.01, 0.5), pushes(np.array([0.01, 0.5]))[name], strict=True)) for name in SIGMOID_PAIR}
    mse, ce = at["squared error"], at["cross-entropy"]
    steepest = error[found["squared error"].argmax()]
    figure = Figure(
        title="Squared error lets go where the error is largest",
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
        findings=(
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
    """Two clouds of points, and the kernel of a neuron that tells them apart with z = ±log 99 at their centres."""
    turn, spread = jax.random.split(key)
    angle = jax.random.uniform(turn, maxval=2 * np.pi)
    centre = 1.5 * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
    y = (jnp.arange(SAMPLES)[:, None] % 2).astype(centre.dtype)
    x = (2 * y - 1) * centre[None] + 0.5 * jax.random.normal(spread, (SAMPLES, 2))
    return fnn.Batch(x, y), np.log(99) * (centre / (centre @ centre))[:, None]


@settles("Recovery from a wrong start", RECOVERY_WRONG, RECOVERY_SATURATED, RECOVERY_BEST)
def recovery(settings: Settings) -> Outcome:
    neuron, losses = fnn.linear(2, 1), tuple(SIGMOID_PAIR.values())
    data, _ = two_clouds(jax.random.key(0))
    make = checked(settings, neuron, weighted(jnp.ones(2), losses), fnn.Batch(data.x[:4], data.y[:4]))

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None, None, None))
    @partial(jax.vmap, in_axes=(None, 0, None, None))
    @partial(jax.vmap, in_axes=(None, None, 0, None))
    @partial(jax.vmap, in_axes=(None, None, None, 0))
    def steps_needed(weights, multiple, rate, key):
        data, kernel = two_clouds(key)
        loss, optimizer = weighted(weights, losses), fnn.sgd(rate)

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
    """Of the steps by loss, start, rate and seed."""
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
        title="Out of wrong weights squared error is slow, and needs a rate of its own",
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
        findings=(
            judge(RECOVERY_WRONG, ratio_one),
            judge(RECOVERY_SATURATED, ratio_saturated, f"{stuck:.0%} of squared error's runs weren't there by then"),
            judge(RECOVERY_BEST, ratio_best, "a single neuron can be turned around by one step that is large enough"),
        ),
        figures=(figure,),
        tables=(Table("Steps until nine of ten are right", columns, rows),),
        text=text,
    )


# Whole data sets ------------------------------------------------------------------------------------------------------

RATES = np.geomspace(0.03, 30, 7)
HIDDEN = 32
GOAL = 90.0


class Split(NamedTuple):
    """Training samples with one-hot targets; those that choose the rate, and those of the report, with labels."""

    training: fnn.Batch
    validation: fnn.Batch
    test: fnn.Batch


def split(data: DataSet) -> Split:
    x, y = (np.asarray(array) for array in data.training)
    x, x_validation, y, y_validation = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)
    rows = jax.nn.one_hot(y, int(y.max()) + 1, dtype=x.dtype)
    return Split(
        fnn.Batch(jnp.asarray(x), rows), fnn.Batch(jnp.asarray(x_validation), jnp.asarray(y_validation)), data.test
    )


def small_mnist() -> DataSet:
    """14 × 14 pixels, each the mean of four."""
    return DataSet(*(fnn.Batch(x.reshape(-1, 14, 2, 14, 2).mean((2, 4)).reshape(-1, 196), y) for x, y in mnist()))


class Accuracies(NamedTuple):
    """What came of every loss.

    Fields:
        rates: the best by validation accuracy, ``(losses,)``.
        test: accuracies at them in percent, ``(losses, seeds)``.
        epochs: to the goal on the validation samples, at the rate that gets there soonest, ``(losses, seeds)``.
        course: validation accuracies by epoch at the best rates in percent, ``(losses, epochs, seeds)``.
    """

    rates: np.ndarray
    test: np.ndarray
    epochs: np.ndarray
    course: np.ndarray


def network(data: Split) -> fnn.Layer:
    return fnn.mlp((data.training.x.shape[1], HIDDEN, data.training.y.shape[1]))


def trained_with_each(settings: Settings, claim: Claim, make: Callable, data: Split, epochs: int) -> Accuracies:
    """Every loss at every rate from the same seeds, in one program. A run that diverges guesses the first class."""
    model = network(data)

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None, None, None))
    @partial(jax.vmap, in_axes=(None, 0, None, None))
    @partial(jax.vmap, in_axes=(None, None, 0, None))
    def accuracies(weights, rate, key, data):
        loss, optimizer = weighted(weights, tuple(CLASS_LOSSES.values())), fnn.sgd(rate)
        first, rest = jax.random.split(key)

        def epoch(carry, key):
            params, state = carry
            found = fnn.train(
                model, loss, optimizer, data.training, epochs=1, batch_size=32, key=key, grad=make, params=params,
                state=state,
            )  # fmt: skip
            judged = [
                fnn.accuracy(fnn.predict(model, found.params, found.state, x), y)
                for x, y in (data.validation, data.test)
            ]
            return (found.params, found.state), jnp.stack(judged)

        return jax.lax.scan(epoch, model.init(first), jax.random.split(rest, epochs))[1]

    floating = jnp.result_type(float)
    found = np.asarray(
        accuracies(
            jnp.eye(len(CLASS_LOSSES), dtype=floating), jnp.asarray(RATES, floating), settings.keys_of(claim), data
        )
    )  # fmt: skip
    validation, test = np.moveaxis(100 * found, 4, 0)
    best = validation[..., -1].mean(axis=2).argmax(axis=1)
    reached = validation >= GOAL
    needed = np.where(reached.any(axis=3), reached.argmax(axis=3) + 1, epochs + 1)
    every = np.arange(len(CLASS_LOSSES))
    return Accuracies(
        rates=RATES[best],
        test=test[every, best, :, -1],
        epochs=needed[every, needed.mean(axis=2).argmin(axis=1)],
        course=validation[every, best].swapaxes(1, 2),
    )


@settles("Whole data sets", *CANCER, *DIGITS, *MNIST)
def whole_sets(settings: Settings) -> Outcome:
    cancer = split_and_scale(*load_breast_cancer(return_X_y=True), seed=0)
    sets = {
        "breast cancer": (CANCER, split(cancer), settings.steps(quick=10, full=60)),
        "8 × 8 digits": (DIGITS, split(digits()), settings.steps(quick=10, full=60)),
        "MNIST": (MNIST, split(small_mnist()), settings.steps(quick=3, full=20)),
    }
    small = sets["8 × 8 digits"][1]
    # All losses at once: a wrong backward pass of one of them makes the sum's wrong.
    together = weighted(jnp.ones(len(CLASS_LOSSES)), tuple(CLASS_LOSSES.values()))
    make = checked(settings, network(small), together, fnn.Batch(*(array[:6] for array in small.training)))
    found = {
        where: trained_with_each(settings, claims.never, make, data, epochs)
        for where, (claims, data, epochs) in sets.items()
    }
    findings = tuple(
        finding for where, (claims, _, epochs) in sets.items() for finding in verdicts(claims, found[where], epochs)
    )
    names = tuple(CLASS_LOSSES)
    figures = (
        Figure(
            title="The validation accuracy by epoch, each loss at its best rate",
            alternative="A panel for each data set, a curve for each of four losses. At the end: "
            + "; ".join(f"{where}: {listed(names, one.course[:, -1])}" for where, one in found.items()) + ".",
            panels=tuple(
                lines({name: Curve(np.arange(1, one.course.shape[1] + 1), course.mean(axis=1))
                       for name, course in zip(names, one.course, strict=True)},
                      x="epoch", y="validation accuracy, %", subtitle=where)
                for where, one in found.items()
            ),
            caption=f"Networks with {HIDDEN} hidden units, plain descent in batches of 32, means over seeds.",
        ),
        Figure(
            title="The test accuracy that each loss comes to, at its best rate",
            alternative="Test accuracy of four losses on three data sets, means over seeds: "
            + "; ".join(f"{where}: {listed(names, one.test)}" for where, one in found.items()) + ".",
            panels=tuple(
                bars({name: tuple(np.percentile(test, (50, 5, 95)))
                      for name, test in zip(names, one.test, strict=True)},
                     x="test accuracy, %", subtitle=where)
                for where, one in found.items()
            ),
            caption="Medians, and nine in ten seeds. The rate was chosen by the validation samples.",
        ),
    )  # fmt: skip
    rows = tuple(
        (where, name, f"{one.rates[i]:.3g}", f"{one.test[i].mean():.2f}", f"{one.epochs[i].mean():.1f}")
        for where, one in found.items()
        for i, name in enumerate(names)
    )
    columns = ("data", "loss", "best rate", "test accuracy, %", f"epochs to {GOAL:.0f}%")
    return Outcome(findings, figures, (Table("At the best rates", columns, rows),), said_of(found))


def listed(names: tuple[str, ...], values: np.ndarray) -> str:
    return ", ".join(f"{name} {value.mean():.1f}%" for name, value in zip(names, values, strict=True))


def verdicts(claims: Sets, found: Accuracies, epochs: int):
    test = found.test
    return (
        judge(claims.never, test[ENTROPY] - test[SIGMOIDS],
              f"on softmax: {np.mean(test[ENTROPY] - test[SOFTMAX]):+.2f} points"),
        judge(claims.slow, found.epochs[SIGMOIDS] / found.epochs[ENTROPY], f"{epochs} epochs; {epochs + 1} if never"),
        judge(claims.comparable, test[RAW] - test[ENTROPY],
              "small networks and plain descent; the paper's are large, with the optimizers of their fields"),
    )  # fmt: skip


def said_of(found: dict[str, Accuracies]) -> str:
    paragraphs = [
        f"On {where} cross-entropy reaches {one.test[ENTROPY].mean():.2f}% of the test samples, squared error on "
        f"sigmoids {one.test[SIGMOIDS].mean():.2f}%, on softmax {one.test[SOFTMAX].mean():.2f}%, on the raw outputs, "
        f"where nothing saturates, {one.test[RAW].mean():.2f}%. To {GOAL:.0f}% of the validation samples they take "
        f"{one.epochs[ENTROPY].mean():.1f}, {one.epochs[SIGMOIDS].mean():.1f}, {one.epochs[SOFTMAX].mean():.1f} and "
        f"{one.epochs[RAW].mean():.1f} epochs, each at the rate that is soonest there."
        for where, one in found.items()
    ]
    last = (
        "A fresh network is sure of nothing: the saturated start, in which squared error is "
        "helpless, isn't where it begins. Each loss needs a rate of its own."
    )
    return "\n\n".join((*paragraphs, last))


EXPERIMENT = Experiment(
    name="classification_loss",
    title="Is squared error wrong for classification?",
    introduction="The chapter says never to use mean squared error for classification, since its gradient vanishes "
    "where a sigmoid is confidently wrong. Hui and Belkin found square loss on raw outputs as good as cross-entropy. "
    "The gradients are compared exactly, then a neuron's way out of wrong weights, then networks on three data sets, "
    "each loss at its own best rate.",
    parts=(push_by_error, recovery, whole_sets),
)


def run(settings: Settings) -> Result:
    return EXPERIMENT.run(settings)


if __name__ == "__main__":
    command_line(EXPERIMENT)
