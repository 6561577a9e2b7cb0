"""A function as the program that JAX records of it, run equation by equation, so that a check sees every value."""

import contextlib
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from funcnn._checks import is_concrete

try:
    from jax._src import source_info_util
except ImportError:  # a release of JAX that keeps it elsewhere
    source_info_util = None  # type: ignore[assignment]

Place: TypeAlias = tuple[int, ...]
"""Where an equation stands: its number in the program, then its number in what that equation calls, and so on."""

Rule: TypeAlias = Callable[[Any, list, Place], Sequence | None]
"""``(equation, inputs, place) -> outputs``, or ``None`` to run the equation as it is."""

_COMPILED = ("jit", "pjit")
_CALLS = (*_COMPILED, "closed_call", "core_call", "checkpoint", "remat", "remat2")
_CUSTOM_RULES = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
_LONGEST_UNROLLED = 256
_MAX_COMPILED = 64  # a compiled program takes some 10 MB
_FAST_COMPILATION = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
# What XLA takes to compile on one core of a CPU; only the ratio matters.
_SECONDS_A_PROGRAM, _SECONDS_AN_OPERATION, _SECONDS_A_KERNEL = 0.06, 0.002, 0.02

RANDOM = {"random_bits", "threefry2x32", "rng_bit_generator"}
"""The primitives that draw random numbers."""


class Program(NamedTuple):
    """What a function of one tree does with its leaves, all else being constants."""

    jaxpr: Any
    structure: Any

    @property
    def text(self) -> str:
        """The program as text: equal programs have equal texts, whatever their constants."""
        return str(self.jaxpr)

    def evaluate(self, tree: PyTree, rule: Rule) -> PyTree:
        """The function's value at ``tree``, every equation given to ``rule`` first."""
        return jax.tree.unflatten(self.structure, self.outputs(jax.tree.leaves(tree), rule))

    def outputs(self, leaves: Sequence, rule: Rule, constant: Callable[[Any], Any] = lambda value: value) -> list:
        """The leaves of the value, from those of the tree; each may be a tuple, where ``rule`` takes it.

        ``constant`` replaces the program's constants.
        """
        return evaluate_jaxpr(self.jaxpr, leaves, rule, (), constant)


def compile_programs(build: Callable[..., Callable], programs: Sequence[Program]) -> Callable[..., Any]:
    """Return ``build(*programs)`` compiled, the same function for programs of equal texts.

    What it returns takes the programs' constants first, a list for each program.
    """
    compiled = _compiled(build, "\n".join(program.text for program in programs), _Programs(programs))
    return functools.partial(compiled, [list(program.jaxpr.consts) for program in programs])


class _Programs(tuple):
    """Programs that are no part of a cache's key. The cache keeps them, so that the addresses in a text stay theirs."""

    def __eq__(self, other):
        return isinstance(other, _Programs)

    def __hash__(self):
        return 0


@functools.lru_cache(maxsize=_MAX_COMPILED)
def _compiled(build, text, programs):
    return jit_once(build(*programs))


def jit_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function compiled for few calls: XLA leaves out the optimizations that cost more than they save."""
    return jax.jit(function, compiler_options=_FAST_COMPILATION)


def compile_calls(*functions: Callable[..., Any]) -> tuple[Callable[..., Any], ...]:
    """Return functions of the same arguments, compiled together for few calls.

    Where a program calls one of them, it is traced as it is.
    """
    compiled = jit_once(lambda *args: [function(*args) for function in functions])

    def call(number, *args):
        is_known = is_concrete(*jax.tree.leaves(args))
        return compiled(*args)[number] if is_known else functions[number](*args)

    return tuple(functools.partial(call, number) for number in range(len(functions)))


def evaluate_programs(programs: Sequence[Program], leaves: Sequence) -> list[list]:
    """Return the leaves of each program's value, by one compiled function or operation by operation.

    XLA takes some milliseconds for each operation of a program, and tens for one that is compiled alone. A long program
    of few different operations, such as an unrolled loop, is faster operation by operation.
    """
    if is_cheaper_compiled(programs):
        return compile_programs(values_of, programs)(list(leaves))
    return [evaluate_calls(program.jaxpr, program.jaxpr.consts, leaves) for program in programs]


def is_cheaper_compiled(programs: Sequence[Program], operations: int = 1) -> bool:
    """Whether programs compile faster together than each of their different operations alone.

    ``operations`` is the number of operations that each operation of a program becomes.
    """
    found = [equation for program in programs for equation in equations(program.jaxpr)]
    kinds = {(equation.primitive.name, *(str(atom.aval) for atom in equation.invars)) for equation in found}
    return _SECONDS_A_PROGRAM + _SECONDS_AN_OPERATION * len(found) * operations < _SECONDS_A_KERNEL * len(kinds) + 0.5


def values_of(*programs: Program) -> Callable[[Sequence, Sequence], list[list]]:
    """Return the function of constants and leaves to the leaves of each program's value."""

    def values(constants, leaves):
        return [evaluate_calls(program.jaxpr, each, leaves) for program, each in zip(programs, constants, strict=True)]

    return values


