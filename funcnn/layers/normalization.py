"""Batch and layer normalization: the same formula over different axes.

Both standardise, x̂ = (x − μ)/√(σ² + ε), then rescale, y = γ x̂ + β. Batch normalization takes μ and σ² of each feature
over the batch and all positions, layer normalization of each sample and position over its features. The variance is
computed in two passes, Σ(x − μ)²/n, because E[x²] − E[x]² loses every digit where the mean is large compared with the
standard deviation.
"""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from funcnn._checks import check_features, check_real, check_vectors, checked_bool, positive_integer
from funcnn._memoise import memoised
from funcnn.types import Layer, LayerSpec

Features = Float[Array, "*batch features"]


class NormalizationParams(NamedTuple):
    """``scale`` (γ) and ``bias`` (β), each ``(features,)``. Also the type of their gradients."""

    scale: Float[Array, " features"]
    bias: Float[Array, " features"]


class BatchNormState(NamedTuple):
    """Running ``mean`` and ``variance`` of each feature, ``(features,)``, which prediction uses."""

    mean: Float[Array, " features"]
    variance: Float[Array, " features"]


class BatchStatisticsResiduals(NamedTuple):
    """Residuals of training, where the mean and the variance depend on x."""

    standardised: Features
    inverse_deviation: Float[Array, "*ones features"]
    scale: Float[Array, " features"]


class RunningStatisticsResiduals(NamedTuple):
    """Residuals of prediction, where the mean and the variance are constants."""

    standardised: Features
    inverse_deviation: Float[Array, "*ones features"]
    scale: Float[Array, " features"]


class LayerNormResiduals(NamedTuple):
    """The standardised input and each sample's 1/√(σ² + ε)."""

    standardised: Features
    inverse_deviation: Float[Array, "*batch 1"]
    scale: Float[Array, " features"]


def normalization_init(features):
    return NormalizationParams(scale=jnp.ones(features), bias=jnp.zeros(features))


def along_features(vector, x):
    """Return a vector of the features as an array that broadcasts with x."""
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)


def all_but_features(x):
    return tuple(range(x.ndim - 1))


def standardise(x, axis, epsilon):
    """Return x̂ over some axes, with 1/√(σ² + ε), μ and σ²; the divisor of σ² is n."""
    mean = x.mean(axis=axis, keepdims=True)
    centred = x - mean
    variance = (centred * centred).mean(axis=axis, keepdims=True)
    inverse_deviation = lax.rsqrt(variance + epsilon)
    return centred * inverse_deviation, inverse_deviation, mean, variance


def rescale(params, standardised):
    return standardised * along_features(params.scale, standardised) + along_features(params.bias, standardised)


def rescale_backward(residuals, dy):
    """Gradients of y = γ x̂ + β: dγ = Σₙ dy x̂ and dβ = Σₙ dy, summed over samples and positions; dx̂ = dy γ."""
    shared = all_but_features(dy)
    dparams = NormalizationParams(scale=(dy * residuals.standardised).sum(axis=shared), bias=dy.sum(axis=shared))
    return dparams, dy * along_features(residuals.scale, dy)


def standardise_backward(standardised, inverse_deviation, dstandardised, axis):
    """Gradient of x̂ = (x − μ)/s with μ, s = √(σ² + ε) functions of the same n entries x.

    x[i] enters x̂[j] in three ways, directly, through μ and through s::

        ∂x̂[j]/∂x[i] = (1[i = j] − 1/n − x̂[j] x̂[i]/n) / s

    since ∂μ/∂x[i] = 1/n and ∂s/∂x[i] = (x[i] − μ)/(n s) = x̂[i]/n. Summed against dx̂[j]::

        dx[i] = (dx̂[i] − mean(dx̂) − x̂[i] mean(dx̂ x̂)) / s
    """
    # The mean is subtracted last: it then removes the rounding error of x̂'s own mean before the division by s.
    across = dstandardised - standardised * (dstandardised * standardised).mean(axis=axis, keepdims=True)
    return inverse_deviation * (across - across.mean(axis=axis, keepdims=True))


