"""The operation that gives a NaN or an infinity, in a function or in its gradient, and the line that it comes from."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnn._checks import check_callable
from funcnn._numerics.program import Program, bind, callee, equations, scan_counts, trace
from funcnn._reports.text import wrap
from funcnn.gradcheck.engine.pullbacks import Arguments, select_arguments
from funcnn.gradcheck.explanation.location import Location, call_stack, location
from funcnn.nonfinite_reasons import SINGULAR, Reason, cure_by_choice, reason_of

_MAX_STEPS = 10_000
_WIDTH = 96
_NOWHERE = Location("", 0, "")
_JAX = str(Path(jax.__file__).parent)


class Operand(NamedTuple):
    """An input of the operation: its shape, its dtype, and its value at the place of the NaN or the infinity.

    ``value`` is the entry there if the shapes are the same, and the range of the entries in words otherwise.
    """

    shape: tuple[int, ...]
    dtype: str
    value: float | str


class NonfiniteReport(NamedTuple):
    """Where the first NaN or infinity comes from. ``print(report)`` shows it.

    Fields:
        ok: whether the outputs and the gradients are finite.
        direction: ``"forward"`` if the function itself gives it, ``"backward"`` if only its gradient does.
        value: ``"NaN"`` or ``"infinity"``: what is in the output or in the gradient.
        primitive: the operation of JAX; for a gradient, the operation whose derivative isn't finite.
        file, line, text: the line of the caller's code; empty if it isn't known.
        place: the entry of the operation's output.
        operands: the operation's inputs.
        reason: what happens there, such as ``"log of 0"``.
        steps: the operations that turned it into what is in the output, in order, with their lines.
        cure: what to change.
    """

    ok: bool
    direction: Literal["", "forward", "backward"] = ""
    value: str = ""
    primitive: str = ""
    file: str = ""
    line: int = 0
    text: str = ""
    place: tuple[int, ...] = ()
    operands: tuple[Operand, ...] = ()
    reason: str = ""
    steps: tuple[str, ...] = ()
    cure: str = ""

    def __str__(self) -> str:
        if self.ok:
            return "The outputs and the gradients are finite."
        what = "the output" if self.direction == "forward" else "the gradient"
        where = f"{self.file}:{self.line}: {self.text}".rstrip(": ") if self.file else "a line that JAX did not record"
        at = f" at {list(self.place)}" if self.place else ""
        values = ", ".join(_describe(operand) for operand in self.operands)
        lines = [
            f"{self.value} in {what}: {self.reason}",
            f"{self.primitive}{at} of {values}" if values else self.primitive,
            where,
            *(f"then {step}" for step in self.steps),
            f"cure: {self.cure}" if self.cure else "",
        ]
        return "\n".join(wrap(line, _WIDTH) for line in lines if line)


class _Event(NamedTuple):
    """The operation that gave the first NaN or infinity of its kind; ``before`` is where its infinite operand is from.

    ``equation`` is ``None`` if an argument of the function isn't finite itself. ``place`` is the equation's line.
    """

    equation: Any
    operands: tuple[Any, ...]
    output: Any
    before: "_Event | None" = None
    place: Location = _NOWHERE


class _Run(NamedTuple):
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

    def within(self, equation: Any) -> "_Run":
        """Return the same for the body of a call, a branch or a loop."""
        body = callee(equation)
        information = getattr(getattr(body, "jaxpr", body), "debug_info", None)
        source = getattr(information, "func_src_info", None) or ""
        return self._replace(call=self.place(equation), is_library=self.is_library or _JAX in source)


class _Value(NamedTuple):
    """An array, and the events that its NaNs and its infinities come from."""

    array: Any
    nan: _Event | None = None
    infinity: _Event | None = None


def find_nonfinite(function: Callable[..., Any], *args: Any) -> NonfiniteReport:
    """Return which operation makes an output or a gradient of a function non-finite, and the line it stands on.

    The function is evaluated operation by operation, in the dtypes of its arguments. If its outputs are finite, so is
    its gradient by autodiff: that of the sum of the outputs by all floating arguments. A NaN or an infinity in the
    result is followed to the operation that gave it first. Values that are dropped on the way, such as the −inf of a
    mask, are not reported. For a gradient written by hand, pass the function that computes it.

    Args:
        function: ``(*args) -> output``, an array or a tree of arrays; it must be traceable by JAX.
        args: trees of arrays.

    Returns:
        The operation, its line, the values of its operands, and the usual cure.

    Raises:
        TypeError: JAX can't trace the function.

    Example:
        >>> import jax.numpy as jnp
        >>> def root(x):
        ...     return jnp.where(x > 0, jnp.sqrt(x), 0.0)
        >>> report = find_nonfinite(root, jnp.array([4.0, 0.0]))
        >>> report.direction, report.primitive, report.place
        ('backward', 'sqrt', (1,))
        >>> "double where" in report.cure
        True
    """
    check_callable("find_nonfinite(function)", function, "Pass (*args) -> output.")
    arguments = select_arguments(args)
    forward = _traced(lambda floating: function(*arguments.filled(floating)), arguments)
    run = _Run([])
    with jax.debug_nans(False), jax.debug_infs(False):
        outputs = _evaluate(forward.jaxpr, _given(arguments), run)
        event, value = _first_event(outputs)
        if event is not None:
            return _report("forward", value, event, forward, [])
        cotangents = [jnp.ones_like(output.array) for output in outputs if _is_inexact(output.array)]
        if not cotangents or not jax.tree.leaves(arguments.floating):
            return NonfiniteReport(True)
        backward = _traced(lambda floating: _gradient(function, arguments, floating), arguments)
        event, value = _first_event(_evaluate(backward.jaxpr, _given(arguments), _Run([])))
        if event is None:
            return NonfiniteReport(True)
        return _report("backward", value, event, forward, run.visited)


def _traced(function: Callable[..., Any], arguments: Arguments) -> Program:
    program = trace(function, arguments.floating)
    if program is None:
        jax.make_jaxpr(function)(arguments.floating)  # raises the caller's own error
        raise TypeError("find_nonfinite(function): expected a function that JAX can trace, got one that it can't.")
    return program


def _gradient(function, arguments, floating):
    """Return the gradient of the sum of the floating outputs."""

    def floating_outputs(floating):
        outputs = jax.tree.leaves(function(*arguments.filled(floating)))
        return [output for output in outputs if _is_inexact(output)]

    outputs, pullback = jax.vjp(floating_outputs, floating)
    return pullback([jnp.ones_like(output) for output in outputs])[0]


def _given(arguments: Arguments) -> list[_Value]:
    return [_tag(leaf, None, ()) for leaf in jax.tree.leaves(arguments.floating)]


def _is_inexact(array: Any) -> bool:
    dtype = getattr(array, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.inexact)


def _evaluate(jaxpr: Any, inputs: Sequence[_Value], run: _Run) -> list[_Value]:
    """Evaluate a jaxpr with every call, branch and loop opened."""
    inner, constants = getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ())
    known = [_constant(value) for value in constants]
    values = dict(zip([*inner.constvars, *inner.invars], [*known, *inputs], strict=True))

    def read(atom):
        return _constant(atom.val) if hasattr(atom, "val") else values[atom]

    for equation in inner.eqns:
        outputs = _apply(equation, [read(atom) for atom in equation.invars], run)
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in inner.outvars]


def _constant(value: Any) -> _Value:
    """Return a constant. Its infinities are meant, such as those of a mask."""
    tagged = _tag(value, None, ())
    return tagged._replace(infinity=None)


def _apply(equation: Any, arguments: list[_Value], run: _Run) -> list[_Value]:
    name = equation.primitive.name
    if callee(equation) is not None:
        return _evaluate(callee(equation), arguments, run.within(equation))
    if name == "cond":
        branch = equation.params["branches"][int(arguments[0].array)]
        return _evaluate(branch, arguments[1:], run.within(equation))
    if name == "scan":
        return _scan(equation.params, arguments, run.within(equation))
    if name == "while" and (outputs := _while(equation.params, arguments, run.within(equation))) is not None:
        return outputs
    place = run.place(equation)
    operands = tuple(argument.array for argument in arguments)
    if name in SINGULAR and not (name == "integer_pow" and equation.params["y"] > 0):
        run.visited.append((equation, operands, place))
    nan = next((argument.nan for argument in arguments if argument.nan is not None), None)
    infinity = next((argument.infinity for argument in arguments if argument.infinity is not None), None)
    has_infinity = infinity is not None or any(_has(np.isinf, operand) for operand in operands)
    results = bind(equation, operands)
    return [_tag(result, equation, operands, nan, infinity, has_infinity, place) for result in results]


def _tag(array, equation, operands, nan=None, infinity=None, has_infinity=False, place=_NOWHERE) -> _Value:
    """Return an array with the events of its NaNs and infinities: those of its operands, or a new one."""
    if not _is_inexact(array) or np.isfinite(_as_numpy(array)).all():
        return _Value(array)
    found_nan, found_infinity = None, None
    if _has(np.isnan, array):
        found_nan = nan or _Event(equation, operands, array, infinity, place)
    if _has(np.isinf, array):
        found_infinity = infinity if has_infinity else _Event(equation, operands, array, None, place)
    return _Value(array, found_nan, found_infinity)


def _has(test: Callable[..., Any], array: Any) -> bool:
    """Whether an entry of an array passes a test of NumPy's."""
    return _is_inexact(array) and bool(test(_as_numpy(array)).any())


