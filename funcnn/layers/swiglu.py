"""SwiGLU, the feed-forward block of Llama: a product of two linear maps, one of them activated, through a third."""

from functools import partial
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float

from funcnn._checks import check_callable, check_features, positive_integer
from funcnn._memoise import memoised
from funcnn.layers.activations import silu_backward, silu_forward
from funcnn.layers.initializers import xavier
from funcnn.layers.linear import LinearParams, LinearResiduals, linear_backward, linear_forward, linear_init
from funcnn.types import KernelInit, Layer, LayerSpec, Residuals

Features = Float[Array, "*batch features"]


class SwiGLUParams(NamedTuple):
    """Linear maps: ``gate`` and ``up`` to the hidden features, ``down`` back. Also the type of their gradients."""

    gate: LinearParams
    up: LinearParams
    down: LinearParams


class SwiGLUResiduals(NamedTuple):
    """The residuals of the three maps and of SiLU, and the two factors of the hidden features."""

    gate: LinearResiduals
    up: LinearResiduals
    down: LinearResiduals
    silu: Residuals
    activated: Float[Array, "*batch hidden_features"]
    lifted: Float[Array, "*batch hidden_features"]


def swiglu_forward(params: SwiGLUParams, x: Features) -> tuple[Features, SwiGLUResiduals]:
    """Compute a gated feed-forward block, with an elementwise product of the hidden features::

        y = (silu(x K_g + b_g) (x K_u + b_u)) K_d + b_d

    Args:
        params: the three linear maps.
        x: features, ``(batch, ..., features)``, in the parameters' dtype.

    Returns:
        y, of x's shape, and the residuals.

    Raises:
        ValueError, TypeError: x doesn't fit the parameters.

    Example:
        >>> import jax.numpy as jnp
        >>> one = LinearParams(jnp.array([[1.0]]), jnp.array([0.0]))
        >>> y, residuals = swiglu_forward(SwiGLUParams(one, one, one), jnp.array([[2.0]]))
        >>> round(y.item(), 3)
        3.523

    Source:
        Shazeer, "GLU variants improve transformer", 2020, equation 6, with biases.
    """
    features, hidden_features = params.gate.kernel.shape
    x = check_features(f"swiglu({features}, {hidden_features})", x, features, params.gate.kernel.dtype)
    z, gate = linear_forward(params.gate, x)
    activated, silu = silu_forward(z)
    lifted, up = linear_forward(params.up, x)
    y, down = linear_forward(params.down, activated * lifted)
    return y, SwiGLUResiduals(gate, up, down, silu, activated, lifted)


def swiglu_backward(residuals: SwiGLUResiduals, dy: Features) -> tuple[SwiGLUParams, Features]:
    """Gradients of y = (a u) K_d + b_d with a = silu(z), z = x K_g + b_g and u = x K_u + b_u.

    With g for the gradient of the product a u by the last map: da = g u, du = g a, dz = da silu′(z). x is used
    twice::

        dx = dz K_gᵀ + du K_uᵀ

    Args:
        residuals: from ``swiglu_forward``.
        dy: cotangent of y.

    Returns:
        The gradients of the parameters, and ``dx``.

    Example:
        >>> import jax.numpy as jnp
        >>> one = LinearParams(jnp.array([[1.0]]), jnp.array([0.0]))
        >>> _, residuals = swiglu_forward(SwiGLUParams(one, one, one), jnp.array([[2.0]]))
        >>> round(swiglu_backward(residuals, jnp.array([[1.0]]))[1].item(), 3)
        3.943

    Source:
        Shazeer 2020.
    """
    down, dproduct = linear_backward(residuals.down, dy)
    up, dx_up = linear_backward(residuals.up, dproduct * residuals.activated)
    gate, dx_gate = linear_backward(residuals.gate, silu_backward(residuals.silu, dproduct * residuals.lifted))
    return SwiGLUParams(gate, up, down), dx_gate + dx_up


def _swiglu_init(key, *, features, hidden_features, kernel_init):
    widths = ((features, hidden_features), (features, hidden_features), (hidden_features, features))
    maps = [
        linear_init(part_key, in_features=before, out_features=after, kernel_init=kernel_init)[0]
        for part_key, (before, after) in zip(jax.random.split(key, 3), widths, strict=True)
    ]
    return SwiGLUParams(*maps), ()


def _layer_forward(params, state, x, *, train, key=None):
    y, residuals = swiglu_forward(params, x)
    return y, state, residuals


@memoised
def swiglu(features: int, hidden_features: int, kernel_init: KernelInit = xavier) -> Layer:
    """A gated feed-forward block::

        y = (silu(x K_g + b_g) (x K_u + b_u)) K_d + b_d

    Args:
        features: features of x and y.
        hidden_features: features of the product; 8/3 · features gives as many parameters as a plain block with 4 ·
            features units.
        kernel_init: ``(key, shape) -> kernel`` of the three maps.

    Returns:
        The layer, from ``(batch, ..., features)`` to the same shape. Its parameters are
        ``SwiGLUParams(gate, up, down)``, each ``LinearParams(kernel, bias)``; it has no state.

    Raises:
        ValueError, TypeError: a feature count isn't a positive integer, or kernel_init isn't a function.

    Example:
        >>> import jax
        >>> layer = swiglu(4, 8)
        >>> params, state = layer.init(jax.random.key(0))
        >>> layer.forward(params, state, jax.numpy.ones((2, 5, 4)), train=True)[0].shape
        (2, 5, 4)

    Source:
        Shazeer 2020.
    """
    check_callable("swiglu(kernel_init)", kernel_init, "Pass one of jax.nn.initializers: he_normal(), zeros.")
    settings: dict[str, Any] = {
        "features": positive_integer("swiglu(features)", features),
        "hidden_features": positive_integer("swiglu(hidden_features)", hidden_features),
        "kernel_init": kernel_init,
    }
    spec = LayerSpec("swiglu", settings=tuple(settings.items()), decoding="alone")
    return Layer(partial(_swiglu_init, **settings), _layer_forward, swiglu_backward, spec)
