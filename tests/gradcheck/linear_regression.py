"""A loss of a linear model with its gradient by hand, right and broken."""

import jax.numpy as jnp
import numpy as np

from tests.cases import WIDEST

# The same numbers in every dtype: which entry is the worst doesn't depend on it.
X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), WIDEST)
Y = X @ jnp.array([1.0, -2.0, 0.5], WIDEST)
PARAMS = {"w": jnp.array([0.3, 0.1, -0.2], WIDEST), "b": jnp.array(0.5, WIDEST)}


def loss_fn(params, x, y):
    return ((x @ params["w"] + params["b"] - y) ** 2).mean()


def right(params, x, y):
    error = 2 * (x @ params["w"] + params["b"] - y) / len(y)
    return {"w": x.T @ error, "b": error.sum()}


def broken(**changes):
    def gradient(params, x, y):
        grads = right(params, x, y)
        return grads | {name: change(grads[name]) for name, change in changes.items()}

    return gradient
