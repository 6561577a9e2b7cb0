"""Input scaling: ``fit`` computes statistics of the training set, ``apply`` scales data with them.

Fit on the training set only, and apply the result to all data. Statistics of a test set leak information about it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from funcnn._checks import check_finite, describe, feature_array

Features = Float[Array, "*batch features"]


class Scaling(NamedTuple):
    """The offset that is subtracted from each feature, and the divisor of the result, ``(features,)`` each."""

    offset: Float[Array, " features"]
    divisor: Float[Array, " features"]


class Scaler(NamedTuple):
    """A pair of pure functions that fit and apply a scaling.

    Fields:
        fit: ``(x) -> scaling``.
        apply: ``(scaling, x) -> (x − offset)/divisor``.
    """

    fit: Callable[[Features], Scaling]
    apply: Callable[[Scaling, Features], Features]


def standard_fit(x: Features) -> Scaling:
    """Return mean and standard deviation of every feature, σ² = Σ (x − μ)²/n. The divisor of a constant feature is 1.

    Args:
        x: the training set, ``(batch, ..., features)``, floating.

    Returns:
        The scaling to mean 0 and variance 1.

    Raises:
        ValueError: x is empty, has no batch axis, or holds a NaN or an infinity.
        TypeError: x isn't floating.

    Example:
        >>> import jax.numpy as jnp
        >>> print(standard_fit(jnp.array([[1.0, 5.0], [3.0, 5.0]])).divisor)
        [1. 1.]
    """
    x = _training_set("standard_scaler", x)
    mean = x.mean(axis=0)
    centred = x - mean[None, :]
    # Scaled, because squares of large deviations overflow.
    largest = _one_where_zero(jnp.abs(centred).max(axis=0))
    deviation = largest * jnp.sqrt(((centred / largest[None, :]) ** 2).mean(axis=0))
    # The mean of equal numbers may differ from them by rounding, and that deviation is not a scale.
    constant = x.max(axis=0) == x.min(axis=0)
    return Scaling(jnp.where(constant, x[0], mean), jnp.where(constant, jnp.ones_like(deviation), deviation))


def min_max_fit(x: Features) -> Scaling:
    """Return minimum and range of every feature. The divisor of a constant feature is 1.

    Args:
        x: the training set, ``(batch, ..., features)``, floating.

    Returns:
        The scaling to [0, 1].

    Raises:
        ValueError: x is empty, has no batch axis, or holds a NaN or an infinity.
        TypeError: x isn't floating.

    Example:
        >>> import jax.numpy as jnp
        >>> print(min_max_fit(jnp.array([[1.0, 5.0], [3.0, 5.0]])).divisor)
        [2. 1.]
    """
    x = _training_set("min_max_scaler", x)
    smallest = x.min(axis=0)
    return Scaling(smallest, _one_where_zero(x.max(axis=0) - smallest))


def scale(scaling: Scaling, x: Features) -> Features:
    """Return (x − offset)/divisor for every feature.

    Args:
        scaling: the result of ``fit``.
        x: ``(batch, ..., features)``, floating.

    Returns:
        The scaled features, of x's shape.

    Raises:
        ValueError: x doesn't have the features or the dtype of the fitted data.
        TypeError: x isn't floating.

    Example:
        >>> import jax.numpy as jnp
        >>> print(scale(Scaling(jnp.array([1.0]), jnp.array([2.0])), jnp.array([[5.0]])))
        [[2.]]
    """
    x = feature_array("scale", x)
    features, dtype = scaling.offset.size, scaling.offset.dtype
    if x.shape[-1] != features or x.dtype != dtype:
        between = "..., " if x.ndim > 2 else ""
        raise ValueError(
            f"scale: expected {dtype} x of shape (batch, {between}{features}) like what was fitted, got {describe(x)}. "
            "Fit and apply on the same features in the same dtype."
        )
    along_features = (1,) * (x.ndim - 1) + (features,)
    return (x - scaling.offset.reshape(along_features)) / scaling.divisor.reshape(along_features)


def _training_set(name, x):
    x = feature_array(name, x)
    check_finite(name, x)
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])


def _one_where_zero(spread):
    return jnp.where(spread == 0, jnp.ones_like(spread), spread)


standard_scaler = Scaler(standard_fit, scale)
min_max_scaler = Scaler(min_max_fit, scale)
