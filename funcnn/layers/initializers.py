"""Initializers of kernels and tables. Xavier and He draw the same numbers as those of ``jax.nn.initializers``."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from funcnn._initialization import draw_flat
from funcnn._memoise import memoised
from funcnn.types import KernelInit

_DEVIATION_WITHIN_TWO = 0.87962566103423978
"""The standard deviation of the normal distribution truncated at ±2."""


def xavier(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Draw a kernel uniformly from ±√(6 / (fan_in + fan_out)), the numbers of ``glorot_uniform()``.

    It suits sigmoid, tanh and linear outputs. It compiles faster than ``jax.nn.initializers.glorot_uniform()``.

    Args:
        key: random key.
        shape: ``(in_features, out_features)``; axes in front of these two count in both fans.

    Returns:
        The kernel, in JAX's default floating dtype.

    Example:
        >>> bool((abs(xavier(jax.random.key(0), (2, 4))) <= 1).all())
        True

    Source:
        Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010,
        equation 16.
    """
    window = math.prod(shape[:-2])
    variance = jnp.asarray(2 / (window * sum(shape[-2:])), float)
    return draw_flat(jax.random.uniform, key, shape, minval=-1) * jnp.sqrt(3 * variance)


def he(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Draw a kernel from a normal distribution of variance 2 / fan_in, truncated at two standard deviations.

    The numbers are those of ``jax.nn.initializers.he_normal()``, which compiles more slowly. It suits the ReLU family.

    Args:
        key: random key.
        shape: ``(in_features, out_features)``; axes in front of these two count in the fan.

    Returns:
        The kernel, in JAX's default floating dtype.

    Example:
        >>> he(jax.random.key(0), (3, 2)).shape
        (3, 2)

    Source:
        He, Zhang, Ren and Sun, "Delving deep into rectifiers", 2015, equation 10.
    """
    fan_in = math.prod(shape[:-1])
    deviation = jnp.sqrt(jnp.asarray(2 / fan_in, float)) / _DEVIATION_WITHIN_TWO
    return draw_flat(jax.random.truncated_normal, key, shape, lower=-2, upper=2) * deviation


def draw_normal(key: PRNGKeyArray, shape: tuple[int, ...], *, deviation: float) -> Float[Array, "..."]:
    """Draw from a normal distribution of mean 0, in JAX's default floating dtype.

    Example:
        >>> draw_normal(jax.random.key(0), (3, 2), deviation=0.02).shape
        (3, 2)
    """
    return draw_flat(jax.random.normal, key, shape) * jnp.asarray(deviation, float)


@memoised
def normal(deviation: float) -> KernelInit:
    """Return an initializer that draws from a normal distribution; equal calls return the same function.

    Example:
        >>> normal(0.02) is normal(0.02)
        True
    """
    return partial(draw_normal, deviation=deviation)


def unit_rows(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Draw a table from a normal distribution of variance 1 / features, so that its rows have norms of about 1.

    Example:
        >>> unit_rows(jax.random.key(0), (7, 4)).shape
        (7, 4)
    """
    return draw_normal(key, shape, deviation=shape[-1] ** -0.5)


def orthogonal_blocks(key: PRNGKeyArray, features: int, blocks: int) -> Float[Array, "features columns"]:
    """Draw ``blocks`` orthogonal matrices side by side, ``(features, blocks · features)``.

    A product of orthogonal matrices keeps the norm of a vector, over any number of steps in time.

    Example:
        >>> kernel = orthogonal_blocks(jax.random.key(0), 3, 2)[:, 3:]
        >>> bool(jnp.allclose(kernel @ kernel.T, jnp.eye(3), atol=1e-6))
        True

    Source:
        Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear neural
        networks", 2014.
    """
    draw = jax.nn.initializers.orthogonal()
    drawn = jax.vmap(lambda key: draw(key, (features, features)))(jax.random.split(key, blocks))
    return drawn.swapaxes(0, 1).reshape(features, blocks * features)
