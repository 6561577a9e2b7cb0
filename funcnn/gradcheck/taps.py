"""Values marked by name on the way forward, so that their gradients can be checked one by one."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import PyTree

from funcnn._checks import same_structure
from funcnn.gradcheck.program import Program, bound, called_by, equations, is_opened

Value = TypeVar("Value")
_PREFIX = "funcnn.tap:"


def tap(name: str, value: Value) -> Value:
    """Mark a value on the way forward, so that a check compares its gradient too.

    It is the identity, z = tap("z", x @ w). Under ``jit`` nothing is left of it but a name that the compiler drops.
    ``check_gradients``
    compares the gradients of tapped values where the hand-written function returns them beside the parameters':
    ``(gradients, {"z1": dz1, …})``.

    Args:
        name: a name of its own for each value.
        value: an array, or a tree of arrays.

    Returns:
        ``value``.

    Raises:
        TypeError: name isn't a string.

    Example:
        >>> import jax.numpy as jnp
        >>> from funcnn.gradcheck import check_gradients
        >>> def loss(w, x):
        ...     z = tap("z", x @ w)
        ...     return (z**2).sum()
        >>> def gradient(w, x):
        ...     dz = x @ w  # the factor 2 is missing
        ...     return x.T @ (2 * dz), {"z": dz}
        >>> report = check_gradients(loss, gradient, jnp.ones(2), jnp.array([[1.0, 2.0]]))
        >>> [(step.path, step.cause) for step in report.steps]
        [('z', 'scaled')]
    """
    if not isinstance(name, str):
        raise TypeError(f"tap(name): expected a string, got {name!r}. Call it as tap('z1', z1).")
    return jax.tree.map(lambda leaf: checkpoint_name(jnp.asarray(leaf), _PREFIX + name), value)


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
            raise ValueError(f"check_gradients(grad_fn): expected gradients of tapped values, got {name!r}; {where}.")

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
        if any(_name(inner) for part in called_by(equation) for inner in equations(part))
    }

    def rule(equation, arguments, place):
        name = _name(equation)
        if name is not None:
            changed = change(name, arguments[0])
            return arguments if changed is None else [changed]
        if is_opened(equation) and id(equation) in holding:
            return None
        return bound(equation, arguments)

    return program.run(params, rule)


def _name(equation):
    name = equation.params.get("name") if equation.primitive.name == "name" else None
    return name.removeprefix(_PREFIX) if isinstance(name, str) and name.startswith(_PREFIX) else None
