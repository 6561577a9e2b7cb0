"""Verdicts on functions with rules of their own: surrogates, wrong rules, and rules without what a check asks for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from tests.cases import WIDEST
from tests.gradcheck.numpy_data import X, Y, float32

pytestmark = [
    pytest.mark.skipif(jnp.float64 != WIDEST, reason="the checker judges in float64 whatever JAX is set to"),
    pytest.mark.usefixtures("promotion_as_for_users"),
]


def test_a_property_that_the_function_lacks_is_not_checked_of_its_rule():
    @jax.custom_vjp
    def sine(x):
        return jax.pure_callback(lambda x: np.sin(x), jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    sine.defvjp(lambda x: (sine(x), x), lambda x, dy: (dy * jnp.cos(x),))
    report = fnn.check_custom_vjp(sine, jnp.ones(3))
    assert report.ok, str(report)
    under_vmap = next(entry for entry in report.properties if entry.name == "under vmap")
    assert under_vmap.ok is None
    assert "not checked" in under_vmap.detail
    report = fnn.check_gradients(lambda w: sine(w).sum(), jnp.cos, jnp.ones(3), also=("vmap",))
    assert report.ok, str(report)


@jax.custom_vjp
def rounded(x):
    return jnp.round(x)


rounded.defvjp(lambda x: (jnp.round(x), None), lambda _, dy: (dy,))


def test_a_straight_through_rule_is_checked_against_its_surrogate():
    x = jnp.array([0.3, -1.7, 2.6])
    report = fnn.check_custom_vjp(rounded, x)
    assert (report.ok, report.verdict) == (False, "undecided")
    suggestion = "x + jax.lax.stop_gradient(function(x) - x)"
    assert suggestion in report.diagnosis
    surrogate = eval(f"lambda x: {suggestion}", {"jax": jax, "function": rounded})
    assert fnn.check_custom_vjp(rounded, x, reference=surrogate).ok
    report = fnn.check_custom_vjp(rounded, x, reference=lambda x: x)
    assert (report.ok, report.verdict) == (False, "undecided")
    assert "the reference is another function" in report.reason


def test_a_reversed_gradient_is_checked_against_its_surrogate():
    @jax.custom_vjp
    def reversed_(x):
        return x

    reversed_.defvjp(lambda x: (x, None), lambda _, dy: (-0.5 * dy,))
    report = fnn.check_custom_vjp(reversed_, jnp.array([0.3, -1.7, 2.6]))
    assert report.verdict == "hand-written wrong"
    assert "reference=lambda x: -1/2 * x + jax.lax.stop_gradient(function(x) - -1/2 * x)" in report.diagnosis


def loss_with(function):
    return lambda w, x, y: ((x @ function(w) - y) ** 2).mean()


def gradient_of_rounded(w, x, y):
    return 2 * x.T @ (x @ jnp.round(w) - y) / len(y)


def test_a_straight_through_rule_inside_a_loss_is_checked_as_a_surrogate():
    w, x, y = float32((np.array([0.3, -1.7, 2.6]), X, Y[:, 0]))
    report = fnn.check_gradients(loss_with(rounded), gradient_of_rounded, w, x, y)
    assert (report.verdict, report.leaves[0].ok) == ("undecided", True)
    assert "the rule of rounded (test_surrogates.py:" in report.reason
    assert "the function's slope is zero everywhere" in report.reason
    assert "returns its cotangent" in report.reason
    suggestion = "x + jax.lax.stop_gradient(f(x) - x)"
    assert f"rounded(x) = {suggestion}" in report.diagnosis
    surrogate = eval(f"lambda x: {suggestion}", {"jax": jax, "f": jnp.round})
    assert fnn.check_gradients(loss_with(surrogate), gradient_of_rounded, w, x, y).verdict == "agrees"
    doubled = fnn.check_gradients(loss_with(surrogate), lambda *args: 2 * gradient_of_rounded(*args), w, x, y)
    assert doubled.verdict == "hand-written wrong"
    report = fnn.check_gradients(loss_with(jnp.round), gradient_of_rounded, w, x, y)
    assert report.verdict == "hand-written wrong"
    assert "Behind round the slope of the loss is zero" in report.diagnosis


def test_a_rule_that_clips_its_cotangent_is_named():
    @jax.custom_vjp
    def clipped(x):
        return x

    clipped.defvjp(lambda x: (x, None), lambda _, dy: (jnp.clip(dy, -0.1, 0.1),))

    def gradient(w, x, y):
        return jnp.clip(2 * x.T @ (x @ w - y) / len(y), -0.1, 0.1)

    report = fnn.check_gradients(loss_with(clipped), gradient, *float32((np.array([0.3, -1.7, 2.6]), X, Y[:, 0])))
    assert report.verdict == "undecided"
    assert "isn't linear in its cotangent" in report.reason
    assert "without its rule" in report.diagnosis


def test_a_wrong_rule_inside_a_loss_is_named_and_excuses_nobody():
    @jax.custom_jvp
    def bent(z):
        return jnp.tanh(z)

    bent.defjvp(lambda primals, tangents: (jnp.tanh(*primals), tangents[0] * (1 - primals[0] ** 2)))

    def loss(w, x):
        return bent(x @ w).sum()

    w, x = float32((np.array([0.3, -0.7, 0.6]), X))
    same = fnn.check_gradients(loss, lambda w, x: x.T @ (1 - (x @ w) ** 2), w, x)
    assert same.verdict == "hand-written wrong"
    assert "the rule of bent (test_surrogates.py:" in same.reason
    right = fnn.check_gradients(loss, lambda w, x: x.T @ (1 - jnp.tanh(x @ w) ** 2), w, x)
    assert right.verdict == "autodiff wrong"
    assert "the rule of bent" in right.reason


def test_a_function_without_a_rule_is_refused():
    with pytest.raises(ValueError, match="There is nothing to check"):
        fnn.check_custom_vjp(jnp.sin, jnp.ones(2))
    assert fnn.check_custom_vjp(jnp.sin, jnp.ones(2), reference=jnp.sin).ok
