"""Features of a trained network: the first layer's weights, hidden activations, and linear probes of each layer.

``python -m experiments.features`` compares networks trained on MNIST with the same networks before training.
"""

import warnings
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from joblib import Parallel, delayed
from scipy.signal import convolve
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import silhouette_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

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
from experiments.harness.figures import Curve, Figure, bars, images, lines, scatter
from experiments.harness.runner import run_command_line
from experiments.shared.data import DataSet, mnist_images
from experiments.shared.initialization import he_mlp_params

ALAIN = "Alain and Bengio, Understanding intermediate layers using linear classifier probes, 2016"
COUNTS = {"seeds": 20, "quick_seeds": 4}


def rising_share(name: str, lower: str, upper: str) -> Claim:
    return Claim(
        name=name,
        sentence=f"A linear classifier reads a digit better off {upper} than off {lower}.",
        section=Section.WHY_FEATURES,
        source=ALAIN,
        quantity=f"difference of the probes' test accuracies, {upper} less {lower}",
        at_least=0,
        **COUNTS,
    )


FIRST = rising_share("first_layer", "the pixels", "the first hidden layer")
SECOND = rising_share("second_layer", "the first hidden layer", "the second")
THIRD = rising_share("third_layer", "the second hidden layer", "the third")
TRAINED = Claim(
    name="training_makes_features",
    sentence="The last hidden layer is easier to read after training than as it was drawn.",
    section=Section.WHY_FEATURES,
    quantity="difference of the probes' test accuracies at the third hidden layer, trained less drawn",
    at_least=0,
    **COUNTS,
)
RANDOM = Claim(
    name="random_layers_lose",
    sentence="In a network as it was drawn, every layer more makes a digit harder to read.",
    section=Section.WHY_FEATURES,
    source=ALAIN,
    quantity="largest rise of the probes' test accuracies from a hidden layer to the next, drawn networks",
    at_most=0,
    **COUNTS,
)
SVM = Claim(
    name="svm_needs_features",
    sentence="A support vector machine does better with a network's features than with the pixels.",
    section=Section.WHY_FEATURES,
    quantity="difference of its test accuracies, third hidden layer less pixels",
    at_least=0,
    **COUNTS,
)
SMOOTH = Claim(
    name="kernels_become_smooth",
    sentence="Training makes the first layer's weights smooth pictures: neighbouring pixels agree.",
    section=Section.WHY_FEATURES,
    quantity="correlation of neighbouring pixels' weights, after training less before",
    at_least=0.1,
    **COUNTS,
)
LOCAL = Claim(
    name="first_layer_looks_for_edges",
    sentence="First-layer units look at one small place, as an edge detector does.",
    section=Section.WHY_FEATURES,
    quantity="share of a unit's squared weights in its best window of 7 × 7 of 28 × 28 pixels, mean over units",
    at_least=0.5,
    **COUNTS,
)

SIZES = (784, 64, 64, 64, 10)
MODEL, STATE = fnn.mlp(SIZES), ((),) * (2 * len(SIZES) - 3)
LAYERS = ("pixels", "first hidden layer", "second hidden layer", "third hidden layer")
BATCH = 50


def load_mnist(seed: int) -> DataSet:
    """Return 4,000 training and 1,000 test images, all pixels on one scale so that weights can be shown as pictures."""
    x, y = mnist_images()
    parts = train_test_split((x / 255).astype(np.float32), y, test_size=0.2, stratify=y, random_state=seed)
    x_training, x_test, y_training, y_test = map(jnp.asarray, parts)
    return DataSet(fnn.Batch(x_training, y_training), fnn.Batch(x_test, y_test))


# Networks and their layers --------------------------------------------------------------------------------------------


def checked_mlp_value_and_grad(settings: Settings):
    rng = np.random.default_rng(settings.seed)
    sizes = (9, 7, 6, 5, 4)
    batch = fnn.Batch(jnp.asarray(rng.normal(size=(6, 9)), jnp.float32), jnp.arange(6) % 4)
    params = he_mlp_params(rng, sizes)
    return checked_value_and_grad(
        settings, fnn.mlp(sizes), fnn.softmax_cross_entropy, batch, params=params, state=STATE
    )


class Networks(NamedTuple):
    """Parameters of all seeds, before and after training; test accuracies ``(seeds,)``."""

    before: fnn.types.Params
    after: fnn.types.Params
    accuracy: np.ndarray


