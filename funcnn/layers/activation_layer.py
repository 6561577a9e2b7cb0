"""A layer without parameters, made of a plain forward and its plain backward."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from jaxtyping import Array

from funcnn._checks import check_callable, feature_array
from funcnn._memoise import memoised
from funcnn._tree_checks import describe_tree
from funcnn.types import Layer, LayerSpec, Residuals

PlainForward: TypeAlias = Callable[[Array], tuple[Array, Residuals]]
PlainBackward: TypeAlias = Callable[[Residuals, Array], Array]


def no_params(key):
    """The ``init`` of a layer that has neither parameters nor state."""
    return (), ()


def _layer_forward(forward, name, params, state, x, *, train, key=None):
    returned = forward(feature_array(name, x))
    if not isinstance(returned, tuple | list) or len(returned) != 2:
        raise TypeError(
            f"{name}(forward): expected (a, residuals), got {describe_tree(returned)}. Return the activations and what "
            "backward needs, such as a, z."
        )
    y, residuals = returned
    return y, state, residuals


def _layer_backward(backward, residuals, dy):
    return (), backward(residuals, dy)


_UNNAMED = LayerSpec("activation")


@memoised
def activation_layer(forward: PlainForward, backward: PlainBackward, spec: LayerSpec = _UNNAMED) -> Layer:
    """Make a layer without parameters of a plain pair, ``(z) -> (a, residuals)`` and ``(residuals, da) -> dz``.

    Args:
        forward: from pre-activations ``(batch, ..., features)`` to activations of their shape, each position by itself,
            and what backward needs.
        backward: from those residuals and the cotangent of the activations to that of the pre-activations.
        spec: the name, the settings, and the facts: which initializer suits the layer in front, whether units saturate
            or die, the output's range.

    Returns:
        The layer, without parameters or state.

    Raises:
        TypeError: forward or backward isn't a function, or spec isn't a ``LayerSpec``.

    Example:
        >>> import jax.numpy as jnp
        >>> from funcnn.types import LayerSpec
        >>> def square_forward(z):
        ...     return z**2, z
        >>> def square_backward(z, da):
        ...     return da * 2 * z
        >>> square = activation_layer(square_forward, square_backward, LayerSpec("square"))
        >>> y, _, residuals = square.forward((), (), jnp.array([[3.0]]), train=True)
        >>> print(square, y, square.backward(residuals, jnp.array([[1.0]]))[1])
        square [[9.]] [[6.]]
    """
    advice = "Pass the plain pair, (z) -> (a, residuals) and (residuals, da) -> dz."
    check_callable("activation_layer(forward)", forward, advice)
    check_callable("activation_layer(backward)", backward, advice)
    if not isinstance(spec, LayerSpec):
        raise TypeError(f"activation_layer(spec): expected a LayerSpec, got {spec!r}. Pass LayerSpec('name').")
    return Layer(
        no_params,
        partial(_layer_forward, forward, spec.name),
        partial(_layer_backward, backward),
        replace(spec, decoding=spec.decoding or "alone"),
    )
