"""Verdicts on what computes in few digits: bfloat16, casts on the way, gradients that lose digits."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from tests.cases import WIDEST
from tests.gradcheck.numpy_data import WEIGHTS, X, Y, float32

pytestmark = [
    pytest.mark.skipif(jnp.float64 != WIDEST, reason="the checker judges in float64 whatever JAX is set to"),
    pytest.mark.usefixtures("promotion_as_for_users"),
]

HALF = jnp.bfloat16


def mixed_loss(params, x, y):
    hidden = jax.nn.relu(x.astype(HALF) @ params["w1"].astype(HALF))
    return (((hidden @ params["w2"].astype(HALF)).astype(jnp.float32) - y) ** 2).mean()


def mixed_gradient(factor):
    def gradient(params, x, y):
        low = x.astype(HALF)
        hidden = jax.nn.relu(low @ params["w1"].astype(HALF))
        error = (hidden @ params["w2"].astype(HALF)).astype(jnp.float32) - y
        dz = (2 * factor * error / error.size).astype(HALF)
        dhidden = dz @ params["w2"].astype(HALF).T * (hidden > 0)
        return {"w1": (low.T @ dhidden).astype(jnp.float32), "w2": (hidden.T @ dz).astype(jnp.float32)}

    return gradient


def test_products_in_bfloat16_are_judged_without_the_casts():
    arguments = float32((WEIGHTS, X, Y))
    report = fnn.check_gradients(mixed_loss, mixed_gradient(1.0), *arguments)
    assert (report.ok, report.verdict) == (True, "agrees")
    assert "the casts to bfloat16 taken out" in report.precision
    for factor in (1.02, 0.95):  # below and about the rounding of bfloat16
        report = fnn.check_gradients(mixed_loss, mixed_gradient(factor), *arguments)
        assert {leaf.cause for leaf in report.leaves} == {"scaled"}, str(report)


def test_low_precision_that_cannot_be_taken_out_is_undecided():
    """A callback's output has the dtype that it was written for."""

    def product(x):
        shape = jax.ShapeDtypeStruct(x.shape, jnp.bfloat16)
        return jax.pure_callback(lambda x: np.asarray(np.tanh(np.float32(x))).astype(HALF), shape, x)

    @jax.custom_vjp
    def function(x):
        return product(x).astype(jnp.float32)

    function.defvjp(lambda x: (function(x), x), lambda x, dy: (dy * (1 - jnp.tanh(x) ** 2),))
    report = fnn.check_gradients(
        lambda w: function(w).sum(), lambda w: 1.2 * (1 - jnp.tanh(w) ** 2), jnp.ones(3, jnp.float32)
    )
    assert report.verdict != "agrees"
    assert not report.ok


def centred_loss(params, x):
    z = x @ params["w"]
    return ((z - z.mean(axis=0)) ** 2).mean() / 1e-4


def by_squares(params, x):
    """Right by its formula, and a difference of large numbers: E[z x] − E[z] E[x]."""
    z = x @ params["w"]
    return {"w": 2 * (x.T @ z / len(x) - x.mean(axis=0)[:, None] * z.mean(axis=0)) / z.shape[1] / 1e-4}


@pytest.mark.thorough
def test_a_gradient_that_loses_digits_is_unstable():
    x, params = jnp.asarray(1 + 0.01 * X, jnp.float32), {"w": jnp.asarray(WEIGHTS["w1"], jnp.float32)}
    report = fnn.check_gradients(centred_loss, by_squares, params, x)
    assert (report.ok, report.verdict, report.leaves[0].cause) == (True, "unstable", "unstable"), str(report)
    assert "digits" in report.diagnosis
    with pytest.warns(UserWarning, match="digits"):
        fnn.assert_gradients(centred_loss, by_squares, params, x)
    report = fnn.check_gradients(centred_loss, by_squares, params, x, stability="fail")
    assert (report.ok, report.verdict) == (False, "hand-written wrong")
    with pytest.raises(AssertionError, match="unstable"):
        fnn.assert_gradients(centred_loss, by_squares, params, x, stability="fail")

    def centred(params, x):
        z = x @ params["w"]
        return {"w": 2 * (x - x.mean(axis=0)).T @ (z - z.mean(axis=0)) / z.size / 1e-4}

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fnn.assert_gradients(centred_loss, centred, params, x, stability="fail")


def low_product(a, b):
    return (a.astype(HALF) @ b.astype(HALF)).astype(jnp.float32)


def low_product_vjp(factor):
    def vjp(a, b):
        def pullback(dy):
            low = (factor * dy).astype(HALF)
            return (low @ b.astype(HALF).T).astype(a.dtype), (a.astype(HALF).T @ low).astype(b.dtype)

        return low_product(a, b), pullback

    return vjp


