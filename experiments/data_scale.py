"""Test error by the size of the training set, of a network and of classical learners.

``python -m experiments.data_scale`` trains a network and four learners of scikit-learn on the same growing parts of the
same splits of digits and of MNIST.
"""

import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from joblib import Parallel, delayed
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

import funcnn as fnn
from experiments.harness.claims import Claim, Section, interval, judge
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
from experiments.shared.data import mnist_images
from experiments.shared.initialization import he_mlp_params

RATE = "doublings of accuracy per doubling of data at the last one: log2(error with half / error with all)"
LEVEL = 0.1  # a doubling of the data that takes less than 7% off the error


def data_set_claims(name: str, title: str, seeds: int, quick_seeds: int) -> tuple[Claim, Claim, Claim, Claim]:
    """Return the chapter's two sentences, about one set of pictures, as four claims."""
    counts = {"seeds": seeds, "quick_seeds": quick_seeds}
    return (
        Claim(
            name=f"network_improves_{name}",
            sentence=f"On {title}, a network still gets better with the last doubling of the data.",
            section=Section.WHY_SCALE,
            quantity=RATE,
            at_least=LEVEL,
            **counts,
        ),
        Claim(
            name=f"others_level_off_{name}",
            sentence=f"On {title}, classical learners have levelled off by the last doubling of the data.",
            section=Section.WHY_SCALE,
            quantity=f"{RATE}; mean of the four",
            at_most=LEVEL,
            **counts,
        ),
        Claim(
            name=f"network_gains_more_{name}",
            sentence=f"On {title}, the last doubling of the data helps a network more than the others.",
            section=Section.WHY_SCALE,
            quantity=f"{RATE}; the network's less the mean of the four",
            at_least=0,
            **counts,
        ),
        Claim(
            name=f"network_is_best_{name}",
            sentence=f"On {title}, with all the data there is, a network is the best of five learners.",
            section=Section.WHY_STATE_OF_THE_ART,
            quantity="difference of the test errors, the network's less that of the best of the four",
            at_most=0,
            **counts,
        ),
    )


DIGITS = data_set_claims("digits", "digits of 8 × 8 pixels", 20, 4)
MNIST = data_set_claims("mnist", "5,000 images of MNIST", 16, 2)

NETWORK = "network"
CLASSICAL = {
    "logistic regression": lambda seed: LogisticRegression(),
    "support vector machine": lambda seed: SVC(),
    "random forest": lambda seed: RandomForestClassifier(random_state=seed),
    "nearest neighbours": lambda seed: KNeighborsClassifier(),
}
DOUBLINGS = 5
RATE_OF_ADAM = 0.003  # in a trial the network erred less with it than with 0.001


class ImageSet(NamedTuple):
    """Pixels in [0, 1], ``(pictures, pixels)``, labels, the size of the training set and of a batch."""

    x: np.ndarray
    y: np.ndarray
    training: int
    batch: int

    @property
    def sizes(self) -> list[int]:
        return [self.training >> halvings for halvings in range(DOUBLINGS, -1, -1)]


def digits() -> ImageSet:
    x, y = load_digits(return_X_y=True)
    return ImageSet((x / 16).astype(np.float32), y, training=1408, batch=32)


def mnist() -> ImageSet:
    x, y = mnist_images()
    return ImageSet((x / 255).astype(np.float32), y, training=4000, batch=50)


