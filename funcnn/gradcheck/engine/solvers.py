"""Losses that contain an iterative solver: its error is what changes when its loops run on."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from funcnn._numerics.arrays import max_abs
from funcnn._numerics.program import (
    Place,
    Program,
    bind,
    evaluate_calls,
    evaluate_jaxpr,
    evaluate_programs,
    is_inlined,
    primitive_names,
)
from funcnn.gradcheck.engine.comparison import Pair
from funcnn.gradcheck.engine.precision import Comparison, Programs

MORE_ITERATIONS = 400
"""By how much a loop is made longer."""

_LARGEST_ERROR = 0.1  # of the loss, beyond which a loop that runs on computes something else
_CONVERGED = 1e-3  # of the first change


def with_longer_loops(comparison: Comparison) -> Comparison | None:
    """Return the comparison of the same programs with every ``while_loop`` ``MORE_ITERATIONS`` iterations longer.

    A solver stops at a tolerance. By the implicit function theorem a rule has the gradient of the solution, and a
    measured slope is that of the last iterate: they differ by the error of the solver, which longer loops take away.

    Returns:
        ``None`` where that says nothing: without a loop or a program of both functions, and where the loss doesn't
        converge, as in a loop that counts.
    """
    programs, leaves = comparison.programs, jax.tree.leaves(comparison.gradients.params)
    if programs.loss is None or programs.by_hand is None or "while" not in primitive_names(programs.loss.jaxpr):
        return None
    try:
        longer = [_lengthened(program, leaves, MORE_ITERATIONS) for program in programs.known()]
        again = _lengthened(programs.loss, leaves, 2 * MORE_ITERATIONS)
        (start,), (end,), (later,) = evaluate_programs([programs.loss, longer[0], again], leaves)
        known = dict(zip([number for number, each in enumerate(programs) if each is not None], longer, strict=True))
        changed = Programs(*(known.get(number) for number in range(3)))
        by_hand, *autodiff = evaluate_programs(longer[1:][::-1], leaves)
    except Exception:  # a branch on a value, or an operation that runs only where it was traced
        return None
    error, rest = abs(end - start), abs(later - end)
    rounding = 64 * comparison.spacing * abs(end)
    if not rounding < error <= _LARGEST_ERROR * abs(end) or not rest <= max(_CONVERGED * error, rounding):
        return None
    comparison.gradients.calls["gradient"] += len(longer) - 1
    comparison.gradients.calls["loss"] += 3
    gradients = comparison.gradients._replace(
        value=end, by_hand=jax.tree.unflatten(programs.by_hand.structure, by_hand)
    )
    by_autodiff = comparison.by_autodiff
    if autodiff and programs.autodiff is not None:
        by_autodiff = jax.tree.unflatten(programs.autodiff.structure, autodiff[0])[1]
    return comparison._replace(gradients=gradients, programs=changed, by_autodiff=by_autodiff, traced=None)


def describe_solver_error(before: Sequence[Pair], after: Sequence[Pair]) -> str:
    """Return by how much the solver moves a gradient, in the leaf where that is most.

    Args:
        before, after: the gradients with the loops as they are, and longer.
    """

    def share(pairs):
        early, late = pairs
        gap = max(max_abs(early.reference - late.reference), max_abs(early.by_hand - late.by_hand))
        return gap / max(max_abs(late.by_hand), tree)

    tree = max(max_abs(pair.by_hand) for pair in after)
    early, late = max(zip(before, after, strict=True), key=share)
    where = late.path or "the root"
    return f"the solver in the loss stops early, which moves {where} by {share((early, late)):.1e} of the largest entry"


def _lengthened(program: Program, leaves: Sequence, iterations: int) -> Program:
    rule = functools.partial(_longer, iterations)
    return Program(jax.make_jaxpr(lambda *given: program.outputs(given, rule))(*leaves), program.structure)


def _longer(iterations: int, equation: Any, arguments: list, place: Place) -> Sequence | None:
    """The rule that makes loops longer, in what an equation calls as well."""
    name = equation.primitive.name
    if name == "while":
        return _run_on(equation, arguments, iterations)
    if name not in ("cond", "custom_linear_solve") and (name != "scan" or is_inlined(equation)):
        return None

    def change(part):
        if not hasattr(part, "eqns") or "while" not in primitive_names(part):
            return part
        given = [jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type) for aval in part.in_avals]
        rule = functools.partial(_longer, iterations)
        return jax.make_jaxpr(lambda *given: evaluate_jaxpr(part, given, rule, place, lambda value: value))(*given)

    changed = jax.tree.map(change, dict(equation.params), is_leaf=lambda leaf: hasattr(leaf, "eqns"))
    return bind(equation.replace(params=changed), arguments)


def _run_on(equation: Any, arguments: Sequence, iterations: int) -> list:
    """Return a loop's outputs after more iterations; the last finite ones, for at the solution a step may be 0/0."""
    conditions, body = equation.params["cond_nconsts"], equation.params["body_jaxpr"]
    constants = arguments[conditions : conditions + equation.params["body_nconsts"]]

    def iteration(_, carry):
        new = evaluate_calls(body, body.consts, [*constants, *carry])
        floats = [value for value in new if jnp.issubdtype(value.dtype, jnp.inexact)]
        is_finite = jnp.array([jnp.isfinite(value).all() for value in floats]).all()
        return [jnp.where(is_finite, value, old) for value, old in zip(new, carry, strict=True)]

    return list(lax.fori_loop(0, iterations, iteration, list(bind(equation, arguments))))
