"""Losses on values."""

from functools import partial

import jax.numpy as jnp
import numpy as np

from funcnn._checks import check_real
from funcnn._memoise import memoised
from funcnn._static import Static
from funcnn.losses._targets import DeltaResiduals, Outputs, matching_target
from funcnn.types import Loss, LossSpec, Scalar


def mean_squared_error_forward(prediction: Outputs, target: Outputs) -> tuple[Scalar, Outputs]:
    """Compute L = mean((p − y)²), over the batch and the outputs.

    Args:
        prediction: p, ``(batch, ...)``, floating.
        target: y, of p's shape and dtype.

    Returns:
        The loss and the residuals p − y.

    Raises:
        ValueError: a target of another shape, or an empty prediction.
        TypeError: p is not floating, or y has another dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> print(mean_squared_error_forward(jnp.array([[1.0], [3.0]]), jnp.array([[0.0], [0.0]]))[0])
        5.0

    Source:
        Bishop, "Pattern recognition and machine learning", 2006, section 3.1.1, as a mean without the ½.
    """
    prediction, target = matching_target("mean_squared_error", prediction, target)
    difference = prediction - target
    return (difference * difference).mean(), difference


def mean_squared_error_backward(difference: Outputs, dloss: Scalar) -> Outputs:
    """Compute ∂L/∂p = 2 (p − y)/m from L = (1/m) Σ (p − y)² over all m entries.

    Args:
        difference: p − y, the residuals of ``mean_squared_error_forward``.
        dloss: cotangent of the loss, a scalar.

    Returns:
        ``dprediction``, the gradient of p, of its shape and dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> print(mean_squared_error_backward(jnp.array([[1.0], [3.0]]), jnp.array(1.0)))
        [[1.]
         [3.]]

    Source:
        Bishop 2006, section 3.1.1.
    """
    return dloss * (2 / difference.size) * difference


def mean_squared_error_constant(rows: np.ndarray) -> tuple[float, float]:
    """Return the loss of the outputs' means, which is the mean variance, and that of the targets themselves, 0.

    Args:
        rows: float64 targets, ``(samples, outputs)``.

    Example:
        >>> mean_squared_error_constant(np.array([[0.0], [2.0]]))
        (1.0, 0.0)
    """
    return float(rows.var(axis=0).mean()), 0.0


mean_squared_error = Loss(
    mean_squared_error_forward,
    mean_squared_error_backward,
    LossSpec("mean_squared_error", (), "values", "values", mean_squared_error_constant),
)


def absolute_error_forward(prediction: Outputs, target: Outputs) -> tuple[Scalar, Outputs]:
    """Compute L = mean(|p − y|), over the batch and the outputs.

    Args:
        prediction: p, ``(batch, ...)``, floating.
        target: y, of p's shape and dtype.

    Returns:
        The loss and the residuals p − y.

    Raises:
        ValueError: a target of another shape, or an empty prediction.
        TypeError: p is not floating, or y has another dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> print(absolute_error_forward(jnp.array([[1.0], [-3.0]]), jnp.array([[0.0], [0.0]]))[0])
        2.0

    Source:
        Bishop 2006, section 1.5.5, the Minkowski loss with q = 1.
    """
    prediction, target = matching_target("absolute_error", prediction, target)
    difference = prediction - target
    return jnp.abs(difference).mean(), difference


def absolute_error_backward(difference: Outputs, dloss: Scalar) -> Outputs:
    """Compute ∂L/∂p = sign(p − y)/m over all m entries, 0 at the kink p = y, as ``jnp.abs`` has it.

    Args:
        difference: p − y, the residuals of ``absolute_error_forward``.
        dloss: cotangent of the loss, a scalar.

    Returns:
        ``dprediction``, the gradient of p, of its shape and dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> print(absolute_error_backward(jnp.array([[1.0], [-3.0]]), jnp.array(1.0)))
        [[ 0.5]
         [-0.5]]

    Source:
        Bishop 2006, section 1.5.5.
    """
    return dloss * (1 / difference.size) * jnp.sign(difference)


def absolute_error_constant(rows: np.ndarray) -> tuple[float, float]:
    """Return the loss of the outputs' medians, the best constants, and that of the targets themselves, 0.

    Args:
        rows: float64 targets, ``(samples, outputs)``.

    Example:
        >>> absolute_error_constant(np.array([[0.0], [1.0], [5.0]]))
        (1.6666666666666667, 0.0)
    """
    return float(np.abs(rows - np.median(rows, axis=0)).mean()), 0.0


