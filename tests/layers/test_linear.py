"""The linear layer: initialization and closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from funcnn.layers.initializers import he, xavier
from tests.cases import KEY, WIDEST

initializers = jax.nn.initializers


@pytest.mark.parametrize(
    ("kernel_init", "deviation"),
    [
        (initializers.he_normal(), (2 / 400) ** 0.5),
        (initializers.glorot_normal(), (2 / 1000) ** 0.5),
        (initializers.glorot_uniform(), (2 / 1000) ** 0.5),
        (initializers.lecun_normal(), (1 / 400) ** 0.5),
        (initializers.zeros, 0.0),
        (initializers.normal(0.01), 0.01),
    ],
    ids=["he", "xavier normal", "xavier uniform", "lecun", "zeros", "normal"],
)
def test_kernels_are_drawn_as_asked_and_biases_start_at_zero(kernel_init, deviation):
    params, state = fnn.linear(400, 600, kernel_init=kernel_init).init(KEY)
    assert params.kernel.shape == (400, 600)
    np.testing.assert_allclose(params.kernel.std(), deviation, rtol=0.01)
    np.testing.assert_allclose(params.kernel.mean(), 0, atol=5 * deviation / 400)
    assert not params.bias.any()
    assert state == ()


@pytest.mark.parametrize("shape", [(2, 4), (64, 10)])
@pytest.mark.parametrize(("ours", "jaxs"), [(xavier, initializers.glorot_uniform()), (he, initializers.he_normal())])
def test_he_and_xavier_are_jax_s_to_the_bit(ours, jaxs, shape):
    kernel = ours(KEY, shape)
    assert kernel.dtype == jaxs(KEY, shape).dtype
    np.testing.assert_array_equal(kernel, jaxs(KEY, shape))


def test_gradients_by_sums_over_samples_and_units():
    params = fnn.LinearParams(jnp.array([[1.0, 2.0], [3.0, 4.0]], WIDEST), jnp.array([5.0, 6.0], WIDEST))
    x, dy = jnp.array([[1.0, 10.0], [2.0, 20.0]], WIDEST), jnp.array([[1.0, 0.0], [0.5, 1.0]], WIDEST)
    y, residuals = fnn.linear_forward(params, x)
    dparams, dx = fnn.linear_backward(residuals, dy)
    np.testing.assert_array_equal(y, [[36, 48], [67, 90]])
    np.testing.assert_array_equal(dparams.kernel, [[2, 2], [20, 20]])
    np.testing.assert_array_equal(dparams.bias, [1.5, 1])
    np.testing.assert_array_equal(dx, [[1, 3], [2.5, 5.5]])
