"""The cross-entropy of logits with label smoothing, over the positions that have a label."""

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from funcnn._checks import check_labels, check_real, is_concrete, numeric_array, wide_labels
from funcnn._memoise import memoised
from funcnn._small_matmul import small_max, small_sum
from funcnn._static import Static
from funcnn.losses._targets import (
    ClassScores,
    ClassTargets,
    WeightedResiduals,
    at_label,
    class_target,
    constant_loss_of_classes,
    is_class,
    is_label,
)
from funcnn.types import Loss, LossSpec, Scalar


def softmax_cross_entropy_with_forward(
    prediction: ClassScores, target: ClassTargets, *, ignore_label: int | None = None, label_smoothing: float = 0.0
) -> tuple[Scalar, WeightedResiduals]:
    """Compute the cross-entropy of p = softmax(z) over the rows n that are not ignored, with targets smoothed by α.

    Of K classes each gets α/K of the target, so that with the weight w[n] of 0 or 1::

        L = Σₙ w[n] Σₖ y′[n,k] (−log p[n,k]) / Σₙ w[n],    y′[n,k] = (1 − α) y[n,k] + α/K

    Where every row is ignored the loss and the gradient are 0.

    Args:
        prediction: z, logits of exclusive classes, ``(batch, ..., classes)``, floating.
        target: class labels, integers ``(batch, ...)``, or one-hot rows of z's shape and dtype.
        ignore_label: the label of rows that don't count, a class or any other integer; ``None`` where all count.
        label_smoothing: α, in [0, 1).

    Returns:
        The loss in nats and the residuals. Under ``jit``, another label outside 0…classes−1 makes the loss NaN and adds
        nothing to the gradient.

    Raises:
        ValueError: shapes that don't fit, an empty prediction, other labels outside 0…classes−1, one-hot rows with an
            ignored label, a label_smoothing outside [0, 1).
        TypeError: z is not floating, labels are not integers, or one-hot rows have another dtype.

    Example:
        >>> logits, labels = jnp.zeros((1, 3, 4)), jnp.array([[2, -1, -1]])
        >>> print(softmax_cross_entropy_with_forward(logits, labels, ignore_label=-1)[0].round(4))
        1.3863

    Source:
        Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, "Rethinking the Inception architecture for computer vision", 2016,
        section 7.
    """
    name = "softmax_cross_entropy_with"
    _check_settings(ignore_label, label_smoothing)
    is_counted = None
    if ignore_label is not None:
        target = numeric_array(f"{name}(target)", target)
        if not jnp.issubdtype(target.dtype, jnp.integer):
            raise TypeError(
                f"{name}(ignore_label={ignore_label}): expected class labels of an integer dtype, got {target.dtype} "
                f"of shape {target.shape}. Only labels can be ignored: pass jnp.argmax(y, axis=-1) for one-hot rows."
            )
        is_counted, target = _without_ignored(name, prediction, target, ignore_label)
    logits, target = class_target(name, prediction, target)
    shifted = logits - lax.stop_gradient(small_max(logits))
    exponentials = jnp.exp(shifted)
    sums = small_sum(exponentials)
    losses = _row_losses(shifted - jnp.log(sums), target, label_smoothing)
    weights = _weights(is_counted, losses)
    loss = (weights * losses).sum()
    return loss, WeightedResiduals(exponentials / sums, target, weights, Static(label_smoothing))


def _without_ignored(name, prediction, target, ignore_label):
    """Return which labels count, and the labels with class 0 in the place of those that don't."""
    target = wide_labels(target)
    span = jnp.iinfo(target.dtype)
    if not span.min <= ignore_label <= span.max:  # No label of this dtype is ignored.
        return jnp.ones(target.shape, bool), target
    if is_concrete(target) and jnp.ndim(prediction):
        # In NumPy: while JAX traces, the values of what jnp.where returns are not known.
        values = np.asarray(target)
        check_labels(f"{name}(target)", np.where(values == ignore_label, 0, values), jnp.shape(prediction)[-1])
    is_counted = target != ignore_label
    return is_counted, jnp.where(is_counted, target, jnp.zeros_like(target))


def _row_losses(log_probabilities, target, label_smoothing):
    """Return Σₖ y′[n,k] (−log p[n,k]) of each row n."""
    if target.ndim < log_probabilities.ndim:
        own = at_label(log_probabilities, target)
        total = jnp.ones_like(own)
    else:
        own, total = (target * log_probabilities).sum(axis=-1), target.sum(axis=-1)
    if label_smoothing == 0:
        return -own
    return -(1 - label_smoothing) * own - label_smoothing * total * log_probabilities.mean(axis=-1)


