"""Which gradient is right: kinks, wrong rules in the loss, NaN in autodiff, rounding, and the caller's own dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from funcnn.gradcheck.engine.slopes import measure_slope
from tests.cases import KEY, WIDEST

needs_float64 = pytest.mark.skipif(jnp.float64 != WIDEST, reason="measured slopes of 12 digits need float64")
XOR = (jnp.array([[0, 0], [0, 1], [1, 0], [1, 1]], WIDEST), jnp.array([[0], [1], [1], [0]], WIDEST))
CORNER = {
    "w1": jax.random.normal(KEY, (2, 4), WIDEST),
    "b1": jnp.zeros(4, WIDEST),
    "w2": jax.random.normal(jax.random.key(5), (4, 1), WIDEST),
    "b2": jnp.zeros(1, WIDEST),
}


def xor_loss(params, x, y):
    hidden = jnp.maximum(x @ params["w1"] + params["b1"][None], 0.0)
    return ((jax.nn.sigmoid(hidden @ params["w2"] + params["b2"][None]) - y) ** 2).mean()


def xor_gradient(side=0.0, factor=2.0, sign=1.0):
    """By hand; ``side`` is the ReLU's derivative at 0."""

    def gradient(params, x, y):
        z = x @ params["w1"] + params["b1"][None]
        hidden = jnp.where(z > 0, z, jnp.zeros_like(z))
        output = jax.nn.sigmoid(hidden @ params["w2"] + params["b2"][None])
        d2 = factor * (output - y) / len(y) * output * (1 - output)
        slope = jnp.where(z > 0, jnp.ones_like(z), jnp.where(z == 0, jnp.full_like(z, side), jnp.zeros_like(z)))
        d1 = d2 @ params["w2"].T * slope
        return {"w1": x.T @ d1, "b1": d1.sum(axis=0), "w2": hidden.T @ d2, "b2": sign * d2.sum(axis=0)}

    return gradient


@pytest.mark.parametrize("side", [0.0, 0.3, 0.5, 1.0])
def test_at_a_kink_every_side_is_right_and_the_report_says_where(side):
    report = fnn.check_gradients(xor_loss, xor_gradient(side), CORNER, *XOR)
    assert report.ok, str(report)
    assert report.verdict == "agrees"
    assert "On a kink: maximum at sample 0, unit 0; sample 0, unit 1" in report.diagnosis
    assert "it affects ['b1']" in report.diagnosis
    assert (report.leaves[0].cause == "kink") == (side != 0.5)


def test_a_compiled_loss_has_the_same_kinks():
    by_hand = xor_gradient(side=0.3)
    plain = fnn.check_gradients(xor_loss, by_hand, CORNER, *XOR)
    compiled = fnn.check_gradients(jax.jit(xor_loss), jax.jit(by_hand), CORNER, *XOR)
    assert compiled.diagnosis == plain.diagnosis
    assert [leaf.cause for leaf in compiled.leaves] == [leaf.cause for leaf in plain.leaves]


@needs_float64
@pytest.mark.thorough
def test_ties_that_a_compiler_rounds_away_are_found_where_the_gradients_differ():
    """x s − t is a tie, as long as the product is rounded before the difference."""
    x, s = jax.random.normal(KEY, (2, 100), WIDEST)
    params = {"x": x, "s": s, "t": x * s}

    def loss(params):
        return jnp.maximum(params["x"] * params["s"] - params["t"], 0.0).mean()

    def gradient(params):
        upper = (params["x"] * params["s"] - params["t"] >= 0).astype(WIDEST) / x.size
        return {"x": upper * params["s"], "s": upper * params["x"], "t": -upper}

    # Only what is optimized rounds a product and a difference as one.
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        reports = [fnn.check_gradients(function, gradient, params) for function in (loss, jax.jit(loss))]
    finally:
        jax.config.update("jax_disable_most_optimizations", True)
    for report in reports:
        assert report.ok, str(report)
        assert {leaf.cause for leaf in report.leaves} == {"kink"}


