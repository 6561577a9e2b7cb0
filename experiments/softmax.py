"""Softmax: shifts, overflow by number type, temperature, and labels that don't exclude each other.

``python -m experiments.softmax`` also measures softmax on pictures that show two digits at once, or none.
``experiments.calibration`` measures whether its shares are true probabilities.
"""

from functools import partial

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy import special

import funcnn as fnn
from experiments.harness.claims import Claim, Section, format_number, judge
from experiments.harness.experiment import Experiment, ExperimentResult, Outcome, Settings, Table, experiment_part
from experiments.harness.figures import Curve, Figure, images, lines
from experiments.harness.runner import run_command_line
from experiments.shared.digit_networks import checked_mlp_value_and_grad, split_digits, train_and_predict

PRINTED = Claim(
    name="worked_example",
    sentence="Scores of 2, 1 and 0.1 become 0.6590, 0.2424 and 0.0986, which add up to 1.",
    section=Section.ACTIVATIONS,
    quantity="largest distance from the printed figures",
    at_most=5e-5,
    statistic="exact",
)
SHIFT = Claim(
    name="shift",
    sentence="Adding a constant to all scores changes no probability, not in the last bit.",
    section=Section.ACTIVATIONS,
    quantity="share of seeds whose ten probabilities stay equal, scores and constant adding without rounding",
    at_least=0.98,
    statistic="share",
    seeds=1000,
    quick_seeds=200,
)
OVERFLOW = Claim(
    name="overflow",
    sentence="The plain formula fails once a score passes the logarithm of the largest number.",
    section=Section.MISTAKE_SOFTMAX,
    quantity="distance of the last good score from it, in spacings of the number type, worst of four types",
    at_most=1,
    statistic="exact",
)
STABLE = Claim(
    name="stable",
    sentence="With the largest score subtracted first, no scores at all make softmax fail.",
    section=Section.MISTAKE_SOFTMAX,
    quantity="share of seeds whose probabilities are right in four number types, scores up to their largest number",
    at_least=0.98,
    statistic="share",
    seeds=1000,
    quick_seeds=200,
)
TEMPERATURE = Claim(
    name="temperature",
    sentence="Dividing the scores by a temperature changes how sure softmax is, never of what.",
    section=Section.ACTIVATIONS,
    quantity="share of seeds with one winner and an entropy that rises from temperature 0.1 to 100",
    at_least=0.98,
    statistic="share",
    seeds=1000,
    quick_seeds=200,
)
JOINT = Claim(
    name="joint_labels",
    sentence="Where a picture shows up to two digits, sigmoids name them all more often than softmax.",
    section=Section.MISTAKE_SOFTMAX,
    quantity="difference of the shares of test pictures whose set of digits is named, sigmoids less softmax",
    at_least=0,
    seeds=20,
    quick_seeds=5,
)
HALF = Claim(
    name="softmax_read_as_independent",
    sentence="Read as independent chances, softmax's outputs never name two digits.",
    section=Section.MISTAKE_SOFTMAX,
    quantity="share of the test pictures of two digits in which two outputs pass one half",
    at_most=0.001,
    seeds=20,
    quick_seeds=5,
)

LOGITS, FIGURES = (2.0, 1.0, 0.1), (0.6590, 0.2424, 0.0986)
TYPES = {"float16": jnp.float16, "bfloat16": jnp.bfloat16, "float32": jnp.float32, "float64": jnp.float64}


# The function itself --------------------------------------------------------------------------------------------------


def softmax(z: Array) -> Array:
    return fnn.softmax_forward(z)[0]


def naive_softmax(z: np.ndarray) -> np.ndarray:
    """Compute softmax by its formula without a shift, in NumPy."""
    with np.errstate(all="ignore"):
        exponentials = np.exp(z)
        return exponentials / exponentials.sum(axis=-1, keepdims=True)


