"""Measurements of weights in ``experiments.features``, on known cases."""

import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from experiments import features
from experiments.shared.initialization import he_mlp_params


def test_an_edge_is_local_and_noise_and_strokes_are_not():
    edge, stripes = np.zeros((1, 28, 28)), np.ones((1, 28, 28))
    edge[0, 10:17, 10:14], edge[0, 10:17, 14:17] = 1, -1
    stripes[0, :, ::2] = -1
    assert features.locality(edge) == pytest.approx(1)
    assert features.locality(stripes) == pytest.approx(49 / 784)


def test_smoothness_is_a_correlation_of_neighbours():
    slope = np.broadcast_to(np.arange(28.0), (1, 28, 28))
    board = np.indices((28, 28)).sum(axis=0)[None] % 2 - 0.5
    assert features.smoothness(slope) > 0.99
    assert features.smoothness(board) == pytest.approx(-1)
    assert abs(features.smoothness(np.random.default_rng(0).normal(size=(64, 28, 28)))) < 0.02


def test_the_last_layer_read_is_what_the_output_layer_sees():
    params = he_mlp_params(np.random.default_rng(0), (5, 4, 3, 2))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(7, 5)), jnp.float32)
    *_, last = features.layer_activations(params, x)
    wanted = fnn.predict(fnn.mlp((5, 4, 3, 2)), params, ((),) * 5, x)
    np.testing.assert_allclose(fnn.linear_forward(params[-1], jnp.asarray(last))[0], wanted, rtol=1e-5, atol=1e-6)
