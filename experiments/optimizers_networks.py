"""Five optimizers train networks on handwritten digits at a grid of learning rates, Adam's default among them."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

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
from experiments.harness.figures import Curve, Figure, bars, lines
from experiments.harness.runner import run_command_line
from experiments.shared.data import Split, digits, mnist, with_validation
from experiments.shared.optimizer_choice import select_optimizer


def claims_on(name: str, where: str) -> tuple[Claim, Claim, Claim]:
    common = {"section": Section.DESCENT, "seeds": 20, "quick_seeds": 6}
    return (
        Claim(
            name=f"optimizers-{name}-default", at_least=-0.5, **common,
            sentence=f"On {where} Adam at its default rate is within half a point of the best tuned optimizer.",
            quantity="points of test accuracy, Adam's at rate 0.001 minus the best other's at its best rate",
        ),
        Claim(
            name=f"optimizers-{name}-best", at_least=0, **common,
            sentence=f"On {where} Adam is the most accurate, each optimizer at its best rate.",
            quantity="points of test accuracy, Adam's at its best rate minus the best other's at its own",
        ),
        Claim(
            name=f"optimizers-{name}-tuning", at_least=0, **common,
            sentence=f"On {where} Adam forgives a wrong learning rate more than plain descent does.",
            quantity="decades of rates within a point of the own best test accuracy, Adam's minus plain descent's",
        ),
    )  # fmt: skip


DIGITS = claims_on("digits", "8 × 8 digits")
MNIST = claims_on("mnist", "MNIST")

OPTIMIZERS = {
    "plain descent": fnn.sgd, "momentum": fnn.momentum, "RMSProp": fnn.rmsprop, "Adagrad": fnn.adagrad,
    "Adam": fnn.adam,
}  # fmt: skip
ADAM = list(OPTIMIZERS).index("Adam")
OTHERS = [number for number in range(len(OPTIMIZERS)) if number != ADAM]
RATES = np.geomspace(1e-4, 10**0.5, 10)
SPACING = 0.5
DEFAULT = 2
HIDDEN = 32
BATCH_SIZE = 32


class Grid(NamedTuple):
    """Of every optimizer, rate and seed, ``(optimizers, rates, seeds)``: accuracies in percent, and the training loss.

    Fields:
        best: the index of each optimizer's best rate by its mean validation accuracy, ``(optimizers,)``.
    """

    validation: np.ndarray
    test: np.ndarray
    loss: np.ndarray
    best: np.ndarray

    @property
    def at_best(self) -> np.ndarray:
        """Test accuracies at the best rates, ``(optimizers, seeds)``."""
        return np.stack([self.test[number, best] for number, best in enumerate(self.best)])


def network(data: Split) -> fnn.Layer:
    return fnn.mlp((data.training.x.shape[1], HIDDEN, 10))


def train_grid(settings: Settings, claim: Claim, data: Split, gradient: Callable, *, epochs: int) -> Grid:
    """Train with every optimizer at every rate in one program.

    The initial weights and the shuffles of a seed are the same for all of them.
    """
    model, loss = network(data), fnn.softmax_cross_entropy

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None, None, None))
    @partial(jax.vmap, in_axes=(None, 0, None, None))
    @partial(jax.vmap, in_axes=(None, None, 0, None))
    def train_all(choice, rate, key, data):
        # As one long vector: the optimizers go entry by entry, and XLA compiles a quarter of the code.
        optimizer = optax.flatten(select_optimizer(choice, [make(rate) for make in OPTIMIZERS.values()]))
        found = fnn.train(
            model, loss, optimizer, data.training, epochs=epochs, batch_size=BATCH_SIZE, key=key, grad=gradient
        )
        judged = [
            fnn.accuracy(fnn.predict(model, found.params, found.state, x), y) for x, y in (data.validation, data.test)
        ]
        return *judged, found.history.loss[-1]

    rates = jnp.asarray(RATES, jnp.result_type(float))
    validation, test, losses = map(
        np.asarray, train_all(jnp.arange(len(OPTIMIZERS)), rates, settings.keys_of(claim), data)
    )
    lost = ~np.isfinite(losses)
    validation, test = (np.where(lost, 10.0, 100.0 * accuracy) for accuracy in (validation, test))
    return Grid(validation, test, np.where(lost, np.log(10), losses), validation.mean(axis=2).argmax(axis=1))


def measure_data_set(
    settings: Settings, claims: tuple[Claim, ...], where: str, data: Split, gradient: Callable, epochs: int
) -> Outcome:
    pixels = data.training.x.shape[1]
    found = train_grid(settings, claims[0], data, gradient, epochs=epochs)
    steps = epochs * -(-len(data.training.x) // BATCH_SIZE)
    how = (
        f"{where}: a network {pixels}-{HIDDEN}-10 with ReLU, {steps:,} steps of {BATCH_SIZE} samples ({epochs} epochs)."
    )
    default_claim, best_claim, tuning_claim = claims
    means = found.at_best.mean(axis=1)
    # The best other is chosen as the rates are, by validation: choosing it by the test would favour it.
    by_validation = [found.validation[number, best].mean() for number, best in enumerate(found.best)]
    rival = max(OTHERS, key=by_validation.__getitem__)
    rival_name = tuple(OPTIMIZERS)[rival]
    default = found.test[ADAM, DEFAULT]
    near = (found.test >= found.test.max(axis=1, keepdims=True) - 1).sum(axis=1) * SPACING
    results = (
        judge(default_claim, default - found.at_best[rival], f"the best other: {rival_name}"),
        judge(best_claim, found.at_best[ADAM] - found.at_best[rival], f"the best other: {rival_name}"),
        judge(tuning_claim, near[ADAM] - near[0]),
    )
    summary = ", ".join(f"{name} {mean:.1f}%" for name, mean in zip(OPTIMIZERS, means, strict=True))
    curves = {
        name: Curve(RATES, test.mean(axis=1), test.min(axis=1), test.max(axis=1))
        for name, test in zip(OPTIMIZERS, found.test, strict=True)
    }
    losses = {name: Curve(RATES, loss.mean(axis=1)) for name, loss in zip(OPTIMIZERS, found.loss, strict=True)}
    spread = {
        f"{name}, {RATES[best]:.2g}": tuple(np.array([test.mean(), test.min(), test.max()]))
        for name, best, test in zip(OPTIMIZERS, found.best, found.at_best, strict=True)
    } | {"Adam, default 0.001": (default.mean(), default.min(), default.max())}
    figures = (
        Figure(
            title=f"Test accuracy and training loss by learning rate on {where}",
            alternative=f"Test accuracy and training loss against the learning rate, for five optimizers. "
            f"At the best rates: {summary}. Adam at 0.001: {default.mean():.1f}%.",
            panels=(
                lines(curves, x="learning rate", y="test accuracy, %", log="x", subtitle="accuracy"),
                lines(losses, x="learning rate", y="training loss", log="xy", subtitle="loss of the last epoch"),
            ),
            caption=f"{how} Means over {found.test.shape[2]} seeds, bands from the lowest to the highest. A run that "
            "diverged counts the accuracy and the loss of guessing.",
        ),
        Figure(
            title=f"Test accuracy of each optimizer at its best rate on {where}",
            alternative=f"Mean test accuracy of each optimizer at its best rate, with the range of seeds: {summary}; "
            f"Adam at its default rate {default.mean():.1f}%.",
            panels=(bars(spread, x="test accuracy, %", subtitle="lowest, mean and highest seed"),),
            caption="The best rate has the highest mean validation accuracy. The split is one; what varies is the seed "
            "of the first weights and of the shuffling.",
        ),
    )
    rows = tuple(
        (name, f"{RATES[best]:.3g}", f"{validation:.2f}", f"{mean:.2f}", f"{near[number].mean():.2f}")
        for number, (name, best, validation, mean) in enumerate(
            zip(OPTIMIZERS, found.best, by_validation, means, strict=True)
        )
    )
    text = f"""{how} With the best rate for each, the test accuracies are {summary}. Adam at its default rate, untuned,
