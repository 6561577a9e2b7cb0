"""What every layer owes: a right, linear, well-typed gradient, the same under jit, at any batch size, in any dtype."""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import pytest
from jax.test_util import check_vjp

from tests.cases import BATCH, FLOATS, KEY, LAYERS, MODELS, WIDEST, drawn, largest_gap, named, relative_gap

# Rounding alone, of sums in another order; in bfloat16 an entry has three digits.
TOLERANCES = {jnp.float64: 1e-13, jnp.float32: 1e-5, jnp.bfloat16: 5e-2}
DTYPES = {"argnames": "dtype", "argvalues": FLOATS, "ids": [dtype.__name__ for dtype in FLOATS]}

every_layer = pytest.mark.parametrize(**named(LAYERS + MODELS))
both_modes = pytest.mark.parametrize("train", [True, False], ids=["train", "predict"])


class Checked(NamedTuple):
    y: jax.Array
    new_state: chex.ArrayTree
    by_hand: chex.ArrayTree
    by_autodiff: chex.ArrayTree
    of_sum: chex.ArrayTree
    sum_of: chex.ArrayTree


def both_gradients(layer, params, state, x, dy, other_dy, *, train):
    """Everything about one layer in one function, so that it compiles once."""
    y, new_state, residuals = layer.forward(params, state, x, train=train, key=KEY)
    _, vjp = jax.vjp(lambda params, x: layer.forward(params, state, x, train=train, key=KEY)[0], params, x)
    by_hand = layer.backward(residuals, dy)
    sum_of = jax.tree.map(lambda a, b: 2 * a - b, by_hand, layer.backward(residuals, other_dy))
    return Checked(y, new_state, by_hand, vjp(dy), layer.backward(residuals, 2 * dy - other_dy), sum_of)


@functools.cache
def arguments(case, train, dtype):
    params, state, x = drawn(case, dtype)
    y = jax.eval_shape(lambda: case.layer.forward(params, state, x, train=train, key=KEY)[0])
    dy, other_dy = (jax.random.normal(key, y.shape, y.dtype) for key in jax.random.split(KEY))
    return params, state, x, dy, other_dy


@functools.cache
def checked(case, train, dtype):
    compiled = jax.jit(functools.partial(both_gradients, case.layer, train=train))
    return compiled(*arguments(case, train, dtype))


@every_layer
@both_modes
@pytest.mark.parametrize(**DTYPES)
def test_backward_is_the_vjp_of_forward(case, train, dtype):
    result = checked(case, train, dtype)
    assert relative_gap(result.by_hand, result.by_autodiff) <= TOLERANCES[dtype]


@every_layer
@both_modes
@pytest.mark.parametrize(**DTYPES)
def test_gradients_have_structure_shapes_and_dtypes_of_what_they_belong_to(case, train, dtype):
    params, state, x, dy, _ = arguments(case, train, dtype)
    result = checked(case, train, dtype)
    chex.assert_trees_all_equal_shapes_and_dtypes(result.by_hand, (params, x))
    chex.assert_trees_all_equal_shapes_and_dtypes(result.new_state, state)
    chex.assert_trees_all_equal_shapes_and_dtypes(result.y, dy)


@every_layer
@both_modes
def test_backward_is_linear_in_the_cotangent(case, train):
    result = checked(case, train, WIDEST)
    assert relative_gap(result.of_sum, result.sum_of) <= TOLERANCES[WIDEST]


@every_layer
@both_modes
def test_eager_equals_jit(case, train):
    eager = both_gradients(case.layer, *arguments(case, train, WIDEST), train=train)
    assert largest_gap(eager, checked(case, train, WIDEST)) <= 10 * TOLERANCES[WIDEST]


@every_layer
@pytest.mark.skipif(WIDEST != jnp.float64, reason="finite differences need float64's digits")
def test_backward_agrees_with_finite_differences(case):
    params, state, x = drawn(case)
    forward = jax.jit(lambda params, x: case.layer.forward(params, state, x, train=True, key=KEY)[0])

    def vjp(params, x):
        y, _, residuals = case.layer.forward(params, state, x, train=True, key=KEY)
        return y, lambda dy: case.layer.backward(residuals, jnp.asarray(dy))

    check_vjp(forward, vjp, (params, x), atol=1e-6, rtol=1e-6, eps=1e-5)


@every_layer
def test_equal_calls_trace_once(case):
    chex.clear_trace_counter()  # chex counts by the place in the source, which all rows share

    @jax.jit
    @chex.assert_max_traces(n=1)
    def gradients(params, state, x, dy):
        return case.layer.backward(case.layer.forward(params, state, x, train=True, key=KEY)[2], dy)

    params, state, x, dy, other_dy = arguments(case, True, WIDEST)
    gradients(params, state, x, dy)
    gradients(params, state, x, other_dy)


@every_layer
@both_modes
def test_a_batch_of_one(case, train):
    params, state, x = drawn(case, batch=1)

    @jax.jit
    def gradients(params, x):
        y, vjp = jax.vjp(lambda params, x: case.layer.forward(params, state, x, train=train, key=KEY)[0], params, x)
        residuals = case.layer.forward(params, state, x, train=train, key=KEY)[2]
        return case.layer.backward(residuals, jnp.ones_like(y)), vjp(jnp.ones_like(y))

    by_hand, by_autodiff = gradients(params, x)
    # Batch normalization of one sample divides by √ε alone, which magnifies rounding.
    assert largest_gap(by_hand, by_autodiff) <= 300 * TOLERANCES[WIDEST]


@every_layer
@pytest.mark.parametrize("axis", [0, 1], ids=["no sample", "no feature"])
def test_empty_input_is_refused(case, axis, as_for_users):
    params, state, x = drawn(case)
    empty = jax.lax.slice_in_dim(x, 0, 0, axis=axis)
    with pytest.raises(ValueError, match="expected at least one sample and one feature"):
        case.layer.forward(params, state, empty, train=True, key=KEY)


@every_layer
def test_unbatched_input_is_refused(case, as_for_users):
    params, state, x = drawn(case)
    with pytest.raises(ValueError, match=r"expected x with the batch as its first axis.*pass x\[None, :\]"):
        case.layer.forward(params, state, x[0], train=True, key=KEY)


@every_layer
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.complex64])
def test_features_that_are_not_floating_are_refused(case, dtype, as_for_users):
    params, state, x = drawn(case)
    with pytest.raises(TypeError, match=f"expected a floating dtype, got {dtype.__name__} of shape"):
        case.layer.forward(params, state, x.real.astype(dtype), train=True, key=KEY)


@every_layer
def test_vmap_over_models(case):
    """Three parameter trees at once are three calls."""
    keys = jax.random.split(KEY, 3)
    params, state = jax.vmap(case.layer.init)(keys)
    x = drawn(case)[2]

    def gradients(params, state, key):
        y, _, residuals = case.layer.forward(params, state, x, train=True, key=key)
        return case.layer.backward(residuals, y)

    together = jax.jit(jax.vmap(gradients))(params, state, keys)
    last = jax.jit(gradients)(*jax.tree.map(lambda leaf: leaf[2], (params, state)), keys[2])
    assert largest_gap(jax.tree.map(lambda leaf: leaf[2], together), last) <= 10 * TOLERANCES[WIDEST]
    assert x.shape[0] == BATCH
