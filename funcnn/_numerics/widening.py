"""A program with its narrow floating types taken out: every floating value in float64, whatever the code casts to.

Code that computes products in bfloat16 rounds to two or three digits, in which a wrong gradient can't be seen. The same
program in float64, without the casts, shows whether the formula is right.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from funcnn._numerics.program import Program, bind
from funcnn._numerics.rewriting import rewrite

_SCATTERS = {
    "scatter": jax.lax.scatter,
    "scatter-add": jax.lax.scatter_add,
    "scatter-mul": jax.lax.scatter_mul,
    "scatter-min": jax.lax.scatter_min,
    "scatter-max": jax.lax.scatter_max,
}
_SCATTER_OPTIONS = ("dimension_numbers", "indices_are_sorted", "unique_indices", "mode")
OPAQUE = {"pallas_call", "pure_callback", "io_callback", "ffi_call", "custom_call"}
"""The primitives that call code which JAX doesn't see into."""

# What is written for its own dtypes besides: the bits of a number, and a reduction by a function.
_TYPED = {*OPAQUE, "bitcast_convert_type", "reduce"}


def widen_program(program: Program, tree: PyTree) -> Program | None:
    """Return the program with every floating value in float64; ``None`` if it can't be rewritten.

    Kernels, callbacks and what reads a number's bits get numbers of their own dtypes, so the result may round to fewer
    digits than float64 there.
    """
    try:
        jaxpr = jax.make_jaxpr(lambda leaves: rewrite(program.jaxpr, leaves, _apply, _wide))(jax.tree.leaves(tree))
    except Exception:  # an operation with types of its own that isn't known here
        return None
    return program._replace(jaxpr=jaxpr)


def _apply(equation, arguments) -> Sequence:
    name, parameters = equation.primitive.name, equation.params
    if name == "reduce_precision":
        return arguments
    if name == "convert_element_type":
        return [jax.lax.convert_element_type(arguments[0], _wide_dtype(parameters["new_dtype"]))]
    if name in _SCATTERS:
        options = {option: parameters[option] for option in _SCATTER_OPTIONS if option in parameters}
        return [_SCATTERS[name](*arguments, **options)]
    if name in _TYPED:
        avals = [atom.aval for atom in equation.invars]
        return bind(equation, [_narrow(value, aval) for value, aval in zip(arguments, avals, strict=True)])
    wide = {key: _wide_parameter(key, value) for key, value in parameters.items()}
    return bind(equation.replace(params=wide), arguments)


def _wide_parameter(key, value):
    if key == "precision" and not isinstance(value, tuple | jax.lax.Precision | None):
        return None  # an algorithm of a product, such as bfloat16 with float32 sums
    is_dtype = isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic))
    return _wide_dtype(value) if is_dtype else value


def _wide_dtype(dtype) -> Any:
    if not jnp.issubdtype(dtype, jnp.inexact):
        return dtype
    return np.dtype(np.complex128 if jnp.issubdtype(dtype, jnp.complexfloating) else np.float64)


def _wide(value):
    dtype = jnp.result_type(value)
    if not jnp.issubdtype(dtype, jnp.inexact) or dtype == _wide_dtype(dtype):
        return value
    return jax.lax.convert_element_type(value, _wide_dtype(dtype))


def _narrow(value, aval):
    is_floating = jnp.issubdtype(getattr(aval, "dtype", np.int32), jnp.inexact)
    return jax.lax.convert_element_type(value, aval.dtype) if is_floating else value
