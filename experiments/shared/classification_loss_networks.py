"""Networks on three data sets, trained by squared error in three ways and by cross-entropy, each at its best rate."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_breast_cancer

import funcnn as fnn
from experiments.harness.claims import Claim, Section, judge
from experiments.harness.experiment import Outcome, Settings, Table, checked_value_and_grad, experiment_part
from experiments.harness.figures import Curve, Figure, bars, lines
from experiments.shared.composed_losses import after_activation, weighted_sum
from experiments.shared.data import Split, digits, mnist, split_and_scale, with_validation


class DataSetClaims(NamedTuple):
    """The claims on one data set."""

    never: Claim
    slow: Claim
    comparable: Claim


def claims_on(name: str, where: str) -> DataSetClaims:
    common = {"seeds": 20, "quick_seeds": 6}
    return DataSetClaims(
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

CLASS_LOSSES = {
    "cross-entropy": fnn.softmax_cross_entropy,
    "squared error on sigmoids": after_activation(fnn.sigmoid, fnn.mean_squared_error),
    "squared error on softmax": after_activation(fnn.softmax, fnn.mean_squared_error),
    "squared error on raw outputs": fnn.mean_squared_error,
}
ENTROPY, SIGMOIDS, SOFTMAX, RAW = range(4)

RATES = np.geomspace(0.03, 30, 7)
HIDDEN = 32
GOAL = 90.0


class Accuracies(NamedTuple):
    """The results of every loss.

    Fields:
        rates: the best by validation accuracy, ``(losses,)``.
        test: accuracies at them in percent, ``(losses, seeds)``.
        epochs: to the goal on the validation samples, at the rate that gets there soonest, ``(losses, seeds)``.
        validation: accuracies by epoch at the best rates in percent, ``(losses, epochs, seeds)``.
    """

    rates: np.ndarray
    test: np.ndarray
    epochs: np.ndarray
    validation: np.ndarray


def one_hot(data: Split) -> Split:
    """Return the split with one-hot training targets, which every loss takes."""
    x, y = data.training
    return data._replace(training=fnn.Batch(x, jax.nn.one_hot(y, int(y.max()) + 1, dtype=x.dtype)))


def network(data: Split) -> fnn.Layer:
    return fnn.mlp((data.training.x.shape[1], HIDDEN, data.training.y.shape[1]))


def train_with_each_loss(settings: Settings, claim: Claim, make: Callable, data: Split, epochs: int) -> Accuracies:
    """Train with every loss at every rate in one program. A run that diverges predicts the first class."""
    model = network(data)

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None, None, None))
    @partial(jax.vmap, in_axes=(None, 0, None, None))
    @partial(jax.vmap, in_axes=(None, None, 0, None))
    def accuracies(weights, rate, key, data):
        loss, optimizer = weighted_sum(weights, tuple(CLASS_LOSSES.values())), fnn.sgd(rate)
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
        validation=validation[every, best].swapaxes(1, 2),
    )


@experiment_part("Whole data sets", *CANCER, *DIGITS, *MNIST)
def data_sets(settings: Settings) -> Outcome:
    cancer = split_and_scale(*load_breast_cancer(return_X_y=True), seed=0)
    sets = {
        "breast cancer": (CANCER, one_hot(with_validation(cancer)), settings.steps(quick=10, full=60)),
        "8 × 8 digits": (DIGITS, one_hot(with_validation(digits())), settings.steps(quick=10, full=60)),
        "MNIST": (MNIST, one_hot(with_validation(mnist(), smaller=2)), settings.steps(quick=3, full=20)),
    }
    small = sets["8 × 8 digits"][1]
    # All losses at once: a wrong backward pass of one of them makes the sum's wrong.
    together = weighted_sum(jnp.ones(len(CLASS_LOSSES)), tuple(CLASS_LOSSES.values()))
    make = checked_value_and_grad(
        settings, network(small), together, fnn.Batch(*(array[:6] for array in small.training))
    )
    found = {
        where: train_with_each_loss(settings, claims.never, make, data, epochs)
        for where, (claims, data, epochs) in sets.items()
    }
    results = tuple(
        result for where, (claims, _, epochs) in sets.items() for result in judge_data_set(claims, found[where], epochs)
    )
    names = tuple(CLASS_LOSSES)
    figures = (
        Figure(
            title="The validation accuracy by epoch, each loss at its best rate",
            alternative="A panel for each data set, a curve for each of four losses. At the end: "
            + "; ".join(f"{where}: {describe_means(names, one.validation[:, -1])}" for where, one in found.items())
            + ".",
            panels=tuple(
                lines({name: Curve(np.arange(1, one.validation.shape[1] + 1), accuracies.mean(axis=1))
                       for name, accuracies in zip(names, one.validation, strict=True)},
                      x="epoch", y="validation accuracy, %", subtitle=where)
                for where, one in found.items()
            ),
            caption=f"Networks with {HIDDEN} hidden units, plain descent in batches of 32, means over seeds.",
        ),
        Figure(
            title="The test accuracy of each loss at its best rate",
            alternative="Test accuracy of four losses on three data sets, means over seeds: "
            + "; ".join(f"{where}: {describe_means(names, one.test)}" for where, one in found.items()) + ".",
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
    return Outcome(results, figures, (Table("At the best rates", columns, rows),), describe_accuracies(found))


def describe_means(names: tuple[str, ...], values: np.ndarray) -> str:
    return ", ".join(f"{name} {value.mean():.1f}%" for name, value in zip(names, values, strict=True))


def judge_data_set(claims: DataSetClaims, found: Accuracies, epochs: int):
    test = found.test
    return (
        judge(claims.never, test[ENTROPY] - test[SIGMOIDS],
              f"on softmax: {np.mean(test[ENTROPY] - test[SOFTMAX]):+.2f} points"),
        judge(claims.slow, found.epochs[SIGMOIDS] / found.epochs[ENTROPY], f"{epochs} epochs; {epochs + 1} if never"),
        judge(claims.comparable, test[RAW] - test[ENTROPY],
              "small networks and plain descent; the paper's are large, with the optimizers of their fields"),
    )  # fmt: skip


def describe_accuracies(found: dict[str, Accuracies]) -> str:
    paragraphs = [
        f"On {where} cross-entropy reaches {one.test[ENTROPY].mean():.2f}% of the test samples, squared error on "
        f"sigmoids {one.test[SIGMOIDS].mean():.2f}%, on softmax {one.test[SOFTMAX].mean():.2f}%, on the raw outputs, "
        f"where nothing saturates, {one.test[RAW].mean():.2f}%. To {GOAL:.0f}% of the validation samples they take "
        f"{one.epochs[ENTROPY].mean():.1f}, {one.epochs[SIGMOIDS].mean():.1f}, {one.epochs[SOFTMAX].mean():.1f} and "
        f"{one.epochs[RAW].mean():.1f} epochs, each at the rate that is soonest there."
        for where, one in found.items()
    ]
    last = (
        "A new network's predictions are not confident: it doesn't begin at the saturated weights "
        "from which squared error can't recover. Each loss needs a rate of its own."
    )
    return "\n\n".join((*paragraphs, last))
