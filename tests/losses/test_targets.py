"""Targets and predictions that don't fit a loss are refused; labels of any integer dtype are read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from tests.cases import KEY, WIDEST, relative_gap
from tests.losses.shared import ALL, CLASSES, TOLERANCES, P, both


@pytest.mark.parametrize("name", ["softmax_cross_entropy", "categorical_cross_entropy"])
@pytest.mark.parametrize("classes", [3, 128, 256, 300, 400])
def test_narrow_label_dtypes_hold_any_number_of_classes(name, classes):
    """The labels are constants of the program, so that their values are checked too."""
    labels = jnp.array([0, 1, 2, min(classes, 127) - 1])
    narrow = [labels.astype(dtype) for dtype in ("uint8", "int8", "int16", "uint32")]
    loss, one = getattr(fnn, name), jnp.ones((), WIDEST)
    compared = jax.jit(lambda scores: [both(loss, scores, labels, one) for labels in (labels, *narrow)])
    scores = jax.nn.softmax(jax.random.normal(KEY, (4, classes), WIDEST))
    (expected_value, expected, _), *others = compared(scores)
    for value, by_hand, by_autodiff in others:
        np.testing.assert_array_equal(value, expected_value)
        np.testing.assert_array_equal(by_hand, expected)
        assert relative_gap(by_hand, by_autodiff) <= TOLERANCES[WIDEST]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(4,), (4, 1), (1, 3), (3,), (4, 3, 1)])
def test_targets_that_would_broadcast_are_refused(name, shape, as_for_users):
    with pytest.raises(ValueError, match=f"{name}: expected targets of the prediction's shape .* would broadcast"):
        getattr(fnn, name).forward(P, jnp.zeros(shape, WIDEST))


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("shape", [(4, 2), (4, 1), (3, 3), (3,), ()])
def test_class_targets_of_another_shape_are_refused(name, shape, as_for_users):
    with pytest.raises(
        ValueError,
        match=f"{name}: expected class labels of shape .*(3 outputs, one for each class|Take the last axis away)",
    ):
        getattr(fnn, name).forward(P, jnp.zeros(shape, WIDEST))


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("shape", [(4,), (5, 4), (4, 5, 1), (4, 5, 2), (20,), (4, 5, 3, 1)])
def test_class_targets_of_sequences_of_another_shape_are_refused(name, shape, as_for_users):
    expected = rf"{name}: expected class labels of shape \(4, 5\) or one-hot targets of shape \(4, 5, 3\)"
    with pytest.raises(ValueError, match=expected):
        getattr(fnn, name).forward(jnp.full((4, 5, 3), 1 / 3, WIDEST), jnp.zeros(shape, WIDEST))


@pytest.mark.parametrize("name", CLASSES)
def test_scores_without_a_batch_are_refused(name, as_for_users):
    with pytest.raises(
        ValueError, match=rf"{name}: expected a prediction of shape \(batch, ..., classes\), got \(3,\)"
    ):
        getattr(fnn, name).forward(P[0], jnp.array(0))


@pytest.mark.parametrize("name", CLASSES)
def test_labels_of_sequences_outside_the_classes_are_refused(name, as_for_users):
    with pytest.raises(ValueError, match=r"expected class labels from 0 to 2, got 3 at index \(0, 1\)"):
        getattr(fnn, name).forward(P[None], jnp.array([[0, 3, 1, 2]]))


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("wrong", [-1, 3])
def test_labels_outside_the_classes_are_refused(name, wrong, as_for_users):
    with pytest.raises(ValueError, match=rf"expected class labels from 0 to 2, got {wrong} at index \(1,\)"):
        getattr(fnn, name).forward(P, jnp.array([0, wrong, 1, 2]))


@pytest.mark.parametrize("name", CLASSES)
def test_labels_that_are_not_integers_are_refused(name, as_for_users):
    with pytest.raises(TypeError, match="expected class labels of an integer dtype, got float"):
        getattr(fnn, name).forward(P, jnp.zeros(4, WIDEST))


@pytest.mark.parametrize("name", [*ALL[1:], *CLASSES])
def test_targets_outside_0_1_are_refused(name, as_for_users):
    with pytest.raises(ValueError, match=r"\(target\): expected values in \[0, 1\], got 2.0"):
        getattr(fnn, name).forward(P, jnp.full((4, 3), 2.0, WIDEST))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bfloat16])
def test_targets_of_another_dtype_are_refused(name, dtype, as_for_users):
    with pytest.raises(
        TypeError, match=r"expected targets in the prediction's dtype .*y = jnp\.asarray\(y, jnp\.float"
    ):
        getattr(fnn, name).forward(P, jnp.zeros((4, 3), dtype))


@pytest.mark.parametrize("name", [*ALL, *CLASSES])
def test_integer_and_empty_predictions_are_refused(name, as_for_users):
    with pytest.raises(TypeError, match=rf"{name}\(prediction\): expected a floating dtype, got int32"):
        getattr(fnn, name).forward(jnp.zeros((4, 3), jnp.int32), jnp.zeros((4, 3), WIDEST))
    with pytest.raises(ValueError, match=f"{name}: expected a batch of at least one prediction"):
        getattr(fnn, name).forward(jnp.zeros((0, 3), WIDEST), jnp.zeros((0, 3), WIDEST))