def train_networks(settings: Settings, data: DataSet) -> Networks:
    keys, grad = settings.keys_of(FIRST), checked_mlp_value_and_grad(settings)
    before = he_mlp_params(np.random.default_rng(settings.seed), SIZES, len(keys))
    epochs = epoch_count(settings)

    def one(given):
        key, params = given
        trained = fnn.train(MODEL, fnn.softmax_cross_entropy, fnn.adam(1e-3), data.training, epochs=epochs,
                            batch_size=BATCH, key=key, grad=grad, params=params, state=STATE)  # fmt: skip
        return trained.params, fnn.accuracy(fnn.predict(MODEL, trained.params, STATE, data.test.x), data.test.y)

    after, accuracy = jax.jit(partial(jax.lax.map, one))((keys, before))
    return Networks(before, after, np.asarray(accuracy))


def epoch_count(settings: Settings) -> int:
    return settings.steps(quick=6, full=15)


def index_tree(params, seed: int):
    """Return one seed's parameters."""
    return jax.tree.map(lambda leaf: leaf[seed], params)


def layer_activations(params, x) -> list[np.ndarray]:
    """Return the pixels and the activations of each hidden layer."""
    shown = [x]
    for layer in params[:-1:2]:
        shown.append(fnn.relu_forward(fnn.linear_forward(layer, shown[-1])[0])[0])
    return [np.asarray(activations) for activations in shown]


# Probes of the layers -------------------------------------------------------------------------------------------------


def probe(training: np.ndarray, test: np.ndarray, data: DataSet) -> float:
    """Return the test accuracy of logistic regression on standardised activations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        reader = make_pipeline(StandardScaler(), LogisticRegression()).fit(training, data.training.y)
    return float(reader.score(test, data.test.y))


def support_vectors(training: np.ndarray, test: np.ndarray, data: DataSet) -> float:
    return float(SVC().fit(training, data.training.y).score(test, data.test.y))


def map_in_parallel(measure, pairs, data: DataSet) -> np.ndarray:
    # Threads of linear algebra inside these threads would wait for each other most of the time.
    with threadpool_limits(1):
        return np.array(Parallel(n_jobs=-1, prefer="threads")(delayed(measure)(*pair, data) for pair in pairs))


def weighted_kernels(params, x) -> np.ndarray:
    """Return the first layer's weights times their pixel's standard deviation, ``(units, 28, 28)``.

    Without it the pixels of the margin, which are always 0 and never learn, would count with the weights as drawn.
    """
    kernel = np.asarray(params[0].kernel) * np.asarray(x).std(axis=0)[:, None]
    return kernel.T.reshape(-1, 28, 28)


def smoothness(kernels: np.ndarray) -> float:
    """Return the correlation of neighbouring pixels' weights, over all units."""
    beside = [(kernels[:, :, :-1], kernels[:, :, 1:]), (kernels[:, :-1], kernels[:, 1:])]
    left, right = (np.concatenate([pair[side].ravel() for pair in beside]) for side in (0, 1))
    return float(np.corrcoef(left, right)[0, 1])


def locality(kernels: np.ndarray, window: int = 7) -> float:
    """Return the share of the squared weights in the best window, mean over kernels."""
    squares = kernels**2
    held = convolve(squares, np.ones((1, window, window)), mode="valid")
    return float((held.max(axis=(1, 2)) / squares.sum(axis=(1, 2))).mean())


# The parts ------------------------------------------------------------------------------------------------------------


