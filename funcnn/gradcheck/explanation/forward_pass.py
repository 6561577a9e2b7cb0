"""The forward pass of a program at a point, onto a tape: operation by operation, or compiled as one program."""

import contextlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr
from jaxtyping import PyTree

from funcnn._checks import is_concrete
from funcnn._numerics.program import (
    Program,
    bind,
    callee,
    compile_programs,
    is_cheaper_compiled,
    is_inlined,
    scan_counts,
)
from funcnn.gradcheck.explanation.location import is_inside
from funcnn.gradcheck.explanation.tape import MAX_NUMBERS, Tape, as_value


def record(program: Program, params: PyTree, *, ignores_stops: bool = False) -> Tape | None:
    """Return the tape of a loss, or ``None`` if it is too large or has a step that can't be run alone.

    Args:
        program: the loss.
        params: the point.
        ignores_stops: let the gradient through ``stop_gradient``.
    """
    try:
        tape, (result,) = _run(program, jax.tree.leaves(params), ignores_stops)
        tape.result = result
        tape.cotangents = tape.backward({tape.result: np.ones_like(tape.values[tape.result])})
        tape.right_gradient = tape.wrong_gradient({})
    except Exception:  # an operation that runs only inside a compiled program, or on another device
        return None
    return tape


def record_values(program: Program, params: PyTree) -> Tape | None:
    """Return the tape of a program of which only the values are wanted, likewise."""
    try:
        return _run(program, jax.tree.leaves(params), False)[0]
    except Exception:  # likewise
        return None


def _run(program: Program, leaves: Sequence[Any], ignores_stops: bool) -> tuple[Tape, list[int]]:
    """Return the tape with its values, and the numbers of the program's outputs."""
    constants = list(program.jaxpr.consts)
    traced: list[tuple[Tape, list[int]]] = []

    def all_values(constants, leaves):
        traced.append(_record(program, constants, leaves, ignores_stops))
        return traced[0][0].values

    if is_cheaper_compiled([program]):
        with contextlib.suppress(jax.errors.JAXTypeError):  # a branch on a value
            unrolled = jax.make_jaxpr(all_values)(constants, list(leaves))
            if is_cheaper_compiled([Program(unrolled, None)]):
                values = compile_programs(_values, [program])(list(leaves))
                [(tape, outputs)] = traced
                tape.values = [as_value(value) for value in values]
                return tape, outputs
    return _record(program, constants, leaves, ignores_stops)


def _values(program: Program):
    """Return the function of constants and leaves to every value of the program."""
    return lambda constants, leaves: _record(program, constants[0], leaves, False)[0].values


def _record(program, constants, leaves, ignores_stops) -> tuple[Tape, list[int]]:
    tape = Tape(leaves, ignores_stops=ignores_stops)
    return tape, _record_jaxpr(tape, ClosedJaxpr(program.jaxpr.jaxpr, constants), tape.params)


def _record_jaxpr(tape: Tape, jaxpr: Any, inputs: Sequence[int], caller: Any = None) -> list[int]:
    inner, constants = getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ())
    numbers = dict(zip(inner.invars, inputs, strict=True))
    numbers |= {variable: tape.constant(value) for variable, value in zip(inner.constvars, constants, strict=True)}

    def read(atom):
        return tape.constant(atom.val) if hasattr(atom, "val") else numbers[atom]

    for equation in inner.eqns:
        name = str(caller.params.get("name")) if caller is not None else ""
        origin = equation if caller is None or is_inside(equation, name) else caller
        outputs = _record_equation(tape, equation, origin, [read(atom) for atom in equation.invars])
        numbers.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in inner.outvars]


def _record_equation(tape, equation, origin, inputs) -> Sequence[int]:
    name = equation.primitive.name
    if name == "cond":
        index = int(tape.values[inputs[0]])
        return _record_jaxpr(tape, equation.params["branches"][index], inputs[1:], _caller(equation, origin))
    if name == "scan" and is_inlined(equation):
        return _record_scan(tape, equation, origin, inputs)
    called = None if name.startswith("custom_") else callee(equation)
    if called is not None:
        return _record_jaxpr(tape, called, inputs, origin)
    outputs = [jnp.asarray(out) if isinstance(out, np.ndarray) else out for out in _outputs(tape, equation, inputs)]
    if sum(np.size(value) for value in tape.values) > MAX_NUMBERS:
        raise ValueError("the program has too many numbers")
    return tape.add_step(name, equation.params, equation, origin, inputs, outputs)


def _caller(equation, origin):
    """Return the call inside which the lines of code of a body are read: none for a branch or a loop of the user's."""
    return None if origin is equation else origin


def _outputs(tape, equation, inputs):
    known = tape.known_outputs(equation.primitive.name, equation.params, inputs)
    if known is not None:
        return known
    outputs = bind(equation, [tape.values[number] for number in inputs])
    # In a compiled program no operation is to be fused with another: each has the values that it has alone.
    return outputs if is_concrete(*outputs) else lax.optimization_barrier(outputs)


def _record_scan(tape, equation, origin, inputs) -> Sequence[int]:
    body, length = equation.params["jaxpr"], equation.params["length"]
    constants, carries = scan_counts(equation.params)
    carry, sequences = list(inputs[constants : constants + carries]), inputs[constants + carries :]
    stacks = []
    for index in range(length)[:: -1 if equation.params["reverse"] else 1]:
        slices = [
            tape.add_step("scan_slice", {"index": index}, None, origin, [number], [tape.values[number][index]])[0]
            for number in sequences
        ]
        outputs = _record_jaxpr(tape, body, [*inputs[:constants], *carry, *slices], _caller(equation, origin))
        carry = outputs[:carries]
        stacks.append(outputs[carries:])
    ordered = stacks[::-1] if equation.params["reverse"] else stacks
    stacked = [
        tape.add_step("scan_stack", {}, None, origin, column, [_stacked([tape.values[number] for number in column])])[0]
        for column in zip(*ordered, strict=True)
    ]
    return [*carry, *stacked]


def _stacked(values):
    return np.stack(values) if is_concrete(*values) else jnp.stack(values)
