"""The population's rule, and scaling by the training part alone."""

import numpy as np

from experiments.scaling_inputs import population, splits


def test_in_the_population_every_feature_counts_by_its_own_spread():
    x, y = population(np.random.default_rng(0), 20_000)
    says = ((x - x.mean(0)) / x.std(0)).sum(1) > 0
    assert (says == y).mean() > 0.99


def test_scaling_is_measured_on_the_training_part():
    split = splits("wine", "standardised", 2, 0)
    np.testing.assert_allclose(split.training.x.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(split.training.x.std(1), 1, atol=1e-5)
    assert np.abs(np.asarray(split.test.x).mean(1)).max() > 0.01
