"""The evaluation of a program operation by operation, which follows every NaN and infinity to where it is from."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnn._numerics.program import Program, bind, callee, scan_counts, traced
from funcnn.gradcheck.engine.pullbacks import Arguments
from funcnn.gradcheck.explanation.location import Location, call_stack, location
from funcnn.nonfinite_reasons import SINGULAR

_MAX_STEPS = 10_000
_NOWHERE = Location("", 0, "")
_JAX = str(Path(jax.__file__).parent)


class Event(NamedTuple):
    """The operation that gave the first NaN or infinity of its kind; ``before`` is where its infinite operand is from.

    ``equation`` is ``None`` if an argument or a constant of the function isn't finite itself. ``place`` is the
    equation's line.
    """

    equation: Any
    operands: tuple[Any, ...]
    output: Any
    before: "Event | None" = None
    place: Location = _NOWHERE
    is_constant: bool = False


class EvaluationContext(NamedTuple):
    """What the evaluation of a jaxpr needs beside its inputs.

    Fields:
        visited: operations whose derivative may not be finite, with their operands and their lines, in order.
        call: the line of the call that the jaxpr is the body of.
        is_library: whether the body is JAX's own code, so that its line is that of the call.
    """

    visited: list[tuple[Any, tuple[Any, ...], Location]]
    call: Location = _NOWHERE
    is_library: bool = False

    def place(self, equation: Any) -> Location:
        """Return the line of the caller's code that an equation comes from.

        JAX keeps no line of the caller's for what it compiled in an earlier call.
        """
        calls = call_stack(equation)
        is_ours = bool(calls) and calls[0][0] == __file__  # the function that was passed is the library's
        own = _NOWHERE if self.is_library or is_ours else location(equation)
        return own if own.file else self.call

    def within(self, equation: Any) -> "EvaluationContext":
        """Return the same for the body of a call, a branch or a loop."""
        body = callee(equation)
        information = getattr(getattr(body, "jaxpr", body), "debug_info", None)
        source = getattr(information, "func_src_info", None) or ""
        return self._replace(call=self.place(equation), is_library=self.is_library or _JAX in source)


class Value(NamedTuple):
    """An array, and the events that its NaNs and its infinities come from."""

    array: Any
    nan: Event | None = None
    infinity: Event | None = None


def trace_function(function: Callable[..., Any], arguments: Arguments) -> Program:
    """Return the program of a function."""
    return traced(lambda floating: function(*arguments.filled(floating)), arguments.floating)


def trace_gradient(function: Callable[..., Any], arguments: Arguments) -> Program:
    """Return the program of the gradient of the sum of a function's floating outputs."""

    def floating_outputs(floating):
        outputs = jax.tree.leaves(function(*arguments.filled(floating)))
        return [output for output in outputs if is_inexact(output)]

    def gradient(floating):
        outputs, pullback = jax.vjp(floating_outputs, floating)
        return pullback([jnp.ones_like(output) for output in outputs])[0]

    return traced(gradient, arguments.floating)


def given_values(arguments: Arguments) -> list[Value]:
    """Return the floating arguments, each the source of its own NaNs and infinities."""
    return [_tag(leaf, None, ()) for leaf in jax.tree.leaves(arguments.floating)]


def is_inexact(array: Any) -> bool:
    # Releases of JAX before 0.7 keep a literal as a Python number.
    dtype = getattr(array, "dtype", type(array) if isinstance(array, float | complex) else None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.inexact)


def evaluate(jaxpr: Any, inputs: Sequence[Value], context: EvaluationContext) -> list[Value]:
    """Evaluate a jaxpr with every call, branch and loop opened."""
    inner, constants = getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ())
    known = [_constant(value) for value in constants]
    values = dict(zip([*inner.constvars, *inner.invars], [*known, *inputs], strict=True))

    def read(atom):
        return _constant(atom.val) if hasattr(atom, "val") else values[atom]

    for equation in inner.eqns:
        outputs = _apply(equation, [read(atom) for atom in equation.invars], context)
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in inner.outvars]


def _constant(value: Any) -> Value:
    """Return a constant. Its infinities are meant, such as those of a mask."""
    tagged = _tag(value, None, ())
    return Value(tagged.array, tagged.nan and tagged.nan._replace(is_constant=True))


