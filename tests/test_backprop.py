"""Backpropagation through whole models: by hand against autodiff, for networks drawn at random."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import event, given, strategies as st

import funcnn as fnn
from tests.cases import FLOATS, KEY, LAYERS, WIDEST, cast, largest_gap, named, relative_gap

ACTIVATIONS = [
    fnn.identity, fnn.sigmoid, fnn.tanh, fnn.relu, fnn.leaky_relu(), fnn.softplus, fnn.elu, fnn.gelu, fnn.gelu_tanh,
    fnn.silu, fnn.softmax,
]  # fmt: skip
OBJECTIVES = [
    (fnn.identity, fnn.mean_squared_error),
    (fnn.sigmoid, fnn.mean_squared_error),
    (fnn.sigmoid, fnn.binary_cross_entropy),
    (fnn.softmax, fnn.categorical_cross_entropy),
    (fnn.identity, fnn.sigmoid_cross_entropy),
    (fnn.identity, fnn.softmax_cross_entropy),
]
BOUNDS = {jnp.float64: 1e-12, jnp.float32: 1e-5}
BOUNDED = [dtype for dtype in FLOATS if dtype in BOUNDS]

random_mlps = st.fixed_dictionaries(
    {
        "sizes": st.lists(st.integers(1, 32), min_size=2, max_size=7),
        "activation": st.sampled_from(ACTIVATIONS),
        "objective": st.sampled_from(OBJECTIVES),
        "normalization": st.sampled_from([None, fnn.batch_norm, fnn.layer_norm]),
        "skip": st.booleans(),
        "dropout": st.sampled_from([0.0, 0.3]),
        # Batch normalization takes two or three samples to almost the same values wherever they were: the gradient
        # is the rounding of a difference, magnified by 1/√ε, by hand and by autodiff alike.
        "batch": st.integers(4, 16),
        "seed": st.integers(0, 2**31 - 1),
    }
)


def both_gradients(model, loss):
    @jax.jit
    def compiled(params, state, batch, key):
        by_hand = fnn.manual_value_and_grad(model, loss)(params, state, batch, key=key)
        return by_hand, fnn.autodiff_value_and_grad(model, loss)(params, state, batch, key=key)

    return compiled


def drawn_like(shapes, generator):
    """Kernels that keep the size of what passes through; scales, biases and running statistics off their defaults.

    Drawn by NumPy, for which nothing compiles.
    """

    def draw(path, leaf):
        name = path[-1].name
        if name in ("scale", "variance"):
            return generator.uniform(0.5, 1.5, leaf.shape)
        size = leaf.shape[0] ** -0.5 if name == "kernel" else 0.3
        return np.asarray(generator.normal(size=leaf.shape) * size)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def targets(loss, generator, shape):
    if loss is fnn.mean_squared_error:
        return generator.normal(size=shape)
    if loss in (fnn.softmax_cross_entropy, fnn.categorical_cross_entropy):
        return generator.integers(shape[1], size=shape[0])
    return generator.integers(2, size=shape).astype(float)


def check_gap(gap, gradients, arguments, key, by_autodiff):
    """Compare a gap with the bound of float32, or else with the error of autodiff's own gradient."""
    if gap > BOUNDS[jnp.float32]:
        # A saturated softmax, or a feature that hardly varies in front of a normalization, leaves little but rounding.
        event("float32: autodiff itself is further than this from float64")
        assert WIDEST == jnp.float64, gap
        _, (_, exact) = gradients(*cast(arguments, jnp.float64), key)
        assert gap <= 2 * relative_gap(by_autodiff, exact)


@pytest.mark.thorough
@given(case=random_mlps)
def test_random_mlps_by_hand_equal_autodiff(case):
    output, loss = case["objective"]
    model = fnn.mlp(
        case["sizes"], case["activation"], output,
        normalization=case["normalization"], skip=case["skip"], dropout=case["dropout"],
    )  # fmt: skip
    key, generator = jax.random.key(case["seed"]), np.random.default_rng(case["seed"])
    params, state = drawn_like(jax.eval_shape(model.init, key), generator)
    x = generator.normal(size=(case["batch"], case["sizes"][0]))
    y = targets(loss, generator, (case["batch"], case["sizes"][-1]))
    gradients = both_gradients(model, loss)
    for dtype in BOUNDED:
        arguments = cast((params, state, (x, y)), dtype)
        ((value, new_state), by_hand), ((expected, expected_state), by_autodiff) = gradients(*arguments, key)
        chex.assert_trees_all_equal_shapes_and_dtypes(by_hand, arguments[0])
        assert relative_gap((value, new_state), (expected, expected_state)) <= BOUNDS[dtype]
        gap = relative_gap(by_hand, by_autodiff)
        if dtype == jnp.float32:
            check_gap(gap, gradients, arguments, key, by_autodiff)
        else:
            assert gap <= BOUNDS[dtype]


