"""Targets and fits of ``experiments.approximation``, on exactly known cases."""

from itertools import pairwise

import numpy as np

from experiments import approximation, depth
from experiments.shared.function_fitting import HALF_WIDTH, triangle_wave, unexplained_share


def test_the_kinked_wave_is_a_triangle_with_the_teeth_that_its_name_says():
    np.testing.assert_allclose(triangle_wave(np.pi * np.array([0, 0.25, 0.5, 1, 1.5]), 1), [0, 0.5, 1, 0, -1],
                               atol=1e-12)  # fmt: skip
    x = np.linspace(-HALF_WIDTH, HALF_WIDTH, 100_000)
    turns = np.diff(np.sign(np.diff(depth.SAW(x)))) != 0
    assert turns.sum() == depth.TEETH


def test_both_depths_have_about_a_thousand_parameters():
    counts = {sum((before + 1) * after for before, after in pairwise(sizes)) for sizes in depth.DEPTHS.values()}
    assert counts == {1000, 988}


def test_a_failed_fit_counts_as_the_mean():
    y = np.array([0.0, 2.0])
    assert [float(unexplained_share(np.array(fit), y)) for fit in ([0, 2], [0, 1], [1, 1], [9, 9])] == [
        0, 0.5, 1, 1,
    ]  # fmt: skip
    assert float(unexplained_share(np.array([np.nan, 0.0]), y)) == 1


def test_least_squares_finds_a_target_that_is_made_of_a_networks_own_units():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3000, len(approximation.OWNER)))
    y = features[:, approximation.OWNER == 2] @ rng.normal(size=(16, 1)) + 5
    shares = approximation.refit_output_layer(features[:2000], y[:2000], features[2000:], y[2000:])[:, 0]
    assert shares[2] < 1e-12
    assert (np.delete(shares, 2) > 0.9).all()


def test_side_by_side_every_output_sees_its_own_network_alone():
    hidden, _, output = approximation.block_initial_params(np.random.default_rng(0), 1)
    assert (np.count_nonzero(output.kernel, axis=0) == approximation.WIDTHS).all()
    assert not hidden.kernel[1:].any()
    assert hidden.kernel[0].all()