def _weights(is_counted, losses):
    """Return each row's weight in the mean: one over the count of those that are counted, 0 for the others."""
    if is_counted is None:
        return jnp.full_like(losses, 1 / losses.size)
    count = jnp.maximum(is_counted.sum(), 1).astype(losses.dtype)
    return jnp.where(is_counted, 1 / count, jnp.zeros_like(losses))


def softmax_cross_entropy_with_backward(residuals: WeightedResiduals, dloss: Scalar) -> ClassScores:
    """Compute ∂L/∂z[n,j] = w[n] (p[n,j] Σₖ y[n,k] − y′[n,j]) / Σₙ w[n], as for the plain cross-entropy.

    The smoothed row y′ sums to what y sums to, 1 for labels.

    Args:
        residuals: from ``softmax_cross_entropy_with_forward``, p, y or the labels, w / Σₙ w[n] and α.
        dloss: cotangent of the loss, a scalar.

    Returns:
        ``dprediction``, the gradient of z, of its shape and dtype.

    Example:
        >>> logits, labels = jnp.zeros((1, 2, 2)), jnp.array([[0, -1]])
        >>> _, residuals = softmax_cross_entropy_with_forward(logits, labels, ignore_label=-1)
        >>> print(softmax_cross_entropy_with_backward(residuals, jnp.array(1.0)))
        [[[-0.5  0.5]
          [-0.   0. ]]]

    Source:
        Szegedy et al. 2016; Bishop 2006, equation 4.109.
    """
    probabilities, target, weights, label_smoothing = residuals
    share = label_smoothing.value
    classes = probabilities.shape[-1]
    if target.ndim < probabilities.ndim:
        smoothed = jnp.full_like(probabilities, share / classes)
        smoothed = jnp.where(is_label(probabilities, target), 1 - share + share / classes, smoothed)
        error = jnp.where(is_class(probabilities, target), probabilities - smoothed, jnp.zeros_like(smoothed))
    else:
        total = target.sum(axis=-1, keepdims=True)
        error = probabilities * total - ((1 - share) * target + share / classes * total)
    return dloss * weights[..., None] * error


def _check_settings(ignore_label, label_smoothing):
    if ignore_label is not None and (isinstance(ignore_label, bool) or not isinstance(ignore_label, int)):
        raise TypeError(
            f"softmax_cross_entropy_with(ignore_label): expected a Python integer or None, got {ignore_label!r}. "
            "Pass the label that stands for no label, such as -1."
        )
    check_real("softmax_cross_entropy_with(label_smoothing)", label_smoothing)
    if not 0 <= label_smoothing < 1:
        raise ValueError(
            f"softmax_cross_entropy_with(label_smoothing): expected a number in [0, 1), got {label_smoothing}. "
            "0.1 gives a tenth of the target to all classes alike."
        )


@memoised
def softmax_cross_entropy_with(*, ignore_label: int | None = None, label_smoothing: float = 0.0) -> Loss:
    """The cross-entropy of logits, ``softmax_cross_entropy``, over rows that have a label, with smoothed targets.

    Over N rows that count and c classes, with p = softmax(z)::

        L = −Σₙ Σₖ y′[n,k] log p[n,k]/N,    y′ = (1 − α) y + α/c

    Where the rows that count differ from batch to batch, a mean over batches is not the mean over all their rows.

    Args:
        ignore_label: the label of rows that don't count (padding), a class or any other integer; ``None`` where all
            count.
        label_smoothing: α, in [0, 1): the share of the target that all classes get alike.

    Returns:
        The loss.

    Raises:
        ValueError, TypeError: ignore_label isn't an integer or None, or label_smoothing isn't a number in [0, 1).

    Example:
        >>> loss = softmax_cross_entropy_with(ignore_label=-1, label_smoothing=0.1)
        >>> print(loss.forward(jnp.zeros((2, 4)), jnp.array([3, -1]))[0].round(4))
        1.3863

    Source:
        Szegedy et al. 2016.
    """
    _check_settings(ignore_label, label_smoothing)
    settings: dict[str, Any] = {"ignore_label": ignore_label, "label_smoothing": label_smoothing}
    constant = constant_loss_of_classes if ignore_label is None and label_smoothing == 0 else None
    spec = LossSpec("softmax_cross_entropy_with", tuple(settings.items()), "logits", "classes", constant)
    return Loss(partial(softmax_cross_entropy_with_forward, **settings), softmax_cross_entropy_with_backward, spec)