def largest_valid_score(dtype, scores_of) -> float:
    """Return the largest number z of a type for which the plain formula of ``scores_of(z)`` still adds up to 1.

    Positive numbers are ordered as their bits are, so the border is found by halving between bit patterns.
    """
    bits = {2: np.uint16, 4: np.uint32, 8: np.uint64}[np.dtype(dtype).itemsize]
    low, high = (int(np.array(edge, dtype).view(bits)) for edge in (1, jnp.finfo(dtype).max))
    while high - low > 1:
        middle = (low + high) // 2
        z = np.array(middle, bits).view(dtype)
        total = naive_softmax(np.array(scores_of(z), dtype)).astype(float).sum()
        low, high = (middle, high) if abs(total - 1) < 0.1 else (low, middle)
    return float(np.array(low, bits).view(dtype))


def distance_in_spacings(found: float, wanted: float, dtype) -> float:
    """Return a distance in spacings of the number type at ``found``."""
    return abs(found - wanted) / (float(jnp.finfo(dtype).eps) * 2.0 ** np.floor(np.log2(found)))


@experiment_part("Shifts, overflow and temperature", PRINTED, SHIFT, OVERFLOW, STABLE, TEMPERATURE)
def softmax_function(settings: Settings) -> Outcome:
    rng = np.random.default_rng(settings.seed)
    seeds = settings.seeds_of(SHIFT)
    example = np.asarray(softmax(jnp.array(LOGITS)))
    # Multiples of 1/64 and whole constants: their sums are exact.
    z = rng.integers(-640, 640, (seeds, 10)) / 64
    shifted = z + rng.integers(-1000, 1000, (seeds, 1))
    unmoved = (np.asarray(softmax(jnp.asarray(z))) == np.asarray(softmax(jnp.asarray(shifted)))).all(axis=1)
    edges = {name: largest_valid_score(dtype, lambda z: (z, 0)) for name, dtype in TYPES.items()}
    crowded = {name: largest_valid_score(dtype, lambda z: (z,) * 10) for name, dtype in TYPES.items()}
    below = {name: largest_valid_score(dtype, lambda z: (-z, -z)) for name, dtype in TYPES.items()}
    logarithms = {name: float(np.log(float(jnp.finfo(dtype).max))) for name, dtype in TYPES.items()}
    distance = max(distance_in_spacings(edges[name], logarithms[name], dtype) for name, dtype in TYPES.items())
    sound = np.all([is_sound(rng, dtype, settings.seeds_of(STABLE)) for dtype in TYPES.values()], axis=0)
    temperatures = np.geomspace(0.1, 100, 61)
    by_temperature = np.asarray(softmax(jnp.asarray(z[None] / temperatures[:, None, None])))
    entropies = special.entr(by_temperature).sum(axis=-1)
    z_is_tied = np.sort(z)[:, -1] == np.sort(z)[:, -2]
    one_winner = (by_temperature.argmax(axis=-1) == z.argmax(axis=-1)).all(axis=0) | z_is_tied
    rises = (np.diff(entropies, axis=0) > 0).all(axis=0)
    curves = np.asarray(softmax(jnp.asarray(np.array(LOGITS) / temperatures[:, None])))
    sharp, flat = (curves[np.abs(np.log(temperatures / at)).argmin()] for at in (0.1, 100))
    rows = tuple(
        (name, f"{float(jnp.finfo(dtype).max):.4g}", f"{logarithms[name]:.6g}", f"{edges[name]:.6g}",
         f"{crowded[name]:.6g}", f"{-below[name]:.6g}")
        for name, dtype in TYPES.items()
    )  # fmt: skip
    return Outcome(
        results=(
            judge(PRINTED, np.abs(example - FIGURES).max()),
            judge(SHIFT, unmoved),
            judge(OVERFLOW, distance),
            judge(STABLE, sound),
            judge(TEMPERATURE, one_winner & rises),
        ),
        figures=(
            Figure(
                title="Probabilities of softmax by temperature",
                alternative="Probabilities of three classes with scores 2, 1 and 0.1 against the temperature, from 0.1 "
                f"to 100. At 0.1 they are {sharp[0]:.3f}, {sharp[1]:.3f} and {sharp[2]:.3f}, at 1 {example[0]:.4f}, "
                f"{example[1]:.4f} and {example[2]:.4f}, at 100 {flat[0]:.3f}, {flat[1]:.3f} and {flat[2]:.3f}; the "
                "curves never cross.",
                panels=(
                    lines({f"score {score:g}": Curve(temperatures, curves[:, i]) for i, score in enumerate(LOGITS)},
                          x="temperature", y="probability", log="x", thresholds={"a third": 1 / 3}),
                ),
                caption="Softmax of the scores divided by the temperature; at 1 it is the chapter's example.",
            ),
        ),
        tables=(
            Table(
                "Limits of the plain formula",
                ("number type", "largest number", "its logarithm", "last good score beside 0", "last good ten equal",
                 "lowest good two equal"),
                rows,
                "Beyond the fourth column an exponential is infinite and the answer is not a number. Beyond the fifth "
                "each is finite and their sum isn't: all probabilities are 0. Below the last all are 0, and 0/0.",
            ),
        ),
        text=f"The chapter's figures are right to {format_number(np.abs(example - FIGURES).max(), 2)}. The plain "
        f"formula breaks at the logarithm of the largest number: at {edges['float16']:.4g} in float16, "
        f"{edges['bfloat16']:.4g} in bfloat16, {edges['float32']:.5g} in float32, {edges['float64']:.5g} in float64. "
        "Ten equal scores break it "
        f"sooner, at {crowded['float32']:.4g} in float32, for it is the sum that overflows. Subtracting the largest "
        "score, which changes nothing since only differences of scores matter, removes all three failures.",
    )  # fmt: skip


