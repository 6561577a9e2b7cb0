"""Losses on values."""

import numpy as np

from funcnn.losses._targets import Outputs, matching_target
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

    Example:
        >>> import jax.numpy as jnp
        >>> print(mean_squared_error_backward(jnp.array([[1.0], [3.0]]), jnp.array(1.0)))
        [[1.]
         [3.]]
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
