"""Checks in dtypes other than the widest: constants, casts, draws and closures that fix a dtype; overflows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from funcnn._numerics.precision import enable_x64
from tests.cases import KEY, WIDEST, cast
from tests.gradcheck.linear_regression import PARAMS, X, Y, loss_fn, right


def test_a_float32_check_under_float64_is_a_float32_check():
    report = fnn.check_gradients(loss_fn, right, *cast((PARAMS, X, Y), jnp.float32))
    assert report.ok
    assert {leaf.dtype for leaf in report.leaves} == {"float32"}
    np.testing.assert_array_less([leaf.tolerance for leaf in report.leaves], 1e-3)


def test_the_caller_s_configuration_is_left_alone():
    before = (jax.config.read("jax_enable_x64"), jax.config.jax_numpy_dtype_promotion)
    fnn.check_gradients(loss_fn, right, PARAMS, X, Y)
    assert (jax.config.read("jax_enable_x64"), jax.config.jax_numpy_dtype_promotion) == before


def test_a_right_gradient_at_the_optimum_is_right_in_float32():
    solution = {"w": jnp.array([1.0, -2.0, 0.5], WIDEST), "b": jnp.zeros((), WIDEST)}
    report = fnn.check_gradients(loss_fn, right, *cast((solution, X, Y), jnp.float32))
    assert report.ok, str(report)


def test_functions_that_compute_in_float32_inside_are_judged_by_its_digits():
    def pinned(params, x, y):
        return loss_fn(*cast((params, x, y), jnp.float32))

    def by_hand(params, x, y):
        return jax.tree.map(lambda g, p: g.astype(p.dtype), right(*cast((params, x, y), jnp.float32)), params)

    assert fnn.check_gradients(pinned, by_hand, PARAMS, X, Y).ok
    assert not fnn.check_gradients(
        pinned, lambda *args: jax.tree.map(lambda g: 1.01 * g, by_hand(*args)), PARAMS, X, Y
    ).ok


def rounded_on_the_way(params, x, y):
    narrow = cast((params, x, y), jnp.float32)
    return jax.tree.map(lambda g, p: g.astype(p.dtype), right(*narrow), params)


def test_a_gradient_that_rounds_to_fewer_digits_than_the_caller_s_is_unstable():
    report = fnn.check_gradients(loss_fn, rounded_on_the_way, *cast((PARAMS, X, Y), jnp.float32))
    assert report.ok, str(report)
    if jnp.float64 == WIDEST:
        report = fnn.check_gradients(loss_fn, rounded_on_the_way, PARAMS, X / 3, Y)
        assert (report.ok, report.verdict) == (True, "unstable")
        assert "by hand it is rounded to float32 on the way" in report.diagnosis
        assert not fnn.check_gradients(loss_fn, rounded_on_the_way, PARAMS, X / 3, Y, stability="fail").ok


def test_a_gradient_cast_to_float16_loses_more_than_half_of_the_digits_of_float32():
    def through_float16(params, x, y):
        return jax.tree.map(lambda g: g.astype(jnp.float16).astype(g.dtype), right(params, x, y))

    arguments = cast((PARAMS, X / 3, Y), jnp.float32)
    report = fnn.check_gradients(loss_fn, through_float16, *arguments)
    assert (report.ok, report.verdict) == (True, "unstable")
    assert not fnn.check_gradients(loss_fn, through_float16, *arguments, stability="fail").ok


@pytest.mark.parametrize("root", [np.float32(2**0.5), jnp.sqrt(jnp.float32(2))], ids=["NumPy's", "JAX's"])
def test_a_constant_in_the_caller_s_dtype_is_right_to_its_last_digit(root):
    def loss(w):
        return jax.nn.gelu(w, approximate=False).sum()

    def gradient(w, root=root):
        return (1 + jax.scipy.special.erf(w / root)) / 2 + w * jnp.exp(-(w**2) / 2) / (2 * np.pi) ** 0.5

    w = jnp.array([0.5, -1.0, 2.0, 9.0, 0.0], jnp.float32)
    with jax.numpy_dtype_promotion("standard"):
        report = fnn.check_gradients(loss, gradient, w)
        assert report.ok, str(report)
        assert "the rounding of a constant to float32" in report.leaves[0].detail
        # Rounding explains no constant that is wrong in its sixth digit.
        wrong = root * np.float32(1.00001)
        assert not fnn.check_gradients(loss, lambda w: gradient(w, root=wrong), w).ok


def test_what_overflows_in_its_own_dtype_alone_is_a_finding():
    def gradient(w):
        return jnp.exp(w * 100) / jnp.exp(w * 100)

    w = jnp.full(2, 2.0, jnp.float32)
    report = fnn.check_gradients(lambda w: w.sum(), gradient, w)
    assert (report.ok, report.verdict, report.leaves[0].cause) == (False, "hand-written wrong", "unstable")
    assert "right in float64, but in the caller's float32 not finite" in report.leaves[0].detail


def test_functions_that_insist_on_their_dtype_are_rewritten_and_the_report_says_so():
    def insisting(w):
        assert w.dtype == jnp.float32
        return (w * w).sum()

    x = X.astype(jnp.float32)
    report = fnn.check_gradients(insisting, lambda w: 2 * w, x)
    assert report.ok
    assert report.precision == "float64, the casts to float32 taken out"
    assert not fnn.check_gradients(insisting, lambda w: 2.01 * w, x).ok


def test_random_draws_that_64_bits_change_are_judged_as_the_caller_drew_them():
    x = X.astype(jnp.float32)
    with enable_x64(False):
        mask = jax.random.normal(KEY, x.shape)
        report = fnn.check_gradients(
            lambda w: (w * jax.random.normal(KEY, w.shape)).sum(), lambda w: mask.astype(w.dtype), x
        )
    assert report.ok, str(report)
    assert report.precision == "float64, the casts to float32 taken out"


def test_a_mask_in_bfloat16_is_no_bfloat16_arithmetic():
    def loss(params):
        return ((params["w"] > 0).astype(jnp.bfloat16).astype(params["w"].dtype) * params["w"] ** 2).sum() + params["b"]

    params = {"w": jnp.array([1.0, 2.0, 3.0], WIDEST), "b": jnp.array(1.0, WIDEST)}
    assert fnn.check_gradients(loss, lambda p: {"w": 2 * p["w"], "b": jnp.ones_like(p["b"])}, params).ok
    report = fnn.check_gradients(loss, lambda p: {"w": 2.0001 * p["w"], "b": jnp.zeros_like(p["b"])}, params)
    assert [leaf.cause for leaf in report.leaves] == ["zero", "scaled"]


def test_an_overflow_that_autodiff_shares_is_not_the_hand_s():
    w = jnp.array([100.0, 1.0], jnp.float32)
    assert fnn.check_gradients(lambda w: jnp.exp(w).sum(), jnp.exp, w).ok


def test_a_closure_over_float32_data_is_judged_by_its_digits():
    """The product of two closed-over matrices is rounded to float32 wherever the parameters are."""
    x = X.astype(jnp.float32)
    kernel = jax.random.normal(KEY, (3, 2), jnp.float32)
    right_one = fnn.check_gradients(lambda k: ((x @ k) ** 2).sum(), lambda k: 2 * (x.T @ x) @ k, kernel)
    assert right_one.ok, str(right_one)
    wrong_one = fnn.check_gradients(lambda k: ((x @ k) ** 2).sum(), lambda k: 2.001 * (x.T @ x) @ k, kernel)
    assert wrong_one.leaves[0].cause == "scaled"
