"""A few samples and weights as NumPy arrays of float64, as users hand them over."""

import jax
import jax.numpy as jnp
import numpy as np

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(8, 3)), RANDOM.normal(size=(8, 2))
WEIGHTS = {"w1": RANDOM.normal(size=(3, 4)), "w2": RANDOM.normal(size=(4, 2))}


def float32(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)
