"""The public ``tap``: it names an intermediate value, so that a check compares its gradient too."""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from funcnn.gradcheck.engine.taps import TAP_PREFIX

Value = TypeVar("Value")


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
    return jax.tree.map(lambda leaf: checkpoint_name(jnp.asarray(leaf), TAP_PREFIX + name), value)