@pytest.mark.parametrize("side", [-0.5, pytest.param(1.5, marks=pytest.mark.thorough)])
def test_beyond_the_sides_of_a_kink_nothing_is_right(side):
    report = fnn.check_gradients(xor_loss, xor_gradient(side), CORNER, *XOR)
    assert [leaf.path for leaf in report.leaves if not leaf.ok] == ["['b1']"]


@pytest.mark.thorough
def test_a_mistake_at_a_kink_is_still_named():
    report = fnn.check_gradients(xor_loss, xor_gradient(factor=1.0), CORNER, *XOR)
    assert {leaf.cause for leaf in report.leaves} == {"scaled"}
    assert "1/2 of autodiff's gradient; the derivative of a square brings a 2" in report.diagnosis
    report = fnn.check_gradients(xor_loss, xor_gradient(sign=-1.0), CORNER, *XOR)
    assert {leaf.path: leaf.cause for leaf in report.leaves if not leaf.ok} == {"['b2']": "sign"}


def test_ties_that_move_together_are_no_kink():
    """log(1 + eᶻ) as max(z, 0) + log(1 + e^−|z|) has two ties at 0 and a derivative of ½."""

    def softplus(z):
        return (jnp.maximum(z, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(z)))).sum()

    z = jnp.zeros(3, WIDEST)
    assert "kink" not in fnn.check_gradients(softplus, jax.nn.sigmoid, z).diagnosis
    assert not fnn.check_gradients(softplus, lambda z: jnp.ones_like(z), z).ok
    assert not fnn.check_gradients(softplus, lambda z: jnp.zeros_like(z), z).ok


def first(x):
    return jnp.zeros_like(x).at[jnp.argmax(x)].set(1.0)


@pytest.mark.parametrize(
    ("loss", "gradient", "ok"),
    [
        (jnp.max, first, True),
        (jnp.max, lambda x: (x == x.max()).astype(x.dtype), False),
        (lambda x: jnp.abs(x - 2).sum(), lambda x: jnp.where(x >= 2, 1.0, -1.0).astype(x.dtype), True),
        (lambda x: jnp.abs(x - 2).sum(), lambda x: jnp.where(x >= 2, 1.5, -1.0).astype(x.dtype), False),
        (lambda x: jnp.clip(x, 1, 2).sum(), lambda x: ((x > 1) & (x < 2)).astype(x.dtype), True),
        (lambda x: jnp.clip(x, 1, 2).sum(), lambda x: ((x >= 1) & (x <= 2)).astype(x.dtype), True),
        (lambda x: jax.lax.clamp(1.0, x, 2.0).sum(), lambda x: ((x > 1) & (x < 2)).astype(x.dtype), True),
        (lambda x: jax.lax.clamp(1.0, x, 2.0).sum(), lambda x: ((x >= 1) & (x <= 2)).astype(x.dtype), True),
        (lambda x: jax.lax.clamp(1.0, x, 2.0).sum(), lambda x: (x < 9).astype(x.dtype) * 1.5, False),
        (lambda x: jnp.where(x > 1, x, 2 * x - 1).sum(), lambda x: jnp.where(x >= 1, 1, 2).astype(x.dtype), True),
        (lambda x: jnp.linalg.norm(x - x), jnp.zeros_like, True),
    ],
    ids=[
        "max, first",
        "max, all",
        "abs",
        "abs, beyond",
        "clip, open",
        "clip, closed",
        "clamp, open",
        "clamp, closed",
        "clamp, beyond",
        "where",
        "norm at 0",
    ],
)
def test_kinks_of_single_operations(loss, gradient, ok):
    report = fnn.check_gradients(loss, gradient, jnp.array([2.0, 1.0, 2.0, 1.5], WIDEST))
    assert report.ok == ok, str(report)


def test_a_kink_of_a_scalar_is_named_without_an_index():
    report = fnn.check_gradients(lambda x: jnp.maximum(x, 0.0), lambda x: jnp.ones_like(x), jnp.zeros((), WIDEST))
    assert report.ok, str(report)
    assert "On a kink: maximum at the scalar" in report.diagnosis


