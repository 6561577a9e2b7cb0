"""Random numbers whose bits NumPy draws: XLA compiles JAX's generator longer than all that is done with them."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from funcnn._numerics.program import Program, bind, callee, compile_programs, trace

_DRAW = "random_bits"


def numpy_generator(key: PRNGKeyArray) -> np.random.Generator:
    """Return NumPy's generator with a key as its seed."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())


def draw_by_numpy(function: Callable[[PRNGKeyArray], PyTree], key: PRNGKeyArray) -> PyTree:
    """Return ``function(key)``, compiled, with the random bits in it drawn by NumPy.

    The numbers have the distribution of JAX's, and are the same for the same key. In loops and branches the bits stay
    JAX's.
    """
    program = trace(function, key)
    if program is None:
        return function(key)
    random = numpy_generator(key)
    bits = [
        random.integers(0, np.iinfo(drawn.dtype).max, drawn.shape, drawn.dtype, endpoint=True)
        for drawn in _draws(program.jaxpr)
    ]
    return jax.tree.unflatten(program.structure, compile_programs(_with_bits, [program])(key, bits))


def _draws(jaxpr: Any) -> Iterator[Any]:
    """Return the shapes and dtypes of the draws, in the order in which they are evaluated."""
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if callee(equation) is not None:
            yield from _draws(callee(equation))
        elif equation.primitive.name == _DRAW:
            yield equation.outvars[0].aval


def _with_bits(program: Program) -> Callable:
    def values(constants, key, bits):
        left = list(bits)

        def rule(equation, arguments, place):
            if equation.primitive.name == _DRAW:
                return [left.pop(0)]
            return None if callee(equation) is not None else bind(equation, arguments)

        return program._replace(jaxpr=program.jaxpr.replace(consts=list(constants[0]))).outputs([key], rule)

    return values
