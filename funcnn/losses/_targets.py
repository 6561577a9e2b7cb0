"""Checks of predictions and targets, residuals, labels, and constant predictions: what several losses share."""

import math
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from funcnn._checks import check_labels, check_unit_interval, describe, floating_array, numeric_array, wide_labels
from funcnn._static import Static
from funcnn.types import LossSpec

Outputs: TypeAlias = Float[Array, "batch ..."]
ClassScores: TypeAlias = Float[Array, "batch *positions classes"]
ClassTargets: TypeAlias = Integer[Array, " batch *positions"] | Float[Array, "batch *positions classes"]

TARGET_ADVICE = "Targets are 0 and 1, or probabilities between them."


class ValueResiduals(NamedTuple):
    """A prediction (probabilities or logits) and targets of the same shape."""

    prediction: Float[Array, "..."]
    target: Float[Array, "..."]


class LabelResiduals(NamedTuple):
    """Probabilities and integer class labels."""

    probabilities: ClassScores
    labels: Integer[Array, " batch *positions"]


class DeltaResiduals(NamedTuple):
    """Errors p − y, and the δ beyond which they count linearly (``Static``)."""

    difference: Float[Array, "..."]
    delta: Static


class WeightedResiduals(NamedTuple):
    """Probabilities, targets, the weight of each row in the mean, and the label smoothing (``Static``)."""

    probabilities: ClassScores
    target: ClassTargets
    weights: Float[Array, " batch *positions"]
    label_smoothing: Static


def loss_spec(loss: Any) -> LossSpec:
    """Return the spec of a loss; the default for an object with ``forward`` and ``backward`` alone."""
    return getattr(loss, "spec", None) or LossSpec()


def matching_target(name: str, prediction: Any, target: Any) -> tuple[Array, Array]:
    """Return both as arrays of one shape and dtype; raise where they differ."""
    prediction, target = floating_array(f"{name}(prediction)", prediction), numeric_array(f"{name}(target)", target)
    if prediction.shape != target.shape:
        cast = f" Then {_cast_advice(prediction)}" if target.dtype != prediction.dtype else ""
        raise ValueError(
            f"{name}: expected targets of the prediction's shape {prediction.shape}, got {target.shape}, "
            f"which would broadcast or fail. {_shape_advice(prediction.shape, target.shape)}{cast}"
        )
    _check_target_dtype(name, prediction, target)
    _check_batch(name, prediction)
    return prediction, target


