"""Metrics ``(prediction, target) -> value`` that describe a model's predictions. They are not differentiated."""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Int

from funcnn._checks import check_labels, describe, floating_array, is_concrete, numeric_array, wide_labels
from funcnn.types import Scalar


def accuracy(prediction: ArrayLike, target: ArrayLike) -> Scalar:
    """Return the share of samples whose largest score belongs to the right class. Scores with a NaN count as wrong.

    Args:
        prediction: logits or probabilities, ``(batch, ..., classes)``.
        target: class labels, ``(batch, ...)``, or one-hot rows.

    Returns:
        A scalar in [0, 1].

    Raises:
        ValueError: shapes don't match, there is a single column of scores, labels are outside the classes, or rows
            aren't one-hot.
        TypeError: scores aren't floating, or labels aren't integers.

    Example:
        >>> import jax.numpy as jnp
        >>> print(accuracy(jnp.array([[0.9, 0.1], [0.8, 0.2]]), jnp.array([0, 1])))
        0.5
    """
    predicted, labels = _classes("accuracy", prediction, target)
    return (predicted == labels).mean()


def binary_accuracy(prediction: ArrayLike, target: ArrayLike, threshold: float = 0.5) -> Scalar:
    """Return the share of entries on the right side of a threshold, for one or several binary labels.

    Args:
        prediction: probabilities, ``(batch, outputs)``; for logits use the threshold 0.
        target: zeros and ones of the prediction's shape.
        threshold: predictions above it count as 1.

    Returns:
        A scalar in [0, 1].

    Raises:
        ValueError: the shapes differ, or the prediction is empty.
        TypeError: the prediction isn't floating.

    Example:
        >>> import jax.numpy as jnp
        >>> print(binary_accuracy(jnp.array([[0.9], [0.4]]), jnp.array([[1.0], [1.0]])))
        0.5
    """
    prediction = floating_array("binary_accuracy(prediction)", prediction)
    target = numeric_array("binary_accuracy(target)", target)
    if prediction.shape != target.shape or prediction.size == 0:
        raise ValueError(
            "binary_accuracy: expected targets of the prediction's shape, not empty, "
            f"got {prediction.shape} and {target.shape}. Reshape the targets, for example with y[:, None]."
        )
    return ((prediction > threshold) == (target > 0.5)).mean()


def confusion_matrix(prediction: ArrayLike, target: ArrayLike) -> Int[Array, "classes classes"]:
    """Return the number of samples of each true class (row) and predicted class (column).

    Args:
        prediction: logits or probabilities, ``(batch, ..., classes)``.
        target: class labels, ``(batch, ...)``, or one-hot rows.

    Returns:
        Counts, ``(classes, classes)``, with right predictions on the diagonal. A sample whose scores contain a NaN is
        not counted.

    Raises:
        ValueError: shapes don't match, there is a single column of scores, labels are outside the classes, or rows
            aren't one-hot.
        TypeError: scores aren't floating, or labels aren't integers.

    Example:
        >>> import jax.numpy as jnp
        >>> print(confusion_matrix(jnp.array([[0.9, 0.1], [0.8, 0.2]]), jnp.array([0, 1])))
        [[1 0]
         [1 0]]
    """
    predicted, labels = _classes("confusion_matrix", prediction, target)
    classes = jnp.shape(prediction)[-1]
    # Negative indices count from the end. They are moved past the last class, where the update is dropped.
    labels, predicted = (jnp.where(index < 0, classes, index) for index in (labels, predicted))
    return jnp.zeros((classes, classes), int).at[labels, predicted].add(1, mode="drop")


def _classes(name, prediction, target):
    """Return the predicted class, −1 where a score is NaN, and the true class, ``(rows,)`` each, of all positions."""
    prediction = floating_array(f"{name}(prediction)", prediction)
    target = numeric_array(f"{name}(target)", target)
    _check_shapes(name, prediction, target)
    prediction, target = _rows(prediction, prediction), _rows(target, prediction)
    predicted = jnp.where(jnp.isnan(prediction).any(axis=1), -1, prediction.argmax(axis=1))
    if target.ndim == 2:
        _check_one_hot(name, target)
        return predicted, target.argmax(axis=1)
    if not jnp.issubdtype(target.dtype, jnp.integer):
        raise TypeError(
            f"{name}(target): expected class labels of an integer dtype, got {describe(target)}. Use y.astype(int)."
        )
    check_labels(f"{name}(target)", target, prediction.shape[1])
    labels = wide_labels(target)
    return predicted.astype(labels.dtype), labels


def _rows(array, prediction):
    """Return samples and positions as one axis; classes stay."""
    return array.reshape(-1, prediction.shape[-1]) if array.ndim == prediction.ndim else array.ravel()


def _check_shapes(name, prediction, target):
    is_fitting = target.shape in (prediction.shape, prediction.shape[:-1])
    if prediction.ndim < 2 or prediction.size == 0 or not is_fitting:
        between = "..., " if prediction.ndim > 2 else ""
        labels = "(batch, ...)" if prediction.ndim > 2 else "(batch,)"
        raise ValueError(
            f"{name}: expected a prediction of shape (batch, {between}classes) and labels {labels} or one-hot rows, "
            f"got {prediction.shape} and {target.shape}. Give a label for each row of scores."
        )
    if prediction.shape[-1] == 1:
        raise ValueError(
            f"{name}: expected scores of at least two classes, got {prediction.shape}: one score is always the "
            "largest. For a single output use binary_accuracy, with threshold=0 for logits."
        )


def _check_one_hot(name, target):
    if is_concrete(target) and not np.all(np.sort(np.asarray(target), axis=1) == np.eye(target.shape[1])[-1]):
        raise ValueError(
            f"{name}(target): expected one-hot rows, a single 1 among zeros, got others. "
            "For several labels a sample use binary_accuracy."
        )
