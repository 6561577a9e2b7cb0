"""The splits of ``experiments.data_scale``."""

import numpy as np

from experiments import data_scale


def test_sizes_double_and_no_picture_is_trained_on_and_tested():
    pictures = data_scale.digits()
    assert pictures.sizes == [44, 88, 176, 352, 704, 1408]
    training, test = data_scale.splits(pictures, 3)
    assert training.shape == (3, 1408)
    assert test.shape == (3, 360)
    assert not any(np.intersect1d(*pair).size for pair in zip(training, test, strict=True))


def test_no_mistake_counts_half_a_one():
    assert data_scale.error_rate(np.zeros(99, bool)) == 0.005
    assert data_scale.error_rate(np.ones(99, bool)) == 0.995
