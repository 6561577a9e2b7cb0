"""The derivative rules in a loss's code (``custom_vjp``, ``custom_jvp``), beside the derivatives of their functions."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnn._numerics.arrays import as_float64, max_abs
from funcnn._numerics.program import Program, bind, callee, is_inlined, primitive_names, trace
from funcnn._numerics.rewriting import rewrite
from funcnn.gradcheck.engine.precision import Comparison
from funcnn.gradcheck.explanation.numbers import best_factor, format_factor, is_close

_DIGITS = 1e-6
_PREFIX = "custom_"


class OtherRule(NamedTuple):
    """A rule that isn't the derivative of its function.

    Fields:
        name: the function's name and its line.
        fact: why it may be meant so: the function is flat, or the rule returns its cotangent, or isn't linear; empty
            if it is an ordinary derivative of something else.
        stand_in: a function of x with the rule's derivative; empty if there is none.
    """

    name: str
    fact: str
    stand_in: str

    @property
    def advice(self) -> str:
        """Return what to do if the rule is meant so."""
        short = self.name.partition(" ")[0]
        if not self.stand_in:
            return (
                f"If that is meant so, check the gradient of the loss with {short} without its rule, because no "
                "function has such a derivative."
            )
        return (
            f"If that is meant so, write it in the loss with the function's values and the rule's slope, as {short}(x) "
            f"= {self.stand_in} + jax.lax.stop_gradient(f(x) - {self.stand_in}), where f is {short} without its rule."
        )


def has_rules(program: Program) -> bool:
    """Whether a program calls a function with a rule of its own."""
    return any(name.startswith(_PREFIX) for name in primitive_names(program.jaxpr))


def find_other_rules(comparison: Comparison) -> list[OtherRule]:
    """Return the rules in the loss that aren't the derivatives of their functions.

    Each rule is evaluated near the arguments of its first use, for random cotangents.
    """
    gradients = comparison.gradients
    program = trace(gradients.loss, gradients.params)
    used: dict[str, tuple[Any, list]] = {}
    if program is None or not has_rules(program):
        return []

    def visit(equation, arguments, place):
        if callee(equation) is not None and equation.primitive.name.startswith(_PREFIX):
            used.setdefault(_describe_function(equation), (equation, arguments))
            return bind(equation, arguments)
        return None if is_inlined(equation) else bind(equation, arguments)

    try:
        program.evaluate(gradients.params, visit)
        found = [_compare(name, *use) for name, use in used.items()]
    except Exception:  # a function without a derivative, or a callback's own error
        return []
    return [rule for rule in found if rule is not None]


def _describe_function(equation) -> str:
    """Return a function's name and line."""
    information = getattr(callee(equation), "jaxpr", callee(equation)).debug_info.func_src_info or "a function"
    name, _, place = information.partition(" at ")
    return f"{name} ({place.rpartition('/')[2]})" if place else name


def _compare(name: str, equation: Any, arguments: Sequence) -> OtherRule | None:
    random = np.random.default_rng(11)
    near = [_move(argument, random) for argument in arguments]
    outputs, by_rule = jax.vjp(*_by_floating(lambda whole: bind(equation, whole), near))
    _, plain = jax.vjp(*_by_floating(lambda whole: rewrite(callee(equation), whole), near))
    cotangents = [jnp.asarray(random.standard_normal(out.shape), out.dtype) for out in outputs]
    ours, theirs = _as_arrays(by_rule(cotangents)), _as_arrays(plain(cotangents))
    if _is_near(ours, theirs):
        return None
    large = _as_arrays(by_rule([1000 * each for each in cotangents]))
    is_linear = _is_near(large, [1000 * leaf for leaf in ours])
    factor = _factor_of_cotangent(ours, _as_arrays(cotangents)) if is_linear else None
    facts = []
    if not any(leaf.any() for leaf in theirs):
        facts.append("the function's slope is zero everywhere, as that of round or sign is")
    if factor is not None:
        facts.append(
            f"the rule returns its cotangent{'' if factor == 1 else f' times {format_factor(factor, _DIGITS)}'}"
        )
    if not is_linear:
        facts.append("the rule isn't linear in its cotangent, as where it clips it")
    stand_in = "surrogate(x)" if factor is None else "x" if factor == 1 else f"({format_factor(factor, _DIGITS)} * x)"
    return OtherRule(name, "; ".join(facts), stand_in if is_linear else "")


def _by_floating(evaluate: Callable, arguments: Sequence) -> tuple:
    """Return the function of the floating arguments to the floating outputs, and these arguments."""
    positions = [number for number, argument in enumerate(arguments) if _is_floating(argument)]

    def function(*floating):
        whole = list(arguments)
        for number, argument in zip(positions, floating, strict=True):
            whole[number] = argument
        return [output for output in evaluate(whole) if _is_floating(output)]

    return function, *(arguments[number] for number in positions)


def _is_floating(value) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jnp.floating)


def _move(argument, random):
    """Return a floating argument a little off: at a kink, the rule of ``relu`` takes another side than its code."""
    if not _is_floating(argument):
        return argument
    size = 1e-3 * (max_abs(as_float64(argument)) or 1.0)
    return argument + jnp.asarray(size * random.standard_normal(np.shape(argument)), jnp.result_type(argument))


def _as_arrays(tree) -> list[np.ndarray]:
    return [as_float64(leaf) for leaf in tree]


def _is_near(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> bool:
    size = max([*map(max_abs, first), *map(max_abs, second)], default=0.0)
    return all(is_close(one, other, _DIGITS * size) for one, other in zip(first, second, strict=True))


def _factor_of_cotangent(gradients, cotangents) -> float | None:
    """Return the constant c if the only gradient that isn't zero is c times the only cotangent."""
    moved = [leaf for leaf in gradients if leaf.any()]
    if len(moved) != 1 or len(cotangents) != 1 or moved[0].shape != cotangents[0].shape:
        return None
    factor = best_factor(moved[0], cotangents[0])
    is_multiple = is_close(moved[0], factor * cotangents[0], _DIGITS * max_abs(moved[0]))
    if not factor or not is_multiple:
        return None
    return 1.0 if abs(factor - 1) < _DIGITS else factor