def evaluate_calls(jaxpr: Any, constants: Sequence, inputs: Sequence) -> list:
    """Evaluate a jaxpr with these constants, every equation as JAX runs it, under ``jit`` too."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *inputs], strict=True))

    def read(atom):
        return atom.val if hasattr(atom, "val") else values[atom]

    for equation in jaxpr.eqns:
        outputs = bind(equation, [read(atom) for atom in equation.invars])
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def default_rule(equation: Any, arguments: list, place: Place) -> None:
    """The rule that changes nothing, and takes out what is registered for differentiation."""


def trace(function: Callable[[PyTree], PyTree], tree: PyTree) -> Program | None:
    """The program of ``function``; ``None`` where it can't be traced, as one that computes in NumPy can't."""
    try:
        return traced(function, tree)
    except Exception:  # whatever NumPy or the function raises at a tracer
        return None


def traced(function: Callable[[PyTree], PyTree], tree: PyTree) -> Program:
    """The program of ``function``. What the function raises at a tracer is raised."""
    jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(tree)
    return Program(jaxpr, jax.tree.structure(shapes))


def evaluate_jaxpr(jaxpr: Any, inputs: Sequence, rule: Rule, place: Place, constant: Callable[[Any], Any]) -> list:
    """Evaluate a jaxpr, opening what it calls. A value may be a tuple of arrays, where ``rule`` takes it."""
    jaxpr, constants = getattr(jaxpr, "jaxpr", jaxpr), map(constant, getattr(jaxpr, "consts", ()))
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *inputs], strict=True))

    def read(atom):
        return constant(atom.val) if hasattr(atom, "val") else values[atom]

    for number, equation in enumerate(jaxpr.eqns):
        here, arguments = (*place, number), [read(atom) for atom in equation.invars]
        outputs = rule(equation, arguments, here)
        if outputs is None:
            outputs = _evaluate_inlined(equation, arguments, rule, here, constant)
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def bind(equation: Any, arguments: Sequence) -> Sequence:
    """An equation's outputs, by JAX itself."""
    parameters = equation.primitive.get_bind_params(equation.params)
    # Releases of JAX before 0.10 give the functions that a primitive calls apart.
    functions, parameters = parameters if isinstance(parameters, tuple) else ((), parameters)
    with from_line_of(equation):
        outputs = equation.primitive.bind(*functions, *arguments, **parameters)
    return list(outputs) if equation.primitive.multiple_results else [outputs]


def from_line_of(equation: Any) -> contextlib.AbstractContextManager:
    """Return a context in which operations are recorded with the line of code that an equation comes from."""
    try:
        return source_info_util.user_context(equation.source_info.traceback)
    except AttributeError:  # likewise
        return contextlib.nullcontext()


def leave_out_of_lines(folder: Path) -> None:
    """Let no operation be recorded with a line of code in this folder: it belongs to the line that called it."""
    with contextlib.suppress(AttributeError):  # likewise
        source_info_util.register_exclusion(f"{folder}{os.sep}")


leave_out_of_lines(Path(__file__).parent)