@experiment_part("Linear probes of the layers", FIRST, SECOND, THIRD, TRAINED, RANDOM, SVM)
def layers(settings: Settings) -> Outcome:
    data = load_mnist(settings.seed)
    found = train_networks(settings, data)
    seeds = len(found.accuracy)
    shown = {
        name: [
            list(zip(*(layer_activations(index_tree(params, seed), part.x) for part in data), strict=True))
            for seed in range(seeds)
        ]
        for name, params in (("trained", found.after), ("as drawn", found.before))
    }
    (pixels,) = map_in_parallel(probe, [shown["trained"][0][0]], data)
    read = {
        name: np.column_stack([
            np.full(seeds, pixels),
            map_in_parallel(probe, [pair for network in some for pair in network[1:]], data).reshape(seeds, -1),
        ])
        for name, some in shown.items()
    }  # fmt: skip
    trained, random = read.values()
    svm_pixels, *svm_features = map_in_parallel(
        support_vectors, [shown["trained"][0][0], *(network[-1] for network in shown["trained"])], data
    )
    svm_features = np.array(svm_features)
    means = {name: probes.mean(axis=0) for name, probes in read.items()}
    flat, apart = [], []
    for _, test in shown["trained"][0]:
        points = PCA(2, random_state=0).fit_transform(test)
        flat.append(points)
        apart.append(silhouette_score(points, data.test.y))
    labels = np.asarray(data.test.y)
    chosen = np.concatenate([np.flatnonzero(labels == digit)[:30] for digit in range(10)])
    at_layers = np.arange(len(LAYERS))
    return Outcome(
        results=(
            judge(FIRST, trained[:, 1] - pixels, f"Pixels: {pixels:.1%}."),
            judge(SECOND, trained[:, 2] - trained[:, 1]),
            judge(THIRD, trained[:, 3] - trained[:, 2]),
            judge(TRAINED, trained[:, 3] - random[:, 3]),
            judge(RANDOM, np.diff(random[:, 1:]).max(axis=1)),
            judge(SVM, svm_features - svm_pixels, f"With pixels it is right on {svm_pixels:.1%} of the test images, "
                                                  "with "
                  f"features on {svm_features.mean():.1%}; the network itself on {found.accuracy.mean():.1%}."),
        ),
        figures=(
            Figure(
                title="The accuracy of a linear classifier on each layer",
                alternative="Test accuracy of a linear probe at the pixels and three hidden layers. Trained: "
                + ", ".join(f"{share:.1%}" for share in means["trained"]) + ". As drawn: "
                + ", ".join(f"{share:.1%}" for share in means["as drawn"]) + ".",
                panels=(
                    lines({name: Curve(at_layers, probes.mean(axis=0), *np.quantile(probes, (0.025, 0.975), axis=0))
                           for name, probes in read.items()},
                          x="layer (0: the pixels)", y="accuracy of the probe", points=True),
                ),
                caption=f"{seeds} networks 784-64-64-64-10, 4,000 images of MNIST to train on, 1,000 to test by. The "
                        "probe "
                "is logistic regression on the layer's activations. Bands: the middle 95% of the seeds.",
            ),
            Figure(
                title="Ten digits in two dimensions, layer by layer",
                alternative="1,000 test images as points in the two main directions of the pixels and of each hidden "
                "layer of a trained network, 30 of each digit drawn. How well digits stand apart there (silhouette, "
                "−1 to "
                "1): " + ", ".join(f"{name} {score:.2f}" for name, score in zip(LAYERS, apart, strict=True)) + ".",
                panels=tuple(
                    scatter({str(digit): points[chosen][labels[chosen] == digit] for digit in range(10)},
                            x="first direction", y="second direction", subtitle=name)
                    for name, points in zip(LAYERS, flat, strict=True)
                ),
                caption="Principal components of the test images' activations, one network. Two of 64 directions can't "
                "show all; the probe above sees them all.",
            ),
        ),
        tables=(
            Table("Mean test accuracy of the probe", ("network", *LAYERS),
                  tuple((name, *(f"{share:.2%}" for share in some)) for name, some in means.items())),
        ),
        text=f"Off the pixels a linear classifier reads {pixels:.1%} of the test digits, off the trained layers "
        + ", ".join(f"{share:.1%}" for share in means["trained"][1:])
        + ". Off the same layers as they were drawn it reads "
        + ", ".join(f"{share:.1%}" for share in means["as drawn"][1:])
        + f": depth alone loses, training makes features.\n\nThat other learners need features made by hand doesn't "
        f"follow: a support vector machine is right on {svm_pixels:.1%} with bare pixels, on "
        f"{svm_features.mean():.1%} with the network's last hidden layer, and the network itself on "
        f"{found.accuracy.mean():.1%}.",
    )  # fmt: skip