def batch_norm_init(key: PRNGKeyArray, *, features: int) -> tuple[NormalizationParams, BatchNormState]:
    """γ = 1, β = 0; running mean 0 and variance 1; each ``(features,)``. The key is not used.

    Example:
        >>> import jax
        >>> params, state = batch_norm_init(jax.random.key(0), features=2)
        >>> print(params.scale, state.mean)
        [1. 1.] [0. 0.]
    """
    return normalization_init(features), BatchNormState(mean=jnp.zeros(features), variance=jnp.ones(features))


def batch_norm_forward(
    params: NormalizationParams,
    state: BatchNormState,
    x: Features,
    *,
    train: bool,
    momentum: float = 0.9,
    epsilon: float = 1e-5,
) -> tuple[Features, BatchNormState, BatchStatisticsResiduals | RunningStatisticsResiduals]:
    """Standardise every feature, then rescale: y = γ (x − μ)/√(σ² + ε) + β.

    In training μ and σ² are the batch's own, over samples and positions, and the running ones are updated::

        running ← momentum · running + (1 − momentum) · batch

    PyTorch's ``momentum`` is our 1 − momentum. In prediction μ and σ² are the running ones. The divisor of σ² is n in
    both places, as in Keras and Flax (the paper's inference, and PyTorch's running variance, have n − 1). A batch of
    one sample without further axes is standardised to zero.

    Args:
        params: scale γ and bias β, ``(features,)``.
        state: running mean and variance, ``(features,)``.
        x: features, ``(batch, ..., features)``, in the parameters' dtype.
        train: which statistics to use; a Python bool.
        momentum: the share of the running statistics that is kept at a step.
        epsilon: ε, in the units of x².

    Returns:
        y, ``(batch, ..., features)``; the new running statistics; the residuals, of a type for each mode.

    Raises:
        ValueError: x is empty, has no batch axis, or another number of features; vectors that would broadcast.
        TypeError: x isn't floating, or not in the parameters' dtype.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> params, state = batch_norm(1).init(jax.random.key(0))
        >>> y, state, _ = batch_norm_forward(params, state, jnp.array([[1.0], [3.0]]), train=True, epsilon=0.0)
        >>> print(y.ravel(), state.mean)
        [-1.  1.] [0.2]

    Source:
        Ioffe and Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate
        shift", 2015, algorithms 1 and 2.
    """
    name, features, dtype = f"batch_norm({params.scale.size})", params.scale.size, params.scale.dtype
    check_vectors(name, dtype, features, **params._asdict(), **state._asdict())
    x = check_features(name, x, features, dtype)
    if not checked_bool(f"{name}: train", train):
        inverse_deviation = along_features(lax.rsqrt(state.variance + epsilon), x)
        standardised = (x - along_features(state.mean, x)) * inverse_deviation
        return (
            rescale(params, standardised),
            state,
            RunningStatisticsResiduals(standardised, inverse_deviation, params.scale),
        )
    standardised, inverse_deviation, mean, variance = standardise(x, all_but_features(x), epsilon)
    new_state = BatchNormState(
        mean=momentum * state.mean + (1 - momentum) * mean.reshape(features),
        variance=momentum * state.variance + (1 - momentum) * variance.reshape(features),
    )
    residuals = BatchStatisticsResiduals(standardised, inverse_deviation, params.scale)
    return rescale(params, standardised), new_state, residuals


