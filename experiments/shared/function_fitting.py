"""Functions of known form to fit, the error of a fit, and the optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike

import funcnn as fnn
from experiments.harness.experiment import Settings, checked
from experiments.shared.initialization import initial_params

UNEXPLAINED = "squared error on new points, as a share of the target's variance"
HALF = 3**0.5  # of an interval on which the uniform distribution has variance 1


def wave(t, frequency):
    return np.sin(frequency * t)


def teeth(t, frequency):
    """The triangle wave in step with the sine: its kinks where the sine turns."""
    return 2 / np.pi * np.arcsin(np.sin(frequency * t))


def unexplained(prediction: ArrayLike, y: ArrayLike) -> ArrayLike:
    """Squared error as a share of the variance; a fit worse than the mean, or one that failed, counts as the mean."""
    share = ((prediction - y) ** 2).mean(axis=-1) / y.var(axis=-1)
    return jnp.where(share < 1, share, jnp.ones_like(share))


def falling_adam(rate, steps: int) -> optax.GradientTransformation:
    return fnn.adam(optax.cosine_decay_schedule(rate, steps))


def stacked(trees):
    """Trees of the same form as one, with a new first axis, in float32."""
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves), jnp.float32), *trees)


def at(tree, *place: int):
    return jax.tree.map(lambda leaf: leaf[place], tree)


def checked_here(settings: Settings, sizes: tuple[int, ...]):
    """The gradients to train by, once those of a small network of the same form are seen to be right."""
    rng = np.random.default_rng(settings.seed)
    batch, params = stacked([(fnn.Batch(*(rng.normal(size=(6, size)) for size in sizes[:: len(sizes) - 1])),
                              initial_params(rng, sizes))])  # fmt: skip
    state = ((),) * (2 * len(sizes) - 3)
    return checked(settings, fnn.mlp(sizes), fnn.mean_squared_error, at(batch, 0), params=at(params, 0), state=state)
