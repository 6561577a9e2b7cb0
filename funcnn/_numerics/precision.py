"""Evaluation in float64: the switch, wider copies of trees, and no errors about promotion."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from funcnn._checks import is_concrete

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
    """Return a tree with copies of its arrays. What is being traced can't be changed, and isn't copied."""

    def copy(leaf):
        if isinstance(leaf, jax.Array) and is_concrete(leaf):
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
        dtype = np.complex128 if jnp.issubdtype(leaf.dtype, jnp.complexfloating) else np.float64
        return cast_array(leaf, dtype)

    return jax.tree.map(widen_leaf, tree)


def cast_array(array: Any, dtype: Any) -> Any:
    """Return an array in another dtype, on the same devices. JAX would compile a program for every shape."""
    if not isinstance(array, jax.Array):
        return array.astype(dtype)
    return like_devices(np.asarray(array).astype(dtype), array)


def like_devices(array: Any, like: jax.Array) -> jax.Array:
    """Return a NumPy array as a JAX array on the devices of another one."""
    return jax.device_put(np.asarray(array), like.sharding if len(like.sharding.device_set) > 1 else None)


def highest_matmul_precision() -> contextlib.AbstractContextManager:
    """Return the context of JAX's most precise matrix products. A CPU has no others, and compiles nothing again."""
    if jax.default_backend() == "cpu":
        return contextlib.nullcontext()
    return jax.default_matmul_precision("highest")