@pytest.mark.parametrize("dtype", FLOATS, ids=[dtype.__name__ for dtype in FLOATS])
def test_every_dtype_stays_what_it_is(dtype):
    model = fnn.mlp((3, 5, 2), normalization=fnn.batch_norm, skip=True)
    params, state = cast(model.init(KEY), dtype)
    batch = fnn.Batch(jnp.ones((4, 3), dtype), jnp.array([0, 1, 1, 0]))
    value_and_grad = jax.jit(fnn.manual_value_and_grad(model, fnn.softmax_cross_entropy))
    (value, new_state), grads = value_and_grad(params, state, batch)
    chex.assert_trees_all_equal_dtypes((new_state, grads), (state, params))
    assert value.dtype == dtype


def test_under_vmap_over_seeds_and_scan_over_batches():
    model = fnn.mlp((3, 4, 1))
    xs = jax.random.normal(KEY, (6, 5, 3), WIDEST)
    batches = fnn.Batch(xs, xs.sum(axis=2, keepdims=True))

    def descend(key, grad):
        params, state = model.init(key)

        def step(params, batch):
            (value, _), grads = grad(model, fnn.mean_squared_error)(params, state, batch)
            return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), value

        return jax.lax.scan(step, params, batches)

    keys = jax.random.split(KEY, 3)
    by_hand = jax.jit(jax.vmap(lambda key: descend(key, fnn.manual_value_and_grad)))(keys)
    by_autodiff = jax.jit(jax.vmap(lambda key: descend(key, fnn.autodiff_value_and_grad)))(keys)
    assert largest_gap(by_hand, by_autodiff) <= (1e-13 if jnp.float64 == WIDEST else 1e-5)


def test_the_oracle_never_calls_a_backward():
    def refuse(*_):
        raise AssertionError("the oracle called a hand-written backward")

    model = fnn.mlp((3, 4, 1))._replace(backward=refuse)
    loss = fnn.mean_squared_error._replace(backward=refuse)
    batch = (jnp.ones((2, 3), WIDEST), jnp.ones((2, 1), WIDEST))
    jax.eval_shape(fnn.autodiff_value_and_grad(model, loss), *jax.eval_shape(model.init, KEY), batch)


def test_the_program_by_hand_holds_no_derivative_of_jax():
    model = fnn.mlp((3, 4, 1), fnn.gelu)
    params, state = model.init(KEY)
    batch = (jnp.ones((2, 3), WIDEST), jnp.ones((2, 1), WIDEST))
    value_and_grad = fnn.manual_value_and_grad(model, fnn.mean_squared_error)
    program = str(jax.make_jaxpr(value_and_grad)(params, state, batch))
    assert "transpose" in program
    assert not any(word in program for word in ("custom_vjp", "custom_jvp", "jvp", "vjp"))


@pytest.mark.parametrize(
    **named([case for case in LAYERS if case.name in ("linear", "batch_norm", "dropout", "repeat")])
)
def test_as_custom_vjp_is_differentiated_by_our_backward(case):
    apply = fnn.as_custom_vjp(case.layer)
    params, state = case.layer.init(KEY)
    x = jax.random.normal(KEY, (5, case.features), WIDEST)

    def total(params, x, function):
        y, _ = function(params, state, x)
        return (y * y).sum()

    def plain(params, state, x):
        return case.layer.forward(params, state, x, train=True, key=KEY)[:2]

    def ours(params, state, x):
        return apply(params, state, x, train=True, key=KEY)

    by_hand = jax.jit(jax.grad(total, argnums=(0, 1)), static_argnums=2)(params, x, ours)
    by_autodiff = jax.jit(jax.grad(total, argnums=(0, 1)), static_argnums=2)(params, x, plain)
    assert relative_gap(by_hand, by_autodiff) <= (1e-13 if jnp.float64 == WIDEST else 1e-5)


def test_as_custom_vjp_shows_a_wrong_backward():
    doubled = fnn.tanh._replace(backward=lambda residuals, dy: ((), 2 * fnn.tanh_backward(residuals, dy)))
    gradient = jax.grad(lambda x: fnn.as_custom_vjp(doubled)((), (), x, train=True)[0].sum())
    np.testing.assert_allclose(gradient(jnp.zeros((1, 1), WIDEST)), [[2.0]])
