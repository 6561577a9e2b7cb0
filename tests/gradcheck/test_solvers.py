"""Losses with an iterative solver: its error is told from a mistake in the rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn

pytestmark = pytest.mark.usefixtures("promotion_as_for_users")
MATRIX = np.array([[3.0, 0.4, 0.0], [0.4, 2.5, -0.3], [0.0, -0.3, 4.0]])
B = jnp.array([1.0, -2.0, 0.7])


def solve(b):
    """Gradient descent that stops at a hundredth."""
    return jax.lax.while_loop(
        lambda x: jnp.linalg.norm(MATRIX @ x - b) > 1e-2, lambda x: x - 0.2 * (MATRIX @ x - b), jnp.zeros_like(b)
    )


def loss(b):
    return (solve(b) ** 3).sum()


def implicit(b, factor=1.0):
    return factor * jnp.linalg.solve(MATRIX.T, 3 * solve(b) ** 2)


def test_the_error_of_a_solver_is_no_mistake():
    report = fnn.check_gradients(loss, implicit, B)
    assert report.verdict == "agrees"
    assert "the solver in the loss stops early" in report.reason
    assert report.leaves[0].cause == "noise"
    assert "error of the solver" in report.leaves[0].detail


def test_a_mistake_as_small_as_the_error_of_the_solver_is_found():
    report = fnn.check_gradients(loss, lambda b: implicit(b, 1.001), B)
    assert report.verdict == "hand-written wrong"
    assert report.leaves[0].cause == "scaled"


@pytest.mark.parametrize(("factor", "verdict"), [(4, "agrees"), (3, "hand-written wrong")])
def test_a_loop_that_counts_is_no_solver(factor, verdict):
    def power(p):
        return jax.lax.while_loop(lambda at: at[0] < 3, lambda at: (at[0] + 1, at[1] * p), (0, p))[1].sum()

    report = fnn.check_gradients(power, lambda p: factor * p**3, B)
    assert report.verdict == verdict
    assert "solver" not in report.reason


@pytest.mark.thorough
def test_a_solver_of_jax_is_made_longer_in_a_rule():
    @jax.custom_vjp
    def conjugate_gradients(a):
        return jax.scipy.sparse.linalg.cg(lambda x: a @ x, B.astype(a.dtype), tol=0.1)[0]

    def backward(kept, dx):
        a, x = kept
        return (-jnp.outer(jnp.linalg.solve(a.T, dx), x),)

    conjugate_gradients.defvjp(lambda a: (lambda x: (x, (a, x)))(conjugate_gradients(a)), backward)

    def cubes(a):
        return (conjugate_gradients(a) ** 3).sum()

    report = fnn.check_gradients(cubes, jax.grad(cubes), jnp.asarray(MATRIX, jnp.float32))
    assert report.verdict == "agrees"
    assert "the solver in the loss stops early" in report.reason