@pytest.mark.thorough
def test_a_kink_inside_a_scan():
    def loss(z):
        return jax.lax.scan(lambda carry, row: (carry + jnp.maximum(row, 0.0).sum(), None), jnp.zeros((), WIDEST), z)[0]

    z = jnp.array([[0.0, 1.0], [-1.0, 0.0]], WIDEST)
    assert fnn.check_gradients(loss, lambda z: (z >= 0).astype(z.dtype), z).ok
    assert not fnn.check_gradients(loss, lambda z: (z > -2).astype(z.dtype), z).ok


@jax.custom_jvp
def wrongly_ruled(x):
    return jnp.sin(x)


@wrongly_ruled.defjvp
def _rule(primals, tangents):
    return wrongly_ruled(*primals), tangents[0] * jnp.sin(primals[0])


X = jnp.array([0.3, 1.0, -2.0], WIDEST)


@needs_float64
def test_a_wrong_rule_in_the_loss_is_autodiff_s_mistake():
    report = fnn.check_gradients(lambda x: wrongly_ruled(x).sum(), jnp.cos, X)
    assert report.ok
    assert report.verdict == "autodiff wrong"
    assert "by hand is right, and autodiff's is wrong" in report.diagnosis


@needs_float64
def test_where_both_are_wrong_the_slope_says_so():
    report = fnn.check_gradients(lambda x: wrongly_ruled(x).sum(), jnp.sin, X)
    assert not report.ok
    assert report.verdict == "hand-written wrong"
    assert "so is autodiff" in report.reason
    assert [leaf.ok for leaf in report.leaves] == [False]


@needs_float64
def test_a_gradient_where_autodiff_has_none():
    """jnp.where takes one branch; autodiff multiplies the other's NaN by 0."""

    def loss(x):
        return jnp.where(x > 0.5, jnp.sqrt(x - 1), 0.0).sum()

    def gradient(x):
        return jnp.where(x > 0.5, 0.5 / jnp.sqrt(jnp.abs(x - 1)), jnp.zeros_like(x))

    x = jnp.array([0.25, 2.0], WIDEST)
    assert np.isnan(jax.grad(loss)(x)[0])
    report = fnn.check_gradients(loss, gradient, x)
    assert report.ok, str(report)
    assert report.verdict == "autodiff wrong"
    report = fnn.check_gradients(loss, lambda x: gradient(x) + 1, x)
    assert (report.ok, report.leaves[0].cause) == (False, "unknown")


def test_what_the_loss_stops_is_held_fixed():
    def loss(w):
        return (w * jax.lax.stop_gradient(w)).sum()

    assert fnn.check_gradients(loss, lambda w: w, X).ok
    report = fnn.check_gradients(loss, lambda w: 2 * w, X)
    assert (report.ok, report.leaves[0].cause) == (False, "scaled")


def test_a_straight_through_estimator_by_stop_gradient_is_right():
    def loss(w):
        return ((w + jax.lax.stop_gradient(jnp.round(w) - w)) ** 2).sum()

    assert fnn.check_gradients(loss, lambda w: 2 * jnp.round(w), X).ok


def test_a_loss_with_python_conditions_is_judged_too():
    def loss(w):
        return (w**2).sum() if w[0] > 0 else w.sum()

    assert fnn.check_gradients(loss, lambda w: 2 * w, X).ok
    assert fnn.check_gradients(loss, lambda w: w, X).leaves[0].cause == "scaled"


@needs_float64
def test_slopes_know_their_error_and_their_sides():
    smooth = measure_slope(lambda t: float(np.exp(3 * t)), 2.2e-16)
    assert smooth is not None
    assert abs(smooth.value - 3) < 10 * smooth.error < 1e-7
    assert not smooth.is_kink
    bent = measure_slope(lambda t: max(t, 0.0) + 2 * t, 2.2e-16)
    assert bent is not None
    assert bent.is_kink
    assert (round(bent.left, 9), round(bent.right, 9)) == (2, 3)
    assert bent.holds(2.5)
    assert not bent.holds(3.5)
    assert measure_slope(lambda t: np.nan, 2.2e-16) is None


