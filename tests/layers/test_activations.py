"""Activations: closed forms, the kinks, and the far ends of float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import funcnn as fnn
from funcnn.layers.activations import activation_layer
from tests.cases import WIDEST

Z = np.array([-30.0, -3.0, -1.0, -0.1, 0.0, 0.1, 1.0, 3.0, 30.0])
NORMAL = stats.norm

# name: (value, derivative), by formulas that share nothing with the code.
CLOSED_FORMS = {
    "identity": (lambda z: z, np.ones_like),
    "sigmoid": (special.expit, lambda z: special.expit(z) * special.expit(-z)),
    "tanh": (np.tanh, lambda z: np.cosh(z) ** -2.0),
    "relu": (lambda z: np.maximum(z, 0), lambda z: np.heaviside(z, 0)),
    "softplus": (lambda z: np.logaddexp(z, 0), special.expit),
    "elu": (lambda z: np.where(z > 0, z, np.expm1(z)), lambda z: np.where(z > 0, 1, np.exp(z))),
    "selu": (
        lambda z: 1.0507009873554805 * np.where(z > 0, z, 1.6732632423543772 * np.expm1(z)),
        lambda z: 1.0507009873554805 * np.where(z > 0, 1, 1.6732632423543772 * np.exp(z)),
    ),
    "squared_relu": (lambda z: np.maximum(z, 0) ** 2, lambda z: 2 * np.maximum(z, 0)),
    "hard_tanh": (lambda z: np.clip(z, -1, 1), lambda z: np.float64(np.abs(z) <= 1)),
    "mish": (
        lambda z: z * np.tanh(np.logaddexp(z, 0)),
        lambda z: np.tanh(np.logaddexp(z, 0)) + z * special.expit(z) / np.cosh(np.logaddexp(z, 0)) ** 2,
    ),
    "gelu": (lambda z: z * NORMAL.cdf(z), lambda z: NORMAL.cdf(z) + z * NORMAL.pdf(z)),
    "silu": (
        lambda z: z * special.expit(z),
        lambda z: special.expit(z) + z * special.expit(z) * special.expit(-z),
    ),
}

ENTRYWISE = [*CLOSED_FORMS, "gelu_tanh"]


def value_and_derivative(name, z):
    a, residuals = getattr(fnn, f"{name}_forward")(z)
    return a, getattr(fnn, f"{name}_backward")(residuals, jnp.ones_like(z))


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_value_and_derivative_have_their_closed_forms(name):
    value, derivative = value_and_derivative(name, jnp.asarray(Z, WIDEST))
    tolerance = 1e-14 if jnp.float64 == WIDEST else 1e-6
    expected_value, expected_derivative = (form(Z) for form in CLOSED_FORMS[name])
    np.testing.assert_allclose(value, expected_value, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(derivative, expected_derivative, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", [*ENTRYWISE, "softmax", "log_softmax"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_finite_far_out_by_hand_and_by_autodiff(name, dtype):
    z = jnp.array([-1e4, -1e3, -88.0, 0.0, 88.0, 1e3, 1e4], dtype)
    value, by_hand = value_and_derivative(name, z)
    by_autodiff = jax.grad(lambda z: getattr(fnn, f"{name}_forward")(z)[0].sum())(z)
    for figures in (value, by_hand, by_autodiff):
        assert figures.dtype == dtype
        assert bool(jnp.isfinite(figures).all())
    np.testing.assert_allclose(np.float32(by_hand), np.float32(by_autodiff), atol=1e-2)


@pytest.mark.parametrize("name", [name for name in ENTRYWISE if name != "identity"])
def test_autodiff_takes_the_same_value_at_zero(name):
    z = jnp.zeros(1, WIDEST)
    by_autodiff = jax.grad(lambda z: getattr(fnn, f"{name}_forward")(z)[0].sum())(z)
    np.testing.assert_array_equal(value_and_derivative(name, z)[1], by_autodiff)


def test_kinks_follow_jax_nn_and_the_leaky_slope_holds_at_zero():
    assert value_and_derivative("relu", jnp.zeros(()))[1] == jax.grad(jax.nn.relu)(0.0) == 0
    _, slope = fnn.leaky_relu_forward(jnp.zeros(()), 0.25)
    assert fnn.leaky_relu_backward(slope, jnp.ones(())) == 0.25


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu"])
def test_a_nan_is_not_hidden(name):
    assert bool(jnp.isnan(getattr(fnn, f"{name}_forward")(jnp.array([jnp.nan]))[0]).all())


@pytest.mark.parametrize("alpha", [-0.5, 0.0, 0.2, 3.0])
def test_leaky_relu_at_any_slope(alpha):
    layer = fnn.leaky_relu(alpha)
    x = jnp.array([[-2.0, 5.0]], WIDEST)
    y, _, residuals = layer.forward((), (), x, train=True)
    np.testing.assert_allclose(y, [[-2.0 * alpha, 5.0]], rtol=1e-6)
    np.testing.assert_allclose(layer.backward(residuals, jnp.ones_like(x))[1], [[alpha, 1.0]], rtol=1e-6)


def test_softmax_has_the_whole_jacobian():
    z = jnp.array([2.0, 1.0, 0.1], WIDEST)
    p, residuals = fnn.softmax_forward(z)
    jacobian = jax.vmap(lambda cotangent: fnn.softmax_backward(residuals, cotangent))(jnp.eye(3, dtype=WIDEST))
    np.testing.assert_allclose(jacobian, np.diag(p) - np.outer(p, p), atol=1e-7 if WIDEST != jnp.float64 else 1e-15)


def test_log_softmax_is_the_logarithm_of_softmax():
    z = jnp.array([2.0, 1.0, 0.1], WIDEST)
    a, residuals = fnn.log_softmax_forward(z)
    jacobian = jax.vmap(lambda cotangent: fnn.log_softmax_backward(residuals, cotangent))(jnp.eye(3, dtype=WIDEST))
    tolerance = 1e-6 if WIDEST != jnp.float64 else 1e-15
    np.testing.assert_allclose(a, np.log(special.softmax(np.float64(z))), atol=tolerance)
    np.testing.assert_allclose(jacobian, np.eye(3) - np.exp(a)[None, :], atol=tolerance)


def test_a_pair_of_ones_own_becomes_a_layer():
    cube = activation_layer(lambda z: (z**3, z), lambda z, da: da * 3 * z**2)
    assert fnn.check_layer(cube, jnp.array([[1.0, -2.0]], WIDEST)).ok
    wrong = activation_layer(lambda z: (z**3, z), lambda z, da: da * z**2)
    assert fnn.check_layer(wrong, jnp.array([[1.0, -2.0]], WIDEST)).leaves[0].cause == "scaled"
    without_residuals = activation_layer(jnp.tanh, lambda z, da: da, fnn.LayerSpec("mine"))
    for x in (jnp.ones((2, 3), WIDEST), jnp.ones((4, 3), WIDEST)):  # two rows are no pair
        with pytest.raises(TypeError, match=r"mine\(forward\): expected \(a, residuals\), got one array \(\d, 3\)"):
            fnn.check_layer(without_residuals, x)
