"""Evaluation in float64: the switch, wider copies of trees, and no errors about promotion."""

import contextlib
import warnings
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

try:
    from jax import enable_x64 as enable_x64
except ImportError:  # releases of JAX before 0.8
    from jax.experimental import enable_x64 as enable_x64  # type: ignore[attr-defined, no-redef]


@contextlib.contextmanager
def allow_promotion() -> Iterator[None]:
    """Allow the promotion of dtypes and ranks, and silence warnings.

    A function that is strict in its own dtype may mix dtypes once its arguments are wider.
    """
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def copy_arrays(tree: PyTree) -> PyTree:
    """Return a tree with copies of its arrays."""

    def copy(leaf):
        if isinstance(leaf, jax.Array):
            return jax.device_put(leaf, may_alias=False)  # compiles nothing, unlike leaf.copy()
        return leaf.copy() if isinstance(leaf, np.ndarray) else leaf

    return jax.tree.map(copy, tree)


def widen(tree: PyTree) -> PyTree:
    """Return a tree with its floating arrays in float64 and its complex ones in complex128.

    NumPy's arrays stay NumPy's. All other leaves are unchanged.
    """

    def widen_leaf(leaf):
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic) or not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf
        return leaf.astype(np.complex128 if jnp.issubdtype(leaf.dtype, jnp.complexfloating) else np.float64)

    return jax.tree.map(widen_leaf, tree)
