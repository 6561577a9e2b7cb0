"""Layers that give every sample one axis of features: the mean of each channel, and ``flatten``."""

import math
from functools import partial
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float

from funcnn._checks import feature_array
from funcnn._static import Static
from funcnn.layers.activation_layer import no_params
from funcnn.types import Layer, LayerSpec

Samples: TypeAlias = Float[Array, "batch ..."]


class ShapeResiduals(NamedTuple):
    """The shape of a sample (``Static``)."""

    shape: Static


def global_avg_pool_forward(
    x: Float[Array, "batch *positions channels"],
) -> tuple[Float[Array, "batch channels"], ShapeResiduals]:
    """Take the mean of each channel over all m positions, y[n, c] = (1/m) Σₚ x[n, p, c].

    Args:
        x: sequences or images, ``(batch, ..., channels)`` with at least one axis of positions, floating.

    Returns:
        y, ``(batch, channels)``, and the residuals.

    Raises:
        ValueError: x is empty or has no axis of positions.
        TypeError: x isn't floating.

    Example:
        >>> import jax.numpy as jnp
        >>> print(global_avg_pool_forward(jnp.arange(8.0).reshape(1, 2, 2, 2))[0])
        [[3. 4.]]

    Source:
        Lin, Chen and Yan, "Network in network", 2014, section 3.2.
    """
    x = feature_array("global_avg_pool", x)
    if x.ndim < 3:
        raise ValueError(
            f"global_avg_pool: expected x of shape (batch, ..., channels) with an axis of positions, got {x.shape}. "
            "Leave the layer out: there is one position."
        )
    return x.mean(axis=tuple(range(1, x.ndim - 1))), ShapeResiduals(Static(x.shape[1:]))


def global_avg_pool_backward(
    residuals: ShapeResiduals, dy: Float[Array, "batch channels"]
) -> Float[Array, "batch *positions channels"]:
    """Share the cotangent among the m positions: dx[n, p, c] = dy[n, c]/m.

    Args:
        residuals: from ``global_avg_pool_forward``.
        dy: cotangent of y, ``(batch, channels)``.

    Returns:
        ``dx``, of x's shape.

    Example:
        >>> import jax.numpy as jnp
        >>> _, residuals = global_avg_pool_forward(jnp.ones((1, 2, 2, 1)))
        >>> print(global_avg_pool_backward(residuals, jnp.array([[8.0]])).ravel())
        [2. 2. 2. 2.]

    Source:
        Lin, Chen and Yan 2014, section 3.2.
    """
    *positions, channels = residuals.shape.value
    shared = dy / math.prod(positions)
    return jnp.broadcast_to(shared.reshape(len(dy), *(1 for _ in positions), channels), (len(dy), *positions, channels))


def flatten_forward(x: Samples) -> tuple[Float[Array, "batch features"], ShapeResiduals]:
    """Make one axis of all axes but the batch, the last one fastest.

    For images of w columns and c channels, y[n, (p w + q) c + i] = x[n, p, q, i].

    Args:
        x: ``(batch, ...)``, floating.

    Returns:
        y, ``(batch, features)``, and the residuals.

    Raises:
        ValueError: x is empty or has no axis beside the batch.
        TypeError: x isn't floating.

    Example:
        >>> import jax.numpy as jnp
        >>> flatten_forward(jnp.ones((5, 7, 7, 4)))[0].shape
        (5, 196)
    """
    x = feature_array("flatten", x)
    return x.reshape(len(x), -1), ShapeResiduals(Static(x.shape[1:]))


def flatten_backward(residuals: ShapeResiduals, dy: Float[Array, "batch features"]) -> Samples:
    """Give dy the shape of x: every entry of y is one entry of x.

    Args:
        residuals: from ``flatten_forward``.
        dy: cotangent of y, ``(batch, features)``.

    Returns:
        ``dx``, of x's shape.

    Example:
        >>> import jax.numpy as jnp
        >>> _, residuals = flatten_forward(jnp.ones((5, 7, 7, 4)))
        >>> flatten_backward(residuals, jnp.ones((5, 196))).shape
        (5, 7, 7, 4)
    """
    return dy.reshape(len(dy), *residuals.shape.value)


def _layer_forward(forward, params, state, x, *, train, key=None):
    y, residuals = forward(x)
    return y, state, residuals


def _layer_backward(backward, residuals, dy):
    return (), backward(residuals, dy)


global_avg_pool = Layer(
    no_params,
    partial(_layer_forward, global_avg_pool_forward),
    partial(_layer_backward, global_avg_pool_backward),
    LayerSpec("global_avg_pool"),
)
flatten = Layer(
    no_params,
    partial(_layer_forward, flatten_forward),
    partial(_layer_backward, flatten_backward),
    LayerSpec("flatten"),
)
