"""Validation of the trees that the checkers are given."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from funcnn._checks import describe, is_concrete, numeric_array


def floating_tree(name: str, params: PyTree) -> PyTree:
    """Return ``params`` as JAX arrays.

    Raises:
        TypeError: a leaf is a tracer, or is neither floating nor complex.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    arrays = [_floating_leaf(name, jax.tree_util.keystr(path) or "the root", leaf) for path, leaf in leaves]
    return jax.tree.unflatten(structure, arrays)


def _floating_leaf(name: str, where: str, leaf: Any) -> jax.Array:
    advice = "An optimizer has no update for it: put None in its place."
    try:
        array = numeric_array(name, leaf)
    except TypeError as error:
        raise TypeError(
            f"{name}: expected floating parameters, got {leaf!r:.60} of type {type(leaf).__name__} at {where}. {advice}"
        ) from error
    if not is_concrete(array):
        raise TypeError(f"{name}: expected arrays, got tracers. Call it outside jit, vmap and grad.")
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        raise TypeError(f"{name}: expected floating parameters, got {describe(array)} at {where}. {advice}")
    return array
