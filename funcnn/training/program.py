"""Traced programs as digests, and the settings that functions hold: what tells two runs apart.

A digest covers every operation with its parameters, all shapes and dtypes, and all constants. It leaves out names,
addresses and places in source files, so that it is the same in another process.
"""

import functools
import hashlib
import re
from collections.abc import Callable, Iterator
from types import FunctionType, MethodType
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from funcnn.training.fingerprint import key_data

UNNAMED = frozenset({"name", "debug_info", "jvp_jaxpr_fun", "fwd_jaxpr_thunk", "bwd", "ctx_mesh"})
"""Parameters of operations that change no number, or hold functions that are traced where they are used."""

LEVELS = 12
"""How deep the functions that a function holds are searched for settings."""


def program_digest(function: Callable, *arguments: Any) -> str:
    """Return the digest of the program that a function traces to. The arguments may be shapes.

    Example:
        >>> program_digest(lambda x: 2.0 * x, 1.0) == program_digest(lambda y: 2.1 * y, 1.0)
        False
    """
    digest = hashlib.sha256()
    for part in _parts_of_program(jax.make_jaxpr(function)(*arguments)):
        digest.update(part.encode())
        digest.update(b"\n")
    return digest.hexdigest()[:16]


def _parts_of_program(program: ClosedJaxpr | Jaxpr) -> Iterator[str]:
    jaxpr, constants = (program.jaxpr, program.consts) if isinstance(program, ClosedJaxpr) else (program, ())
    numbers: dict[Any, int] = {}

    def name(variable):
        if isinstance(variable, Literal):
            return f"{variable.aval} {_array(variable.val)}"
        return str(numbers.setdefault(variable, len(numbers)))

    for variable in (*jaxpr.constvars, *jaxpr.invars):
        yield f"in {name(variable)} {variable.aval}"
    for constant in constants:
        yield _array(constant)
    for equation in jaxpr.eqns:
        yield f"{equation.primitive} {' '.join(map(name, equation.invars))}"
        for key in sorted(equation.params.keys() - UNNAMED):
            yield f"{key}="
            yield from _parts_of_value(equation.params[key])
        yield " ".join(f"{name(variable)} {variable.aval}" for variable in equation.outvars)
    yield f"out {' '.join(map(name, jaxpr.outvars))}"


def _parts_of_value(value: Any) -> Iterator[str]:
    if isinstance(value, ClosedJaxpr | Jaxpr):
        yield from _parts_of_program(value)
    elif isinstance(value, tuple | list):
        yield f"{len(value)} values"
        for part in value:
            yield from _parts_of_value(part)
    elif isinstance(value, np.ndarray | np.generic | jax.Array):
        yield _array(value)
    elif isinstance(value, FunctionType | MethodType | functools.partial) or hasattr(value, "call_wrapped"):
        yield "a function"
    else:
        yield re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _array(value: Any) -> str:
    array = np.asarray(key_data(value) if isinstance(value, jax.Array) else value)
    return f"{array.dtype} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"


def held_settings(function: Any) -> dict[str, Any]:
    """Return the numbers and words that a function holds, by the names that its source gives them.

    They are the arguments of the constructor that made the function: an optimizer's learning rate and decay rates, the
    knots of a schedule. Functions inside are searched too. A name that occurs again has a number behind it.
    """
    found: dict[str, Any] = {}
    seen: set[int] = set()

    def visit(name, value, level):
        if value is None or isinstance(value, bool | int | float | str):
            _add(found, name, value)
            return
        if isinstance(value, np.ndarray | np.generic | jax.Array):
            if np.size(value) == 1 and not jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
                _add(found, name, np.asarray(value).item())
            return
        if id(value) in seen or level == LEVELS:
            return
        seen.add(id(value))
        for inner, part in _held_by(name, value):
            visit(inner, part, level + 1)

    visit("", function, 0)
    return {name: value for name, value in found.items() if name and isinstance(value, bool | int | float | str)}


def _held_by(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a value holds, with names."""
    if isinstance(value, functools.partial):
        yield from value.keywords.items()
        yield name, value.args
        yield name, value.func
    elif isinstance(value, MethodType):
        yield name, value.__self__
    elif isinstance(value, FunctionType):
        for inner, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                yield inner, cell.cell_contents
            except ValueError:  # a variable that has no value yet
                continue
    elif hasattr(value, "__wrapped__"):
        yield name, value.__wrapped__
    elif hasattr(value, "_asdict"):
        yield from value._asdict().items()
    elif isinstance(value, dict):
        yield from ((str(key), part) for key, part in value.items())
    elif isinstance(value, tuple | list):
        yield from ((name, part) for part in value)
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        yield from vars(value).items()


def _add(found: dict[str, Any], name: str, value: Any) -> None:
    number, free = 1, name
    while free in found:
        number += 1
        free = f"{name} ({number})"
    found[free] = value
