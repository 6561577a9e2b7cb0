"""Measurements of the topics on vanishing gradients, on known cases."""

import jax
import jax.numpy as jnp
import numpy as np

import funcnn as fnn
from experiments.vanishing import INITIALIZATIONS, PASSED, UNITS, cotangent_ratios, linear_fit_r2
from experiments.vanishing_glorot import CONFIGURATIONS, SIDE, mean_singular_value, shape_images


def test_relu_is_homogeneous_so_the_gradient_scales_with_the_kernels_to_the_power_of_the_depth():
    sizes = np.asarray(cotangent_ratios(fnn.relu, jax.random.split(jax.random.key(0), 10)))
    at = {name: sizes[:, i] for i, name in enumerate(INITIALIZATIONS)}
    depths = np.array(PASSED)
    few = depths <= 10  # in single precision the smallest of fifty layers' gradients is zero
    ratio = at["He"][:, few] / at["N(0, 1)"][:, few]
    np.testing.assert_allclose(ratio, np.tile((2 / UNITS) ** (depths[few] / 2), (10, 1)), rtol=1e-3)
    ratio = at["Xavier"][:, few] / at["U[−1/√n, 1/√n]"][:, few]
    np.testing.assert_allclose(ratio, np.tile(3 ** (depths[few] / 2), (10, 1)), rtol=1e-3)


def test_straightness_is_one_on_a_falling_line_and_zero_where_it_rises():
    falling = -2.0 * np.array(PASSED)
    np.testing.assert_allclose(linear_fit_r2(np.stack([falling, -falling])), [1, 0])


def test_the_mean_singular_value_of_known_matrices():
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(20, 20)))
    assert np.isclose(mean_singular_value(jnp.asarray(3 * rotation)), 3, rtol=1e-5)
    assert np.isclose(mean_singular_value(jnp.diag(jnp.arange(5.0))), 2, rtol=1e-5)


def test_images_of_one_shape_have_two_greys_and_of_two_shapes_up_to_three():
    images, labels = shape_images(np.random.default_rng(0), 60)
    assert images.shape == (60, SIDE**2)
    assert set(np.unique(labels)) == set(range(len(CONFIGURATIONS)))
    for image, label in zip(np.asarray(images), np.asarray(labels), strict=True):
        assert len(np.unique(image)) == 1 + len(CONFIGURATIONS[label])
        assert 0 <= image.min() < image.max() <= 1