def splits(pictures: ImageSet, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Return training and test indices of every seed. A smaller training set is the beginning of a larger one."""
    every = np.arange(len(pictures.y))
    halves = [train_test_split(every, test_size=0.2, stratify=pictures.y, random_state=seed) for seed in range(seeds)]
    training, test = (np.stack(side) for side in zip(*halves, strict=True))
    return training[:, : pictures.training], test


def error_rate(wrong: np.ndarray) -> np.ndarray:
    """Return the share that is wrong, smoothed by half a mistake so that it has a logarithm."""
    return (wrong.sum(axis=-1) + 0.5) / (wrong.shape[-1] + 1)


def classical_errors(pictures: ImageSet, training: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return the errors of scikit-learn's learners with their default settings, ``(learners, sizes, seeds)``."""
    x, y = pictures.x, pictures.y

    def one(make, size, seed):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            learner = make(seed).fit(x[training[seed, :size]], y[training[seed, :size]])
        return error_rate(learner.predict(x[test[seed]]) != y[test[seed]])

    # The longest first: none of them is waited for alone.
    wanted = [(i, size, seed) for size in pictures.sizes[::-1] for i in range(4) for seed in range(len(training))]
    makers = list(CLASSICAL.values())
    # Threads of linear algebra inside these threads would wait for each other most of the time.
    with threadpool_limits(1):
        found = Parallel(n_jobs=-1, prefer="threads")(delayed(one)(makers[i], size, seed) for i, size, seed in wanted)
    return np.reshape(found, (len(pictures.sizes), 4, len(training))).transpose(1, 0, 2)[:, ::-1]


def network_errors(settings: Settings, pictures: ImageSet, training: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return the network's errors, ``(sizes, seeds)``.

    Smaller sets are repeated to the length of the largest, so that all take as many steps.
    """
    sizes = (pictures.x.shape[1], 128, 10)
    model, state = fnn.mlp(sizes), ((),) * 3
    small = fnn.Batch(jnp.asarray(pictures.x[:6, :20]), jnp.asarray(pictures.y[:6]))
    grad = checked_value_and_grad(settings, fnn.mlp((20, 7, 10)), fnn.softmax_cross_entropy, small)
    epochs = settings.steps(quick=8, full=12) * (2 if pictures.batch == 32 else 1)
    rows = np.stack([np.tile(training[:, :size], pictures.training // size) for size in pictures.sizes])
    count, seeds, _ = rows.shape
    x, y = jnp.asarray(pictures.x), jnp.asarray(pictures.y)

    def one(given):
        key, params, rows, test = given
        trained = fnn.train(model, fnn.softmax_cross_entropy, fnn.adam(RATE_OF_ADAM), (x[rows], y[rows]), epochs=epochs,
                            batch_size=pictures.batch, key=key, grad=grad, params=params, state=state)  # fmt: skip
        return fnn.predict(model, trained.params, state, x[test]).argmax(axis=1) != y[test]

    keys = jax.random.split(jax.random.key(settings.seed), count * seeds)
    starts = he_mlp_params(np.random.default_rng(settings.seed), sizes, count * seeds)
    given = (keys, starts, jnp.asarray(rows.reshape(count * seeds, -1)), jnp.asarray(np.tile(test, (count, 1))))
    wrong = jax.jit(lambda given: jax.lax.map(one, given))(given)
    return error_rate(np.asarray(wrong).reshape(count, seeds, -1))


def compare_learners(settings: Settings, pictures: ImageSet, claimed: tuple[Claim, ...], title: str) -> Outcome:
    training, test = splits(pictures, settings.seeds_of(claimed[0]))
    errors = {NETWORK: network_errors(settings, pictures, training, test)}
    errors |= dict(zip(CLASSICAL, classical_errors(pictures, training, test), strict=True))
    rates = {name: np.log2(found[-2] / found[-1]) for name, found in errors.items()}
    others = np.mean([rates[name] for name in CLASSICAL], axis=0)
    mean = {name: found[-1].mean() for name, found in errors.items()}
    best = min(CLASSICAL, key=mean.get)
    order = sorted(mean, key=mean.get)
    improves, level_off, gains_more, is_best = claimed
    still = [name for name in CLASSICAL if rates[name].mean() > LEVEL]
    rows = tuple(
        (name, *(f"{share:.2%}" for share in errors[name].mean(axis=1)),
         "{:.2f} ({:.2f} to {:.2f})".format(rates[name].mean(), *interval(rates[name])))
        for name in order
    )  # fmt: skip
    return Outcome(
        results=(
            judge(improves, rates[NETWORK]),
            judge(level_off, others, "Each by itself: "
                  + ", ".join(f"{name} {rates[name].mean():.2f}" for name in CLASSICAL) + "."),
            judge(gains_more, rates[NETWORK] - others),
            judge(is_best, errors[NETWORK][-1] - errors[best][-1], f"The best of the four: {best}, wrong on "
                  f"{mean[best]:.2%}; the network on {mean[NETWORK]:.2%}."),
        ),
        figures=(
            Figure(
                title=f"{title}: test error by training pictures",
                alternative=f"Left: test error against {pictures.sizes[0]} to {pictures.sizes[-1]:,} training "
                            "pictures, "
                "both logarithmic, for five learners. With all of them, from best to worst: "
                + ", ".join(f"{name} {mean[name]:.1%}" for name in order)
                + ". Right: how fast the error falls at the last doubling: "
                + ", ".join(f"{name} {rates[name].mean():.2f}" for name in errors) + ".",
                panels=(
                    lines({name: interval_curve(pictures.sizes, found) for name, found in errors.items()},
                          x="training pictures", y="test error", log="xy", points=True, range_y=axis_range(errors)),
                    bars({name: (rates[name].mean(), *interval(rates[name])) for name in errors},
                         x="log2(error with half / error with all)", thresholds={"levelled off": LEVEL}),
                ),
                caption="Every learner sees the same pictures in the same splits, with scikit-learn's own settings. "
                        "The "
                f"network has one hidden layer of 128 ReLUs, learns by Adam at {RATE_OF_ADAM}, and takes as many "
                "steps at every "
                f"size. Bands and bars: 95% intervals over {len(test)} splits, of {test.shape[1]} test pictures each.",
            ),
        ),
        tables=(
            Table("Mean test error by training pictures, and its fall at the last doubling (95% interval)",
                  ("learner", *(f"{size:,}" for size in pictures.sizes), "last doubling"), rows),
        ),
        text=f"The network's error falls by {1 - 2 ** -rates[NETWORK].mean():.0%} with the last doubling, from "
        f"{errors[NETWORK][-2].mean():.2%} to {mean[NETWORK]:.2%}; those of the four others by "
        f"{1 - 2 ** -others.mean():.0%} in the mean. {len(still)} of the four still improve by more than 7%"
        + (f" ({', '.join(still)})" if still else "")
        + f". With all pictures {order[0]} is best, with {mean[order[0]]:.2%} wrong; the network is number "
        f"{order.index(NETWORK) + 1} of five.\n\nThe chapter's sentence about scale is about millions of pictures; "
        "these figures are those of a few thousand.",
    )  # fmt: skip


def axis_range(errors: dict[str, np.ndarray]) -> tuple[float, float]:
    """Return a range that holds all curves with their bands."""
    means = [found.mean(axis=1) for found in errors.values()]
    return float(np.min(means) * 0.8), float(np.max(means) * 1.25)


def interval_curve(x: list[int], errors: np.ndarray) -> Curve:
    low, high = np.transpose([interval(at_size) for at_size in errors])
    return Curve(x, errors.mean(axis=1), low, high)


@experiment_part("Digits", *DIGITS)
def on_digits(settings: Settings) -> Outcome:
    return compare_learners(settings, digits(), DIGITS, "Digits")


@experiment_part("MNIST", *MNIST)
def on_mnist(settings: Settings) -> Outcome:
    return compare_learners(settings, mnist(), MNIST, "MNIST")


EXPERIMENT = Experiment(
    name="data_scale",
    order=10.4,
    title="Test error by the size of the training set",
    introduction="Networks keep improving with more data, it is said, where traditional algorithms level off, and they "
    "hold the best results. A network, logistic regression, a support vector machine, a random forest and nearest "
    "neighbours learn from the same pictures, from a few dozen on, doubled five times.",
    parts=(on_digits, on_mnist),
)


def run(settings: Settings) -> ExperimentResult:
    return EXPERIMENT.run(settings)


if __name__ == "__main__":
    run_command_line(EXPERIMENT)