def _as_numpy(array: Any) -> np.ndarray:
    """Return an array that NumPy computes with, for it has no narrow floating types of its own."""
    entries = np.asarray(array)
    is_narrow = jnp.issubdtype(entries.dtype, jnp.floating) and entries.dtype.itemsize < 4
    return entries.astype(np.float32) if is_narrow else entries


def _scan(parameters, arguments, run) -> list[_Value]:
    ends = np.cumsum(scan_counts(parameters))
    constants, carry, sequences = arguments[: ends[0]], arguments[ends[0] : ends[1]], arguments[ends[1] :]
    number, stacks = len(carry), []
    for step in range(parameters["length"])[:: -1 if parameters["reverse"] else 1]:
        slices = [_part(value, value.array[step]) for value in sequences]
        outputs = _evaluate(parameters["jaxpr"], [*constants, *carry, *slices], run)
        carry = outputs[:number]
        stacks.append(outputs[number:])
    ordered = stacks[::-1] if parameters["reverse"] else stacks
    return [*carry, *(_stack(parts) for parts in zip(*ordered, strict=True))]


def _part(whole: _Value, array: Any) -> _Value:
    """Return a part of an array, with the events of what is in it."""
    nan = whole.nan if _has(np.isnan, array) else None
    return _Value(array, nan, whole.infinity if _has(np.isinf, array) else None)


