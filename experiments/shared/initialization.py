"""Initial parameters of many seeds at once, with kernels drawn by NumPy.

Drawing kernels here, and not by ``init`` within a compiled program, keeps one program for every initialization, gives
paired initial parameters to models that differ elsewhere, and saves compiling the random numbers of every kernel.
"""

from collections.abc import Callable
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

import funcnn as fnn

Initializer = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
"""``(generator, shape) -> kernels``; the last two axes are the features in and out."""

INITIALLY_ONE = ("scale", "variance")


def init_ensemble(model: fnn.Layer, seeds: int, draw: Initializer, seed: int = 0):
    """Return parameters and state of every seed, stacked along a first axis."""
    generator = np.random.default_rng(seed)
    params, state = jax.eval_shape(model.init, jax.random.key(0))

    def initial_leaf(path, leaf):
        shape = (seeds, *leaf.shape)
        name = getattr(path[-1], "name", "")
        if name == "kernel":
            return jnp.asarray(draw(generator, shape), leaf.dtype)
        return jnp.full(shape, float(name in INITIALLY_ONE), leaf.dtype)

    return jax.tree_util.tree_map_with_path(initial_leaf, params), jax.tree_util.tree_map_with_path(initial_leaf, state)


def he_normal(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw from N(0, 2/n) for n features in: He, Zhang, Ren and Sun 2015."""
    return generator.standard_normal(shape) * np.sqrt(2 / shape[-2])


def xavier_normal(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw from N(0, 2/(n + m)) for n features in and m out: Glorot and Bengio 2010."""
    return generator.standard_normal(shape) * np.sqrt(2 / (shape[-2] + shape[-1]))


def fan_in_uniform(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw from U(−1/√n, 1/√n) for n features in: usual before Glorot and Bengio, and PyTorch's default."""
    return generator.uniform(-1, 1, shape) / np.sqrt(shape[-2])


def he_mlp_params(rng: np.random.Generator, sizes: tuple[int, ...], *networks: int, bias: float = 0.0):
    """Return He's initial parameters of ``fnn.mlp(sizes)`` in float32, each ``(*networks, …)``.

    Args:
        rng: the random generator.
        sizes: as for ``mlp``.
        networks: the leading axes; none for one network.
        bias: the standard deviation of the hidden layers' biases; the output's are 0.
    """
    linears = [
        fnn.LinearParams(
            jnp.asarray(he_normal(rng, (*networks, before, after)), jnp.float32),
            jnp.asarray(rng.normal(size=(*networks, after)) * bias, jnp.float32),
        )
        for before, after in pairwise(sizes)
    ]
    linears[-1] = linears[-1]._replace(bias=jnp.zeros_like(linears[-1].bias))
    return tuple(layer for linear in linears for layer in (linear, ()))[:-1]