def is_sound(rng: np.random.Generator, dtype, seeds: int) -> np.ndarray:
    """Return whether softmax's shares add up to 1 with the most for the largest score, for scores of any size."""
    largest = float(jnp.finfo(dtype).max)
    scores = jnp.asarray((rng.uniform(-1, 1, (seeds, 10)) * largest * 10.0 ** -rng.uniform(0, 4, (seeds, 1))), dtype)
    shares, scores = (np.asarray(some).astype(float) for some in (softmax(scores), scores))
    winners = np.take_along_axis(shares, scores.argmax(axis=1)[:, None], axis=1)[:, 0]
    return (np.abs(shares.sum(axis=1) - 1) < 10 * float(jnp.finfo(dtype).eps)) & (winners == shares.max(axis=1))


# Several labels at once -----------------------------------------------------------------------------------------------


def paired_images(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures of 8 × 16 with a digit or nothing (one in three) on either side, and their digits."""
    chosen = rng.integers(len(y), size=(count, 2))
    shown = rng.random((count, 2)) < 2 / 3
    sides = x[chosen].reshape(count, 2, 8, 8) * shown[:, :, None, None]
    labels = (np.eye(10)[y[chosen]] * shown[:, :, None]).max(axis=1)
    return np.concatenate([sides[:, 0], sides[:, 1]], axis=2).reshape(count, 128), labels


def target_shares(labels: np.ndarray) -> np.ndarray:
    """Return softmax's targets: equal shares of the digits shown, of all ten where there is none."""
    none = labels.sum(axis=-1, keepdims=True) == 0
    return np.where(none, 0.1, labels / np.maximum(labels.sum(axis=-1, keepdims=True), 1))


def is_exact_match(outputs: np.ndarray, labels: np.ndarray, threshold: float) -> np.ndarray:
    """Return whether exactly the digits shown have an output above the threshold."""
    return ((outputs > threshold) == (labels > 0)).all(axis=-1)


@experiment_part("Several labels at once", JOINT, HALF)
def joint_labels(settings: Settings) -> Outcome:
    sizes, keys = (128, 64, 10), settings.keys_of(JOINT)
    x, y = (np.asarray(part) for part in split_digits(len(keys)))
    old, epochs = x.shape[1] // 2, settings.steps(quick=6, full=20)
    rngs = [np.random.default_rng((settings.seed, seed)) for seed in range(len(keys))]
    train, test = (
        [np.stack(parts) for parts in zip(
            *(paired_images(rng, *some, count) for rng, *some in zip(rngs, *data, strict=True)), strict=True)]
        for data, count in (((x[:, :old], y[:, :old]), 4000), ((x[:, old:], y[:, old:]), 2000))
    )  # fmt: skip
    both = jnp.asarray(np.concatenate([train[0], test[0]], axis=1), jnp.float32)
    chances = {}
    for name, loss, target, squash in (
        ("sigmoids", fnn.sigmoid_cross_entropy, train[1], special.expit),
        ("softmax", fnn.softmax_cross_entropy, target_shares(train[1]), partial(special.softmax, axis=-1)),
    ):
        target = jnp.asarray(target, jnp.float32)
        grad = checked_mlp_value_and_grad(settings, loss, target[0, :6])
        chances[name] = squash(
            train_and_predict(sizes, loss, grad, epochs, keys, both[:, :4000], target, both).astype(float)
        )
    # Softmax gets the threshold that serves it best on its own training pictures.
    grid = np.linspace(0.06, 0.6, 55)
    best = [grid[np.argmax([is_exact_match(some[:4000], labels, at).mean() for at in grid])]
            for some, labels in zip(chances["softmax"], train[1], strict=True)]  # fmt: skip
    rules = {
        "sigmoids above one half": is_exact_match(chances["sigmoids"][:, 4000:], test[1], 0.5),
        "softmax above its best threshold": np.stack([
            is_exact_match(some[4000:], labels, at)
            for some, labels, at in zip(chances["softmax"], test[1], best, strict=True)]),
        "softmax above one half": is_exact_match(chances["softmax"][:, 4000:], test[1], 0.5),
    }  # fmt: skip
    counts = test[1].sum(axis=-1)
    table = tuple((name, *(f"{hit[counts == count].mean():.3f}" for count in (0, 1, 2)), f"{hit.mean():.3f}")
                  for name, hit in rules.items())  # fmt: skip
    twice = np.array([((some[4000:] > 0.5).sum(axis=1) > 1)[number == 2].mean()
                      for some, number in zip(chances["softmax"], counts, strict=True)])  # fmt: skip
    sigmoids, fair, _ = (hit.mean(axis=1) for hit in rules.values())
    sums = {name: some[:, 4000:].sum(axis=-1) for name, some in chances.items()}
    means = [[sums[name][counts == count].mean() for count in (0, 1, 2)] for name in sums]
    return Outcome(
        results=(
            judge(JOINT, sigmoids - fair,
                  "Softmax is taught equal shares of the digits shown and is read by the threshold "
                  f"that is best on its training pictures ({np.mean(best):.2f} on average)."),
            judge(HALF, twice),
        ),
        figures=(
            Figure(
                title="Pictures with no, one or two digits, and the sum of the outputs by digits shown",
                alternative="Eight of the pictures: handwritten digits of 8 by 8 pixels, one, two side by side, or "
                "none. Right: the sum of the ten outputs by the number of digits shown; the sigmoids' sum is "
                f"{means[0][0]:.2f} for none, {means[0][1]:.2f} for one and {means[0][2]:.2f} for two, softmax's "
                "always 1.",
                panels=(
                    images(test[0][0][:8].reshape(8, 8, 16), columns=4, diverging=False),
                    lines({name: Curve([0, 1, 2], mean) for name, mean in zip(sums, means, strict=True)},
                          x="digits shown", y="sum of the outputs", points=True),
                ),
                caption="The sum of independent probabilities is how many labels are expected. Softmax can't say none, "
                "and can't say two: it has one whole to share out.",
            ),
        ),
        tables=(
            Table("Share of test pictures with the set of digits named exactly, by the digits shown",
                  ("rule", "none", "one", "two", "all"), table,
                  f"{len(keys)} networks of 128-64-10, each trained on 4,000 pictures and tested on 2,000."),
        ),
        text=f"Sigmoids name the whole set in {sigmoids.mean():.1%} of the pictures. Softmax, taught equal shares and "
        f"read by its best threshold, does so in {fair.mean():.1%}; read as independent chances, by one half, it finds "
        f"two digits in {twice.mean():.2%} of the pictures that show two. Its outputs still rank the digits; what "
        "they can't tell is how many there are, since they share out a whole that is always 1.",
    )  # fmt: skip


EXPERIMENT = Experiment(
    name="softmax",
    order=9.3,
    title="Softmax: overflow, temperature and several labels",
    introduction="Softmax turns scores into shares of 1. We measure the limits of its formula, the effect of a "
    "temperature, and the shares of labels that don't exclude each other.",
    parts=(softmax_function, joint_labels),
    precision="float64",
)


def run(settings: Settings) -> ExperimentResult:
    return EXPERIMENT.run(settings)


if __name__ == "__main__":
    run_command_line(EXPERIMENT)
