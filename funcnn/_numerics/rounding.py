"""How much of a gradient is rounding: its program run twice, once with every result moved by one spacing.

Monte Carlo arithmetic: an operation that rounds could as well have returned a neighbouring number. Where the gradient
moves with that choice, its digits are rounding and no finding; a bias in front of batch normalization has a gradient
of nothing else, and a gradient that has merely vanished keeps its digits.

Source:
    Parker, "Monte Carlo arithmetic", 1997.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from funcnn._numerics.program import (
    Program,
    bind,
    called_jaxprs,
    compile_programs,
    equations,
    evaluate_jaxpr,
    is_cheaper_compiled,
    is_inlined,
    primitive_names,
)

# What moves or chooses numbers without rounding them.
_EXACT = {
    *("abs", "clamp", "max", "min", "neg", "reduce_max", "reduce_min", "select_n", "sign", "sort", "stop_gradient"),
    *("broadcast_in_dim", "concatenate", "copy", "copy_p", "device_put", "dynamic_slice", "dynamic_update_slice"),
    *("expand_dims", "gather", "iota", "name", "pad", "reshape", "rev", "scatter", "slice", "squeeze", "transpose"),
    *("floor", "ceil", "round", "is_finite", "random_bits", "random_wrap", "random_unwrap", "bitcast_convert_type"),
}
_SIGNS = np.random.default_rng(0).choice([-1.0, 1.0], size=1009)


def rounding_noise(programs: Sequence[Program], params: PyTree) -> list[list[float]]:
    """Return for each program, for each leaf of its value, how far an entry moves when every rounding falls otherwise.

    Decisions (comparisons, the larger of two) stay those of the exact run, so that a tie isn't broken by the noise.
    """
    leaves = jax.tree.leaves(params)
    has_branches = any(primitive_names(program.jaxpr) & {"cond", "scan"} for program in programs)
    if has_branches or not is_cheaper_compiled(programs, operations=3):
        runs = [_run_twice(program.jaxpr, leaves) for program in programs]
    else:
        runs = compile_programs(_both_runs, programs)(leaves)
    return [[_distance(*_as_pair(pair)) for pair in run] for run in runs]


def _both_runs(*programs: Program):
    def runs(constants, leaves):
        return [
            _run_twice(program.jaxpr.replace(consts=list(each)), leaves)
            for program, each in zip(programs, constants, strict=True)
        ]

    return runs


def _run_twice(jaxpr, leaves):
    return evaluate_jaxpr(jaxpr, [(leaf, leaf) for leaf in leaves], _run_beside, (), lambda value: value)


def _run_beside(equation, arguments, place):
    if is_inlined(equation):
        return None
    pairs = [_as_pair(argument) for argument in arguments]
    exact = bind(equation, [pair[0] for pair in pairs])
    if not any(jnp.issubdtype(out.dtype, jnp.inexact) for out in exact):
        return [(out, out) for out in exact]
    name = equation.primitive.name
    if name in ("max", "min"):
        (first, moved_first), (_, moved_second) = pairs
        return [(exact[0], jnp.where(first == exact[0], moved_first, moved_second))]
    moved = bind(equation, [pair[1] for pair in pairs])
    if _rounding_dtypes(equation):
        moved = [_moved(out, sum(place)) for out in moved]
    return list(zip(exact, moved, strict=True))


def _moved(array, number):
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        return array
    signs = np.resize(np.roll(_SIGNS, 31 * number), array.shape)
    return array * jnp.asarray(1 + float(jnp.finfo(array.dtype).eps) * signs, array.dtype)


def _as_pair(value):
    return value if isinstance(value, tuple) else (value, value)


def _distance(exact, moved):
    gap = np.abs(np.asarray(moved).astype(np.complex128) - np.asarray(exact).astype(np.complex128))
    return float(np.max(gap, initial=0.0, where=np.isfinite(gap)))


def rounding_dtypes(jaxpr: Any) -> set[np.dtype]:
    """The floating dtypes in which a program rounds: those of its arithmetic, and of casts from wider numbers."""
    return {dtype for equation in equations(jaxpr) for dtype in _rounding_dtypes(equation)}


def _rounding_dtypes(equation) -> set[np.dtype]:
    """The floating dtypes to which one equation rounds."""
    after = {out.aval.dtype for out in equation.outvars if hasattr(out.aval, "dtype")}
    name = equation.primitive.name
    if name == "convert_element_type":
        before = equation.invars[0].aval.dtype
        return {dtype for dtype in after if _is_narrower(dtype, before)}
    if name in _EXACT or called_jaxprs(equation):
        return set()
    return {dtype for dtype in after if jnp.issubdtype(dtype, jnp.inexact)}


def coarser_dtypes(program: Program, spacing: float) -> list[np.dtype]:
    """The dtypes with a larger ε than ``spacing`` to which a program rounds, the coarsest first."""
    coarser = {dtype for dtype in rounding_dtypes(program.jaxpr) if jnp.finfo(dtype).eps > spacing}
    return sorted(coarser, key=lambda dtype: -float(jnp.finfo(dtype).eps))


def _is_narrower(dtype, before):
    inexact = jnp.issubdtype(before, jnp.inexact) and jnp.issubdtype(dtype, jnp.inexact)
    return inexact and dtype.itemsize < before.itemsize
