"""Losses: each forward pass with its hand-written gradient below it.

Every loss is a mean over the batch, taken here and only here, so its gradient carries the one division by the batch
size that there is. The losses on logits never form a probability before its logarithm, and can't overflow.
"""

from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Integer

from funcnn._checks import check_labels, check_unit_interval, describe, floating_array, numeric_array, wide_labels
from funcnn._small_matmul import small_max as largest, small_sum as total
from funcnn.types import Loss, Scalar

Outputs: TypeAlias = Float[Array, "batch ..."]
ClassScores: TypeAlias = Float[Array, "batch classes"]
ClassTargets: TypeAlias = Integer[Array, " batch"] | Float[Array, "batch classes"]

SMALLEST_PROBABILITY = 1e-7
"""Where the probability losses clip: at this, and as far below 1."""

_USE_LOGITS = "For raw scores use the loss on logits: sigmoid_cross_entropy or softmax_cross_entropy."
_TARGET_ADVICE = "Targets are 0 and 1, or probabilities between them."


class ValueResiduals(NamedTuple):
    """A prediction (probabilities or logits) beside targets of the same shape."""

    prediction: Float[Array, "..."]
    target: Float[Array, "..."]


class LabelResiduals(NamedTuple):
    """Probabilities beside integer class labels."""

    probabilities: ClassScores
    labels: Integer[Array, " batch"]


def mean_squared_error_forward(prediction: Outputs, target: Outputs) -> tuple[Scalar, Outputs]:
    """L = mean((p − y)²), over the batch and the outputs.

    Args:
        prediction: p, ``(batch, ...)``, floating.
        target: y, of p's shape and dtype.

    Returns:
        The loss, a scalar in the square of the target's units, and the residuals p − y.

    Raises:
        ValueError: another shape, which would broadcast, or nothing to average.
        TypeError: p isn't floating, or y has another dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> print(mean_squared_error_forward(jnp.array([[1.0], [3.0]]), jnp.array([[0.0], [0.0]]))[0])
        5.0

    Source:
        Bishop, "Pattern recognition and machine learning", 2006, section 3.1.1, as a mean without the ½.
    """
    prediction, target = _matching("mean_squared_error", prediction, target)
    difference = prediction - target
    return (difference * difference).mean(), difference


def mean_squared_error_backward(difference: Outputs, dloss: Scalar) -> Outputs:
    """L = (1/m) Σ (p − y)² over m = batch · outputs entries: ∂L/∂p = 2 (p − y)/m. The square brings the 2.

    Args:
        difference: the residuals, p − y.
        dloss: cotangent of the loss.

    Returns:
        The gradient by the prediction, of its shape.

    Example:
        >>> import jax.numpy as jnp
        >>> print(mean_squared_error_backward(jnp.array([[1.0], [3.0]]), jnp.array(1.0)))
        [[1.]
         [3.]]
    """
    return dloss * (2 / difference.size) * difference


def binary_cross_entropy_forward(prediction: Outputs, target: Outputs) -> tuple[Scalar, ValueResiduals]:
    """L = −mean(y log p + (1 − y) log(1 − p)), over the batch and the outputs, with p clipped to [10⁻⁷, 1 − 10⁻⁷].

    Probabilities that round to 1 are clipped one spacing below it: 2⁻⁸ in bfloat16, where p can't be told from 1 closer
    than that. Several outputs are independent labels. With sigmoids before it, ``sigmoid_cross_entropy`` on the logits
    is the same loss without the clipping.

    Args:
        prediction: p, probabilities, ``(batch, ...)``, floating.
        target: y, 0 and 1 or probabilities, of p's shape and dtype.

    Returns:
        The loss in nats, a scalar, and the residuals. Under ``jit``, where values can't be read, a p outside [0, 1]
        makes the loss NaN.

    Raises:
        ValueError: another shape, which would broadcast; nothing to average; values outside [0, 1].
        TypeError: p isn't floating, or y has another dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> print(binary_cross_entropy_forward(jnp.array([[0.5]]), jnp.array([[1.0]]))[0].round(4))
        0.6931

    Source:
        Bishop, "Pattern recognition and machine learning", 2006, equation 4.90.
    """
    prediction, target = _matching("binary_cross_entropy", prediction, target)
    check_unit_interval("binary_cross_entropy(prediction)", prediction, _USE_LOGITS)
    check_unit_interval("binary_cross_entropy(target)", target, _TARGET_ADVICE)
    p = _clipped(prediction)
    loss = -(target * jnp.log(p) + (1 - target) * jnp.log1p(-p)).mean()
    return loss, ValueResiduals(prediction, target)


