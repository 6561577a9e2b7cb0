"""Validation of the trees that the checkers are given."""

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from funcnn._checks import describe, is_concrete, numeric_array


def floating_tree(name: str, params: PyTree) -> PyTree:
    """Return ``params`` as JAX arrays.

    Raises:
        TypeError: a leaf is a tracer, or is neither floating nor complex.
    """
    params = jax.tree.map(lambda leaf: numeric_array(name, leaf), params)
    if not is_concrete(*jax.tree.leaves(params)):
        raise TypeError(f"{name}: expected arrays, got tracers. Call it outside jit, vmap and grad.")
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            raise TypeError(
                f"{name}: expected floating parameters, got {describe(leaf)} "
                f"at {jax.tree_util.keystr(path) or 'the root'}. Pass what isn't differentiated as a further argument."
            )
    return params
