"""MNIST-1D: digits drawn as curves of 40 points, classified by a linear model and by a small network.

The data are made on the machine by their author's own package. Two models of the paper are trained by its published
protocol: logistic regression, and a network of two hidden layers with a skip connection around the second.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from mnist1d.data import get_dataset_args, make_dataset

import funcnn as fnn
from experiments.harness.claims import Claim, ClaimResult, Section, interval, judge
from experiments.harness.experiment import (
    Experiment,
    ExperimentResult,
    Outcome,
    Settings,
    Table,
    checked_value_and_grad,
    experiment_part,
)
from experiments.harness.figures import Curve, Figure, bars, heatmap, lines
from experiments.harness.runner import run_command_line
from experiments.shared.initialization import fan_in_uniform, he_normal, init_ensemble

PAPER = "Greydanus, Scaling down deep learning, 2020"
PAPERS = {"logistic regression": 0.32, "network": 0.68}
CLASSES = 10
RATE, BATCH = 1e-2, 100
EPOCHS_BETWEEN = 10  # between evaluations, of 40 steps each: fifteen evaluations in the paper's 6,000 steps

LOGISTIC = Claim(
    name="mnist1d-logistic", source=PAPER, section=Section.WHY_FEATURES, at_least=0.29, at_most=0.35, quick_seeds=4,
    seeds=20, sentence="Logistic regression gets 32% of MNIST-1D's test signals right, within 3 points.",
    quantity="share of the 1,000 test signals classified rightly after the last step",
)  # fmt: skip
NETWORK = Claim(
    name="mnist1d-network", source=PAPER, section=Section.WHY_FEATURES, at_least=0.65, at_most=0.71, quick_seeds=4,
    seeds=20, sentence="A network of two hidden layers gets 68% of MNIST-1D's test signals right, within 3 points.",
    quantity="share of the 1,000 test signals classified rightly after the last step",
)  # fmt: skip
FEATURES = Claim(
    name="mnist1d-features", section=Section.WHY_FEATURES, at_least=0.2, quick_seeds=4, seeds=20,
    sentence="Features that hidden layers learn are worth at least 20 points of accuracy over the raw ones.",
    quantity="the network's test accuracy minus logistic regression's, seed by seed",
)  # fmt: skip
BY_HEART = Claim(
    name="mnist1d-by-heart", section=Section.MLP, at_least=0.99, quick_seeds=4, seeds=20,
    sentence="The network learns at least 99% of the 4,000 training signals by heart, noise and all.",
    quantity="share of the training signals classified rightly after the last step",
)  # fmt: skip
ORDER = Claim(
    name="mnist1d-order", source=PAPER, section=Section.MLP, at_least=-0.02, at_most=0.02, quick_seeds=4, seeds=20,
    sentence="To a fully connected network the order of the points is nothing: shuffled, it does as well.",
    quantity="test accuracy on shuffled points minus that on ordered ones, seed by seed",
)  # fmt: skip


class Signals(NamedTuple):
    """The data as the package makes it; ``templates`` are the ten curves that all signals are distortions of."""

    training: fnn.Batch
    test: fnn.Batch
    templates: np.ndarray


def load_signals() -> Signals:
    """Return the paper's 4,000 and 1,000 signals. The package seeds NumPy's global generator, which is restored."""
    before = np.random.get_state()  # noqa: NPY002
    try:
        made = make_dataset(get_dataset_args())
    finally:
        np.random.set_state(before)  # noqa: NPY002
    training, test = (
        fnn.Batch(jnp.asarray(made[x], jnp.result_type(float)), jnp.asarray(made[y]))
        for x, y in (("x", "y"), ("x_test", "y_test"))
    )
    return Signals(training, test, made["templates"]["x"])


def logistic_regression() -> fnn.Layer:
    return fnn.mlp((40, CLASSES))


def network(*, with_skip: bool = True) -> fnn.Layer:
    """Return the paper's network: h = relu(x K₁ + b₁), then h + relu(h K₂ + b₂), then a linear layer."""
    second = fnn.serial(fnn.linear(100, 100), fnn.relu)
    return fnn.serial(
        fnn.linear(40, 100), fnn.relu, fnn.skip(second) if with_skip else second, fnn.linear(100, CLASSES)
    )


class Accuracies(NamedTuple):
    """Accuracies at every evaluation, ``(seeds, evaluations)``, and the last test predictions, ``(seeds, 1000)``."""

    training: np.ndarray
    test: np.ndarray
    predicted: np.ndarray