@experiment_part("The weights of the first layer", SMOOTH, LOCAL)
def first_layer(settings: Settings) -> Outcome:
    data = load_mnist(settings.seed)
    found = train_networks(settings, data)
    seeds, x = len(found.accuracy), data.training.x
    kernels = {name: [weighted_kernels(index_tree(params, seed), x) for seed in range(seeds)]
               for name, params in (("as drawn", found.before), ("trained", found.after))}  # fmt: skip
    smooth = {name: np.array([smoothness(some) for some in each]) for name, each in kernels.items()}
    local = {name: np.array([locality(some) for some in each]) for name, each in kernels.items()}
    history = kernels_by_epoch(settings, data)
    epochs = sorted(history)
    last = epochs[-1]
    change = {epoch: history[epoch] - history[0] for epoch in epochs}
    pictures = {
        "weights as drawn": history[0], f"weights after {last} epochs": history[last],
        "what the first epoch changed": change[1], f"what {last} epochs changed": change[last],
    }  # fmt: skip
    smooth_by_epoch, local_by_epoch = (
        [measure(history[epoch] * np.asarray(x).std(axis=0).reshape(28, 28)) for epoch in epochs]
        for measure in (smoothness, locality)
    )
    return Outcome(
        results=(
            judge(SMOOTH, smooth["trained"] - smooth["as drawn"]),
            judge(LOCAL, local["trained"], f"As drawn it is {local['as drawn'].mean():.2f}: the digits' middle varies "
                  "most, so that even noise counts most there."),
        ),
        figures=(
            Figure(
                title="The first layer's weights before and after training",
                alternative="Weights of 16 first-layer units as pictures of 28 by 28 pixels: as drawn, noise; after "
                f"{last} epochs, noise with shades in it. What training changed of them is smooth: strokes and blobs "
                "as "
                "large as a digit's parts, in the middle, where pixels vary. The correlation of neighbouring pixels is "
                f"{smooth_by_epoch[0]:.2f} in the weights as drawn, {smooth_by_epoch[-1]:.2f} in the trained ones and "
                f"{smoothness(change[last]):.2f} in the change.",
                panels=tuple(images(some[:16], columns=4, subtitle=name) for name, some in pictures.items()),
                caption="One network. The two colours are weights above and below 0; each picture has its own scale.",
            ),
            Figure(
                title="Smoothness and locality of the first layer's weights, by epoch and over the seeds",
                alternative="Left: the correlation of neighbouring pixels' weights rises over the epochs from "
                f"{smooth_by_epoch[0]:.2f} to {smooth_by_epoch[-1]:.2f}. The share of a unit's squared weights in "
                "its best "
                f"window of 7 by 7 goes from {local_by_epoch[0]:.2f} to {local_by_epoch[-1]:.2f}. Right: that share "
                "over "
                f"the seeds, {local['as drawn'].mean():.2f} as drawn and {local['trained'].mean():.2f} trained, "
                "beside the "
                "half that an edge detector would have at least.",
                panels=(
                    lines({"correlation of neighbours": Curve(epochs, smooth_by_epoch),
                           "share in the best 7 × 7": Curve(epochs, local_by_epoch)}, x="epoch", y="", points=True),
                    bars({name: (values.mean(), values.min(), values.max()) for name, values in local.items()},
                         x="share in the best 7 × 7", thresholds={"edge detector": 0.5}),
                ),
                caption="Weights are multiplied by their pixel's spread over the training images, for what never "
                        "varies "
                "isn't seen. Left one network, right all; bars from the least to the largest seed.",
            ),
        ),
        text="The first layer's weights begin as noise, and training draws strokes into it: neighbouring pixels "
             "correlate by "
        f"{smooth['trained'].mean():.2f} after training, {smooth['as drawn'].mean():.2f} before. Edge detectors they "
        f"aren't: a unit's best window of 7 × 7 pixels holds {local['trained'].mean():.0%} of its squared weights, "
        "where "
        f"it held {local['as drawn'].mean():.0%} as drawn. Edges in early layers are seen in convolutional networks, "
        "whose "
        "units are small windows by construction; a fully connected layer sees the whole picture and uses it.",
    )  # fmt: skip


def kernels_by_epoch(settings: Settings, data: DataSet) -> dict[int, np.ndarray]:
    """Return the first seed's kernels as pictures ``(units, 28, 28)`` before training and after every epoch."""
    start = index_tree(he_mlp_params(np.random.default_rng(settings.seed), SIZES, settings.seeds_of(FIRST)), 0)
    seen = {0: start[0].kernel}

    def look(progress: fnn.Progress):
        seen[progress.epoch] = progress.params[0].kernel

    fnn.fit(MODEL, fnn.softmax_cross_entropy, fnn.adam(1e-3), data.training, epochs=epoch_count(settings),
            batch_size=BATCH, key=settings.keys_of(FIRST)[0], grad=settings.value_and_grad, params=start, state=STATE,
            callbacks=[look])  # fmt: skip
    return {epoch: np.asarray(kernel).T.reshape(-1, 28, 28) for epoch, kernel in seen.items()}


EXPERIMENT = Experiment(
    name="features",
    order=10.3,
    title="Features of the hidden layers",
    introduction="Networks learn their features from the data, edges first and then larger shapes, each layer building "
    "on the one before; other learners are said to need features made by hand. Networks with three hidden layers are "
    "trained on MNIST, and their layers measured.",
    parts=(layers, first_layer),
)


def run(settings: Settings) -> ExperimentResult:
    return EXPERIMENT.run(settings)


if __name__ == "__main__":
    run_command_line(EXPERIMENT)
