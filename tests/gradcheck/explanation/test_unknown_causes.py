"""Differences that no cause explains, and what can't be recorded: the report says no more than it knows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.gradcheck.explanation.naming import assert_named

pytestmark = pytest.mark.usefixtures("defaults")
DRAW = np.random.default_rng(79)


def normal(*shape):
    return DRAW.normal(size=shape)


# By them the entries of a gradient are wrong, each by its own.
FACTORS = normal(3, 4)


def test_no_cause_where_scores_are_minus_infinity():
    kept = np.array([[1, 1, 0, 1], [1, 0, 1, 1], [1, 1, 1, 0]]) > 0

    def loss(p, x, v):
        return (jax.nn.softmax(jnp.where(kept, x @ p["w"], -jnp.inf)) * v).sum()

    def gradient(p, x, v, is_wrong):
        s = jax.nn.softmax(jnp.where(kept, x @ p["w"], -jnp.inf))
        d = s * (v - (s * v).sum(axis=1, keepdims=True))
        return {"w": x.T @ d * (FACTORS if is_wrong else 1)}

    given = {"w": normal(3, 4)}, normal(3, 3), normal(3, 4)
    assert_named(loss, gradient, given, "unknown", "by hand and")


@pytest.mark.thorough
def test_no_cause_in_a_loop_in_numpy():
    def states(p, x):
        h = [np.zeros((2, 4))]
        for row in x:
            h.append(np.tanh(h[-1][:, :3] @ p["u"] + row))
        return h

    def loss(p, x):
        return float((states(p, x)[-1] ** 3).sum())

    def gradient(p, x, is_wrong):
        h = states(p, x)
        d, du = 3 * h[-1] ** 2, 0.0
        for n in (2, 1, 0):
            dz = d * (1 - h[n + 1] ** 2)
            du = du + h[n][:, :3].T @ dz
            d = np.pad(dz @ p["u"].T, ((0, 0), (0, 1)))
        return {"u": du * FACTORS if is_wrong else du}

    given = {"u": normal(3, 4)}, normal(3, 2, 4)
    assert_named(loss, gradient, given, "unknown", "by hand and")


@pytest.mark.parametrize(
    ("limit", "most", "slope"),
    [
        ("tape._MAX_STEPS", 2, lambda h: 1 - h),
        ("forward_pass.MAX_NUMBERS", 40, lambda h: 1 - h),
        ("tape._MAX_STEPS", 4, lambda h: 1 - jnp.sin(h) * h),  # known from the gradient's own program
    ],
)
def test_no_cause_where_a_program_is_too_large_to_be_recorded(monkeypatch, limit, most, slope):
    def loss(p, x):
        return jnp.tanh(x @ p["w"]).sum()

    def gradient(p, x, slope):
        h = jnp.tanh(x @ p["w"])
        return {"w": x.T @ (slope(h) if slope else 1 - h**2)}

    given = {"w": normal(3, 4)}, normal(5, 3)
    assert_named(loss, gradient, given, "activation_derivative", "of tanh in", wrong=slope)
    monkeypatch.setattr(f"funcnn.gradcheck.explanation.{limit}", most)
    assert_named(loss, gradient, given, "unknown", "by hand and", wrong=slope)


def test_no_cause_of_what_another_process_rounds():
    def rounded(d):
        shape = jax.ShapeDtypeStruct(d.shape, jnp.float16)
        return jax.pure_callback(lambda d: np.asarray(d).astype(np.float16), shape, d).astype(d.dtype)

    def loss(p, x, t):
        return ((jnp.tanh(x @ p["w"]) - t) ** 2).sum()

    def gradient(p, x, t, is_wrong):
        h = jnp.tanh(x @ p["w"])
        d = 2 * (h - t) * (1 - h**2)
        return {"w": x.T @ (rounded(d) if is_wrong else d)}

    given = {"w": normal(3, 4)}, normal(6, 3), normal(6, 4)
    assert_named(loss, gradient, given, "dtype", "by hand it is rounded to float16 on the way")
