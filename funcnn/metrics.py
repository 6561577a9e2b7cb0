"""Metrics: ``(prediction, target) -> value``, for people to read; nothing is trained on them."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Int

from funcnn._checks import check_labels
from funcnn.types import Scalar


def accuracy(prediction: ArrayLike, target: ArrayLike) -> Scalar:
    """Share of samples whose largest score is at the right class.

    Args:
        prediction: logits or probabilities, ``(batch, classes)``.
        target: class labels, ``(batch,)``, or one-hot rows.

    Returns:
        A scalar in [0, 1].

    Raises:
        ValueError: shapes that don't fit, or labels outside the classes.

    Example:
        >>> import jax.numpy as jnp
        >>> print(accuracy(jnp.array([[0.9, 0.1], [0.8, 0.2]]), jnp.array([0, 1])))
        0.5
    """
    predicted, labels = _classes("accuracy", prediction, target)
    return (predicted == labels).mean()


def binary_accuracy(prediction: ArrayLike, target: ArrayLike, threshold: float = 0.5) -> Scalar:
    """Share of entries on the right side of a threshold, for one binary label or several.

    Args:
        prediction: probabilities, ``(batch, outputs)``; for logits give the threshold 0.
        target: 0 and 1, of the prediction's shape.
        threshold: predictions above it count as 1.

    Returns:
        A scalar in [0, 1].

    Raises:
        ValueError: another shape, which would broadcast.

    Example:
        >>> import jax.numpy as jnp
        >>> print(binary_accuracy(jnp.array([[0.9], [0.4]]), jnp.array([[1.0], [1.0]])))
        0.5
    """
    prediction, target = jnp.asarray(prediction), jnp.asarray(target)
    if prediction.shape != target.shape:
        raise ValueError(
            f"binary_accuracy: expected targets of the prediction's shape {prediction.shape}, got {target.shape}. "
            "Reshape the targets, for example with y[:, None]."
        )
    return ((prediction > threshold) == (target > 0.5)).mean()


def confusion_matrix(prediction: ArrayLike, target: ArrayLike) -> Int[Array, "classes classes"]:
    """How many samples of each class (row) were taken for which (column).

    Args:
        prediction: logits or probabilities, ``(batch, classes)``.
        target: class labels, ``(batch,)``, or one-hot rows.

    Returns:
        Counts, ``(classes, classes)``; right answers stand on the diagonal.

    Raises:
        ValueError: shapes that don't fit, or labels outside the classes.

    Example:
        >>> import jax.numpy as jnp
        >>> print(confusion_matrix(jnp.array([[0.9, 0.1], [0.8, 0.2]]), jnp.array([0, 1])))
        [[1 0]
         [1 0]]
    """
    predicted, labels = _classes("confusion_matrix", prediction, target)
    classes = jnp.shape(prediction)[1]
    return jnp.zeros((classes, classes), int).at[labels, predicted].add(1)


def _classes(name, prediction, target):
    """The predicted class and the right one, ``(batch,)`` each."""
    prediction, target = jnp.asarray(prediction), jnp.asarray(target)
    if prediction.ndim == 2 and target.shape == prediction.shape:
        return prediction.argmax(axis=1), target.argmax(axis=1)
    if prediction.ndim == 2 and target.shape == prediction.shape[:1]:
        check_labels(f"{name}(target)", target, prediction.shape[1])
        return prediction.argmax(axis=1), target
    raise ValueError(
        f"{name}: expected a prediction of shape (batch, classes) and labels (batch,) or one-hot rows, "
        f"got {prediction.shape} and {target.shape}."
    )
