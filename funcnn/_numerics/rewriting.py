"""A program evaluated with other operations in the places of its own, under ``jit`` and differentiation too."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from funcnn._numerics.program import bind, callee, from_line_of, scan_counts


def rewrite(
    jaxpr: Any,
    inputs: Sequence,
    apply: Callable[[Any, list], Sequence] = bind,
    convert: Callable[[Any], Any] = lambda value: value,
) -> list:
    """Evaluate a jaxpr with every call opened, so that rules registered for differentiation are gone.

    Loops and branches stay loops and branches, with their bodies rewritten.

    Args:
        jaxpr: what to evaluate.
        inputs: its inputs.
        apply: ``(equation, inputs) -> outputs`` for an equation that calls nothing.
        convert: a change to every constant, input and output.
    """
    inner, constants = getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ())
    values = dict(zip([*inner.constvars, *inner.invars], map(convert, [*constants, *inputs]), strict=True))

    def read(atom):
        return convert(atom.val) if hasattr(atom, "val") else values[atom]

    def again(jaxpr, inputs):
        return rewrite(jaxpr, inputs, apply, convert)

    for equation in inner.eqns:
        arguments, name = [read(atom) for atom in equation.invars], equation.primitive.name
        if callee(equation) is not None:
            outputs = again(callee(equation), arguments)
        elif name in _CONTROL_FLOW:
            with from_line_of(equation):
                outputs = _CONTROL_FLOW[name](equation.params, arguments, again)
        else:
            outputs = apply(equation, arguments)
        values.update(zip(equation.outvars, map(convert, outputs), strict=True))
    return [read(atom) for atom in inner.outvars]


def _scan(parameters, arguments, evaluate):
    ends = np.cumsum(scan_counts(parameters))
    constants, carry, sequences = arguments[: ends[0]], arguments[ends[0] : ends[1]], arguments[ends[1] :]

    def body(carry, slices):
        outputs = evaluate(parameters["jaxpr"], [*constants, *carry, *slices])
        return outputs[: len(carry)], outputs[len(carry) :]

    options = {option: parameters[option] for option in ("length", "reverse", "unroll")}
    carry, stacked = jax.lax.scan(body, list(carry), list(sequences), **options)
    return [*carry, *stacked]


def _while(parameters, arguments, evaluate):
    ends = np.cumsum([parameters["cond_nconsts"], parameters["body_nconsts"]])
    for_condition, for_body, carry = arguments[: ends[0]], arguments[ends[0] : ends[1]], arguments[ends[1] :]
    return jax.lax.while_loop(
        lambda carry: evaluate(parameters["cond_jaxpr"], [*for_condition, *carry])[0],
        lambda carry: evaluate(parameters["body_jaxpr"], [*for_body, *carry]),
        list(carry),
    )


def _cond(parameters, arguments, evaluate):
    branches = [lambda *operands, branch=branch: evaluate(branch, operands) for branch in parameters["branches"]]
    return jax.lax.switch(arguments[0], branches, *arguments[1:])


_CONTROL_FLOW = {"scan": _scan, "while": _while, "cond": _cond}
