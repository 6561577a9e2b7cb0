"""Batch and layer normalization: what they standardise, and the running statistics."""

import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from tests.cases import KEY, WIDEST

X = jnp.array([[1.0, 10.0, -3.0], [2.0, 30.0, 5.0], [6.0, 20.0, 1.0], [3.0, 40.0, 0.0]], WIDEST)
TOLERANCE = 1e-6 if WIDEST != jnp.float64 else 1e-12


def test_training_standardises_every_feature_over_the_batch():
    layer = fnn.batch_norm(3, epsilon=0.0)
    y, _, _ = layer.forward(*layer.init(KEY), X, train=True)
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=TOLERANCE)
    np.testing.assert_allclose(y.var(axis=0), 1, atol=TOLERANCE)


def test_running_statistics_keep_momentum_of_themselves_and_divide_by_n():
    layer = fnn.batch_norm(3, momentum=0.75)
    _, state, _ = layer.forward(*layer.init(KEY), X, train=True)
    np.testing.assert_allclose(state.mean, 0.25 * np.mean(X, axis=0), rtol=TOLERANCE)
    np.testing.assert_allclose(state.variance, 0.75 + 0.25 * np.var(X, axis=0), rtol=TOLERANCE)


def test_prediction_uses_running_statistics_and_leaves_them():
    layer = fnn.batch_norm(3, epsilon=0.0)
    params, _ = layer.init(KEY)
    state = fnn.BatchNormState(mean=jnp.array([1.0, 2.0, 3.0], WIDEST), variance=jnp.array([4.0, 9.0, 16.0], WIDEST))
    y, new_state, _ = layer.forward(params, state, X, train=False)
    np.testing.assert_allclose(y, (X - state.mean[None]) / np.sqrt(state.variance)[None], rtol=TOLERANCE)
    assert new_state is state


def test_a_large_mean_costs_no_digits_of_the_variance():
    """E[x²] − E[x]² would give 0 or less here in float32."""
    x = (10_000 + X).astype(jnp.float32)
    y, _, _ = fnn.batch_norm_forward(
        fnn.NormalizationParams(jnp.ones(3, jnp.float32), jnp.zeros(3, jnp.float32)),
        fnn.BatchNormState(jnp.zeros(3, jnp.float32), jnp.ones(3, jnp.float32)),
        x,
        train=True,
    )
    np.testing.assert_allclose(y.std(axis=0), 1, rtol=1e-3)


def test_layer_norm_standardises_every_sample_over_its_features():
    layer = fnn.layer_norm(3, epsilon=0.0)
    y, state, _ = layer.forward(*layer.init(KEY), X, train=True)
    np.testing.assert_allclose(y.mean(axis=1), 0, atol=TOLERANCE)
    np.testing.assert_allclose(y.var(axis=1), 1, atol=TOLERANCE)
    assert state == ()


@pytest.mark.parametrize("layer", [fnn.batch_norm(3, epsilon=0.0), fnn.layer_norm(3, epsilon=0.0)])
def test_the_gradient_by_x_has_no_part_that_normalization_takes_out(layer):
    """Shifting or stretching x changes nothing, so dx is at right angles to ones and to x itself."""
    params, state = layer.init(KEY)
    _, _, residuals = layer.forward(params, state, X, train=True)
    axis = 1 if state == () else 0
    _, dx = layer.backward(residuals, jnp.cos(X))
    np.testing.assert_allclose(dx.sum(axis=axis), 0, atol=10 * TOLERANCE)
    np.testing.assert_allclose((dx * X).sum(axis=axis), 0, atol=100 * TOLERANCE)
