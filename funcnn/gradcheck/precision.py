"""In which precision two gradients are compared: float64 where the functions allow it."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

try:
    from jax import enable_x64
except ImportError:  # releases of JAX before 0.8
    from jax.experimental import enable_x64  # type: ignore[attr-defined, no-redef]


class Evaluated(NamedTuple):
    """A loss and its two gradients at one point, and ε, the spacing at 1 of the numbers they were computed with."""

    value: float
    by_hand: PyTree
    by_autodiff: PyTree
    spacing: float


def evaluated(loss_fn: Callable[..., Any], grad_fn: Callable[..., Any], arguments: tuple) -> Evaluated:
    """Both gradients at ``arguments``; each function gets copies, for it may donate or change what it gets."""
    value, by_autodiff = jax.value_and_grad(loss_fn)(*_copied(arguments))
    by_hand = grad_fn(*_copied(arguments))
    return Evaluated(float(jnp.real(value)), by_hand, by_autodiff, _spacing(loss_fn, grad_fn, by_hand, arguments))


def in_double_precision(
    loss_fn: Callable[..., Any], grad_fn: Callable[..., Any], arguments: tuple, own: Evaluated
) -> tuple[Evaluated, str]:
    """Both gradients in float64; or ``own`` and the reason, where the functions aren't the same functions there."""
    dtype = " and ".join(sorted({str(jnp.result_type(leaf)) for leaf in jax.tree.leaves(arguments[0])}))
    try:
        # What 64-bit types make JAX or the functions warn of is not what the caller asked about.
        with _double_precision(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wide = evaluated(loss_fn, grad_fn, _widened(arguments))
    except Exception as error:  # whatever the caller's functions raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:100]
        return own, f"Compared in {dtype}, for the functions don't take float64 ({reason})."
    if abs(wide.value - own.value) > own.spacing**0.25 * max(abs(own.value), abs(wide.value)):
        return own, f"Compared in {dtype}: in float64 the loss is {wide.value:.6g} and not {own.value:.6g}."
    return wide, ""


@contextlib.contextmanager
def _double_precision() -> Iterator[None]:
    with enable_x64(True), jax.numpy_dtype_promotion("standard"):
        yield


def _copied(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf.copy() if isinstance(leaf, jax.Array | np.ndarray) else leaf, tree)


def _widened(tree: PyTree) -> PyTree:
    """The floating (complex) arrays of a tree in float64 (complex128), NumPy's as NumPy's; all else as it is."""

    def widen(leaf):
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic) or not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf
        return leaf.astype(np.complex128 if jnp.issubdtype(leaf.dtype, jnp.complexfloating) else np.float64)

    return jax.tree.map(widen, tree)


def _spacing(loss_fn, grad_fn, by_hand, arguments) -> float:
    """ε of the coarsest floating numbers that the gradients are, or that either function rounds to on the way."""
    dtypes = {jnp.result_type(leaf) for leaf in jax.tree.leaves((arguments[0], by_hand))}
    for function in (loss_fn, grad_fn):
        params, *rest = _copied(arguments)
        try:
            program = jax.make_jaxpr(lambda params, function=function, rest=rest: function(params, *rest))(params)
        except Exception:  # a gradient by NumPy can't be traced, and may round to float32 unseen
            dtypes.add(jnp.dtype(jnp.float32))
        else:
            dtypes |= set(_rounded_to(program.jaxpr))
    return max((float(jnp.finfo(dtype).eps) for dtype in dtypes if jnp.issubdtype(dtype, jnp.inexact)), default=0.0)


# What moves or chooses numbers without rounding them.
_EXACT = {
    *("abs", "clamp", "max", "min", "neg", "reduce_max", "reduce_min", "select_n", "sign", "sort", "stop_gradient"),
    *("broadcast_in_dim", "concatenate", "copy", "copy_p", "device_put", "dynamic_slice", "dynamic_update_slice"),
    *("expand_dims", "gather", "iota", "pad", "reshape", "rev", "scatter", "slice", "squeeze", "transpose"),
}


def _rounded_to(program: Any) -> Iterator[np.dtype]:
    """The floating dtypes in which a program rounds: those of its arithmetic, and of casts from wider numbers."""
    for equation in program.eqns:
        parts = jax.tree.leaves(tuple(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns"))
        inner = [part for part in (getattr(part, "jaxpr", part) for part in parts) if hasattr(part, "eqns")]
        for part in inner:
            yield from _rounded_to(part)
        name = equation.primitive.name
        after = [out.aval.dtype for out in equation.outvars if hasattr(out.aval, "dtype")]
        if name == "convert_element_type":
            before = equation.invars[0].aval.dtype
            yield from (dtype for dtype in after if _is_narrower(dtype, before))
        elif not inner and name not in _EXACT:
            yield from after


def _is_narrower(dtype: Any, before: Any) -> bool:
    return jnp.issubdtype(before, jnp.inexact) and dtype.itemsize < before.itemsize
