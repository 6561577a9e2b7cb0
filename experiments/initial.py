"""Initial parameters drawn by NumPy: at once, where XLA would compile for seconds."""

from itertools import pairwise

import jax.numpy as jnp
import numpy as np

import funcnn as fnn


def initial_params(rng: np.random.Generator, sizes: tuple[int, ...], *networks: int, bias: float = 0.0):
    """He's initial parameters of ``fnn.mlp(sizes)`` in float32, each ``(*networks, …)``.

    Args:
        rng: where they come from.
        sizes: as for ``mlp``.
        networks: how many are drawn, on as many axes as wanted; none for one network.
        bias: the standard deviation of the hidden layers' biases; the output's are 0.
    """
    linears = [
        fnn.LinearParams(
            jnp.asarray(rng.normal(size=(*networks, before, after)) * np.sqrt(2 / before), jnp.float32),
            jnp.asarray(rng.normal(size=(*networks, after)) * bias, jnp.float32),
        )
        for before, after in pairwise(sizes)
    ]
    linears[-1] = linears[-1]._replace(bias=jnp.zeros_like(linears[-1].bias))
    return tuple(layer for linear in linears for layer in (linear, ()))[:-1]