def _stack(parts: Sequence[_Value]) -> _Value:
    nan = next((part.nan for part in parts if part.nan is not None), None)
    infinity = next((part.infinity for part in parts if part.infinity is not None), None)
    return _Value(jnp.stack([part.array for part in parts]), nan, infinity)


def _while(parameters, arguments, run) -> list[_Value] | None:
    """Run a loop in Python; ``None`` if it has more than ``_MAX_STEPS`` steps."""
    ends = np.cumsum([parameters["cond_nconsts"], parameters["body_nconsts"]])
    for_condition, for_body, carry = arguments[: ends[0]], arguments[ends[0] : ends[1]], arguments[ends[1] :]
    for _ in range(_MAX_STEPS):
        if not bool(_evaluate(parameters["cond_jaxpr"], [*for_condition, *carry], run)[0].array):
            return carry
        carry = _evaluate(parameters["body_jaxpr"], [*for_body, *carry], run)
    return None


def _first_event(outputs: Sequence[_Value]) -> tuple[_Event | None, str]:
    """Return the event behind the first output that isn't finite, NaNs first, and the name of what is in it."""
    for output in outputs:
        if output.nan is not None:
            return output.nan, "NaN"
    for output in outputs:
        if output.infinity is not None:
            return output.infinity, "infinity"
    return None, ""


