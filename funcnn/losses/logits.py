"""Cross-entropies of logits, for models without an output layer.

No probability is formed before its logarithm, and no exponent is positive, so that nothing overflows.
"""

import jax.numpy as jnp
from jax import lax

from funcnn._checks import check_unit_interval
from funcnn._small_matmul import small_max, small_sum
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
    is_class,
    is_label,
    matching_target,
    mean_over_rows,
    rows_of,
)
from funcnn.types import Loss, LossSpec, Scalar


def sigmoid_cross_entropy_forward(prediction: Outputs, target: Outputs) -> tuple[Scalar, ValueResiduals]:
    """Compute the binary cross-entropy of p = σ(z) from the logits z::

        L = mean(max(z, 0) − z y + log(1 + e^(−|z|)))

    This is −log σ(z) = log(1 + e⁻ᶻ) and −log(1 − σ(z)) = z + log(1 + e⁻ᶻ), rearranged so that no exponent is positive.
    Several outputs are independent labels.

    Args:
        prediction: z, logits, ``(batch, ...)``, floating.
        target: y, 0 and 1 or probabilities, of z's shape and dtype.

    Returns:
        The loss in nats and the residuals.

    Raises:
        ValueError: a target of another shape, an empty prediction, or targets outside [0, 1].
        TypeError: z is not floating, or y has another dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> print(sigmoid_cross_entropy_forward(jnp.array([[-1e4]]), jnp.array([[1.0]]))[0])
        10000.0

    Source:
        Bishop, "Pattern recognition and machine learning", 2006, equation 4.90 with 4.59.
    """
    logits, target = matching_target("sigmoid_cross_entropy", prediction, target)
    check_unit_interval("sigmoid_cross_entropy(target)", target, TARGET_ADVICE)
    # One condition for max(z, 0) and for −|z|, so that autodiff of the two at 0 adds up to the derivative there.
    positive = logits > 0
    linear_part = jnp.where(positive, logits, jnp.zeros_like(logits)) - logits * target
    loss = (linear_part + jnp.log1p(jnp.exp(jnp.where(positive, -logits, logits)))).mean()
    return loss, ValueResiduals(logits, target)


def sigmoid_cross_entropy_backward(residuals: ValueResiduals, dloss: Scalar) -> Outputs:
    """Compute ∂L/∂z = (σ(z) − y)/m over all m entries: the loss's 1/(p (1 − p)) and the sigmoid's p (1 − p) cancel.

    Args:
        residuals: from ``sigmoid_cross_entropy_forward``, z and y.
        dloss: cotangent of the loss, a scalar.

    Returns:
        ``dprediction``, the gradient of z, of its shape and dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> _, residuals = sigmoid_cross_entropy_forward(jnp.array([[-1e4]]), jnp.array([[1.0]]))
        >>> print(sigmoid_cross_entropy_backward(residuals, jnp.array(1.0)))
        [[-1.]]

    Source:
        Bishop 2006, equation 4.91.
    """
    logits, target = residuals
    return dloss * (1 / logits.size) * (lax.logistic(logits) - target)


def softmax_cross_entropy_forward(
    prediction: ClassScores, target: ClassTargets
) -> tuple[Scalar, ValueResiduals | LabelResiduals]:
    """Compute the categorical cross-entropy of p = softmax(z) from the logits z, over all rows n.

    With labels or rows y::

        L = meanₙ Σₖ y[n,k] (log Σⱼ e^z[n,j] − z[n,k])

    Each row's largest logit is subtracted first, so that no exponent is positive.

    Args:
        prediction: z, logits of exclusive classes, ``(batch, ..., classes)``, floating.
        target: class labels, integers ``(batch, ...)``, or one-hot rows of z's shape and dtype.

    Returns:
        The loss in nats and the residuals. Under ``jit``, a label outside 0…classes−1 makes the loss NaN and adds
        nothing to the gradient.

    Raises:
        ValueError: shapes that don't fit, an empty prediction, labels outside 0…classes−1.
        TypeError: z is not floating, labels are not integers, or one-hot rows have another dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> print(softmax_cross_entropy_forward(jnp.array([[-1e4, 1e4]]), jnp.array([0]))[0])
        20000.0

        Sequences, ``(batch, time, classes)`` with a label for each position:

        >>> print(softmax_cross_entropy_forward(jnp.zeros((2, 5, 3)), jnp.zeros((2, 5), int))[0].round(4))
        1.0986

    Source:
        Bishop 2006, equations 4.104 and 4.108.
    """
    logits, target = class_target("softmax_cross_entropy", prediction, target)
    shifted = logits - lax.stop_gradient(small_max(logits))
    exponentials = jnp.exp(shifted)
    sums = small_sum(exponentials)
    log_probabilities = shifted - jnp.log(sums)
    probabilities = exponentials / sums
    residuals = LabelResiduals if target.ndim < logits.ndim else ValueResiduals
    return mean_over_rows(log_probabilities, target), residuals(probabilities, target)


def softmax_cross_entropy_backward(residuals: ValueResiduals | LabelResiduals, dloss: Scalar) -> ClassScores:
    """Compute ∂L/∂z[n,j] = (p[n,j] Σₖ y[n,k] − y[n,j])/N over N rows, which is (p − y)/N where targets sum to 1.

    It follows from ∂/∂zⱼ (log Σᵢ e^zᵢ − zₖ) = pⱼ − 1[j = k].

    Args:
        residuals: from ``softmax_cross_entropy_forward``, p and y or the labels.
        dloss: cotangent of the loss, a scalar.

    Returns:
        ``dprediction``, the gradient of z, of its shape and dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> _, residuals = softmax_cross_entropy_forward(jnp.array([[2.0, 2.0]]), jnp.array([0]))
        >>> print(softmax_cross_entropy_backward(residuals, jnp.array(1.0)))
        [[-0.5  0.5]]

    Source:
        Bishop 2006, equation 4.109.
    """
    probabilities, target = residuals
    if isinstance(residuals, LabelResiduals):
        error = jnp.where(is_label(probabilities, target), probabilities - 1, probabilities)
        error = jnp.where(is_class(probabilities, target), error, jnp.zeros_like(error))
    else:
        error = probabilities * target.sum(axis=-1, keepdims=True) - target
    return dloss * (1 / rows_of(probabilities)) * error


sigmoid_cross_entropy = Loss(
    sigmoid_cross_entropy_forward,
    sigmoid_cross_entropy_backward,
    LossSpec("sigmoid_cross_entropy", (), "logits", "binary", constant_loss_of_bits),
)
softmax_cross_entropy = Loss(
    softmax_cross_entropy_forward,
    softmax_cross_entropy_backward,
    LossSpec("softmax_cross_entropy", (), "logits", "classes", constant_loss_of_classes),
)