def binary_cross_entropy_backward(residuals: ValueResiduals, dloss: Scalar) -> Outputs:
    """∂L/∂p = ((1 − y)/(1 − p) − y/p)/m, m = batch · outputs, and 0 where p was clipped: there L doesn't move with p.

    Args:
        residuals: prediction and target.
        dloss: cotangent of the loss.

    Returns:
        The gradient by the prediction, of its shape.

    Example:
        >>> import jax.numpy as jnp
        >>> residuals = ValueResiduals(jnp.array([[0.5, 0.0]]), jnp.array([[1.0, 1.0]]))
        >>> print(binary_cross_entropy_backward(residuals, jnp.array(1.0)))
        [[-1.  0.]]
    """
    prediction, target = residuals
    p = _clipped(prediction)
    slope = (1 - target) / (1 - p) - target / p
    return dloss * (1 / p.size) * jnp.where(_inside_clip(prediction), slope, jnp.zeros_like(p))


def categorical_cross_entropy_forward(
    prediction: ClassScores, target: ClassTargets
) -> tuple[Scalar, ValueResiduals | LabelResiduals]:
    """L = −meanₙ Σₖ y[n,k] log p[n,k], with p clipped to [10⁻⁷, 1 − 10⁻⁷].

    With a softmax before it, ``softmax_cross_entropy`` on the logits is the same loss without the clipping.

    Args:
        prediction: p, probabilities of exclusive classes, ``(batch, classes)``, floating.
        target: class labels, integers ``(batch,)``, or one-hot rows of p's shape and dtype.

    Returns:
        The loss in nats, a scalar, and the residuals.

    Raises:
        ValueError: shapes that don't fit, nothing to average, values outside [0, 1], labels outside 0…classes−1.
        TypeError: p isn't floating, or one-hot rows have another dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> print(categorical_cross_entropy_forward(jnp.array([[0.25, 0.75]]), jnp.array([0]))[0].round(4))
        1.3863

    Source:
        Bishop 2006, equation 4.108.
    """
    prediction, target = _classes("categorical_cross_entropy", prediction, target)
    check_unit_interval("categorical_cross_entropy(prediction)", prediction, _USE_LOGITS)
    log_probabilities = jnp.log(_clipped(prediction))
    if target.ndim == 1:
        return -_at_label(log_probabilities, target).mean(), LabelResiduals(prediction, target)
    return -(target * log_probabilities).sum(axis=1).mean(), ValueResiduals(prediction, target)


def categorical_cross_entropy_backward(residuals: ValueResiduals | LabelResiduals, dloss: Scalar) -> ClassScores:
    """∂L/∂p[n,k] = −y[n,k]/(p[n,k] · batch), and 0 where p was clipped.

    Args:
        residuals: prediction and target.
        dloss: cotangent of the loss.

    Returns:
        The gradient by the prediction, ``(batch, classes)``.

    Example:
        >>> import jax.numpy as jnp
        >>> residuals = LabelResiduals(jnp.array([[0.25, 0.75]]), jnp.array([0]))
        >>> print(categorical_cross_entropy_backward(residuals, jnp.array(1.0)))
        [[-4.  0.]]
    """
    prediction, target = residuals
    slope = -1 / _clipped(prediction)
    alive = _inside_clip(prediction)
    if isinstance(residuals, LabelResiduals):
        slope = jnp.where(alive & _is_label(prediction, target), slope, jnp.zeros_like(slope))
    else:
        slope = jnp.where(alive, slope * target, jnp.zeros_like(slope))
    return dloss * (1 / prediction.shape[0]) * slope