@partial(jax.jit, static_argnames=("model", "grad", "evaluations"))
def train_network(params, keys: jax.Array, training: fnn.Batch, test: fnn.Batch, *, model, grad, evaluations: int):
    """Train all seeds at once by Adam on batches of 100, with Adam's state carried from one evaluation to the next."""
    adam = fnn.adam(RATE)

    def one(params, key):
        def until_evaluation(carry, evaluation_key):
            params, opt_state = carry
            trained = fnn.train(
                model, fnn.softmax_cross_entropy, adam._replace(init=lambda _: opt_state), training,
                epochs=EPOCHS_BETWEEN, batch_size=BATCH, key=evaluation_key, grad=grad, params=params,
            )  # fmt: skip
            seen = [fnn.predict(model, trained.params, trained.state, batch.x) for batch in (training, test)]
            right = [fnn.accuracy(y, batch.y) for y, batch in zip(seen, (training, test), strict=True)]
            return (trained.params, trained.opt_state), (*right, seen[1].argmax(-1))

        _, (on_training, on_test, predicted) = lax.scan(
            until_evaluation, (params, adam.init(params)), jax.random.split(key, evaluations)
        )
        return on_training, on_test, predicted[-1]

    return jax.vmap(one)(params, keys)


def train_all(
    settings: Settings, keys: jax.Array, model: fnn.Layer, data: Signals, grad, draw=fan_in_uniform
) -> Accuracies:
    params, _ = init_ensemble(model, len(keys), draw, settings.seed)
    evaluations = settings.steps(quick=6, full=15)
    return Accuracies(
        *map(
            np.asarray,
            train_network(params, keys, data.training, data.test, model=model, grad=grad, evaluations=evaluations),
        )
    )


def shuffle_points(data: Signals, seed: int) -> Signals:
    """Return the signals with their 40 points permuted, all in the same way."""
    order = np.random.default_rng(seed).permutation(data.training.x.shape[1])
    return data._replace(
        training=data.training._replace(x=data.training.x[:, order]), test=data.test._replace(x=data.test.x[:, order])
    )


@experiment_part("Two models of the paper", LOGISTIC, NETWORK, FEATURES, BY_HEART, ORDER)
def models_of_the_paper(settings: Settings) -> Outcome:
    data = load_signals()
    keys = settings.keys_of(NETWORK)
    few = fnn.Batch(data.training.x[:6], data.training.y[:6])
    grad = checked_value_and_grad(
        settings, network(), fnn.softmax_cross_entropy, few
    )  # its layers are those of the other models too
    linear = train_all(settings, settings.keys_of(LOGISTIC), logistic_regression(), data, grad)
    deep = train_all(settings, keys, network(), data, grad)
    deep_shuffled = train_all(settings, keys, network(), shuffle_points(data, settings.seed), grad)
    tried = interval_curve({
        "logistic regression": linear.test[:, -1],
        "network": deep.test[:, -1],
        "network, best look": deep.test.max(1),
        "network, without its skip": train_all(settings, keys, network(with_skip=False), data, grad).test[:, -1],
        "network, He initialization": train_all(settings, keys, network(), data, grad, he_normal).test[:, -1],
    })  # fmt: skip
    best = deep.test.max(1).mean()
    results = (
        judge(LOGISTIC, linear.test[:, -1]),
        judge(NETWORK, deep.test[:, -1], f"Each seed's best look, as if the test set chose it, has {best:.1%}."),
        judge(FEATURES, deep.test[:, -1] - linear.test[: len(keys), -1]),
        judge(BY_HEART, deep.training[:, -1]),
        judge(ORDER, deep_shuffled.test[:, -1] - deep.test[:, -1]),
    )
    by_model = {"logistic regression": linear, "network": deep, "network, points shuffled": deep_shuffled}
    return Outcome(
        results,
        (
            what_is_learned(data),
            accuracy_figure(by_model),
            comparison_figure(tried),
            confusion_figure(deep, data, results[1]),
        ),
        (Table("Beside the paper", ("model", "test accuracy", "paper", "difference in points"), tuple(
            (name, f"{value[0]:.3f}", f"{PAPERS[name.split(',')[0]]:.2f}",
             f"{100 * (value[0] - PAPERS[name.split(',')[0]]):+.1f}") for name, value in tried.items())),),
        describe_results(results, best),
    )  # fmt: skip


def interval_curve(values: dict[str, np.ndarray]) -> dict[str, tuple[float, float, float]]:
    return {name: (float(some.mean()), *interval(some)) for name, some in values.items()}


def what_is_learned(data: Signals) -> Figure:
    x, y = map(np.asarray, data.training)
    panels = tuple(
        lines({f"signal {n + 1}": Curve(np.arange(40), signal) for n, signal in enumerate(x[y == digit][:3])},
              x="point", y="value", subtitle=f"Three signals of digit {digit}")
        for digit in (4, 7)
    )  # fmt: skip
    return Figure(
        "Training signals of two digits",
        "Three training signals of 40 points for digit 4 and three for digit 7, as curves. Within a digit the "
        "characteristic bump appears at different places, between stretches of smooth noise.",
        panels, "A short template is padded, shifted, stretched, tilted and covered with noise, then sampled 40 times.",
    )  # fmt: skip


