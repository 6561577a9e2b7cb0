"""Metrics against values computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from tests.cases import WIDEST

SCORES = jnp.array([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0], [0.0, 2.0, 1.0], [0.0, 2.0, 9.0]], WIDEST)
LABELS = jnp.array([0, 1, 2, 2])


def test_accuracy_by_labels_and_by_one_hot_rows():
    assert fnn.accuracy(SCORES, LABELS) == 0.75
    assert fnn.accuracy(SCORES, jnp.eye(3, dtype=WIDEST)[LABELS]) == 0.75


def test_confusion_matrix_has_true_classes_in_rows():
    np.testing.assert_array_equal(fnn.confusion_matrix(SCORES, LABELS), [[1, 0, 0], [0, 1, 0], [0, 1, 1]])


def test_binary_accuracy_of_several_labels_and_thresholds():
    probabilities, bits = jnp.array([[0.9, 0.2], [0.6, 0.7]], WIDEST), jnp.array([[1.0, 0.0], [0.0, 1.0]], WIDEST)
    assert fnn.binary_accuracy(probabilities, bits) == 0.75
    assert fnn.binary_accuracy(probabilities, bits, threshold=0.65) == 1


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_narrow_labels_of_many_classes(dtype):
    scores = jnp.asarray(np.eye(100, 200), WIDEST)
    labels = jnp.arange(100, dtype=dtype)
    assert fnn.accuracy(scores, labels) == 1
    assert fnn.confusion_matrix(scores, labels).trace() == 100


def test_scores_with_a_nan_are_wrong_and_not_counted():
    broken = SCORES.at[0].set(jnp.nan)
    assert fnn.accuracy(broken, LABELS) == 0.5
    assert fnn.confusion_matrix(broken, LABELS).sum() == 3


def test_under_jit_labels_outside_the_classes_are_not_counted():
    counted = jax.jit(fnn.confusion_matrix)(SCORES, jnp.array([0, 1, -1, 3]))
    np.testing.assert_array_equal(counted, [[1, 0, 0], [0, 1, 0], [0, 0, 0]])


def test_metrics_of_sequences_are_those_of_all_positions():
    scores = jax.random.normal(jax.random.key(0), (4, 5, 3))
    labels = jax.random.randint(jax.random.key(1), (4, 5), 0, 3)
    rows = scores.reshape(20, 3), labels.reshape(20)
    assert fnn.accuracy(scores, labels) == fnn.accuracy(*rows)
    assert (fnn.confusion_matrix(scores, jax.nn.one_hot(labels, 3)) == fnn.confusion_matrix(*rows)).all()
