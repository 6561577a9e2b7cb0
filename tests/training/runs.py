"""The small run that the tests of ``fit`` share: equal shapes, so that most of them compile nothing new."""

import jax
import jax.numpy as jnp
import numpy as np

import funcnn as fnn
from tests.cases import KEY, WIDEST

X = jax.random.normal(KEY, (22, 3), WIDEST)
Y = jnp.sin(X.sum(axis=1, keepdims=True))
MODEL = fnn.mlp((3, 8, 1), fnn.tanh, normalization=fnn.batch_norm, dropout=0.1)
STEPS = 3
"""Steps an epoch: two full batches of 8 and a short one of 6."""


def run(**changes):
    settings = {"model": MODEL, "loss": fnn.mean_squared_error, "optimizer": fnn.adam(0.01), "data": (X, Y),
                "epochs": 6, "batch_size": 8, "key": KEY} | changes  # fmt: skip
    return fnn.fit(**settings)


def batches(size=8):
    """The same data as a list of NumPy batches."""
    return [(np.asarray(X[i : i + size]), np.asarray(Y[i : i + size])) for i in range(0, len(X), size)]


def stream(**changes):
    return run(**({"data": batches(), "batch_size": None} | changes))


def bits(trained):
    """Every bit of what a run leaves, its history included."""
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(trained)]