def _report(direction, value, event: _Event, forward: Program, visited) -> NonfiniteReport:
    steps: list[str] = []
    while event.before is not None:
        steps.insert(0, _step(event))
        event = event.before
    if event.equation is None:
        return NonfiniteReport(
            False, direction, value, "an argument", reason="an argument of the function is not finite itself",
            place=_index(event.output), steps=tuple(steps), cure="Check the data before the call.",
        )  # fmt: skip
    source = _forward_operation(event, visited) if direction == "backward" else None
    place = event.place
    if source is not None:
        equation, operands = source
        index = _singular_index(equation.primitive.name, operands) or ()
        reason = SINGULAR[equation.primitive.name].in_gradient(operands, index)
    else:
        equation, operands, index = event.equation, event.operands, _index(event.output)
        reason = reason_of(equation.primitive.name, [_entry(operand, index) for operand in operands], value)
    if direction == "backward" and _is_chosen_from(forward, equation):
        reason = Reason(reason.text, cure_by_choice(equation.primitive.name))
    return NonfiniteReport(
        False, direction, value, equation.primitive.name, place.file, place.line, place.text, index,
        tuple(_operand(operand, index) for operand in operands), reason.text, tuple(steps), reason.cure,
    )  # fmt: skip


def _step(event: _Event) -> str:
    index, place = _index(event.output), event.place
    entries = [_entry(operand, index) for operand in event.operands]
    values = ", ".join(f"{entry:.4g}" for entry in entries if entry is not None)
    where = " (" + f"{place.file}:{place.line}: {place.text}".rstrip(": ") + ")" if place.file else ""
    return f"{event.equation.primitive.name} of {values or 'them'} gives NaN{where}"


def _forward_operation(event: _Event, visited) -> tuple[Any, tuple[Any, ...]] | None:
    """Return the operation of the function on the event's line whose derivative isn't finite."""
    for equation, operands, place in visited:
        is_here = bool(place.file) and place == event.place
        if is_here and _singular_index(equation.primitive.name, operands) is not None:
            return equation, operands
    return None


def _singular_index(name: str, operands: Sequence[Any]) -> tuple[int, ...] | None:
    is_singular = np.asarray(SINGULAR[name].test(*map(_as_numpy, operands)))
    return tuple(map(int, np.argwhere(is_singular)[0])) if is_singular.any() else None


def _is_chosen_from(program: Program, equation: Any) -> bool:
    """Whether an operation stands in a function that chooses between values, as ``jnp.where`` does."""
    found = list(equations(program.jaxpr))
    start = next((number for number, other in enumerate(found) if other is equation), 0)
    return any(other.primitive.name == "select_n" and len(other.invars) == 3 for other in found[start:])


def _index(array: Any) -> tuple[int, ...]:
    """Return the place of the first NaN, or of the first infinity if there is no NaN."""
    entries = _as_numpy(array)
    wrong = np.isnan(entries) if np.isnan(entries).any() else np.isinf(entries)
    return tuple(map(int, np.argwhere(wrong)[0])) if wrong.any() else ()


def _entry(operand: Any, index: tuple[int, ...] | None) -> float | None:
    """Return an operand's entry at a place of the output, ``None`` if their shapes differ."""
    entries = _as_numpy(operand)
    if not np.issubdtype(entries.dtype, np.number):
        return None
    if entries.ndim == 0:
        return float(np.real(entries))
    is_within = index is not None and len(index) == entries.ndim and np.all(np.less(index, entries.shape))
    return float(np.real(entries[index])) if is_within else None


def _operand(operand: Any, index: tuple[int, ...] | None) -> Operand:
    entries, entry = _as_numpy(operand), _entry(operand, index)
    value: float | str = "" if entry is None else entry
    if entry is None and np.issubdtype(entries.dtype, np.number) and entries.size:
        value = f"from {np.real(entries).min():.4g} to {np.real(entries).max():.4g}"
    return Operand(tuple(entries.shape), str(jnp.result_type(operand)), value)


def _describe(operand: Operand) -> str:
    kind = f"{operand.dtype}{list(operand.shape)}"
    if isinstance(operand.value, str):
        return f"{kind} {operand.value}".strip()
    number = "-0" if operand.value == 0 and math.copysign(1, operand.value) < 0 else f"{operand.value:.6g}"
    return number if not operand.shape else f"{number} in {kind}"
