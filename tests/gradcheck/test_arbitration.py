"""Which of two gradients the loss agrees with, leaf by leaf and entry by entry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from tests.cases import WIDEST

pytestmark = pytest.mark.skipif(jnp.float64 != WIDEST, reason="measured slopes of 12 digits need float64")
X = jnp.array([0.3, 1.0, -2.0], WIDEST)


@jax.custom_jvp
def wrongly_ruled(x):
    return jnp.sin(x)


@wrongly_ruled.defjvp
def _rule(primals, tangents):
    return wrongly_ruled(*primals), tangents[0] * jnp.sin(primals[0])


def test_each_gradient_may_be_wrong_in_a_leaf_of_its_own():
    def loss(params):
        return wrongly_ruled(params["a"]).sum() + (params["b"] ** 2).sum()

    report = fnn.check_gradients(loss, lambda params: {"a": jnp.cos(params["a"]), "b": params["b"]}, {"a": X, "b": X})
    assert report.verdict == "hand-written wrong"
    assert [(leaf.path, leaf.ok) for leaf in report.leaves] == [("['a']", True), ("['b']", False)]
    assert report.leaves[1].cause == "scaled"


def test_a_gradient_that_is_right_in_one_entry_alone_clears_nothing():
    """Along the difference of the two, which is in the first entry, the loss has the slope given by hand."""

    def by_hand(x):
        return jnp.where(jnp.arange(3) == 0, jnp.cos(x), jnp.sin(x))

    report = fnn.check_gradients(lambda x: wrongly_ruled(x).sum(), by_hand, X)
    assert (report.ok, report.verdict) == (False, "undecided")
    assert "neither" in report.reason


@pytest.mark.parametrize("leaves", [2, 9])
def test_where_both_are_wrong_few_leaves_are_measured_one_by_one(leaves):
    """Beyond eight leaves all of them are blamed."""

    def loss(params):
        return wrongly_ruled(params[0]).sum() + sum((leaf**2).sum() for leaf in params[1:])

    report = fnn.check_gradients(loss, lambda params: [jnp.sin(params[0]), *(2 * leaf for leaf in params[1:])],
                                 [X] * leaves)  # fmt: skip
    assert report.verdict == "hand-written wrong"
    assert "so is autodiff" in report.reason
    assert [leaf.ok for leaf in report.leaves] == ([False, True] if leaves == 2 else [False] * 9)


def test_a_loss_without_values_beside_the_parameters_has_no_slope_to_confirm():
    def loss(x):
        return jnp.where(x == X, x**2, jnp.nan).sum()

    report = fnn.check_gradients(loss, jax.grad(loss), X)
    assert (report.ok, report.verdict) == (True, "agrees")
    assert report.reason == "by hand and autodiff agree; the loss can't be measured there"


@pytest.mark.parametrize(("at_zero", "ok"), [(0.0, True), (-1.0, True), (2.0, False)])
def test_at_a_kink_where_autodiff_is_not_a_number_the_sides_decide(at_zero, ok):
    """√x² is |x|, and the derivative of the root at 0 is infinite."""

    def loss(x):
        return jnp.sqrt(x**2).sum()

    x = jnp.array([0.0, 2.0], WIDEST)
    assert np.isnan(jax.grad(loss)(x)[0])
    report = fnn.check_gradients(loss, lambda x: jnp.where(x == 0, at_zero, jnp.sign(x)), x)
    assert report.ok == ok, str(report)
    assert (report.verdict == "agrees") == ok


@pytest.mark.parametrize(("size", "side", "ok"), [(4, 0.0, True), (4, 1.0, True), (4, 1.5, False), (70, 1.0, False)])
def test_a_kink_of_a_loss_with_python_conditions_is_measured_on_its_sides(size, side, ok):
    """It can't be traced, so that its kinks aren't known. Of more than 64 entries the sides aren't measured."""

    def loss(w):
        return jnp.maximum(w, 0.0).sum() if w[0] > 0 else w.sum()

    def by_hand(w):
        return jnp.where(w == 0, side, (w > 0).astype(w.dtype))

    w = jnp.zeros(size, WIDEST).at[0].set(1.0)
    report = fnn.check_gradients(loss, by_hand, w)
    assert report.ok == ok, str(report)
    if ok:
        assert report.verdict == "agrees"
        assert "the gradient by hand lies between them" in report.reason


@pytest.mark.parametrize(("x", "y"), [([[1.0, np.nan], [2.0, 3.0]], [1.0, 0.0]), (np.zeros((0, 2)), np.zeros(0))])
def test_where_the_loss_is_not_a_number_no_gradient_is_called_wrong(x, y):
    """The formula is right; a NaN in the data, or a mean over no sample, has no slope."""
    x, y = jnp.asarray(x, WIDEST), jnp.asarray(y, WIDEST)
    report = fnn.check_gradients(
        lambda w: jnp.mean((x @ w - y) ** 2), lambda w: 2 * x.T @ (x @ w - y) / y.size, jnp.array([1.0, 2.0], WIDEST)
    )
    assert report.verdict == "undecided"
    assert not report.ok
    assert "the loss is nan there" in report.reason
