"""Root mean square normalization: layer normalization without the mean and the bias."""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from funcnn._checks import check_features, check_vectors, positive_integer
from funcnn._memoise import memoised
from funcnn.layers.normalization import Features, all_but_features, along_features, check_epsilon
from funcnn.types import Layer, LayerSpec, State


class RMSNormParams(NamedTuple):
    """``scale`` (γ), ``(features,)``. Also the type of its gradient."""

    scale: Float[Array, " features"]


class RMSNormResiduals(NamedTuple):
    """x̂ = x r, the factor r = 1/√(mean(x²) + ε) of each sample and position, and γ."""

    normalised: Features
    factor: Float[Array, "*batch 1"]
    scale: Float[Array, " features"]


def rms_norm_init(key: PRNGKeyArray, *, features: int) -> tuple[RMSNormParams, State]:
    """γ = 1, ``(features,)``. The key is not used.

    Example:
        >>> import jax
        >>> print(rms_norm_init(jax.random.key(0), features=2)[0].scale)
        [1. 1.]
    """
    return RMSNormParams(jnp.ones(features)), ()


def rms_norm_forward(params: RMSNormParams, x: Features, epsilon: float = 1e-5) -> tuple[Features, RMSNormResiduals]:
    """Divide every sample and position by its root mean square over the features: y = γ x/√(mean(x²) + ε).

    Args:
        params: scale γ, ``(features,)``.
        x: features, ``(batch, ..., features)``, in the parameters' dtype.
        epsilon: ε, in the units of x².

    Returns:
        y, ``(batch, ..., features)``, and the residuals.

    Raises:
        ValueError: x is empty, has no batch axis, or another number of features; a scale that would broadcast.
        TypeError: x isn't floating, or not in the parameters' dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> params = RMSNormParams(jnp.ones(2))
        >>> y, _ = rms_norm_forward(params, jnp.array([[1.0, 7.0]]), epsilon=0.0)
        >>> [f"{entry:.4f}" for entry in y[0]]
        ['0.2000', '1.4000']

    Source:
        Zhang and Sennrich, "Root mean square layer normalization", 2019.
    """
    (scale,) = params
    name, features = f"rms_norm({scale.size})", scale.size
    check_vectors(name, scale.dtype, features, scale=scale)
    x = check_features(name, x, features, scale.dtype)
    factor = lax.rsqrt((x * x).mean(axis=-1, keepdims=True) + epsilon)
    normalised = x * factor
    return normalised * along_features(scale, x), RMSNormResiduals(normalised, factor, scale)


def rms_norm_backward(residuals: RMSNormResiduals, dy: Features) -> tuple[RMSNormParams, Features]:
    """Gradients of y = γ x̂, dγ = Σₙ dy x̂ over samples and positions and dx̂ = dy γ, and then of x̂ = x r.

    r = (mean(x²) + ε)^(−1/2) depends on every feature, ∂r/∂x[i] = −r³ x[i]/n, so x[i] enters x̂[j] directly and
    through r: ∂x̂[j]/∂x[i] = r (1[i = j] − x̂[j] x̂[i]/n). Summed against dx̂[j]::

        dx = r (dx̂ − x̂ mean(dx̂ x̂))

    Args:
        residuals: from ``rms_norm_forward``.
        dy: cotangent of y, ``(batch, ..., features)``.

    Returns:
        The gradient of the parameters, and ``dx``, ``(batch, ..., features)``.

    Example:
        >>> import jax.numpy as jnp
        >>> _, residuals = rms_norm_forward(RMSNormParams(jnp.ones(2)), jnp.array([[1.0, 7.0]]), epsilon=0.0)
        >>> dparams, dx = rms_norm_backward(residuals, jnp.array([[1.0, 7.0]]))
        >>> [f"{entry:.4f}" for entry in dparams.scale], bool(abs(dx).max() < 1e-6)
        (['0.2000', '9.8000'], True)

    Source:
        Zhang and Sennrich 2019.
    """
    normalised, factor, scale = residuals
    dscale = (dy * normalised).sum(axis=all_but_features(dy))
    dnormalised = dy * along_features(scale, dy)
    dx = factor * (dnormalised - normalised * (dnormalised * normalised).mean(axis=-1, keepdims=True))
    return RMSNormParams(dscale), dx


def _layer_forward(params, state, x, *, train, key=None, epsilon):
    y, residuals = rms_norm_forward(params, x, epsilon)
    return y, state, residuals


@memoised
def rms_norm(features: int, epsilon: float = 1e-5) -> Layer:
    """Root mean square normalization, y = γ x/√(mean(x²) + ε), each sample and position over its features.

    Args:
        features: features of x.
        epsilon: ε, in the units of x².

    Returns:
        The layer. Its parameters are ``RMSNormParams(scale)``; it has no state.

    Raises:
        ValueError, TypeError: features isn't a positive integer, or epsilon negative.

    Example:
        >>> import jax
        >>> params, state = rms_norm(2).init(jax.random.key(0))
        >>> print(params.scale, state)
        [1. 1.] ()

    Source:
        Zhang and Sennrich 2019.
    """
    features = positive_integer("rms_norm(features)", features)
    check_epsilon("rms_norm", epsilon)
    return Layer(
        partial(rms_norm_init, features=features),
        partial(_layer_forward, epsilon=epsilon),
        rms_norm_backward,
        LayerSpec("rms_norm", settings=(("features", features), ("epsilon", epsilon)), decoding="alone"),
    )
