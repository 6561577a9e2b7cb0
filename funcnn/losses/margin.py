"""The hinge loss, of the margin of a score."""

import jax.numpy as jnp
import numpy as np

from funcnn._checks import is_concrete
from funcnn.losses._targets import Outputs, ValueResiduals, matching_target
from funcnn.types import Loss, LossSpec, Scalar


def hinge_forward(prediction: Outputs, target: Outputs) -> tuple[Scalar, ValueResiduals]:
    """Compute L = mean(max(0, 1 − y p)) of scores p and signs y, over the batch and the outputs.

    The class of a score is its sign. The loss is 0 where every score has its target's sign and a margin y p of at
    least 1. Several outputs are independent labels.

    Args:
        prediction: p, scores, ``(batch, ...)``, floating.
        target: y, −1 or 1, of p's shape and dtype.

    Returns:
        The loss and the residuals.

    Raises:
        ValueError: a target of another shape, an empty prediction; on concrete arrays, targets other than −1 and 1.
        TypeError: p is not floating, or y has another dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> print(hinge_forward(jnp.array([[2.0], [0.5]]), jnp.array([[1.0], [-1.0]]))[0])
        0.75

    Source:
        Cortes and Vapnik, "Support-vector networks", 1995; Bishop, "Pattern recognition and machine learning", 2006,
        equation 7.44.
    """
    prediction, target = matching_target("hinge", prediction, target)
    _check_signs(target)
    missing = 1 - target * prediction
    # Not jnp.maximum, whose derivative at 0 is ½; as for ReLU it is 0.
    return jnp.where(missing > 0, missing, jnp.zeros_like(missing)).mean(), ValueResiduals(prediction, target)


def hinge_backward(residuals: ValueResiduals, dloss: Scalar) -> Outputs:
    """Compute ∂L/∂p = −y/m over all m entries where y p < 1, else 0, also at the kink y p = 1.

    The slope of 1 − y p by p is −y, and that of the constant 0 is 0.

    Args:
        residuals: from ``hinge_forward``, p and y.
        dloss: cotangent of the loss, a scalar.

    Returns:
        ``dprediction``, the gradient of p, of its shape and dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> _, residuals = hinge_forward(jnp.array([[2.0], [0.5]]), jnp.array([[1.0], [-1.0]]))
        >>> print(hinge_backward(residuals, jnp.array(1.0)))
        [[0. ]
         [0.5]]

    Source:
        Bishop 2006, equation 7.44.
    """
    prediction, target = residuals
    is_short = 1 - target * prediction > 0
    return dloss * (1 / prediction.size) * jnp.where(is_short, -target, jnp.zeros_like(target))


def hinge_constant(rows: np.ndarray) -> tuple[float, float]:
    """Return the loss of the best constant score of each output, and that of the targets themselves, 0.

    The loss of a constant is linear from −1 to 1 and rises beyond: the best one is the sign that is more frequent, and
    every other target then costs 2.

    Args:
        rows: float64 targets, ``(samples, outputs)``.

    Example:
        >>> hinge_constant(np.array([[1.0], [1.0], [1.0], [-1.0]]))
        (0.5, 0.0)
    """
    positive = (rows > 0).mean(axis=0)
    return float((2 * np.minimum(positive, 1 - positive)).mean()), 0.0


def _check_signs(target):
    """Raise where concrete targets are other than −1 and 1."""
    if is_concrete(target):
        values = np.asarray(target)
        wrong = np.argwhere(np.abs(values) != 1)
        if len(wrong):
            first = tuple(map(int, wrong[0]))
            raise ValueError(
                f"hinge(target): expected targets of -1 and 1, got {values[first]} at index {first} ({len(wrong)} such "
                "in all). Turn 0 and 1 into -1 and 1: 2 * y - 1."
            )


hinge = Loss(hinge_forward, hinge_backward, LossSpec("hinge", (), "values", "signs", hinge_constant))
