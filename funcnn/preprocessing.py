"""Input scaling: ``fit`` computes statistics of the training set, ``apply`` scales data with them.

Fit on the training set only, and apply the result to all data. Statistics of a test set leak information about it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from funcnn._checks import check_finite, describe, feature_array, is_concrete
from funcnn._conversion import plain_array

Features = Float[Array | np.ndarray, "*batch features"]


class Scaling(NamedTuple):
    """The offset that is subtracted from each feature, and the divisor of the result, ``(features,)`` each.

    Both are NumPy's float64, so that no digit of a large offset is lost; under ``jit`` they are traced in the dtype of
    the training set.
    """

    offset: Float[Array | np.ndarray, " features"]
    divisor: Float[Array | np.ndarray, " features"]


class Scaler(NamedTuple):
    """A pair of pure functions that fit and apply a scaling.

    Fields:
        fit: ``(x) -> scaling``.
        apply: ``(scaling, x) -> (x − offset)/divisor``.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[1.0, 5.0], [3.0, 5.0]])
        >>> print(standard_scaler.apply(standard_scaler.fit(x), x))
        [[-1.  0.]
         [ 1.  0.]]
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
    with np.errstate(over="ignore", invalid="ignore"):
        mean = x.mean(axis=0)
        centred = x - mean[None, :]
        # Scaled, because squares of large deviations overflow.
        largest = _one_where_zero(numpy, abs(centred).max(axis=0))
        deviation = largest * numpy.sqrt(((centred / largest[None, :]) ** 2).mean(axis=0))
    # The mean of equal numbers may differ from them by rounding, and that deviation is not a scale.
    constant = x.max(axis=0) == x.min(axis=0)
    offset, divisor = numpy.where(constant, x[0], mean), numpy.where(constant, numpy.ones_like(deviation), deviation)
    return _finite_scaling("standard_scaler", offset, divisor)


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
    with np.errstate(over="ignore"):
        spread = _one_where_zero(numpy, x.max(axis=0) - smallest)
    return _finite_scaling("min_max_scaler", smallest, spread)


def scale(scaling: Scaling, x: Features) -> Features:
    """Return (x − offset)/divisor for every feature.

    The offset is subtracted with all its digits, also where x's dtype is narrower: as the sum of two numbers of that
    dtype, x − a is exact for x near a, and the small rest b is subtracted from the small difference.

    Args:
        scaling: the result of ``fit``.
        x: ``(batch, ..., features)``, floating.

    Returns:
        The scaled features, of x's shape and dtype.

    Raises:
        ValueError: x doesn't have the features of the fitted data, or a result is too large for x's dtype.
        TypeError: x isn't floating.

    Example:
        >>> import jax.numpy as jnp
        >>> print(scale(Scaling(jnp.array([1.0]), jnp.array([2.0])), jnp.array([[5.0]])))
        [[2.]]
    """
    converted = feature_array("scale", x)
    features = scaling.offset.size
    if converted.shape[-1] != features:
        between = "..., " if converted.ndim > 2 else ""
        raise ValueError(
            f"scale: expected x of shape (batch, {between}{features}) like what was fitted, "
            f"got {describe(converted)}. Fit and apply on the same features."
        )
    if isinstance(x, jax.Array) or not is_concrete(*scaling):
        scaled = _in_two_steps(scaling, converted)
    else:
        offset, divisor = (np.asarray(part, np.float64) for part in scaling)
        with np.errstate(over="ignore"):
            wide = (plain_array("scale", x).astype(np.float64) - offset) / divisor
            scaled = jnp.asarray(wide.astype(converted.dtype))
    _check_no_overflow(scaling, converted, scaled)
    return scaled


def _in_two_steps(scaling: Scaling, x: Array) -> Array:
    """Return (x − a − b)/divisor in x's dtype, where a + b is the offset and a has that dtype."""
    dtype = x.dtype if x.dtype.itemsize >= 4 else jnp.dtype(jnp.float32)
    numpy: Any = np if all(isinstance(part, np.ndarray) for part in scaling) else jnp
    # Where numbers are large, x − a overflows, and the reciprocal by which XLA multiplies underflows.
    most = float(jnp.finfo(dtype).max) / 4
    whole, spread = scaling
    factor = numpy.where(numpy.maximum(abs(whole), spread) > most, 1 / 16, 1.0)
    near = numpy.asarray(whole, dtype)
    parts = (factor, factor * near, factor * (whole - near), factor * spread)
    along_features = (1,) * (x.ndim - 1) + (x.shape[-1],)
    factor, offset, rest, divisor = (jnp.asarray(part, dtype).reshape(along_features) for part in parts)
    # The barrier keeps XLA from adding the two constants, which gives the offset rounded.
    centred = jax.lax.optimization_barrier(x.astype(dtype) * factor - offset)
    return ((centred - rest) / divisor).astype(x.dtype)


def _check_no_overflow(scaling: Scaling, x: Array, scaled: Array) -> None:
    """Raise where a finite feature was scaled beyond its dtype."""
    if not is_concrete(scaled) or bool(jnp.isfinite(scaled).all()):
        return
    index = np.argwhere(~np.isfinite(np.asarray(scaled)) & np.isfinite(np.asarray(x)))
    if len(index):
        place = tuple(map(int, index[0]))
        value, feature = float(np.asarray(x)[place]), place[-1]
        raise ValueError(
            f"scale: expected features whose scaled values {x.dtype} holds, got {value:g} at index {place}, which "
            f"is to be divided by {float(scaling.divisor[feature]):g}. In the training set feature {feature} hardly "
            "varies: leave it out, or fit the scaler on data in which it does."
        )


def _training_set(name, x):
    """Return the training set as rows, and the module that computes on them: ``numpy`` in float64 where it can."""
    wide: Array | np.ndarray = (converted := feature_array(name, x))
    if is_concrete(converted) and converted.is_fully_addressable:
        wide = (np.asarray(x) if isinstance(x, jax.Array) else plain_array(name, x)).astype(np.float64)
    check_finite(name, wide)
    rows = wide if wide.ndim == 2 else wide.reshape(-1, wide.shape[-1])
    return rows, jnp if isinstance(rows, jax.Array) else np


def _finite_scaling(name, offset, divisor) -> Scaling:
    """Return a scaling; raise where a mean or a range of finite features is too large for float64."""
    if is_concrete(offset, divisor):
        wrong = np.flatnonzero(~np.isfinite(np.asarray(offset)) | ~np.isfinite(np.asarray(divisor)))
        if len(wrong):
            raise ValueError(
                f"{name}: expected features whose sum and range {offset.dtype} holds, got larger ones in feature "
                f"{wrong[0]}. Divide the features before fitting: x / 2**64."
            )
    return Scaling(offset, divisor)


def _one_where_zero(numpy, spread):
    return numpy.where(spread == 0, numpy.ones_like(spread), spread)


standard_scaler = Scaler(standard_fit, scale)
min_max_scaler = Scaler(min_max_fit, scale)
