"""A network, its data and a history of training, for the tests of plots."""

import jax
import jax.numpy as jnp

import funcnn as fnn

KEY = jax.random.key(0)
DATA = fnn.datasets.spirals(30, classes=3, key=KEY)
MODEL = fnn.mlp((2, 4, 3))
PARAMS, STATE = MODEL.init(KEY)


def history(loss, /, **validation):
    loss = jnp.asarray(loss, jnp.float32)
    found = {name: jnp.asarray(values) for name, values in validation.items()}
    return fnn.History(loss, loss[:, None], found, jnp.arange(1, len(loss) + 1) if found else jnp.zeros(0, int))


def boundary(*data):
    return fnn.plot_decision_boundary(MODEL, PARAMS, STATE, data)
