"""The operation that gives a NaN or an infinity, in a function or in its gradient, and the line that it comes from."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnn._checks import check_callable
from funcnn._numerics.program import Program, equations
from funcnn._reports.text import wrap
from funcnn._untraceable import errors_of_tracing
from funcnn.gradcheck.engine.pullbacks import select_arguments
from funcnn.nonfinite_evaluation import (
    EvaluationContext,
    Event,
    as_numpy,
    evaluate,
    first_event,
    given_values,
    is_inexact,
    trace_function,
    trace_gradient,
)
from funcnn.nonfinite_reasons import SINGULAR, Reason, reason_of, remedy_by_choice

_WIDTH = 96


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
        remedy: what to change.
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
    remedy: str = ""

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
            f"remedy: {self.remedy}" if self.remedy else "",
        ]
        return "\n".join(wrap(line, _WIDTH) for line in lines if line)


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
        The operation, its line, the values of its operands, and the usual remedy.

    Raises:
        TypeError: JAX can't trace the function.

    Example:
        >>> import jax.numpy as jnp
        >>> def root(x):
        ...     return jnp.where(x > 0, jnp.sqrt(x), 0.0)
        >>> report = find_nonfinite(root, jnp.array([4.0, 0.0]))
        >>> report.direction, report.primitive, report.place
        ('backward', 'sqrt', (1,))
        >>> "double where" in report.remedy
        True
    """
    check_callable("find_nonfinite(function)", function, "Pass (*args) -> output.")
    arguments = select_arguments(args)
    context = EvaluationContext([])
    with errors_of_tracing("find_nonfinite"), jax.debug_nans(False), jax.debug_infs(False):
        forward = trace_function(function, arguments)
        outputs = evaluate(forward.jaxpr, given_values(arguments), context)
        event, value = first_event(outputs)
        if event is not None:
            return _report("forward", value, event, forward, [])
        if not any(is_inexact(output.array) for output in outputs) or not jax.tree.leaves(arguments.floating):
            return NonfiniteReport(True)
        backward = trace_gradient(function, arguments)
        event, value = first_event(evaluate(backward.jaxpr, given_values(arguments), EvaluationContext([])))
        if event is None:
            return NonfiniteReport(True)
        return _report("backward", value, event, forward, context.visited)


def _report(direction, value, event: Event, forward: Program, visited) -> NonfiniteReport:
    steps: list[str] = []
    while event.before is not None:
        steps.insert(0, _step(event))
        event = event.before
    if event.equation is None:
        what, remedy = "an argument", "Check the data before the call."
        if event.is_constant:
            what, remedy = "a constant", "Write a finite number in its place, or fill the table that it is in."
        return NonfiniteReport(
            False, direction, value, what, reason=f"{what} of the function is not finite itself",
            place=_index(event.output), steps=tuple(steps), remedy=remedy,
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
        reason = Reason(reason.text, remedy_by_choice(equation.primitive.name))
    return NonfiniteReport(
        False, direction, value, equation.primitive.name, place.shown_file, place.line, place.text, index,
        tuple(_operand(operand, index) for operand in operands), reason.text, tuple(steps), reason.remedy,
    )  # fmt: skip


def _step(event: Event) -> str:
    index, place = _index(event.output), event.place
    entries = [_entry(operand, index) for operand in event.operands]
    values = ", ".join(f"{entry:.4g}" for entry in entries if entry is not None)
    where = " (" + f"{place.shown_file}:{place.line}: {place.text}".rstrip(": ") + ")" if place.file else ""
    return f"{event.equation.primitive.name} of {values or 'them'} gives NaN{where}"


def _forward_operation(event: Event, visited) -> tuple[Any, tuple[Any, ...]] | None:
    """Return the operation of the function on the event's line whose derivative isn't finite."""
    for equation, operands, place in visited:
        is_here = bool(place.file) and place == event.place
        if is_here and _singular_index(equation.primitive.name, operands) is not None:
            return equation, operands
    return None


def _singular_index(name: str, operands: Sequence[Any]) -> tuple[int, ...] | None:
    is_singular = np.asarray(SINGULAR[name].test(*map(as_numpy, operands)))
    return tuple(map(int, np.argwhere(is_singular)[0])) if is_singular.any() else None


def _is_chosen_from(program: Program, equation: Any) -> bool:
    """Whether an operation stands in a function that chooses between values, as ``jnp.where`` does."""
    found = list(equations(program.jaxpr))
    start = next((number for number, other in enumerate(found) if other is equation), 0)
    return any(other.primitive.name == "select_n" and len(other.invars) == 3 for other in found[start:])


def _index(array: Any) -> tuple[int, ...]:
    """Return the place of the first NaN, or of the first infinity if there is no NaN."""
    entries = as_numpy(array)
    wrong = np.isnan(entries) if np.isnan(entries).any() else np.isinf(entries)
    return tuple(map(int, np.argwhere(wrong)[0])) if wrong.any() else ()


def _entry(operand: Any, index: tuple[int, ...] | None) -> float | None:
    """Return an operand's entry at a place of the output, ``None`` if their shapes differ."""
    entries = as_numpy(operand)
    if not np.issubdtype(entries.dtype, np.number):
        return None
    if entries.ndim == 0:
        return float(np.real(entries))
    is_within = index is not None and len(index) == entries.ndim and np.all(np.less(index, entries.shape))
    return float(np.real(entries[index])) if is_within else None


def _operand(operand: Any, index: tuple[int, ...] | None) -> Operand:
    entries, entry = as_numpy(operand), _entry(operand, index)
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