has {default.mean():.1f}%, {results[0].estimate:+.2f} points from {rival_name}, by validation the best of the
others: its step moves a weight by about the rate, and {steps:,} steps of 0.001 don't take it far. Within a point of its
own best lie {near[ADAM].mean():.1f} decades of Adam's rates, {near[0].mean():.1f} of
plain descent's and {near[1].mean():.1f} of momentum's."""
    columns = ("optimizer", "best rate", "validation, %", "test, %", "decades within a point")
    return Outcome(results, figures, (Table(f"At the best rates on {where}", columns, rows),), text)


@experiment_part("8 × 8 digits and MNIST", *DIGITS, *MNIST)
def both_data_sets(settings: Settings) -> Outcome:
    small, large = with_validation(digits()), with_validation(mnist(), smaller=2)
    few = fnn.Batch(*(array[:6] for array in small.training))
    gradient = checked_value_and_grad(settings, network(small), fnn.softmax_cross_entropy, few)
    outcomes = (
        measure_data_set(settings, DIGITS, "8 × 8 digits", small, gradient, settings.steps(quick=8, full=40)),
        measure_data_set(settings, MNIST, "MNIST", large, gradient, settings.steps(quick=2, full=10)),
    )
    results, figures, tables, texts, _ = zip(*outcomes, strict=True)
    return Outcome(sum(results, ()), sum(figures, ()), sum(tables, ()), "\n\n".join(texts))


EXPERIMENT = Experiment(
    name="optimizers_networks",
    order=7.3,
    title="Five optimizers on networks, and Adam's default rate",
    introduction="The chapter says that Adam works well with its default settings, and needs little tuning. Five "
    "optimizers train the same networks from the same first weights at ten learning rates, all in one program; the "
    "rate is chosen by validation samples, and the report is by test samples that chose nothing.",
    parts=(both_data_sets,),
)


def run(settings: Settings) -> ExperimentResult:
    return EXPERIMENT.run(settings)


if __name__ == "__main__":
    run_command_line(EXPERIMENT)
