"""Calibration of softmax on handwritten digits, and sigmoids on exclusive classes.

``python -m experiments.calibration`` measures whether predictions made with 66% are right 66 times of a hundred.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy import optimize, special

import funcnn as fnn
from experiments.harness.claims import Claim, Section, judge
from experiments.harness.experiment import Experiment, ExperimentResult, Outcome, Settings, experiment_part
from experiments.harness.figures import Curve, Figure, histogram, lines
from experiments.harness.runner import run_command_line
from experiments.shared.digit_networks import checked_mlp_value_and_grad, split_digits, train_and_predict

GUO = "Guo, Pleiss, Sun and Weinberger, On calibration of modern neural networks, 2017"

EXCLUSIVE = Claim(
    name="exclusive_classes",
    sentence="For exclusive classes, softmax is right more often than ten separate sigmoids.",
    section=Section.ACTIVATIONS,
    quantity="difference of the test accuracies on digits, softmax less sigmoids",
    at_least=0,
)
WORD = Claim(
    name="sixty_six_percent",
    sentence="Of the predictions that softmax makes with about 66%, about 66% are right.",
    section=Section.MISTAKE_SOFTMAX,
    quantity="share that is right of the test predictions made with 56% to 76%",
    at_least=0.61,
    at_most=0.71,
)
CALIBRATED = Claim(
    name="calibrated",
    sentence="Softmax's probabilities are within two points of how often they are right.",
    section=Section.ACTIVATIONS,
    quantity="expected calibration error on the test digits, 15 bins",
    at_most=0.02,
)
OVERCONFIDENT = Claim(
    name="overconfident",
    sentence="A trained network is surer than it is right.",
    section=Section.MISTAKE_SOFTMAX,
    source=GUO,
    quantity="mean probability of the predicted class less the share that is right, test digits",
    at_least=0,
)
SCALED = Claim(
    name="temperature_scaling",
    sentence="One temperature, fitted on held-out samples, brings the probabilities closer to the truth.",
    section=Section.MISTAKE_SOFTMAX,
    source=GUO,
    quantity="by how much it lowers the expected calibration error on other samples",
    at_least=0,
)
BINS = 15


class Calibration(NamedTuple):
    """The number of predictions, their mean probability and the share that is right, by bins of equal width."""

    counts: np.ndarray
    stated: np.ndarray
    right: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error, Σ counts |stated − right| / Σ counts."""
        return float((self.counts * np.abs(self.stated - self.right)).sum() / self.counts.sum())