def accuracy_figure(by_model: dict[str, Accuracies]) -> Figure:
    steps = (1 + np.arange(by_model["network"].test.shape[1])) * EPOCHS_BETWEEN * 40

    def panel(part: str, subtitle: str, thresholds):
        drawn = {}
        for name, found in by_model.items():
            values = getattr(found, part)
            bounds = np.array([interval(column) for column in values.T])
            drawn[name] = Curve(steps, values.mean(0), *bounds.T)
        return lines(drawn, x="step", y="accuracy", subtitle=subtitle, thresholds=thresholds, range_y=(0, 1.02))

    marked = {f"paper {value:.0%}": value for value in PAPERS.values()}
    last = {name: (found.training[:, -1].mean(), found.test[:, -1].mean()) for name, found in by_model.items()}
    words = "; ".join(
        f"{name}: {one:.1%} of the training, {other:.1%} of the test" for name, (one, other) in last.items()
    )
    return Figure(
        "Accuracy by step, test and training signals",
        f"Accuracy by step on test and training signals. After the last step, {words}.",
        (panel("test", "Test signals", marked), panel("training", "Training signals", None)),
        "Means over seeds, with their 95% intervals as bands (narrow). Dashed: the paper's figures.",
    )


def comparison_figure(tried: dict[str, tuple[float, float, float]]) -> Figure:
    words = "; ".join(f"{name} {value[0]:.1%}" for name, value in tried.items())
    return Figure(
        "Test accuracies beside the paper's, and variants of its protocol",
        f"Test accuracy with its 95% interval. {words}. The paper has 32% and 68%.",
        (bars(tried, x="test accuracy", thresholds={f"paper {value:.0%}": value for value in PAPERS.values()}),),
        "The best look is chosen by the test set itself, so it flatters. The last two change one thing each.",
    )


def confusion_figure(deep: Accuracies, data: Signals, result: ClaimResult) -> Figure:
    truth = np.asarray(data.test.y)
    counts = np.zeros((CLASSES, CLASSES))
    for predicted in deep.predicted:
        np.add.at(counts, (truth, predicted), 1)
    share = counts / counts.sum(1, keepdims=True)
    easiest, hardest = int(share.diagonal().argmax()), int(share.diagonal().argmin())
    wrong = share - np.diag(share.diagonal())
    true, taken = np.unravel_index(wrong.argmax(), wrong.shape)
    return Figure(
        "Confusion matrix of the test signals",
        f"Shares of each digit's test signals by the digit the network took them for. Digit {easiest} is right most "
        f"often, {share[easiest, easiest]:.0%}, digit {hardest} least, {share[hardest, hardest]:.0%}; the commonest "
        f"mistake takes a {true} for a {taken}, {wrong[true, taken]:.0%}.",
        (
            heatmap(
                share,
                rows=range(10),
                columns=range(10),
                x="taken for",
                y="digit",
                value="share",
                number=lambda part: f"{part:.0%}",
            ),
        ),
        f"All {result.seeds} networks together; every row adds up to 1.",
    )


def describe_results(results: tuple[ClaimResult, ...], best: float) -> str:
    logistic, deep, gain, by_heart, order = (result.estimate for result in results)
    missed = 100 * (deep - PAPERS["network"])
    return (
        f"Logistic regression gets {logistic:.1%} of the test signals right, the network {deep:.1%}: {100 * gain:.0f} "
        f"points more. A weighted sum of 40 points can't find a bump that may stand anywhere; hidden units can, for "
        f"each of the places. That is what learned features are good for.\n\n"
        f"The paper has 32% and 68%. We are {100 * (logistic - PAPERS['logistic regression']):+.1f} and {missed:+.1f} "
        f"points off, with its published code's protocol: Adam, rate 0.01, batches of 100 (6,000 steps in the full "
        f"run), a skip connection around the second hidden layer, the same initial spread of the kernels. That code's "
        f"own notebooks print 65% to 66% after the last step. Taking each run's best look gives {best:.1%}."
        f"\n\nAn accuracy of {by_heart:.1%} on the training signals says nothing about new ones. And when all signals' "
        f"points are shuffled in one way, accuracy moves by {100 * order:+.1f} points: a fully connected network "
        f"doesn't use which points are neighbours. Convolutional networks do, and reach 94% in the paper."
    )


EXPERIMENT = Experiment(
    name="mnist1d",
    order=10.5,
    title="MNIST-1D: hidden layers and a linear model",
    introduction="Signals of 40 points, generated by the paper's package, are classified by logistic regression and "
    "by a small network. Two figures of the paper are measured again, and the worth of learned features.",
    parts=(models_of_the_paper,),
)


def run(settings: Settings) -> ExperimentResult:
    return EXPERIMENT.run(settings)


if __name__ == "__main__":
    run_command_line(EXPERIMENT)