def sigmoid_cross_entropy_forward(prediction: Outputs, target: Outputs) -> tuple[Scalar, ValueResiduals]:
    """Binary cross-entropy of p = σ(z), on the logits z: L = mean(max(z, 0) − z y + log(1 + e^−|z|)).

    From −log σ(z) = log(1 + e⁻ᶻ) and −log(1 − σ(z)) = z + log(1 + e⁻ᶻ), rearranged so that no exponent is positive.
    Several outputs are independent labels.

    Args:
        prediction: z, logits, ``(batch, ...)``, floating.
        target: y, 0 and 1 or probabilities, of z's shape and dtype.

    Returns:
        The loss in nats, a scalar, and the residuals.

    Raises:
        ValueError: another shape, which would broadcast; nothing to average; targets outside [0, 1].
        TypeError: z isn't floating, or y has another dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> print(sigmoid_cross_entropy_forward(jnp.array([[-1e4]]), jnp.array([[1.0]]))[0])
        10000.0

    Source:
        Bishop 2006, equation 4.90 with 4.59.
    """
    logits, target = _matching("sigmoid_cross_entropy", prediction, target)
    check_unit_interval("sigmoid_cross_entropy(target)", target, _TARGET_ADVICE)
    # One condition for max(z, 0) and for −|z|, so that autodiff of the two at 0 adds up to the derivative there.
    positive = logits > 0
    linear_part = jnp.where(positive, logits, jnp.zeros_like(logits)) - logits * target
    loss = (linear_part + jnp.log1p(jnp.exp(jnp.where(positive, -logits, logits)))).mean()
    return loss, ValueResiduals(logits, target)


def sigmoid_cross_entropy_backward(residuals: ValueResiduals, dloss: Scalar) -> Outputs:
    """∂L/∂z = (σ(z) − y)/m, m = batch · outputs: the loss's 1/(p (1 − p)) and the sigmoid's p (1 − p) cancel.

    Args:
        residuals: logits and targets.
        dloss: cotangent of the loss.

    Returns:
        The gradient by the logits, of their shape.

    Example:
        >>> import jax.numpy as jnp
        >>> residuals = ValueResiduals(jnp.array([[-1e4]]), jnp.array([[1.0]]))
        >>> print(sigmoid_cross_entropy_backward(residuals, jnp.array(1.0)))
        [[-1.]]
    """
    logits, target = residuals
    return dloss * (1 / logits.size) * (lax.logistic(logits) - target)


def softmax_cross_entropy_forward(
    prediction: ClassScores, target: ClassTargets
) -> tuple[Scalar, ValueResiduals | LabelResiduals]:
    """Categorical cross-entropy of p = softmax(z), on the logits z: L = meanₙ Σₖ y[n,k] (log Σⱼ e^z[n,j] − z[n,k]).

    Args:
        prediction: z, logits of exclusive classes, ``(batch, classes)``, floating.
        target: class labels, integers ``(batch,)``, or one-hot rows of z's shape and dtype.

    Returns:
        The loss in nats, a scalar, and the residuals. Under ``jit``, where labels can't be read, one outside
        0…classes−1 makes the loss NaN and adds nothing to the gradient.

    Raises:
        ValueError: shapes that don't fit, nothing to average, labels outside 0…classes−1.
        TypeError: z isn't floating, or one-hot rows have another dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> print(softmax_cross_entropy_forward(jnp.array([[-1e4, 1e4]]), jnp.array([0]))[0])
        20000.0

    Source:
        Bishop 2006, equations 4.104 and 4.108.
    """
    logits, target = _classes("softmax_cross_entropy", prediction, target)
    shifted = logits - lax.stop_gradient(largest(logits))
    exponentials = jnp.exp(shifted)
    sums = total(exponentials)
    log_probabilities = shifted - jnp.log(sums)
    probabilities = exponentials / sums
    if target.ndim == 1:
        return -_at_label(log_probabilities, target).mean(), LabelResiduals(probabilities, target)
    return -(target * log_probabilities).sum(axis=1).mean(), ValueResiduals(probabilities, target)


def softmax_cross_entropy_backward(residuals: ValueResiduals | LabelResiduals, dloss: Scalar) -> ClassScores:
    """∂L/∂z[n,j] = (p[n,j] Σₖ y[n,k] − y[n,j])/batch, which is (p − y)/batch where targets sum to 1.

    Since ∂/∂zⱼ (log Σᵢ e^zᵢ − zₖ) = pⱼ − 1[j = k].

    Args:
        residuals: probabilities and targets.
        dloss: cotangent of the loss.

    Returns:
        The gradient by the logits, ``(batch, classes)``.

    Example:
        >>> import jax.numpy as jnp
        >>> residuals = LabelResiduals(jnp.array([[0.25, 0.75]]), jnp.array([0]))
        >>> print(softmax_cross_entropy_backward(residuals, jnp.array(1.0)))
        [[-0.75  0.75]]
    """
    probabilities, target = residuals
    if isinstance(residuals, LabelResiduals):
        error = jnp.where(_is_label(probabilities, target), probabilities - 1, probabilities)
        error = jnp.where(_is_class(probabilities, target), error, jnp.zeros_like(error))
    else:
        error = probabilities * target.sum(axis=1, keepdims=True) - target
    return dloss * (1 / probabilities.shape[0]) * error