@needs_float64
def test_a_vanished_gradient_keeps_its_digits():
    """Rounding is measured in the leaf: 1e-20 of the tree's largest entry can be right to twelve digits."""

    def loss(params):
        return (params["large"] ** 2).sum() + 1e-20 * jnp.tanh(params["small"]).sum()

    def gradient(factor):
        return lambda p: {"large": 2 * p["large"], "small": factor * 1e-20 * (1 - jnp.tanh(p["small"]) ** 2)}

    params = {"large": X, "small": X}
    assert fnn.check_gradients(loss, gradient(1.0), params).ok
    for factor, cause in ((-1.0, "sign"), (1.001, "scaled")):
        assert fnn.check_gradients(loss, gradient(factor), params).leaves[1].cause == cause
    # Zero is what 1e-20 of the largest entry is beside it.
    report = fnn.check_gradients(loss, gradient(0.0), params)
    assert (report.ok, report.leaves[1].cause) == (True, "noise")


def variance_by_squares(x):
    return (x * x).mean() - x.mean() ** 2


def test_digits_lost_in_the_caller_s_own_dtype_are_a_finding():
    x = jax.random.normal(KEY, (64,), jnp.float32) + 3000

    def deviation(x):
        return jnp.sqrt(((x - x.mean()) ** 2).mean())

    def stable(x):
        return (x - x.mean()) / (len(x) * deviation(x))

    def unstable(x):
        return (x - x.mean()) / (len(x) * jnp.sqrt(jnp.abs(variance_by_squares(x))))

    assert fnn.check_gradients(deviation, stable, x).ok
    report = fnn.check_gradients(deviation, unstable, x)
    assert "right in float64, but in the caller's float32" in report.diagnosis
    assert (report.ok, report.leaves[0].cause) == (False, "unstable")


def test_digits_that_the_loss_loses_too_are_told_but_no_mistake():
    x = jax.random.normal(KEY, (64,), jnp.float32) + 3000

    def gradient(x):
        return (x - x.mean()) / (len(x) * jnp.sqrt(jnp.abs(variance_by_squares(x))))

    report = fnn.check_gradients(lambda x: jnp.sqrt(jnp.abs(variance_by_squares(x))), gradient, x)
    assert report.ok, str(report)


def test_a_loss_that_overflows_is_no_error_of_ours():
    w = jnp.full(3, 800.0, WIDEST)
    for _ in range(2):
        report = fnn.check_gradients(lambda w: jnp.log(w).sum(), lambda w: 1 / w, jnp.zeros(3, WIDEST))
        assert report.ok
        assert "the loss is -inf there, and has no slope" in report.reason
        assert not fnn.check_gradients(lambda w: jnp.exp(w).sum() - jnp.exp(w).sum(), jnp.zeros_like, w).ok


def test_nothing_to_compare():
    report = fnn.check_gradients(lambda _: jnp.zeros((), WIDEST), lambda _: {}, {})
    assert (report.ok, report.verdict) == (True, "agrees")


@pytest.mark.thorough
def test_labels_that_are_probabilities_to_seven_digits():
    y = jax.nn.softmax(jax.random.normal(KEY, (5, 3), jnp.float32))
    z = jax.random.normal(jax.random.key(2), (5, 3), jnp.float32)

    def loss(shift, z, y):
        return -(y * jax.nn.log_softmax(z + shift)).sum(axis=1).mean()

    def gradient(shift, z, y):
        return (jax.nn.softmax(z + shift) - y).sum() / len(y)

    assert fnn.check_gradients(loss, gradient, jnp.zeros((), jnp.float32), z, y).ok
    assert not fnn.check_gradients(loss, lambda *a: gradient(*a) + 1e-5, jnp.zeros((), jnp.float32), z, y).ok