def calibration(probabilities: np.ndarray, y: np.ndarray) -> Calibration:
    """Return the calibration of the predicted class's probability, as Guo et al. measure it."""
    stated, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == y
    place = np.clip((stated * BINS).astype(int), 0, BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    sums = (np.bincount(place, weights, BINS) / np.maximum(counts, 1) for weights in (stated, right))
    return Calibration(counts, *sums)


def fit_temperature(z: np.ndarray, y: np.ndarray) -> float:
    """Return the temperature with the least cross-entropy on samples that weren't trained on."""

    def cross_entropy(logarithm):
        return -special.log_softmax(z / np.exp(logarithm), axis=1)[np.arange(len(y)), y].mean()

    return float(np.exp(optimize.minimize_scalar(cross_entropy, bounds=(-3, 3), method="bounded").x))


@experiment_part("Exclusive classes", EXCLUSIVE, WORD, CALIBRATED, OVERCONFIDENT, SCALED)
def exclusive_classes(settings: Settings) -> Outcome:
    sizes, keys = (64, 32, 10), settings.keys_of(EXCLUSIVE)
    x, y = split_digits(len(keys))
    old, epochs = x.shape[1] // 2, settings.steps(quick=40, full=100)
    targets = {
        "softmax": (fnn.softmax_cross_entropy, y),
        "sigmoids": (fnn.sigmoid_cross_entropy, jnp.eye(10, dtype=jnp.float32)[y]),
    }
    scores = {}
    for name, (loss, target) in targets.items():
        grad = checked_mlp_value_and_grad(settings, loss, target[0, :6])
        scores[name] = train_and_predict(
            sizes, loss, grad, epochs, keys, x[:, :old], target[:, :old], x[:, old:]
        ).astype(float)
    y = np.asarray(y[:, old:])
    accuracy = {name: (z.argmax(axis=-1) == y).mean(axis=1) for name, z in scores.items()}
    chances = special.softmax(scores["softmax"], axis=-1)
    stated, right = chances.max(axis=-1), chances.argmax(axis=-1) == y
    near = (stated >= 0.56) & (stated <= 0.76)
    some = near.any(axis=1)
    kept = np.array([right[i, near[i]].mean() for i in np.flatnonzero(some)])
    errors = np.array([calibration(*pair).error for pair in zip(chances, y, strict=True)])
    half = y.shape[1] // 2
    temperatures = np.array([fit_temperature(z[:half], labels[:half])
                             for z, labels in zip(scores["softmax"], y, strict=True)])  # fmt: skip
    cooled = special.softmax(scores["softmax"] / temperatures[:, None, None], axis=-1)
    gains = np.array([
        calibration(before[half:], labels[half:]).error - calibration(after[half:], labels[half:]).error
        for before, after, labels in zip(chances, cooled, y, strict=True)
    ])  # fmt: skip
    sums = np.abs(special.expit(scores["sigmoids"]).sum(axis=-1) - 1).mean()
    reliability = {
        name: pool_seeds(some, y) for name, some in {"as trained": chances, "temperature fitted": cooled}.items()
    }
    excess = (stated - right).mean(axis=1)
    return Outcome(
        results=(
            judge(EXCLUSIVE, accuracy["softmax"] - accuracy["sigmoids"]),
            judge(WORD, kept, f"{near.sum()} predictions of all seeds, stated at {stated[near].mean():.3f} on average; "
                  f"pooled, {right[near].mean():.3f} of them are right."
                  + (f" {(~some).sum()} seeds had none and are left out." if not some.all() else "")),
            judge(CALIBRATED, errors),
            judge(OVERCONFIDENT, excess),
            judge(SCALED, gains, f"Fitted on half of the test samples, judged on the others; mean temperature "
                  f"{temperatures.mean():.2f}."),
        ),
        figures=(
            Figure(
                title="Share of right predictions by stated probability",
                alternative="The share of predictions that is right against the stated probability, and the diagonal "
                f"where both agree. Of predictions with 56% to 76%, {right[near].mean():.0%} are right. The expected "
                f"calibration error is {errors.mean():.4f} on average; {confident_share(stated):.0%} of all "
                "predictions are made with 99% or more.",
                panels=(
                    lines({name: reliability_curve(found) for name, found in reliability.items()}
                          | {"stated = right": Curve([0.2, 1], [0.2, 1])},
                          x="stated probability", y="share that is right", points=True, subtitle="all seeds together"),
                    histogram({"right": stated[right], "wrong": stated[~right]}, x="stated probability", bins=20,
                              subtitle="right and wrong predictions"),
                ),
                caption=f"Digits, trained on one half, tested on the other, 64-32-10, {epochs} epochs of Adam; a split "
                "and a network for every seed. Bands: two standard errors of a share; the temperature was fitted on "
                "half of the test digits. Bins of fewer than 30 "
                "predictions are left out.",
            ),
        ),
        text=f"Softmax is right on {accuracy['softmax'].mean():.2%} of the test digits, ten separate sigmoids, of "
        f"which the largest is taken, on {accuracy['sigmoids'].mean():.2%}. For the choice of one class it hardly "
        f"matters; but the sigmoids don't add up to 1: they miss it by {sums:.3f} on average.\n\n"
        f"Of the predictions made with about 66%, {right[near].mean():.0%} "
        f"are right. Over all predictions the network states {excess.mean():+.2%} more than it earns, and the expected "
        f"calibration error is {errors.mean():.2%}. A temperature of {temperatures.mean():.2f}, fitted afterwards, "
        f"changes that error by {-gains.mean():+.2%}. That softmax's outputs add up to 1 makes them shares; whether "
        "they are true probabilities only a count can tell.",
    )  # fmt: skip


def pool_seeds(chances: np.ndarray, y: np.ndarray) -> Calibration:
    """Return the calibration over all seeds together, without bins of fewer than 30 predictions."""
    found = calibration(chances.reshape(-1, 10), y.ravel())
    return Calibration(*(part[found.counts >= 30] for part in found))


def reliability_curve(found: Calibration) -> Curve:
    spread = 2 * np.sqrt(found.right * (1 - found.right) / found.counts)
    return Curve(found.stated, found.right, found.right - spread, found.right + spread)


def confident_share(stated: np.ndarray) -> float:
    return float((stated >= 0.99).mean())


EXPERIMENT = Experiment(
    name="calibration",
    order=9.4,
    title="Calibration of softmax's probabilities",
    introduction="Softmax's outputs are called the probabilities of the classes. We measure the share of the "
    "predictions made with about 66% that is right, and the accuracy of ten separate sigmoids where one class excludes "
    "the others.",
    parts=(exclusive_classes,),
)


def run(settings: Settings) -> ExperimentResult:
    return EXPERIMENT.run(settings)


if __name__ == "__main__":
    run_command_line(EXPERIMENT)
