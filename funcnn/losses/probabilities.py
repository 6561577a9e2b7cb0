"""Cross-entropies of probabilities, for models whose output layer is a sigmoid or a softmax.

Probabilities are clipped to [10⁻⁷, 1 − 10⁻⁷], so that a certain and wrong prediction has a finite loss. In a dtype
where 1 − 10⁻⁷ rounds to 1, the upper edge is the largest number below 1: 1 − 2⁻⁸ in bfloat16. The losses in ``logits``
are the same without the clipping.
"""

import jax.numpy as jnp

from funcnn._checks import check_unit_interval
from funcnn.losses._targets import (
    TARGET_ADVICE,
    ClassScores,
    ClassTargets,
    LabelResiduals,
    Outputs,
    ValueResiduals,
    class_target,
    constant_loss_of_bits,
    constant_loss_of_classes,
    is_label,
    matching_target,
    mean_over_rows,
    rows_of,
)
from funcnn.types import Loss, LossSpec, Scalar

SMALLEST_PROBABILITY = 1e-7
"""Where the losses on probabilities clip: at this, and as far below 1."""

_USE_LOGITS = "For raw scores use the loss on logits: sigmoid_cross_entropy or softmax_cross_entropy."


def binary_cross_entropy_forward(prediction: Outputs, target: Outputs) -> tuple[Scalar, ValueResiduals]:
    """Compute the binary cross-entropy, with p clipped::

        L = −mean(y log p + (1 − y) log(1 − p))

    The mean is over the batch and the outputs.

    Several outputs are independent labels.

    Args:
        prediction: p, probabilities, ``(batch, ...)``, floating.
        target: y, 0 and 1 or probabilities, of p's shape and dtype.

    Returns:
        The loss in nats and the residuals. Under ``jit``, a p outside [0, 1] makes the loss NaN.

    Raises:
        ValueError: a target of another shape, an empty prediction, or values outside [0, 1].
        TypeError: p is not floating, or y has another dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> print(binary_cross_entropy_forward(jnp.array([[0.5]]), jnp.array([[1.0]]))[0].round(4))
        0.6931

    Source:
        Bishop, "Pattern recognition and machine learning", 2006, equation 4.90.
    """
    prediction, target = matching_target("binary_cross_entropy", prediction, target)
    check_unit_interval("binary_cross_entropy(prediction)", prediction, _USE_LOGITS)
    check_unit_interval("binary_cross_entropy(target)", target, TARGET_ADVICE)
    p = _clipped(prediction)
    loss = -(target * jnp.log(p) + (1 - target) * jnp.log1p(-p)).mean()
    return loss, ValueResiduals(prediction, target)


def binary_cross_entropy_backward(residuals: ValueResiduals, dloss: Scalar) -> Outputs:
    """Compute the gradient over all m entries::

        ∂L/∂p = (p − y)/(p (1 − p) m)

    by ∂L/∂p = ((1 − y)/(1 − p) − y/p)/m. It is 0 where p was clipped, because L is constant there.

    Args:
        residuals: from ``binary_cross_entropy_forward``, p and y.
        dloss: cotangent of the loss, a scalar.

    Returns:
        ``dprediction``, the gradient of p, of its shape and dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> _, residuals = binary_cross_entropy_forward(jnp.array([[0.5, 0.0]]), jnp.array([[1.0, 1.0]]))
        >>> print(binary_cross_entropy_backward(residuals, jnp.array(1.0)))
        [[-1.  0.]]

    Source:
        Bishop 2006, equation 4.90.
    """
    prediction, target = residuals
    p = _clipped(prediction)
    slope = (1 - target) / (1 - p) - target / p
    return dloss * (1 / p.size) * jnp.where(_inside_clip(prediction), slope, jnp.zeros_like(p))