def _shape_advice(expected: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """Return how to bring targets to the prediction's shape."""
    if expected == (*shape, 1):
        return "Add the last axis: y[..., None], or y = np.asarray(y)[..., None] where y is a pandas Series."
    if shape == (*expected, 1):
        return "Take the last axis away: y = np.asarray(y)[..., 0]."
    if math.prod(shape) == math.prod(expected):
        return f"Reshape the targets: y = np.reshape(y, {expected})."
    return "Give the model an output for each value of a target."


def class_target(name: str, scores: Any, target: Any) -> tuple[Array, Array]:
    """Return scores ``(batch, ..., classes)`` and their labels ``(batch, ...)`` or one-hot rows; raise on a misfit."""
    scores, target = floating_array(f"{name}(prediction)", scores), numeric_array(f"{name}(target)", target)
    if scores.ndim < 2:
        raise ValueError(
            f"{name}: expected a prediction of shape (batch, ..., classes), got {scores.shape}. "
            "For a single sample, give the scores of its classes an axis for the batch: prediction[None, :]."
        )
    _check_batch(name, scores)
    if target.shape == scores.shape[:-1]:
        if not jnp.issubdtype(target.dtype, jnp.integer):
            raise TypeError(
                f"{name}: expected class labels of an integer dtype, got {describe(target)}. "
                "For labels, y = jnp.asarray(y, int); else one-hot rows of shape (batch, ..., classes)."
            )
        check_labels(f"{name}(target)", target, scores.shape[-1])
        target = wide_labels(target)
    elif target.shape == scores.shape:
        _check_target_dtype(name, scores, target)
        check_unit_interval(f"{name}(target)", target, TARGET_ADVICE)
    else:
        advice = f"The network has {scores.shape[-1]} outputs, one for each class."
        if target.shape == (*scores.shape[:-1], 1):
            advice = "Take the last axis away: y = np.asarray(y)[..., 0]."
        elif target.shape[:-1] == scores.shape[:-1]:
            advice = f"{advice} For targets of {target.shape[-1]} classes, give it {target.shape[-1]}."
        raise ValueError(
            f"{name}: expected class labels of shape {scores.shape[:-1]} or one-hot targets of shape {scores.shape}, "
            f"got shape {target.shape}. {advice}"
        )
    return scores, target


def _check_batch(name, prediction):
    if prediction.ndim == 0 or prediction.size == 0:
        single = "For a single prediction, pass prediction[None] and target[None]."
        advice = "Drop empty batches." if prediction.ndim else single
        raise ValueError(f"{name}: expected a batch of at least one prediction, got shape {prediction.shape}. {advice}")


def _check_target_dtype(name, prediction, target):
    if target.dtype != prediction.dtype:
        raise TypeError(
            f"{name}: expected targets in the prediction's dtype {prediction.dtype}, got {target.dtype}. "
            f"Before training, {_cast_advice(prediction)}"
        )


def _cast_advice(prediction):
    return f"cast the targets once: y = jnp.asarray(y, jnp.{prediction.dtype})."


def mean_over_rows(scores: Array, target: Array) -> Array:
    """Return minus the mean over all rows of Σₖ y[k] s[k]. For labels this is the entry at the label."""
    if target.ndim < scores.ndim:
        return -at_label(scores, target).mean()
    return -(target * scores).sum(axis=-1).mean()


def rows_of(scores: Array) -> int:
    """Return how many rows of classes an array has: the product of all axes but the last."""
    return math.prod(scores.shape[:-1])


def is_label(scores: Array, labels: Array) -> Array:
    """Return where each row's label is, as a comparison that XLA fuses: no one-hot array is built."""
    classes = jnp.arange(scores.shape[-1], dtype=labels.dtype)
    return jnp.expand_dims(classes, tuple(range(labels.ndim))) == labels[..., None]


def is_class(scores: Array, labels: Array) -> Array:
    """Return which labels are classes, ``(batch, ..., 1)``."""
    return ((labels >= 0) & (labels < scores.shape[-1]))[..., None]


def at_label(scores, labels):
    """Return each row's entry at its label; NaN where there is no such class, not the nearest class's entry."""
    beyond = jnp.where(labels < 0, scores.shape[-1], labels)[..., None]
    return jnp.take_along_axis(scores, beyond, axis=-1, mode="fill")[..., 0]


def constant_loss_of_classes(rows: np.ndarray) -> tuple[float, float]:
    """Return the cross-entropy of the classes' shares, and the mean entropy of the rows; NaN, 0 outside [0, 1].

    The best constant prediction is the mean row q, and −meanₙ Σₖ y[n,k] log q[k] = −Σₖ q[k] log q[k]. For K balanced
    classes this is log K.

    Args:
        rows: float64 targets, ``(samples, classes)``.

    Example:
        >>> round(constant_loss_of_classes(np.eye(4))[0], 4)
        1.3863
    """
    if rows.min() < 0 or rows.max() > 1:
        return math.nan, 0.0
    return float(_entropy(rows.mean(axis=0)).sum()), float(_entropy(rows).sum(axis=1).mean())


def constant_loss_of_bits(rows: np.ndarray) -> tuple[float, float]:
    """Return the binary cross-entropy of each output's mean, and that of the rows themselves; NaN, 0 outside [0, 1].

    Args:
        rows: float64 targets, ``(samples, outputs)``.

    Example:
        >>> round(constant_loss_of_bits(np.array([[0.0], [1.0]]))[0], 4)
        0.6931
    """
    if rows.min() < 0 or rows.max() > 1:
        return math.nan, 0.0
    mean = rows.mean(axis=0)
    return float((_entropy(mean) + _entropy(1 - mean)).mean()), float((_entropy(rows) + _entropy(1 - rows)).mean())


def _entropy(shares: np.ndarray) -> np.ndarray:
    """Return −p log p entry by entry, 0 at 0."""
    return -shares * np.log(np.where(shares > 0, shares, 1.0))
