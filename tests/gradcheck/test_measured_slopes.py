"""Verdicts on losses that JAX doesn't trace, whose slopes are measured."""

import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from tests.cases import WIDEST
from tests.gradcheck.numpy_data import WEIGHTS, X

pytestmark = [
    pytest.mark.skipif(jnp.float64 != WIDEST, reason="the checker judges in float64 whatever JAX is set to"),
    pytest.mark.usefixtures("promotion_as_for_users"),
]


def course_loss(params, x, labels, decay):
    hidden = np.maximum(0, x.dot(params["w1"]))
    scores = hidden.dot(params["w2"])
    scores -= scores.max(axis=1, keepdims=True)
    shares = np.exp(scores)
    shares /= shares.sum(axis=1, keepdims=True)
    return -np.log(shares[np.arange(len(x)), labels]).mean() + decay * sum((w**2).sum() for w in params.values())


def course_gradient(two):
    def gradient(params, x, labels, decay):
        hidden = np.maximum(0, x.dot(params["w1"]))
        scores = hidden.dot(params["w2"])
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        shares[np.arange(len(x)), labels] -= 1
        shares /= len(x)
        dhidden = shares.dot(params["w2"].T)
        dhidden[hidden <= 0] = 0
        return {
            "w1": x.T.dot(dhidden) + two * decay * params["w1"],
            "w2": hidden.T.dot(shares) + two * decay * params["w2"],
        }

    return gradient


def test_losses_in_numpy_are_checked_by_measured_slopes():
    labels = np.arange(8) % 2
    report = fnn.check_gradients(course_loss, course_gradient(2), WEIGHTS, X, labels, 0.1)
    assert (report.ok, report.verdict) == (True, "agrees"), str(report)
    assert "Autodiff was not evaluated" in str(report)
    assert [leaf.dtype for leaf in report.leaves] == ["float64", "float64"]
    report = fnn.check_gradients(course_loss, course_gradient(1), WEIGHTS, X, labels, 0.1)
    assert report.verdict == "hand-written wrong"
    assert {leaf.cause for leaf in report.leaves} == {"offset_by_parameter"}
    assert "measured" in str(report)


def test_a_loss_that_ends_in_float_is_checked():
    def loss(w, x):
        return float(((x @ w) ** 2).mean())

    assert fnn.check_gradients(loss, lambda w, x: 2 * x.T @ (x @ w) / len(x), np.ones(3), X).ok
    assert not fnn.check_gradients(loss, lambda w, x: x.T @ (x @ w) / len(x), np.ones(3), X).ok


def test_a_kink_of_a_loss_in_numpy_may_have_either_side():
    def loss(w):
        return float(np.abs(w).sum())

    at = np.array([0.0, 1.0])
    assert fnn.check_gradients(loss, lambda w: np.sign(w), at).ok
    assert fnn.check_gradients(loss, lambda w: np.where(w >= 0, 1.0, -1.0), at).ok
    assert not fnn.check_gradients(loss, lambda w: 2 * np.sign(w), at).ok


def test_one_wrong_entry_among_more_than_are_measured_alone():
    w = np.random.default_rng(1).normal(size=1500)

    def gradient(w):
        right = 3 * w**2
        right[1234] *= 1.5
        return right

    assert fnn.check_gradients(lambda w: float((w * w * w).sum()), lambda w: 3 * w**2, w).ok
    assert not fnn.check_gradients(lambda w: float((w * w * w).sum()), gradient, w).ok


def test_a_loss_that_ends_in_item_is_measured():
    def loss(w, x):
        return ((x @ w) ** 2).mean().item()

    report = fnn.check_gradients(loss, lambda w, x: 2 * x.T @ (x @ w) / len(x), jnp.ones(3), X)
    assert (report.ok, report.verdict) == (True, "agrees"), str(report)
    assert "isn't traced" in report.no_autodiff
    assert not fnn.check_gradients(loss, lambda w, x: x.T @ (x @ w) / len(x), jnp.ones(3), X).ok


@pytest.mark.parametrize(
    "loss",
    [
        lambda w: float((w.astype(np.float16) ** 2).sum()),
        lambda w: np.float32(1e4) + np.float32((w.astype(np.float32) ** 2).sum()),
        lambda w: float(np.float32(1.0) * (w.astype(np.float32) ** 2).sum(dtype=np.float32)),
    ],
    ids=["float16", "offset", "float32"],
)
def test_a_loss_in_numpy_of_few_digits_makes_no_right_gradient_wrong(loss):
    at = np.array([0.7, -1.3, 0.4])
    assert fnn.check_gradients(loss, lambda w: 2 * w, at).verdict in ("agrees", "undecided")
    assert fnn.check_gradients(loss, lambda w: 5 * w, at).verdict != "agrees"


def test_a_gradient_that_overflows_without_autodiff_is_wrong():
    def loss(w):
        return float(np.logaddexp(0, w).sum())

    with np.errstate(all="ignore"):
        report = fnn.check_gradients(loss, lambda w: np.exp(w) / (1 + np.exp(w)), np.array([100, 1], np.float32))
    assert (report.ok, report.verdict) == (False, "hand-written wrong"), str(report)


def test_a_vjp_of_a_function_in_numpy():
    def function(x):
        return np.tanh(np.asarray(x))

    def vjp(slope):
        return lambda x: (function(x), lambda dy: (dy * slope(np.tanh(np.asarray(x))),))

    x = np.array([0.3, -1.0, 2.0])
    assert fnn.check_vjp(function, vjp(lambda y: 1 - y**2), x).ok
    assert not fnn.check_vjp(function, vjp(lambda y: 1 - y), x).ok


@pytest.mark.parametrize("size", [1e-9, 1e-13])
def test_a_leaf_far_below_the_others_is_measured_on_its_own(size):
    """The slopes are measured to a share of the leaf, or nothing is said of it."""
    params = {"large": X[0], "small": X[1]}

    def loss(params):
        return float((params["large"] ** 2).sum() + size * (params["small"] ** 2).sum())

    def gradient(factor):
        return lambda params: {"large": 2 * params["large"], "small": 2 * factor * size * params["small"]}

    assert not fnn.check_gradients(loss, gradient(2.0), params).ok
    assert fnn.check_gradients(loss, gradient(1.0), params).verdict in ("agrees", "undecided")