@pytest.mark.thorough
def test_a_rule_in_bfloat16_has_its_properties_by_the_digits_of_bfloat16():
    a, b = float32((X, WEIGHTS["w1"]))
    report = fnn.check_vjp(low_product, low_product_vjp(1.0), a, b)
    assert report.ok, str(report)
    assert not fnn.check_vjp(low_product, low_product_vjp(1.1), a, b).ok
    rule = jax.custom_vjp(low_product)
    rule.defvjp(lambda a, b: (low_product(a, b), (a, b)), lambda kept, dy: low_product_vjp(1.0)(*kept)[1](dy))
    assert fnn.check_custom_vjp(rule, a, b).ok
    # A reference of more digits has the same values but for the rounding.
    report = fnn.check_custom_vjp(rule, a, b, reference=lambda a, b: a @ b)
    assert report.ok, str(report)


def test_a_gradient_of_nothing_but_rounding_beside_a_flat_loss():
    report = fnn.check_gradients(lambda w: 0 * w.sum(), lambda w: (w + 1) - 1 - w, jnp.full(3, 2.0**-30, jnp.float32))
    assert report.verdict in ("agrees", "unstable", "undecided")


@pytest.mark.thorough
def test_a_kernel_that_rounds_to_few_digits_makes_its_rule_neither_right_nor_wrong():
    """The jumps of the loss are the resolution of its slopes, wherever its terms cancel."""

    def kernel(x):
        shape = jax.ShapeDtypeStruct(x.shape, HALF)
        return jax.pure_callback(lambda x: np.tanh(np.float32(x)).astype(HALF), shape, x).astype(x.dtype)

    def rule(factor):
        function = jax.custom_vjp(kernel)
        function.defvjp(lambda x: (kernel(x), x), lambda x, dy: (factor * dy * (1 - jnp.tanh(x) ** 2),))
        return function

    x = jnp.array([0.3, -0.7, 1.6, -0.2], jnp.float32)
    assert fnn.check_custom_vjp(rule(1.0), x).verdict == "undecided"
    assert fnn.check_custom_vjp(rule(1.5), x).verdict != "agrees"
    assert fnn.check_custom_vjp(rule(1.0), x, reference=jnp.tanh).verdict == "agrees"
    assert fnn.check_custom_vjp(rule(1.02), x, reference=jnp.tanh).verdict == "hand-written wrong"


def test_a_loop_with_its_dtypes_written_out_is_judged_in_float64():
    """JAX refuses float64 in a carry of float32; the program in the caller's dtypes is rewritten."""

    def means(w, x):
        low = x.astype(HALF)

        def add(total, row):
            return total + jnp.square((row * w.astype(HALF)).astype(jnp.float32)), row

        return jax.lax.scan(add, jnp.zeros(3, jnp.float32), low)[0] / len(x)

    def gradient(factor):
        return lambda w, x: factor * 2 * w * jnp.square(x.astype(HALF).astype(jnp.float32)).mean(axis=0)

    w, x = float32((np.array([0.3, -1.7, 2.6]), X))
    report = fnn.check_gradients(lambda w, x: means(w, x).sum(), gradient(1.0), w, x)
    assert (report.verdict, report.precision) == ("agrees", "float64, the casts to bfloat16 taken out"), str(report)
    report = fnn.check_gradients(lambda w, x: means(w, x).sum(), gradient(1.02), w, x)
    assert (report.verdict, report.leaves[0].cause) == ("hand-written wrong", "scaled"), str(report)


@pytest.mark.thorough
def test_normal_numbers_by_a_key_are_the_callers_in_float64_too():
    key = jax.random.key(3)

    def noisy(x):
        return x + 0.1 * jax.random.normal(key, x.shape, x.dtype)

    def gradient(factor):
        return lambda w, x: factor * 2 * noisy(x).T @ (noisy(x) @ w) / len(x)

    w, x = float32((np.array([0.3, -1.7, 2.6]), X))
    for factor, verdict in ((1.0, "agrees"), (1.001, "hand-written wrong")):
        assert fnn.check_gradients(lambda w, x: ((noisy(x) @ w) ** 2).mean(), gradient(factor), w, x).verdict == verdict


def test_a_gradient_that_overflows_as_autodiff_does_is_not_to_blame():
    """10 w² doesn't fit in float16, by either way."""
    for stability in ("report", "fail"):
        report = fnn.check_gradients(
            lambda w: (w**3).sum() / 10, lambda w: 3 * w**2 / 10, jnp.full(4, 300.0, jnp.float16), stability=stability
        )
        assert (report.ok, report.leaves[0].cause) == (True, "unstable"), str(report)
