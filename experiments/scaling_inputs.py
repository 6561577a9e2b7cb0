"""Inputs without scaling: effects on accuracy, speed, saturation and the best learning rate.

Three data sets, raw, standardised and scaled to [0, 1]: a made-up population of incomes, ages and ratios under a known
rule, and scikit-learn's wine and breast cancer. Each scaling gets nine learning rates and may choose its own best one.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.model_selection import train_test_split

import funcnn as fnn
from experiments.harness.claims import Claim, Section, format_number, interval, judge
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
from experiments.shared.initialization import he_normal, init_ensemble, xavier_normal

HIDDEN, BATCH = 16, 32
RATES = tuple(10.0**power for power in range(-8, 1))
GOOD_RATE = 0.1
TARGET = 0.3
SCALINGS = ("raw", "standardised", "min-max")
FEATURES = ("income", "age", "ratio")
TRAINING = {"population": 448, "wine": 128, "breast cancer": 448}  # whole batches of 32


def claim(name: str, sentence: str, quantity: str, *, statistic="mean", at_least=-np.inf, at_most=np.inf) -> Claim:
    return Claim(
        name=f"scaling-{name}", sentence=sentence, section=Section.MISTAKE_SCALING, quantity=quantity, seeds=40,
        at_least=at_least, at_most=at_most, statistic=statistic, quick_seeds=12,
    )  # fmt: skip


GAIN = "test accuracy standardised minus raw, each at its own best learning rate"
MUST = {
    name: claim(
        f"must-{name.split()[-1]}", f"Standardising is worth at least 5 points on {words}, whatever the rate.", GAIN,
        at_least=0.05)
    for name, words in (("population", "income, age and ratio"), ("wine", "wine"), ("breast cancer", "breast cancer"))
}  # fmt: skip
BREAKS = claim(
    "breaks", "At a learning rate that suits scaled inputs, raw incomes leave the network guessing.",
    f"at rate {GOOD_RATE:g} the raw network is at most 5 points better than the commoner class", statistic="share",
    at_least=0.7,
)  # fmt: skip
RATE = claim(
    "rate", "Raw incomes want a learning rate at least 1,000 times smaller.",
    "log₁₀ of the rate of the smallest last loss, standardised over raw, seed by seed", at_least=3.0,
)  # fmt: skip
STEPS = claim(
    "steps", "Standardised, breast cancer is learnt in at most half the steps that raw inputs need.",
    f"steps to a training loss of {TARGET:g}, standardised over raw, each at its fastest rate; never counts as all",
    statistic="median", at_most=0.5,
)  # fmt: skip
MIN_MAX = claim(
    "min-max", "Scaling to [0, 1] serves as well as standardising, within 2 points.",
    "test accuracy min-max minus standardised at their best rates, mean of the three data sets", at_least=-0.02,
    at_most=0.02,
)  # fmt: skip
ADAM = claim(
    "adam", "Adam makes up for raw inputs: scaling is then worth at most 2 points.",
    "test accuracy standardised minus raw with Adam at its best rates, mean of the three data sets", at_most=0.02,
)  # fmt: skip
AT_START = claim(
    "ignored-start", "Before training, a raw ratio has at most a millionth of the say in the hidden units.",
    "share of the pre-activations' variance that comes from the ratio", at_most=1e-6, statistic="median",
)  # fmt: skip
IGNORED = claim(
    "ignored", "A network trained on raw inputs ignores the small feature altogether.",
    "accuracy lost when the ratio is shuffled among the test samples, raw, best rate", at_most=0.02,
)  # fmt: skip
SATURATED = claim(
    "saturated", "From raw incomes at least nine in ten tanh units start out saturated.",
    "share of hidden outputs beyond ±0.99 before training", at_least=0.9,
)  # fmt: skip
UNSATURATED = claim(
    "unsaturated", "From standardised inputs at most one in twenty tanh units does.",
    "share of hidden outputs beyond ±0.99 before training", at_most=0.05,
)  # fmt: skip
EXPLODES = claim(
    "gradient", "Raw incomes make a ReLU network's first gradient at least 1,000 times larger.",
    "norm of the first gradient by the first kernel, raw over standardised", statistic="median", at_least=1000.0,
)  # fmt: skip


class Split(NamedTuple):
    """The splits of all seeds, ``(seeds, samples, …)``."""

    training: fnn.Batch
    test: fnn.Batch


def population(generator: np.random.Generator, samples: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Draw incomes, ages and ratios; class 1 is where the sum of the three, standardised, is positive."""
    x = np.stack(
        (generator.normal(60_000, 15_000, samples), generator.uniform(20, 70, samples), generator.random(samples)),
        axis=1,
    )  # fmt: skip
    centre, spread = (60_000, 45, 0.5), (15_000, 50 / np.sqrt(12), 1 / np.sqrt(12))
    return x, ((x - centre) / spread).sum(axis=1) > 0