def categorical_cross_entropy_forward(
    prediction: ClassScores, target: ClassTargets
) -> tuple[Scalar, ValueResiduals | LabelResiduals]:
    """Compute L = −meanₙ Σₖ y[n,k] log p[n,k], over all rows n, with p clipped.

    Args:
        prediction: p, probabilities of exclusive classes, ``(batch, ..., classes)``, floating.
        target: class labels, integers ``(batch, ...)``, or one-hot rows of p's shape and dtype.

    Returns:
        The loss in nats and the residuals. Under ``jit``, a p outside [0, 1] or a label outside 0…classes−1 makes the
        loss NaN.

    Raises:
        ValueError: shapes that don't fit, an empty prediction, values outside [0, 1], labels outside 0…classes−1.
        TypeError: p is not floating, labels are not integers, or one-hot rows have another dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> print(categorical_cross_entropy_forward(jnp.array([[0.25, 0.75]]), jnp.array([0]))[0].round(4))
        1.3863

    Source:
        Bishop 2006, equation 4.108.
    """
    prediction, target = class_target("categorical_cross_entropy", prediction, target)
    check_unit_interval("categorical_cross_entropy(prediction)", prediction, _USE_LOGITS)
    residuals = LabelResiduals if target.ndim < prediction.ndim else ValueResiduals
    return mean_over_rows(jnp.log(_clipped(prediction)), target), residuals(prediction, target)


def categorical_cross_entropy_backward(residuals: ValueResiduals | LabelResiduals, dloss: Scalar) -> ClassScores:
    """Compute ∂L/∂p[n,k] = −y[n,k]/(p[n,k] N) over N rows, and 0 where p was clipped.

    The derivative of log p is 1/p.

    Args:
        residuals: from ``categorical_cross_entropy_forward``, p and y or the labels.
        dloss: cotangent of the loss, a scalar.

    Returns:
        ``dprediction``, the gradient of p, of its shape and dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> _, residuals = categorical_cross_entropy_forward(jnp.array([[0.25, 0.75]]), jnp.array([0]))
        >>> print(categorical_cross_entropy_backward(residuals, jnp.array(1.0)))
        [[-4.  0.]]

    Source:
        Bishop 2006, equation 4.108.
    """
    prediction, target = residuals
    slope = -1 / _clipped(prediction)
    is_inside = _inside_clip(prediction)
    if isinstance(residuals, LabelResiduals):
        slope = jnp.where(is_inside & is_label(prediction, target), slope, jnp.zeros_like(slope))
    else:
        slope = jnp.where(is_inside, slope * target, jnp.zeros_like(slope))
    return dloss * (1 / rows_of(prediction)) * slope


def _clip_edges(dtype):
    # 1 − 10⁻⁷ rounds to 1 in bfloat16 and float16. The upper edge there is the largest number below 1.
    return SMALLEST_PROBABILITY, 1 - max(SMALLEST_PROBABILITY, float(jnp.finfo(dtype).epsneg))


def _clipped(probabilities):
    """Return probabilities inside the edges; NaN outside [0, 1], which can't be checked while JAX traces."""
    lowest, highest = _clip_edges(probabilities.dtype)
    raised = jnp.where(probabilities < lowest, jnp.full_like(probabilities, lowest), probabilities)
    inside = jnp.where(probabilities > highest, jnp.full_like(probabilities, highest), raised)
    return jnp.where((probabilities < 0) | (probabilities > 1), jnp.nan, inside)


def _inside_clip(probabilities):
    lowest, highest = _clip_edges(probabilities.dtype)
    return (probabilities >= lowest) & (probabilities <= highest)


binary_cross_entropy = Loss(
    binary_cross_entropy_forward,
    binary_cross_entropy_backward,
    LossSpec("binary_cross_entropy", (), "probabilities", "binary", constant_loss_of_bits),
)
categorical_cross_entropy = Loss(
    categorical_cross_entropy_forward,
    categorical_cross_entropy_backward,
    LossSpec("categorical_cross_entropy", (), "probabilities", "classes", constant_loss_of_classes),
)
