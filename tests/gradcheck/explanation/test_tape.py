"""The tape of a loss: its backward pass is autodiff's, with any of its rules replaced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcnn._numerics.program import trace
from funcnn.gradcheck.explanation.forward_pass import record

pytestmark = pytest.mark.usefixtures("defaults")
DRAW = np.random.default_rng(3)


def scan_and_branch(p):
    def step(carry, x):
        new = jnp.tanh(carry @ p["w"] + x)
        return new, new**2

    last, all_of_them = jax.lax.scan(step, p["h"], jnp.ones((3, 4)), reverse=True)
    return jax.lax.cond(True, lambda a: (a * 3).sum(), lambda a: a.sum(), all_of_them) + last.max()


def reductions_and_orders(p):
    z = jax.nn.softmax(jax.nn.relu(p["w"] @ p["h"]) + 0.1)
    y = jnp.sort(z)[::-1] + jnp.cumsum(z) + p["w"][1] * jnp.concatenate([z[2:], z[:2]])
    return jnp.linalg.norm(y) + jnp.where(y > 0.3, y**3, jnp.exp(-y)).mean() + p["w"][jnp.array([0, 0, 2])].var()


def complex_products(p):
    z = (p["w"] + 1j * p["w"].T) @ p["h"]
    return (z.real**2 + 3 * z.imag**2).sum() + jnp.abs(z[0])


@pytest.mark.parametrize("loss", [scan_and_branch, reductions_and_orders, complex_products])
def test_the_backward_pass_is_that_of_autodiff(loss):
    params = {"w": jnp.asarray(DRAW.normal(size=(4, 4))), "h": jnp.asarray(DRAW.normal(size=4))}
    tape = record(trace(loss, params), params)
    for ours, theirs in zip(tape.wrong_gradient(), jax.tree.leaves(jax.grad(loss)(params)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_rules_and_values_are_replaced():
    params = jnp.asarray([2.0, 3.0])
    tape = record(trace(lambda w: (jnp.sin(w) * w).sum(), params), params)
    (sine,) = (step.outputs[0] for step in tape.steps if step.name == "sin")
    without = tape.wrong_gradient({sine: lambda cotangent: []})[0]
    np.testing.assert_allclose(without, np.sin(params))
    other = tape.wrong_gradient(others={sine: np.zeros(2)})[0]
    np.testing.assert_allclose(other, params * np.cos(params))


def test_stops_are_honoured_or_ignored():
    params = jnp.asarray([2.0, 3.0])
    program = trace(lambda w: (jax.lax.stop_gradient(w) * w).sum(), params)
    np.testing.assert_allclose(record(program, params).wrong_gradient()[0], [2, 3])
    np.testing.assert_allclose(record(program, params, ignores_stops=True).wrong_gradient()[0], [4, 6])


def test_values_are_replayed_from_others():
    params = jnp.asarray([2.0, 3.0])
    tape = record(trace(lambda w: (jnp.square(w) * 5).sum(), params), params)
    changed = tape.replay({tape.params[0]: np.array([1.0, 0.0])})
    assert float(changed[tape.result]) == 5.0