def _matching(name, prediction, target):
    prediction, target = floating_array(f"{name}(prediction)", prediction), numeric_array(f"{name}(target)", target)
    if prediction.shape != target.shape:
        raise ValueError(
            f"{name}: expected targets of the prediction's shape {prediction.shape}, got {target.shape}, "
            "which would broadcast or fail. Reshape the targets, for example with y[:, None]."
        )
    _check_target_dtype(name, prediction, target)
    _check_batch(name, prediction)
    return prediction, target


def _classes(name, scores, target):
    scores, target = floating_array(f"{name}(prediction)", scores), numeric_array(f"{name}(target)", target)
    if scores.ndim != 2:
        raise ValueError(f"{name}: expected a prediction of shape (batch, classes), got {scores.shape}.")
    _check_batch(name, scores)
    if target.shape == scores.shape[:1]:
        if not jnp.issubdtype(target.dtype, jnp.integer):
            raise TypeError(
                f"{name}: expected class labels of an integer dtype, got {describe(target)}. "
                "Use y.astype(int) for labels, or one-hot rows of shape (batch, classes)."
            )
        check_labels(f"{name}(target)", target, scores.shape[1])
        target = wide_labels(target)
    elif target.shape == scores.shape:
        _check_target_dtype(name, scores, target)
        check_unit_interval(f"{name}(target)", target, _TARGET_ADVICE)
    else:
        raise ValueError(
            f"{name}: expected class labels of shape {scores.shape[:1]} or one-hot targets of shape {scores.shape}, "
            f"got shape {target.shape}. The network has {scores.shape[1]} outputs, one for each class."
        )
    return scores, target


def _check_batch(name, prediction):
    if prediction.ndim == 0 or prediction.size == 0:
        raise ValueError(f"{name}: expected a batch of at least one prediction, got shape {prediction.shape}.")


def _check_target_dtype(name, prediction, target):
    if target.dtype != prediction.dtype:
        raise TypeError(
            f"{name}: expected targets in the prediction's dtype {prediction.dtype}, got {target.dtype}. "
            f"Cast them once, before training: y.astype({prediction.dtype})."
        )


def _clip_edges(dtype):
    # 1 − 10⁻⁷ rounds to 1 in bfloat16 and float16; their nearest neighbour of 1 is the edge there.
    return SMALLEST_PROBABILITY, 1 - max(SMALLEST_PROBABILITY, float(jnp.finfo(dtype).epsneg))


def _clipped(probabilities):
    """Probabilities inside the edges; NaN for what is none, which can't be refused where values can't be read."""
    lowest, highest = _clip_edges(probabilities.dtype)
    raised = jnp.where(probabilities < lowest, jnp.full_like(probabilities, lowest), probabilities)
    inside = jnp.where(probabilities > highest, jnp.full_like(probabilities, highest), raised)
    return jnp.where((probabilities < 0) | (probabilities > 1), jnp.nan, inside)


def _inside_clip(probabilities):
    lowest, highest = _clip_edges(probabilities.dtype)
    return (probabilities >= lowest) & (probabilities <= highest)


def _is_label(scores, labels):
    """Where each row's label stands, as a comparison that XLA fuses: no one-hot array is built."""
    return jnp.arange(scores.shape[1], dtype=labels.dtype)[None, :] == labels[:, None]


def _is_class(scores, labels):
    return ((labels >= 0) & (labels < scores.shape[1]))[:, None]


def _at_label(scores, labels):
    """Each row's entry at its label; NaN where there is no such class, rather than the nearest class's."""
    beyond = jnp.where(labels < 0, scores.shape[1], labels)[:, None]
    return jnp.take_along_axis(scores, beyond, axis=1, mode="fill")[:, 0]


mean_squared_error = Loss(mean_squared_error_forward, mean_squared_error_backward)
binary_cross_entropy = Loss(binary_cross_entropy_forward, binary_cross_entropy_backward)
categorical_cross_entropy = Loss(categorical_cross_entropy_forward, categorical_cross_entropy_backward)
sigmoid_cross_entropy = Loss(sigmoid_cross_entropy_forward, sigmoid_cross_entropy_backward)
softmax_cross_entropy = Loss(softmax_cross_entropy_forward, softmax_cross_entropy_backward)