def huber_forward(prediction: Outputs, target: Outputs, delta: float = 1.0) -> tuple[Scalar, DeltaResiduals]:
    """Compute L = mean(h(p − y)) with h(d) = d²/2 where |d| ≤ δ, else δ (|d| − δ/2).

    The two parts have equal values and slopes where they meet.

    Args:
        prediction: p, ``(batch, ...)``, floating.
        target: y, of p's shape and dtype.
        delta: δ, in the target's units: beyond it an error counts linearly.

    Returns:
        The loss and the residuals, p − y and δ (``Static``).

    Raises:
        ValueError: a target of another shape, an empty prediction, or a delta that isn't positive.
        TypeError: p is not floating, y has another dtype, or delta isn't a Python number.

    Example:
        >>> import jax.numpy as jnp
        >>> print(huber_forward(jnp.array([[1.0], [3.0]]), jnp.array([[0.0], [0.0]]), delta=1.0)[0])
        1.5

    Source:
        Huber, "Robust estimation of a location parameter", 1964.
    """
    _check_delta(delta)
    prediction, target = matching_target(f"huber({delta})", prediction, target)
    difference = prediction - target
    size = jnp.abs(difference)
    # Neither branch overflows where the other is taken: the square is of at most δ.
    inside = jnp.where(size <= delta, size, jnp.full_like(size, delta))
    loss = (inside * inside / 2 + delta * (size - inside)).mean()
    return loss, DeltaResiduals(difference, Static(delta))


def huber_backward(residuals: DeltaResiduals, dloss: Scalar) -> Outputs:
    """Compute the gradient over all m entries, with d = p − y::

        ∂L/∂p = min(max(d, −δ), δ)/m

    The slope of d²/2 is d, that of δ |d| is ±δ.

    Args:
        residuals: from ``huber_forward``, p − y and δ.
        dloss: cotangent of the loss, a scalar.

    Returns:
        ``dprediction``, the gradient of p, of its shape and dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> _, residuals = huber_forward(jnp.array([[0.5], [-3.0]]), jnp.zeros((2, 1)), delta=1.0)
        >>> print(huber_backward(residuals, jnp.array(1.0)))
        [[ 0.25]
         [-0.5 ]]

    Source:
        Huber 1964.
    """
    difference, delta = residuals.difference, residuals.delta.value
    return dloss * (1 / difference.size) * jnp.clip(difference, -delta, delta)


def huber_constant(rows: np.ndarray, delta: float) -> tuple[float, float]:
    """Return the loss of the best constant for each output, and that of the targets themselves, 0.

    The slope of the loss by the constant rises from at most 0 at the lowest target to at least 0 at the highest one:
    the constant where it is 0 is found by bisection.

    Args:
        rows: float64 targets, ``(samples, outputs)``.
        delta: δ.

    Example:
        >>> huber_constant(np.array([[0.0], [2.0]]), 5.0)
        (0.5, 0.0)
    """
    low, high = rows.min(axis=0), rows.max(axis=0)
    for _ in range(60):
        middle = (low + high) / 2
        is_above = np.clip(middle - rows, -delta, delta).mean(axis=0) > 0
        low, high = np.where(is_above, low, middle), np.where(is_above, middle, high)
    size = np.abs(rows - high)
    inside = np.minimum(size, delta)
    return float((inside**2 / 2 + delta * (size - inside)).mean()), 0.0


def _check_delta(delta):
    check_real("huber(delta)", delta)
    if delta <= 0:
        raise ValueError(f"huber(delta): expected a number above 0, got {delta}. Use absolute_error.")


absolute_error = Loss(
    absolute_error_forward,
    absolute_error_backward,
    LossSpec("absolute_error", (), "values", "values", absolute_error_constant),
)


@memoised
def huber(delta: float = 1.0) -> Loss:
    """The Huber loss: half the square of an error of at most δ in size, and linear with the slope δ beyond.

    L = mean(h(p − y)) with h(d) = d²/2 where |d| ≤ δ, else h(d) = δ (|d| − δ/2).

    Args:
        delta: δ, in the target's units, a Python number above 0.

    Returns:
        The loss.

    Raises:
        ValueError, TypeError: delta isn't a positive Python number.

    Example:
        >>> import jax.numpy as jnp
        >>> print(huber(1.0).forward(jnp.array([[1.0], [3.0]]), jnp.array([[0.0], [0.0]]))[0])
        1.5

    Source:
        Huber 1964.
    """
    _check_delta(delta)
    spec = LossSpec("huber", (("delta", delta),), "values", "values", partial(huber_constant, delta=delta))
    return Loss(partial(huber_forward, delta=delta), huber_backward, spec)