def batch_norm_backward(
    residuals: BatchStatisticsResiduals | RunningStatisticsResiduals, dy: Features
) -> tuple[NormalizationParams, Features]:
    """Gradients of y = γ x̂ + β, dγ = Σₙ dy x̂, dβ = Σₙ dy, dx̂ = dy γ, and then of x̂ = (x − μ)/s.

    In prediction μ and s are constants: dx = dx̂ / s. In training they depend on every sample of the batch, which
    subtracts from dx̂ its mean and its component along x̂::

        dx = (dx̂ − mean(dx̂) − x̂ mean(dx̂ x̂)) / s,    means over samples and positions

    Args:
        residuals: from ``batch_norm_forward``; their type is that of the mode.
        dy: cotangent of y, ``(batch, ..., features)``.

    Returns:
        The gradients of the parameters, and ``dx``, ``(batch, ..., features)``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> params, state = batch_norm(1).init(jax.random.key(0))
        >>> _, _, residuals = batch_norm_forward(params, state, jnp.array([[1.0], [3.0]]), train=True)
        >>> dparams, dx = batch_norm_backward(residuals, jnp.array([[1.0], [1.0]]))
        >>> print(dparams.bias, dx.ravel())
        [2.] [0. 0.]

    Source:
        Ioffe and Szegedy 2015, section 3.
    """
    dparams, dstandardised = rescale_backward(residuals, dy)
    if isinstance(residuals, RunningStatisticsResiduals):
        return dparams, dstandardised * residuals.inverse_deviation
    return dparams, standardise_backward(
        residuals.standardised, residuals.inverse_deviation, dstandardised, all_but_features(dy)
    )


def _batch_norm_layer_forward(params, state, x, *, train, key=None, momentum, epsilon):
    return batch_norm_forward(params, state, x, train=train, momentum=momentum, epsilon=epsilon)


@memoised
def batch_norm(features: int, momentum: float = 0.9, epsilon: float = 1e-5) -> Layer:
    """Batch normalization, y = γ (x − μ)/√(σ² + ε) + β, each feature over the batch and all positions.

    Args:
        features: features of x.
        momentum: m, the share of the running statistics kept at a step, new = m · old + (1 − m) · batch.
        epsilon: ε, in the units of x².

    Returns:
        The layer. Its parameters are ``NormalizationParams(scale, bias)``, its state is
        ``BatchNormState(mean, variance)``.

    Raises:
        ValueError, TypeError: features isn't a positive integer, momentum not in [0, 1], epsilon negative.

    Example:
        >>> import jax
        >>> layer = batch_norm(2)
        >>> params, state = layer.init(jax.random.key(0))
        >>> state.variance.shape
        (2,)

    Source:
        Ioffe and Szegedy 2015.
    """
    features = positive_integer("batch_norm(features)", features)
    check_real("batch_norm(momentum)", momentum)
    if not 0 <= momentum <= 1:
        raise ValueError(
            f"batch_norm(momentum): expected a number in [0, 1], got {momentum}. It is the share of the running "
            "statistics that is kept; 0.9 is usual."
        )
    check_epsilon("batch_norm", epsilon)
    return Layer(
        partial(batch_norm_init, features=features),
        partial(_batch_norm_layer_forward, momentum=momentum, epsilon=epsilon),
        batch_norm_backward,
        LayerSpec(
            "batch_norm",
            settings=(("features", features), ("momentum", momentum), ("epsilon", epsilon)),
            mixes_samples=True,
            decoding="alone",
        ),
    )


def check_epsilon(name, epsilon):
    check_real(f"{name}(epsilon)", epsilon)
    if epsilon < 0:
        raise ValueError(f"{name}(epsilon): expected a number of at least 0, got {epsilon}. 1e-5 is usual.")


def layer_norm_init(key: PRNGKeyArray, *, features: int) -> tuple[NormalizationParams, tuple[()]]:
    """γ = 1, β = 0, each ``(features,)``; no state. The key is not used.

    Example:
        >>> import jax
        >>> params, state = layer_norm_init(jax.random.key(0), features=2)
        >>> print(params.bias, state)
        [0. 0.] ()
    """
    return normalization_init(features), ()


