"""Measurements of the topic on convolution, on known cases."""

import jax
import jax.numpy as jnp
import numpy as np

import funcnn as fnn
from experiments.convolution import count, neighbour_correlation, shift_right, signal_cnn


def test_the_network_has_as_many_parameters_as_the_papers():
    assert count(signal_cnn()) == 5_210
    params, state = jax.eval_shape(signal_cnn().init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((2, 40, 1), params[0].kernel.dtype)
    y, *_ = jax.eval_shape(lambda *given: signal_cnn().forward(*given, train=False), params, state, x)
    assert y.shape == (2, 10)


def test_a_shift_moves_images_to_the_right_and_fills_with_zeros():
    batch = fnn.Batch(jnp.arange(8.0).reshape(1, 2, 4, 1), jnp.array([0]))
    np.testing.assert_array_equal(shift_right(batch, 3).x[0, :, :, 0], [[0, 0, 0, 0], [0, 0, 0, 4]])
    assert shift_right(batch, 0).x.shape == batch.x.shape


def test_neighbours_of_a_checkerboard_are_opposite_and_those_of_halves_are_alike():
    rows, columns = np.indices((4, 4))
    assert np.isclose(neighbour_correlation([(-1.0) ** (rows + columns)]), -1)
    # 12 of the 12 vertical pairs and 8 of the 12 horizontal ones are equal, 4 are opposite.
    assert np.isclose(neighbour_correlation([np.where(columns < 2, 1.0, -1.0)]), (12 + 8 - 4) / 24)