def callee(equation: Any) -> Any:
    """The jaxpr that an equation calls once with its own inputs, ``None`` where it calls none."""
    if equation.primitive.name in (*_CALLS, *_CUSTOM_RULES):
        return next((part for part in equation.params.values() if hasattr(part, "eqns")), None)
    return None


def is_inlined(equation: Any) -> bool:
    """Whether ``run`` goes into the equation."""
    name = equation.primitive.name
    unrolled = name == "scan" and equation.params["length"] <= _LONGEST_UNROLLED
    return unrolled or name == "cond" or callee(equation) is not None


def equation_at(jaxpr: Any, place: Place) -> Any:
    """Return the equation at a place of a program that has no branch and no scan on the way there."""
    equation = None
    for number in place:
        equation = getattr(jaxpr, "jaxpr", jaxpr).eqns[number]
        jaxpr = callee(equation)
    return equation


def equations(jaxpr: Any):
    """Every equation of a jaxpr and of all that it calls."""
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield equation
        for part in called_jaxprs(equation):
            yield from equations(part)


def jaxpr_constants(jaxpr: Any) -> list:
    """The constants of a jaxpr and of all that it calls, those written into its equations too."""
    inner = getattr(jaxpr, "jaxpr", jaxpr)
    found = [*getattr(jaxpr, "consts", ()), *(atom.val for atom in inner.outvars if hasattr(atom, "val"))]
    for equation in inner.eqns:
        found += [atom.val for atom in equation.invars if hasattr(atom, "val")]
        found += [constant for part in called_jaxprs(equation) for constant in jaxpr_constants(part)]
    return found


def called_jaxprs(equation: Any) -> list:
    """Every jaxpr among an equation's parameters: what it calls, its branches, its loop's body."""
    parts = jax.tree.leaves(tuple(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns"))
    return [part for part in parts if hasattr(part, "eqns")]


def primitive_names(jaxpr: Any) -> set[str]:
    """The names of all primitives in a jaxpr."""
    return {equation.primitive.name for equation in equations(jaxpr)}


def _evaluate_inlined(equation, arguments, rule, place, constant):
    called = callee(equation)
    if called is not None:
        return evaluate_jaxpr(called, arguments, rule, place, constant)
    if equation.primitive.name == "cond":
        index = int(jax.tree.leaves(arguments[0])[0])
        return evaluate_jaxpr(equation.params["branches"][index], arguments[1:], rule, place, constant)
    if is_inlined(equation):
        return _unroll(equation, arguments, rule, place, constant)
    return bind(equation, arguments)


def _unroll(equation, arguments, rule, place, constant):
    """Run a scan as a loop in Python. Sequences have one axis more than the body's inputs, constants have not."""
    body, length = equation.params["jaxpr"], equation.params["length"]
    inner = getattr(body, "jaxpr", body)
    sequences = sum(_rank(out) != _rank(into) for out, into in zip(equation.invars, inner.invars, strict=True))
    carries = sum(_rank(out) == _rank(into) for out, into in zip(equation.outvars, inner.outvars, strict=True))
    constants = len(arguments) - carries - sequences
    carry, stacks = arguments[constants : constants + carries], []
    for step in range(length)[:: -1 if equation.params["reverse"] else 1]:
        slices = jax.tree.map(lambda array, step=step: array[step], arguments[constants + carries :])
        outputs = evaluate_jaxpr(body, [*arguments[:constants], *carry, *slices], rule, (*place, step), constant)
        carry = outputs[:carries]
        stacks.append(outputs[carries:])
    ordered = stacks[::-1] if equation.params["reverse"] else stacks
    stacked = [jax.tree.map(lambda *parts: jnp.stack(parts), *parts) for parts in zip(*ordered, strict=True)]
    return [*carry, *stacked]


def _rank(atom):
    return len(atom.aval.shape)


def scan_counts(parameters: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many inputs of a scan are constants, and how many are carried.

    JAX 0.10 keeps the two numbers among the parameters, later releases a tree of the inputs.
    """
    if "num_consts" in parameters:
        return parameters["num_consts"], parameters["num_carry"]
    constants, carry, _ = parameters["ft_in"].unpack()
    return len(constants), len(carry)