def layer_norm_forward(
    params: NormalizationParams, x: Features, epsilon: float = 1e-5
) -> tuple[Features, LayerNormResiduals]:
    """Standardise every sample and position over its features, then rescale: y = γ (x − μ)/√(σ² + ε) + β.

    Samples do not depend on each other, so training and prediction are the same function.

    Args:
        params: scale γ and bias β, ``(features,)``.
        x: features, ``(batch, ..., features)``, in the parameters' dtype.
        epsilon: ε, in the units of x².

    Returns:
        y, ``(batch, ..., features)``, and the residuals.

    Raises:
        ValueError: x is empty, has no batch axis, or another number of features; vectors that would broadcast.
        TypeError: x isn't floating, or not in the parameters' dtype.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> params, _ = layer_norm(2).init(jax.random.key(0))
        >>> print(layer_norm_forward(params, jnp.array([[1.0, 3.0], [10.0, 30.0]]), epsilon=0.0)[0])
        [[-1.  1.]
         [-1.  1.]]

    Source:
        Ba, Kiros and Hinton, "Layer normalization", 2016.
    """
    name, features, dtype = f"layer_norm({params.scale.size})", params.scale.size, params.scale.dtype
    check_vectors(name, dtype, features, **params._asdict())
    x = check_features(name, x, features, dtype)
    standardised, inverse_deviation, _, _ = standardise(x, -1, epsilon)
    return rescale(params, standardised), LayerNormResiduals(standardised, inverse_deviation, params.scale)


def layer_norm_backward(residuals: LayerNormResiduals, dy: Features) -> tuple[NormalizationParams, Features]:
    """Gradients as for batch normalization in training, with the means over the features of each sample::

        dγ = Σₙ dy x̂,    dβ = Σₙ dy,    dx̂ = dy γ,    dx = (dx̂ − mean(dx̂) − x̂ mean(dx̂ x̂)) / s

    with s = √(σ² + ε).

    Args:
        residuals: from ``layer_norm_forward``.
        dy: cotangent of y, ``(batch, ..., features)``.

    Returns:
        The gradients of the parameters, and ``dx``, ``(batch, ..., features)``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> params, _ = layer_norm(2).init(jax.random.key(0))
        >>> _, residuals = layer_norm_forward(params, jnp.array([[1.0, 3.0]]))
        >>> print(layer_norm_backward(residuals, jnp.array([[5.0, 5.0]]))[1])
        [[0. 0.]]

    Source:
        Ba, Kiros and Hinton 2016.
    """
    dparams, dstandardised = rescale_backward(residuals, dy)
    return dparams, standardise_backward(residuals.standardised, residuals.inverse_deviation, dstandardised, -1)


def _layer_norm_layer_forward(params, state, x, *, train, key=None, epsilon):
    y, residuals = layer_norm_forward(params, x, epsilon)
    return y, state, residuals


@memoised
def layer_norm(features: int, epsilon: float = 1e-5) -> Layer:
    """Layer normalization, y = γ (x − μ)/√(σ² + ε) + β, each sample and position over its features.

    Args:
        features: features of x.
        epsilon: ε, in the units of x².

    Returns:
        The layer. Its parameters are ``NormalizationParams(scale, bias)``; it has no state.

    Raises:
        ValueError, TypeError: features isn't a positive integer, or epsilon negative.

    Example:
        >>> import jax
        >>> params, state = layer_norm(2).init(jax.random.key(0))
        >>> print(params.scale, state)
        [1. 1.] ()

    Source:
        Ba, Kiros and Hinton 2016.
    """
    features = positive_integer("layer_norm(features)", features)
    check_epsilon("layer_norm", epsilon)
    return Layer(
        partial(layer_norm_init, features=features),
        partial(_layer_norm_layer_forward, epsilon=epsilon),
        layer_norm_backward,
        LayerSpec("layer_norm", settings=(("features", features), ("epsilon", epsilon)), decoding="alone"),
    )
