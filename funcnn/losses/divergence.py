"""The Kullback–Leibler divergence of a predicted distribution from a given one."""

import math

import jax.numpy as jnp
import numpy as np

from funcnn._checks import check_unit_interval, is_concrete
from funcnn.losses._targets import (
    ClassScores,
    Outputs,
    ValueResiduals,
    constant_loss_of_classes,
    matching_target,
    rows_of,
)
from funcnn.types import Loss, LossSpec, Scalar

ROUNDING = 1e-3
"""How far above 0 a log-probability may lie: a sum of probabilities of one, rounded in half precision."""


def kl_divergence_forward(prediction: ClassScores, target: ClassScores) -> tuple[Scalar, ValueResiduals]:
    """Compute L = meanₙ Σₖ y[n,k] (log y[n,k] − p[n,k]) of log-probabilities p, over all rows n; 0 log 0 is 0.

    The model ends in ``log_softmax``. The divergence is the cross-entropy minus the targets' own entropy: its gradient
    is that of the cross-entropy, and it is 0 where the prediction equals the targets.

    Args:
        prediction: p, log-probabilities of exclusive classes, ``(batch, ..., classes)``, floating.
        target: y, probabilities, of p's shape and dtype.

    Returns:
        The loss in nats and the residuals.

    Raises:
        ValueError: a target of another shape, an empty prediction; on concrete arrays, a log-probability above 0 or a
            target outside [0, 1].
        TypeError: p is not floating, or y has another dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> log_probabilities = jnp.log(jnp.array([[0.25, 0.75]]))
        >>> print(kl_divergence_forward(log_probabilities, jnp.array([[1.0, 0.0]]))[0].round(4))
        1.3863

    Source:
        Kullback and Leibler, "On information and sufficiency", 1951; Bishop 2006, equation 1.113.
    """
    prediction, target = matching_target("kl_divergence", prediction, target)
    if prediction.ndim < 2:
        raise ValueError(
            f"kl_divergence: expected a prediction of shape (batch, ..., classes), got {prediction.shape}. "
            "For a single sample, pass prediction[None, :] and target[None, :]."
        )
    _check_log_probabilities(prediction)
    check_unit_interval("kl_divergence(target)", target, "Targets are probabilities: pass softmax(scores).")
    is_positive = target > 0
    own = jnp.log(jnp.where(is_positive, target, jnp.ones_like(target)))
    terms = target * (own - jnp.where(is_positive, prediction, jnp.zeros_like(prediction)))
    return terms.sum(axis=-1).mean(), ValueResiduals(prediction, target)


def kl_divergence_backward(residuals: ValueResiduals, dloss: Scalar) -> Outputs:
    """Compute ∂L/∂p[n,k] = −y[n,k]/N over N rows: p enters linearly.

    Args:
        residuals: from ``kl_divergence_forward``, p and y.
        dloss: cotangent of the loss, a scalar.

    Returns:
        ``dprediction``, the gradient of p, of its shape and dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> _, residuals = kl_divergence_forward(jnp.log(jnp.array([[0.25, 0.75]])), jnp.array([[1.0, 0.0]]))
        >>> print(kl_divergence_backward(residuals, jnp.array(1.0)))
        [[-1. -0.]]

    Source:
        Kullback and Leibler 1951.
    """
    return dloss * (1 / rows_of(residuals.target)) * -residuals.target


def kl_divergence_constant(rows: np.ndarray) -> tuple[float, float]:
    """Return the divergence of the rows from their mean, the best constant, and from themselves; NaN outside [0, 1].

    Args:
        rows: float64 targets, ``(samples, classes)``.

    Example:
        >>> round(kl_divergence_constant(np.eye(4))[0], 4)
        1.3863
    """
    constant, own = constant_loss_of_classes(rows)
    return (constant - own, 0.0) if math.isfinite(constant) else (constant, 0.0)


def _check_log_probabilities(prediction):
    """Raise where concrete log-probabilities lie above 0."""
    if is_concrete(prediction) and (highest := np.asarray(prediction).max()) > ROUNDING:
        raise ValueError(
            f"kl_divergence(prediction): expected log-probabilities, at most 0, got {highest}. End the model in "
            "log_softmax, or take softmax_cross_entropy on its scores."
        )


kl_divergence = Loss(
    kl_divergence_forward,
    kl_divergence_backward,
    LossSpec("kl_divergence", (), "log_probabilities", "classes", kl_divergence_constant),
)
