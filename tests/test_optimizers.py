"""Optimizers against optax: updates and states, on gradients that real training meets once in a while."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcnn as fnn
from tests.cases import FLOATS, WIDEST

SCHEDULE = optax.warmup_cosine_decay_schedule(0.0, 0.1, 20, 200)

# name: (ours, optax's)
PAIRS = {
    "sgd": (fnn.sgd(0.1), optax.sgd(0.1)),
    "sgd schedule": (fnn.sgd(SCHEDULE), optax.sgd(SCHEDULE)),
    "momentum": (fnn.momentum(0.1), optax.sgd(0.1, momentum=0.9)),
    "momentum schedule": (fnn.momentum(SCHEDULE, 0.5), optax.sgd(SCHEDULE, momentum=0.5)),
    "nesterov": (fnn.nesterov(0.1), optax.sgd(0.1, momentum=0.9, nesterov=True)),
    "sgd accumulator_dtype": (
        fnn.sgd(0.1, 0.9, accumulator_dtype=jnp.float32),
        optax.sgd(0.1, 0.9, accumulator_dtype=jnp.float32),
    ),
    "adam": (fnn.adam(1e-2), optax.adam(1e-2)),
    "adam schedule": (fnn.adam(SCHEDULE), optax.adam(SCHEDULE)),
    "adam settings": (
        fnn.adam(1e-2, b1=0.5, b2=0.9, eps=1e-4, eps_root=1e-6),
        optax.adam(1e-2, b1=0.5, b2=0.9, eps=1e-4, eps_root=1e-6),
    ),
    "adam mu_dtype": (fnn.adam(1e-2, mu_dtype=jnp.float32), optax.adam(1e-2, mu_dtype=jnp.float32)),
    "adam nesterov": (fnn.adam(1e-2, nesterov=True), optax.adam(1e-2, nesterov=True)),
}
STEPS = 200
every_pair = pytest.mark.parametrize(("ours", "theirs"), PAIRS.values(), ids=PAIRS)


@pytest.fixture(autouse=True)
def standard_promotion():
    """Optax itself promotes; the two are compared under JAX's own rules."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def awkward_gradients(dtype):
    """A nested tree with a scalar, 200 steps: random, zero, alternating, tiny, huge and sparse."""
    steps = np.arange(STEPS)
    generator = np.random.default_rng(0)
    tree = {
        "random": generator.normal(size=(STEPS, 3, 2)),
        "zero": np.zeros((STEPS, 2)),
        "alternating": np.where(steps % 2, 1.0, -1.0),
        "nested": {
            "tiny": np.full((STEPS, 2), 1e-30),
            "huge": (np.full((STEPS, 1), 1e20) * np.where(steps % 3, 1, -2)[:, None],),
            "sparse": generator.normal(size=(STEPS, 4)) * (generator.random((STEPS, 4)) < 0.05),
        },
    }
    return jax.tree.map(lambda array: jnp.asarray(array, dtype), tree)


def run(optimizer, gradients):
    params = jax.tree.map(lambda leaf: jnp.ones_like(leaf[0]), gradients)

    def step(carry, gradient):
        params, state = carry
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), (updates, state)

    return jax.lax.scan(step, (params, optimizer.init(params)), gradients)[1]


@every_pair
@pytest.mark.parametrize("dtype", FLOATS, ids=[dtype.__name__ for dtype in FLOATS])
def test_updates_and_states_are_optax_s_at_every_step(ours, theirs, dtype):
    (updates, state), (expected_updates, expected_state) = jax.jit(lambda g: (run(ours, g), run(theirs, g)))(
        awkward_gradients(dtype)
    )
    tolerance = {jnp.float64: 1e-12, jnp.float32: 1e-5, jnp.bfloat16: 3e-2}[dtype]
    chex.assert_trees_all_equal_shapes_and_dtypes((updates, state), (expected_updates, expected_state))
    jax.tree.map(lambda a, b: assert_close(a, b, tolerance), (updates, state), (expected_updates, expected_state))


def assert_close(array, expected, tolerance):
    """Within ``tolerance`` of every entry, or of the largest where an entry passes through zero."""
    array, expected = np.asarray(array.astype(WIDEST)), np.asarray(expected.astype(WIDEST))
    scale = np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected))
    np.testing.assert_allclose(array, expected, rtol=tolerance, atol=tolerance * scale)


@every_pair
def test_state_keeps_its_shapes_and_dtypes(ours, theirs):
    params = {"w": jnp.ones((2, 2)), "b": jnp.ones(())}
    state = ours.init(params)
    _, after = ours.update(params, state, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)
    chex.assert_trees_all_equal_structs(state, theirs.init(params))
    assert all(leaf.dtype == jnp.int32 for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.integer))


@every_pair
def test_a_tree_without_leaves(ours, theirs):
    updates, _ = ours.update({}, ours.init({}), {})
    assert updates == {}


def test_complex_gradients():
    gradients = {"z": jnp.array([1 + 2j, -3j])}
    for ours, theirs in (PAIRS["momentum"], PAIRS["adam"]):
        expected = theirs.update(gradients, theirs.init(gradients), gradients)
        chex.assert_trees_all_close(ours.update(gradients, ours.init(gradients), gradients), expected, rtol=1e-6)


def test_they_compose_with_optax():
    params = {"w": jnp.arange(3.0), "b": jnp.ones(2)}
    gradients = jax.tree.map(jnp.cos, params)

    def variants(adam):
        return [
            optax.chain(optax.clip_by_global_norm(0.5), adam(1e-2)),
            optax.masked(adam(1e-2), {"w": True, "b": False}),
            optax.MultiSteps(adam(1e-2), every_k_schedule=2).gradient_transformation(),
            optax.inject_hyperparams(adam)(learning_rate=SCHEDULE),
            optax.inject_hyperparams(adam)(learning_rate=1e-2, b1=0.8),
        ]

    for ours, theirs in zip(variants(fnn.adam), variants(optax.adam), strict=True):
        state, expected_state = ours.init(params), theirs.init(params)
        for _ in range(3):
            updates, state = jax.jit(ours.update)(gradients, state, params)
            expected, expected_state = jax.jit(theirs.update)(gradients, expected_state, params)
            chex.assert_trees_all_close(updates, expected, rtol=1e-6)


def test_sgd_is_plain_without_momentum_and_named_forms_fill_it_in():
    assert fnn.momentum(0.1, decay=0.8) is fnn.sgd(0.1, momentum=0.8)
    assert fnn.nesterov(0.1) is fnn.sgd(0.1, 0.9, nesterov=True)
    updates, _ = fnn.sgd(0.5).update(jnp.array([2.0]), fnn.sgd(0.5).init(jnp.zeros(1)))
    np.testing.assert_array_equal(updates, [-1.0])