def _apply(equation: Any, arguments: list[Value], context: EvaluationContext) -> list[Value]:
    name = equation.primitive.name
    if callee(equation) is not None:
        return evaluate(callee(equation), arguments, context.within(equation))
    if name == "cond":
        branch = equation.params["branches"][int(arguments[0].array)]
        return evaluate(branch, arguments[1:], context.within(equation))
    if name == "scan":
        return _scan(equation.params, arguments, context.within(equation))
    if name == "while" and (outputs := _while(equation.params, arguments, context.within(equation))) is not None:
        return outputs
    place = context.place(equation)
    operands = tuple(argument.array for argument in arguments)
    if name in SINGULAR and not (name == "integer_pow" and equation.params["y"] > 0):
        context.visited.append((equation, operands, place))
    nan = next((argument.nan for argument in arguments if argument.nan is not None), None)
    infinity = next((argument.infinity for argument in arguments if argument.infinity is not None), None)
    has_infinity = infinity is not None or any(_has(np.isinf, operand) for operand in operands)
    results = bind(equation, operands)
    return [_tag(result, equation, operands, nan, infinity, has_infinity, place) for result in results]


def _tag(array, equation, operands, nan=None, infinity=None, has_infinity=False, place=_NOWHERE) -> Value:
    """Return an array with the events of its NaNs and infinities: those of its operands, or a new one."""
    if not is_inexact(array) or np.isfinite(as_numpy(array)).all():
        return Value(array)
    found_nan, found_infinity = None, None
    if _has(np.isnan, array):
        found_nan = nan or Event(equation, operands, array, infinity, place)
    if _has(np.isinf, array):
        found_infinity = infinity if has_infinity else Event(equation, operands, array, None, place)
    return Value(array, found_nan, found_infinity)


def _has(test: Callable[..., Any], array: Any) -> bool:
    """Whether an entry of an array passes a test of NumPy's."""
    return is_inexact(array) and bool(test(as_numpy(array)).any())


def as_numpy(array: Any) -> np.ndarray:
    """Return an array that NumPy computes with. NumPy has no narrow floating types of its own."""
    entries = np.asarray(array)
    is_narrow = jnp.issubdtype(entries.dtype, jnp.floating) and entries.dtype.itemsize < 4
    return entries.astype(np.float32) if is_narrow else entries


def _scan(parameters, arguments, context) -> list[Value]:
    ends = np.cumsum(scan_counts(parameters))
    constants, carry, sequences = arguments[: ends[0]], arguments[ends[0] : ends[1]], arguments[ends[1] :]
    number, stacks = len(carry), []
    for step in range(parameters["length"])[:: -1 if parameters["reverse"] else 1]:
        slices = [_part(value, value.array[step]) for value in sequences]
        outputs = evaluate(parameters["jaxpr"], [*constants, *carry, *slices], context)
        carry = outputs[:number]
        stacks.append(outputs[number:])
    ordered = stacks[::-1] if parameters["reverse"] else stacks
    return [*carry, *(_stack(parts) for parts in zip(*ordered, strict=True))]


def _part(whole: Value, array: Any) -> Value:
    """Return a part of an array, with the events of what is in it."""
    nan = whole.nan if _has(np.isnan, array) else None
    return Value(array, nan, whole.infinity if _has(np.isinf, array) else None)


def _stack(parts: Sequence[Value]) -> Value:
    nan = next((part.nan for part in parts if part.nan is not None), None)
    infinity = next((part.infinity for part in parts if part.infinity is not None), None)
    return Value(jnp.stack([part.array for part in parts]), nan, infinity)


def _while(parameters, arguments, context) -> list[Value] | None:
    """Run a loop in Python; ``None`` if it has more than ``_MAX_STEPS`` steps."""
    ends = np.cumsum([parameters["cond_nconsts"], parameters["body_nconsts"]])
    for_condition, for_body, carry = arguments[: ends[0]], arguments[ends[0] : ends[1]], arguments[ends[1] :]
    for _ in range(_MAX_STEPS):
        if not bool(evaluate(parameters["cond_jaxpr"], [*for_condition, *carry], context)[0].array):
            return carry
        carry = evaluate(parameters["body_jaxpr"], [*for_body, *carry], context)
    return None


def first_event(outputs: Sequence[Value]) -> tuple[Event | None, str]:
    """Return the event behind the first output that isn't finite, NaNs first, and the name of what is in it."""
    for output in outputs:
        if output.nan is not None:
            return output.nan, "NaN"
    for output in outputs:
        if output.infinity is not None:
            return output.infinity, "infinity"
    return None, ""