def draw_population(name: str, seed) -> tuple[np.ndarray, np.ndarray]:
    if name == "population":
        return population(np.random.default_rng(seed))
    return {"wine": load_wine, "breast cancer": load_breast_cancer}[name](return_X_y=True)


def splits(name: str, scaling: str, seeds: int, seed: int) -> Split:
    """Return a split for every seed, scaled by the statistics of its training part."""
    parts = []
    for number in range(seeds):
        x, y = draw_population(name, (seed, number))
        x_training, x_test, y_training, y_test = train_test_split(
            x, y.astype(int), train_size=TRAINING[name], stratify=y, random_state=seed + number
        )
        parts.append((x_training, y_training, x_test, y_test))
    x_training, y_training, x_test, y_test = (np.stack(arrays) for arrays in zip(*parts, strict=True))
    x_training, x_test = (jnp.asarray(x, jnp.result_type(float)) for x in (x_training, x_test))
    scaler = {"standardised": fnn.standard_scaler, "min-max": fnn.min_max_scaler}.get(scaling)
    if scaler is not None:
        fitted = jax.vmap(scaler.fit)(x_training)
        x_training, x_test = (jax.vmap(scaler.apply)(fitted, x) for x in (x_training, x_test))
    return Split(fnn.Batch(x_training, jnp.asarray(y_training)), fnn.Batch(x_test, jnp.asarray(y_test)))


def network(features: int, classes: int) -> fnn.Layer:
    return fnn.mlp((features, HIDDEN, classes))


class TrainingResult(NamedTuple):
    """Test accuracy and loss by seed and rate, and the accuracy with each feature shuffled."""

    accuracy: np.ndarray
    loss: np.ndarray
    shuffled: np.ndarray

    @property
    def best(self) -> int:
        """The rate with the best mean accuracy."""
        return int(self.accuracy.mean(0).argmax())


