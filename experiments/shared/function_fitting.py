"""Functions of known form to fit, the error of a fit, and the optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike

import funcnn as fnn
from experiments.harness.experiment import Settings, checked_value_and_grad
from experiments.shared.initialization import he_mlp_params

UNEXPLAINED = "squared error on new points, as a share of the target's variance"
HALF_WIDTH = 3**0.5  # of an interval on which the uniform distribution has variance 1


def sine_wave(t, frequency):
    return np.sin(frequency * t)


def triangle_wave(t, frequency):
    """Return the triangle wave in phase with the sine: its kinks are at the sine's extrema."""
    return 2 / np.pi * np.arcsin(np.sin(frequency * t))


def unexplained_share(prediction: ArrayLike, y: ArrayLike) -> ArrayLike:
    """Return squared error as a share of the variance; a fit worse than the mean, or NaN, counts as the mean."""
    share = ((prediction - y) ** 2).mean(axis=-1) / y.var(axis=-1)
    return jnp.where(share < 1, share, jnp.ones_like(share))


def adam_cosine_decay(rate, steps: int) -> optax.GradientTransformation:
    return fnn.adam(optax.cosine_decay_schedule(rate, steps))


def stack_trees(trees):
    """Stack trees of the same structure along a new first axis, in float32."""
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves), jnp.float32), *trees)


def index_tree(tree, *place: int):
    return jax.tree.map(lambda leaf: leaf[place], tree)


def checked_mlp_value_and_grad(settings: Settings, sizes: tuple[int, ...]):
    """Return the settings' gradients after checking a small network of the same form."""
    rng = np.random.default_rng(settings.seed)
    batch, params = stack_trees([(fnn.Batch(*(rng.normal(size=(6, size)) for size in sizes[:: len(sizes) - 1])),
                              he_mlp_params(rng, sizes))])  # fmt: skip
    state = ((),) * (2 * len(sizes) - 3)
    return checked_value_and_grad(
        settings,
        fnn.mlp(sizes),
        fnn.mean_squared_error,
        index_tree(batch, 0),
        params=index_tree(params, 0),
        state=state,
    )
