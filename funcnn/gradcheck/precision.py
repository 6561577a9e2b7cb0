"""In which precision two gradients are compared: float64 where the functions allow it."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

try:
    from jax import enable_x64
except ImportError:  # releases of JAX before 0.8
    from jax.experimental import enable_x64  # type: ignore[attr-defined, no-redef]


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """JAX with 64-bit types and its standard promotion; the caller's configuration is back afterwards."""
    with enable_x64(True), jax.numpy_dtype_promotion("standard"):
        yield


def widened(tree: PyTree) -> PyTree:
    """Float64 (complex128) copies of the floating (complex) arrays of a tree; all else as it is."""

    def widen(leaf):
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
            return leaf
        return jnp.asarray(leaf, jnp.complex128 if jnp.issubdtype(dtype, jnp.complexfloating) else jnp.float64)

    return jax.tree.map(widen, tree)


def spacing_inside(
    loss_fn: Callable[..., Any], grad_fn: Callable[..., Any], gradients: PyTree, arguments: tuple
) -> float:
    """The spacing at 1 of the coarsest floating numbers that either function computes with.

    A function that casts to float32 inside returns float64 with float32's digits; it is judged by those.
    """
    dtypes = {jnp.result_type(leaf) for leaf in jax.tree.leaves((arguments[0], gradients))}
    for function in (loss_fn, grad_fn):
        # A gradient by NumPy can't be traced; what it returns tells its dtype then.
        with contextlib.suppress(Exception):
            program = jax.make_jaxpr(lambda params, function=function: function(params, *arguments[1:]))(arguments[0])
            dtypes |= set(_dtypes_inside(program.jaxpr))
    return max((float(jnp.finfo(dtype).eps) for dtype in dtypes if jnp.issubdtype(dtype, jnp.inexact)), default=0.0)


def _dtypes_inside(program: Any) -> Iterator[np.dtype]:
    for equation in program.eqns:
        yield from (variable.aval.dtype for variable in equation.outvars if hasattr(variable.aval, "dtype"))
        for value in jax.tree.leaves(tuple(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _dtypes_inside(inner)
