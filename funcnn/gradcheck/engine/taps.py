"""The gradients of tapped values: autodiff's, by the loss's program, and those that a hand-written gradient returns."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from funcnn._numerics.program import Program, bind, called_jaxprs, equations, is_inlined
from funcnn._tree_checks import same_structure

TAP_PREFIX = "funcnn.tap:"


def split_taps(returned: Any, params: PyTree) -> tuple[PyTree, dict[str, Any]]:
    """The gradients and the taps' gradients of what a hand-written function returned."""
    is_pair = isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], Mapping)
    if is_pair and same_structure(returned[0], params) and not same_structure(returned, params):
        return returned[0], dict(returned[1])
    return returned, {}


def tap_gradients(program: Program, params: PyTree, names: Mapping[str, Any]) -> dict[str, list]:
    """The gradient of the loss by each tapped value, its leaves in order, the last tap first.

    Raises:
        ValueError: a name that the loss doesn't tap, a name tapped twice, or a tap inside a loop that can't be opened.
    """
    tapped: dict[str, list] = {}
    _visit(program, params, lambda name, value: tapped.setdefault(name, []).append(value))
    inside = {_name(equation) for equation in equations(program.jaxpr)} - {None}
    for name in names:
        if name not in tapped:
            known = ", ".join(map(repr, tapped)) or "none"
            where = "it stands inside a loop that a check can't open" if name in inside else f"the loss taps {known}"
            raise ValueError(
                f"check_gradients(grad_fn): expected gradients of tapped values, got {name!r}; {where}. "
                "Leave this gradient out, or tap its value outside of loops."
            )

    def moved(moves):
        left = {name: list(leaves) for name, leaves in moves.items()}
        return _visit(program, params, lambda name, value: value + left[name].pop(0))

    gradients = jax.grad(moved)(jax.tree.map(jnp.zeros_like, tapped))
    return {name: gradients[name] for name in reversed(tapped) if name in names}


def _visit(program: Program, params: PyTree, change: Callable[[str, Any], Any]):
    """Run the program with every tapped value given to ``change``; what it returns, if anything, takes its place."""
    holding = {
        id(equation)
        for equation in equations(program.jaxpr)
        if any(_name(inner) for part in called_jaxprs(equation) for inner in equations(part))
    }

    def rule(equation, arguments, place):
        name = _name(equation)
        if name is not None:
            changed = change(name, arguments[0])
            return arguments if changed is None else [changed]
        if is_inlined(equation) and id(equation) in holding:
            return None
        return bind(equation, arguments)

    return program.evaluate(params, rule)


def _name(equation):
    name = equation.params.get("name") if equation.primitive.name == "name" else None
    return name.removeprefix(TAP_PREFIX) if isinstance(name, str) and name.startswith(TAP_PREFIX) else None
