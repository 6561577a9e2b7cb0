"""Data sets: averaged pixels, and a validation part that leaves the test part as it is."""

import jax.numpy as jnp
import numpy as np

import funcnn as fnn
from experiments.shared.data import DataSet, average_pixels, with_validation


def test_pictures_are_averaged_over_squares():
    picture = jnp.arange(16.0).reshape(1, 16)
    np.testing.assert_array_equal(average_pixels(picture, 2), [[2.5, 4.5, 10.5, 12.5]])
    np.testing.assert_array_equal(average_pixels(picture, 1), picture)


def test_a_fifth_of_every_class_of_the_training_samples_is_for_validation():
    x, y = jnp.arange(120.0).reshape(20, 6), jnp.arange(20) % 2
    test = fnn.Batch(-x, y)
    found = with_validation(DataSet(fnn.Batch(x, y), test))
    np.testing.assert_array_equal(found.test.x, test.x)
    assert [len(part.y) for part in found[:2]] == [16, 4]
    assert found.validation.y.tolist().count(1) == 2
    rows = np.concatenate([part.x for part in found[:2]])
    np.testing.assert_array_equal(rows[rows[:, 0].argsort()], x)