@partial(jax.jit, static_argnames=("model", "method", "grad", "epochs"))
def train_network(params, keys, split: Split, rates, *, model, method, grad, epochs: int):
    def one(params, key, split, rate):
        training, test = split
        trained = fnn.train(
            model, fnn.softmax_cross_entropy, method(rate), training, epochs=epochs, batch_size=BATCH, key=key,
            grad=grad, params=params,
        )  # fmt: skip

        def right(x):
            prediction = fnn.predict(model, trained.params, trained.state, x)
            return fnn.accuracy(jnp.where(jnp.isfinite(prediction), prediction, 0.0), test.y)  # NaN counts as class 0

        half = jnp.roll(test.x, test.x.shape[0] // 2, axis=0)  # the samples are in random order: another's value
        without = [right(test.x.at[:, i].set(half[:, i])) for i in range(len(FEATURES))]
        return right(test.x), trained.history.loss, jnp.stack(without)

    return jax.vmap(jax.vmap(one, (None, None, None, 0)), (0, 0, 0, None))(params, keys, split, rates)


def train_scaling(settings: Settings, name: str, scaling: str, method, grad) -> TrainingResult:
    seeds = settings.seeds_of(RATE)
    split = splits(name, scaling, seeds, settings.seed)
    model = network(split.training.x.shape[-1], 3 if name == "wine" else 2)
    params, _ = init_ensemble(model, seeds, he_normal, settings.seed)
    found = train_network(
        params, jax.random.split(jax.random.key(settings.seed), seeds), split, jnp.array(RATES), model=model,
        method=method, grad=grad, epochs=settings.steps(quick=420, full=1260) * BATCH // TRAINING[name],
    )  # fmt: skip
    return TrainingResult(*map(np.asarray, found))


def train_scalings(settings: Settings, method, grad) -> dict[str, dict[str, TrainingResult]]:
    return {
        name: {scaling: train_scaling(settings, name, scaling, method, grad) for scaling in SCALINGS}
        for name in TRAINING
    }


def checked_mlp_value_and_grad(settings: Settings):
    few = fnn.Batch(jax.random.normal(jax.random.key(1), (6, 3)), jnp.arange(6) % 2)
    return checked_value_and_grad(settings, network(3, 2), fnn.softmax_cross_entropy, few)


def accuracy_gains(found: dict[str, dict[str, TrainingResult]], name: str, of="standardised", over="raw") -> np.ndarray:
    """Return the accuracy of one scaling minus another's, each at its own best rate, seed by seed."""
    better, other = found[name][of], found[name][over]
    return better.accuracy[:, better.best] - other.accuracy[:, other.best]


def steps_at_fastest_rate(some: TrainingResult, per_epoch: int) -> np.ndarray:
    """Return every seed's steps to the target loss, at the rate that is fastest in the median.

    Where it is never reached, one epoch more than all counts.
    """
    reached = some.loss <= TARGET
    steps = np.where(reached.any(-1), 1 + reached.argmax(-1), reached.shape[-1] + 1) * per_epoch
    return steps[:, np.median(steps, axis=0).argmin()]


@experiment_part("Accuracy and speed", *MUST.values(), BREAKS, RATE, STEPS, MIN_MAX, ADAM, IGNORED)
def accuracy_and_speed(settings: Settings) -> Outcome:
    grad = checked_mlp_value_and_grad(settings)
    plain, adam = train_scalings(settings, fnn.sgd, grad), train_scalings(settings, fnn.adam, grad)
    raw, scaled = plain["population"]["raw"], plain["population"]["standardised"]
    per_epoch = TRAINING["breast cancer"] // BATCH
    steps = {scaling: steps_at_fastest_rate(plain["breast cancer"][scaling], per_epoch) for scaling in SCALINGS}
    guess = majority_share(settings)
    lost = {scaling: permutation_importance(plain["population"][scaling]) for scaling in SCALINGS}
    results = (
        *(judge(MUST[name], accuracy_gains(plain, name), select_best_rate(plain[name])) for name in TRAINING),
        judge(BREAKS, raw.accuracy[:, RATES.index(GOOD_RATE)] <= guess + 0.05),
        judge(RATE, best_rate_by_seed(scaled) - best_rate_by_seed(raw)),
        judge(STEPS, steps["standardised"] / steps["raw"],
              "; ".join(f"{scaling} {np.median(some):,.0f}" for scaling, some in steps.items()) + " steps."),
        judge(MIN_MAX, np.mean([accuracy_gains(plain, name, "min-max", "standardised") for name in TRAINING], axis=0)),
        judge(ADAM, np.mean([accuracy_gains(adam, name) for name in TRAINING], axis=0)),
        judge(IGNORED, lost["raw"][:, 2], f"Standardised it costs {lost['standardised'][:, 2].mean():.3f}."),
    )  # fmt: skip
    return Outcome(
        results,
        (rate_figure(plain, "plain descent"), rate_figure(adam, "Adam"), importance_figure(lost)),
        text=describe_results(plain, adam, lost, steps),
    )


def best_rate_by_seed(some: TrainingResult) -> np.ndarray:
    """Return log₁₀ of the rate at which every seed's last training loss is smallest."""
    last = some.loss[..., -1]
    return np.log10(RATES)[np.where(np.isfinite(last), last, np.inf).argmin(1)]


def majority_share(settings: Settings) -> np.ndarray:
    y = np.asarray(splits("population", "raw", settings.seeds_of(RATE), settings.seed).test.y)
    share = y.mean(axis=1)
    return np.maximum(share, 1 - share)


def permutation_importance(some: TrainingResult) -> np.ndarray:
    """Return the accuracy lost by shuffling each feature at the best rate, ``(seeds, features)``."""
    return some.accuracy[:, some.best, None] - some.shuffled[:, some.best]


def select_best_rate(found: dict[str, TrainingResult]) -> str:
    return "; ".join(
        f"{scaling} {some.accuracy[:, some.best].mean():.1%} at rate {format_number(RATES[some.best])}"
        for scaling, some in found.items()
    ) + "."  # fmt: skip


def rate_figure(found: dict[str, dict[str, TrainingResult]], method: str) -> Figure:
    panels = tuple(
        lines(
            {scaling: Curve(RATES, some.accuracy.mean(0), *np.transpose([interval(one) for one in some.accuracy.T]))
             for scaling, some in by_scaling.items()},
            x="learning rate", y="test accuracy", log="x", subtitle=name.capitalize(), points=True,
        )
        for name, by_scaling in found.items()
    )  # fmt: skip
    return Figure(
        f"Accuracy by learning rate, with {method}",
        "Test accuracy by learning rate for raw, standardised and min-max scaled inputs. Best of each, "
        + " ".join(f"{name}: {select_best_rate(by_scaling)}" for name, by_scaling in found.items()),
        panels,
        "Means over seeds with 95% intervals, all after the same number of steps. NaN counts as class 0.",
    )


def importance_figure(lost: dict[str, np.ndarray]) -> Figure:
    rows = {
        f"{feature}, {scaling}": (values[:, i].mean(), *interval(values[:, i]))
        for i, feature in enumerate(FEATURES)
        for scaling, values in lost.items()
    }
    return Figure(
        "The importance of each feature to the trained network",
        "Accuracy lost when one feature is shuffled among the test samples. By the rule all three matter alike. "
        + "; ".join(f"{name} {value[0]:.3f}" for name, value in rows.items()) + ".",
        (bars(rows, x="accuracy lost"),),
        "Plain descent at each scaling's best rate; means with 95% intervals.",
    )  # fmt: skip


def describe_results(plain, adam, lost, steps) -> str:
    gap = {name: accuracy_gains(plain, name).mean() for name in TRAINING}
    gap_adam = {name: accuracy_gains(adam, name).mean() for name in TRAINING}
    return (
        "With each scaling at its own best of nine learning rates, standardising is still worth "
        + ", ".join(f"{100 * value:.0f} points on {name}" for name, value in gap.items())
        + " with plain descent, and "
        + ", ".join(f"{100 * value:.0f} on {name}" for name, value in gap_adam.items())
        + " with Adam. One rate has to serve all weights: what is small enough for the income's is far too small for "
        "the ratio's and for the biases', and raw incomes all lie far from zero, so that people differ by little on "
        "top of much. Adam gives every weight a step of its own, which mends part of it.\n\n"
        "The small feature: by the rule, income, age and ratio matter alike. Raw, the network gets no further than "
        f"{plain['population']['raw'].accuracy.mean(0).max():.0%} at any rate: it makes next to nothing of any "
        "feature, and the ratio isn't singled out. Shuffled, the ratio costs the raw network "
        f"{lost['raw'][:, 2].mean():.3f} of accuracy and the standardised one {lost['standardised'][:, 2].mean():.3f}, "
        f"the income {lost['raw'][:, 0].mean():.3f} and {lost['standardised'][:, 0].mean():.3f}.\n\n"
        f"To a loss of {TARGET:g} on breast cancer it takes "
        + ", ".join(f"{np.median(some):,.0f} steps {scaling}" for scaling, some in steps.items())
        + ", each at its fastest rate (the last number of steps and one epoch where it is never reached)."
    )


@experiment_part("Before the first step", AT_START, SATURATED, UNSATURATED, EXPLODES)
def before_the_first_step(settings: Settings) -> Outcome:
    grad, seeds = checked_mlp_value_and_grad(settings), settings.seeds_of(SATURATED)
    split = {scaling: splits("population", scaling, seeds, settings.seed).training for scaling in SCALINGS}
    model = network(3, 2)
    params, state = init_ensemble(model, seeds, he_normal, settings.seed)
    first = jax.jit(jax.vmap(grad(model, fnn.softmax_cross_entropy)))
    norm = {}
    for scaling, batch in split.items():
        _, gradients = first(params, state, batch)
        norm[scaling] = np.linalg.norm(np.asarray(gradients[0].kernel), axis=(1, 2))
    by_feature = np.asarray(split["raw"].x).var(axis=1)[:, :, None] * np.asarray(params[0].kernel) ** 2
    share = (by_feature / by_feature.sum(1, keepdims=True)).mean(axis=2)[:, 2]
    beyond = {
        (activation, scaling): saturated_share(layer, batch, settings.seed)
        for activation, layer in (("tanh", fnn.tanh), ("sigmoid", fnn.sigmoid))
        for scaling, batch in split.items()
    }
    rows = {
        f"{activation}, {scaling}": (some.mean(), *interval(some)) for (activation, scaling), some in beyond.items()
    }
    results = (
        judge(AT_START, share),
        judge(SATURATED, beyond["tanh", "raw"]),
        judge(UNSATURATED, beyond["tanh", "standardised"]),
        judge(EXPLODES, norm["raw"] / norm["standardised"]),
    )
    words = "; ".join(f"{name} {value[0]:.1%}" for name, value in rows.items())
    return Outcome(
        results,
        (
            Figure(
                "Share of saturated units before training",
                f"Share of hidden outputs within a hundredth of the activation's bounds, before training: {words}.",
                (bars(rows, x="share saturated"),),
                "Beyond ±0.99 for tanh, outside 0.01 to 0.99 for sigmoid; income, age and ratio through 16 units from "
                "Xavier's start.",
            ),
        ),
        text=(
            f"Before training, {results[1].estimate:.1%} of the tanh outputs are saturated on raw inputs and "
            f"{results[2].estimate:.1%} on standardised ones. The ratio supplies "
            f"{format_number(results[0].estimate, 2)} of the hidden units' variance, and the first gradient is "
            f"{results[3].estimate:,.0f} times as large as with standardised inputs, in the median."
        ),
    )  # fmt: skip


def saturated_share(activation: fnn.Layer, batch: fnn.Batch, seed: int) -> np.ndarray:
    """Return every seed's share of hidden outputs within a hundredth of the activation's bounds."""
    hidden = fnn.serial(fnn.linear(len(FEATURES), HIDDEN), activation)
    params, state = init_ensemble(hidden, len(batch.x), xavier_normal, seed)
    outputs = np.asarray(jax.jit(jax.vmap(partial(fnn.predict, hidden)))(params, state, batch.x))
    low = -1 if activation == fnn.tanh else 0
    return ((outputs > 0.99) | (outputs < low + 0.01)).mean(axis=(1, 2))


EXPERIMENT = Experiment(
    name="scaling_inputs",
    order=9.1,
    title="Inputs without scaling",
    introduction="Incomes in tens of thousands beside ratios below one are fed to a small "
    "network as they are, standardised, and scaled to [0, 1]; so are two real data sets.",
    parts=(before_the_first_step, accuracy_and_speed),
)


def run(settings: Settings) -> ExperimentResult:
    return EXPERIMENT.run(settings)


if __name__ == "__main__":
    run_command_line(EXPERIMENT)
