"""Optimizers against optax: updates and states on ordinary and extreme gradients."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcnn as fnn
from tests.cases import FLOATS, WIDEST
from tests.optimizers.cases import PAIRS, TIGHT, assert_close

# The schedules end at step 200. bfloat16 takes 30 times as long as float64.
STEPS = {"float64": 1000, "float32": 1000, "bfloat16": 1000}
COLUMNS = ("random", "zero", "alternating", "constant", "tiny", "huge", "sparse")
COMPLEX = jnp.complex128 if WIDEST is jnp.float64 else jnp.complex64
# Complex numbers aren't ordered, so they can't be clipped, and a real accumulator can't store them.
MAY_BE_COMPLEX = [
    pair
    for pair in PAIRS
    if pair.constructors[0] is not fnn.clip_by_value and not {"mu_dtype", "accumulator_dtype"} & pair.settings.keys()
]
every_pair = pytest.mark.parametrize("pair", PAIRS, ids=[pair.name for pair in PAIRS])


def gradient_sequence(dtype):
    """Return a vector with an entry of each kind in ``COLUMNS`` and a nested scalar; the steps are the first axis."""
    length = STEPS[jnp.dtype(dtype).name]
    steps, generator = np.arange(length), np.random.default_rng(0)
    random, sparse = generator.normal(size=(2, length))
    columns = [
        random,
        np.zeros(length),
        np.where(steps % 2, 1.0, -1.0),
        np.full(length, 0.3),
        np.full(length, 1e-30),
        1e20 * np.where(steps % 3, 1, -2),
        sparse * (generator.random(length) < 0.05),
    ]
    tree = {"kernel": np.stack(columns, axis=1), "nested": (generator.normal(size=length),)}
    return jax.tree.map(lambda array: jnp.asarray(array, dtype), tree)


def run(optimizers, gradients):
    """Return updates and states of every optimizer at every step, computed in one scan."""
    start = jax.tree.map(lambda leaf: jnp.ones_like(leaf[0]), gradients)

    def step(carry, gradient):
        after, seen = [], []
        for optimizer, (params, state) in zip(optimizers, carry, strict=True):
            updates, state = optimizer.update(gradient, state, params)
            with jax.numpy_dtype_promotion("standard"):
                after.append((optax.apply_updates(params, updates), state))
            seen.append((updates, state))
        return after, seen

    return jax.lax.scan(step, [(start, optimizer.init(start)) for optimizer in optimizers], gradients)[1]


def run_both(pairs, gradients):
    """Run funcnn's optimizers under strict promotion, and optax's under standard promotion, which optax requires."""
    ours = run([pair.ours for pair in pairs], gradients)
    with jax.numpy_dtype_promotion("standard"):
        return ours, run([pair.theirs for pair in pairs], gradients)


@pytest.fixture(
    scope="module",
    params=[FLOATS[0], pytest.param(jnp.bfloat16, marks=pytest.mark.thorough)],
    ids=[FLOATS[0].__name__, "bfloat16"],
)
def many_steps(request):
    gradients = gradient_sequence(request.param)
    ours, theirs = jax.jit(lambda gradients: run_both(PAIRS, gradients))(gradients)
    tolerance = 3e-2 if request.param is jnp.bfloat16 else TIGHT
    return dict(zip([pair.name for pair in PAIRS], zip(ours, theirs, strict=True), strict=True)), tolerance


@every_pair
def test_updates_and_states_match_optax_at_every_step(many_steps, pair):
    runs, tolerance = many_steps
    assert_close(*runs[pair.name], tolerance)


def shapes(optimizer, dtype):
    """Return shapes and dtypes of the first state, and of state and updates after a step inside ``lax.cond``."""
    tree = {"kernel": jax.ShapeDtypeStruct((3, 2), dtype), "nested": (jax.ShapeDtypeStruct((), dtype),)}

    def step(gradients, state, params, taken):
        return jax.lax.cond(
            taken, lambda: optimizer.update(gradients, state, params)[1], lambda: state
        ), optimizer.update(gradients, state, params)[0]

    state = jax.eval_shape(optimizer.init, tree)
    after, updates = jax.eval_shape(step, tree, state, tree, jax.ShapeDtypeStruct((), bool))
    return state, after, updates


@every_pair
def test_shapes_dtypes_and_classes_match_optax_and_are_kept(pair):
    for dtype in (*FLOATS, jnp.float16, *([COMPLEX] if pair in MAY_BE_COMPLEX else [])):
        state, after, updates = shapes(pair.ours, dtype)
        assert jax.tree.structure(after) == jax.tree.structure(state)
        assert jax.tree.leaves(after) == jax.tree.leaves(state)
        with jax.numpy_dtype_promotion("standard"):
            expected = shapes(pair.theirs, dtype)
        assert jax.tree.structure((state, after, updates)) == jax.tree.structure(expected)
        assert jax.tree.leaves((state, after, updates)) == jax.tree.leaves(expected)
        assert all(leaf.dtype in (dtype, jnp.int32, jnp.float32) for leaf in jax.tree.leaves(state))


@pytest.mark.thorough
def test_complex_gradients():
    angles = jnp.linspace(0, 5, 8 * 3, dtype=WIDEST).reshape(8, 3)
    gradients = {"z": jax.lax.complex(jnp.cos(angles) * 10, jnp.sin(angles**2)), "real": angles[:, 0]}
    ours, theirs = jax.jit(lambda gradients: run_both(MAY_BE_COMPLEX, gradients))(gradients)
    assert_close(ours, theirs, TIGHT)


def test_a_state_from_optax_continues_with_funcnn():
    gradients = {"w": jnp.array([1.0, -2.0, 0.0], WIDEST)}

    @jax.jit
    def both():
        seen = []
        for pair in PAIRS:
            _, state = pair.theirs.update(gradients, pair.theirs.init(gradients), gradients)
            seen.append(
                [pair.ours.update(gradients, state, gradients), pair.theirs.update(gradients, state, gradients)]
            )
        return list(zip(*seen, strict=True))

    with jax.numpy_dtype_promotion("standard"):
        ours, theirs = both()
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    assert_close(ours, theirs, TIGHT)


@every_pair
def test_empty_trees_and_missing_gradients(pair):
    """The gradient of a frozen parameter may be None, except inside optax.masked."""
    empty, _ = pair.ours.update({}, pair.ours.init({}), {})
    assert empty == {}
    if "mask" in pair.settings:
        return
    params = {"frozen": jnp.ones(2, WIDEST), "w": jnp.ones(2, WIDEST)}
    updates, _ = jax.eval_shape(pair.ours.update, params | {"frozen": None}, pair.ours.init(params), params)
    assert updates["frozen"] is None
    assert updates["w"].shape == (2,)


def test_signatures_match_optax():
    def parameters(constructor):
        return [(p.name, p.kind, p.default) for p in inspect.signature(constructor).parameters.values()]

    for ours, theirs in {pair.constructors for pair in PAIRS}:
        # Optax's nadam is a partial of adam whose nesterov can still be set.
        expected = [row for row in parameters(theirs) if ours is not fnn.nadam or row[0] != "nesterov"]
        assert parameters(ours) == expected, ours.__name__
