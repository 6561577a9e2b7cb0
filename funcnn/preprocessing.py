"""Input scaling: ``fit`` computes statistics of the training set, ``apply`` scales data with them.

Fit on the training set only, and apply the result to all data. Statistics of a test set leak information about it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from funcnn._checks import check_finite, describe, feature_array
from funcnn._conversion import plain_array

Features = Float[Array | np.ndarray, "*batch features"]


class Scaling(NamedTuple):
    """The offset that is subtracted from each feature, and the divisor of the result, ``(features,)`` each.

    Both are NumPy's float64 where the training set was, so that no digit of a large offset is lost.
    """

    offset: Float[Array | np.ndarray, " features"]
    divisor: Float[Array | np.ndarray, " features"]


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
    x, numpy = _training_set("standard_scaler", x)
    mean = x.mean(axis=0)
    centred = x - mean[None, :]
    # Scaled, because squares of large deviations overflow.
    largest = _one_where_zero(numpy, abs(centred).max(axis=0))
    deviation = largest * numpy.sqrt(((centred / largest[None, :]) ** 2).mean(axis=0))
    # The mean of equal numbers may differ from them by rounding, and that deviation is not a scale.
    constant = x.max(axis=0) == x.min(axis=0)
    return Scaling(numpy.where(constant, x[0], mean), numpy.where(constant, numpy.ones_like(deviation), deviation))


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
    x, numpy = _training_set("min_max_scaler", x)
    smallest = x.min(axis=0)
    return Scaling(smallest, _one_where_zero(numpy, x.max(axis=0) - smallest))


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
    converted = feature_array("scale", x)
    features, dtype = scaling.offset.size, jax.dtypes.canonicalize_dtype(scaling.offset.dtype)
    if converted.shape[-1] != features or converted.dtype != dtype:
        between = "..., " if converted.ndim > 2 else ""
        raise ValueError(
            f"scale: expected {dtype} x of shape (batch, {between}{features}) like what was fitted, "
            f"got {describe(converted)}. Fit and apply on the same features in the same dtype."
        )
    wide = _host_array("scale", x, converted)
    if isinstance(wide, jax.Array):
        scaling = Scaling(*(jnp.asarray(part, wide.dtype) for part in scaling))
    along_features = (1,) * (wide.ndim - 1) + (features,)
    return jnp.asarray((wide - scaling.offset.reshape(along_features)) / scaling.divisor.reshape(along_features))


def _training_set(name, x):
    """Return the training set as rows, and the module that computes on them, ``numpy`` or ``jax.numpy``."""
    converted = feature_array(name, x)
    check_finite(name, converted)
    wide = _host_array(name, x, converted)
    rows = wide if wide.ndim == 2 else wide.reshape(-1, wide.shape[-1])
    return rows, jnp if isinstance(rows, jax.Array) else np


def _host_array(name, x, converted: Array) -> Array | np.ndarray:
    """Return x in NumPy's float64 where JAX's array has fewer digits: those of a time stamp are in the offset."""
    if isinstance(x, jax.Array) or converted.dtype == jnp.float64:
        return converted
    array = plain_array(name, x)
    return array if array.dtype == np.float64 else converted


def _one_where_zero(numpy, spread):
    return numpy.where(spread == 0, numpy.ones_like(spread), spread)


standard_scaler = Scaler(standard_fit, scale)
min_max_scaler = Scaler(min_max_fit, scale)
