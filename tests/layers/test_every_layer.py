"""Every layer's gradient is right, linear and well typed, the same under jit and vmap, at any batch size and dtype.

What is asked of a layer in one dtype is one compiled program, ``Answers``; the tests read its parts.
"""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.cases import (
    FLOATS,
    KEY,
    LAYERS,
    MODELS,
    WIDEST,
    drawn,
    largest_gap,
    named,
    relative_gap,
)

# Rounding alone, of sums in another order; in bfloat16 an entry has three digits.
TOLERANCES = {jnp.float64: 1e-13, jnp.float32: 1e-5, jnp.bfloat16: 5e-2}

# A program of a deep model takes XLA long: `nox -s thorough`. Its layers have rows of their own. Other dtypes need
# other programs: `nox -s thorough` too, and `nox -s tests_x32` for float32.
DEEP = ("gpt",)


def marks(case, dtype=WIDEST):
    return [pytest.mark.thorough] if case.name in DEEP or dtype != WIDEST else []


every_layer = pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name, marks=marks(case)) for case in LAYERS + MODELS]
)
both_modes = pytest.mark.parametrize("train", [True, False], ids=["train", "predict"])


class Gradients(NamedTuple):
    """A layer's output and new state, and the gradients for one cotangent by its backward and by autodiff."""

    y: jax.Array
    new_state: chex.ArrayTree
    by_hand: chex.ArrayTree
    by_autodiff: chex.ArrayTree


class Answers(NamedTuple):
    """All that is asked of a layer in one mode; the later fields in the widest dtype alone.

    Fields:
        gradients: at the case's batch.
        of_sum, sum_of: backward's result for a sum of cotangents, and the sum of its results.
        of_one: at a batch of one sample.
        of_members: backward's results for three parameter trees under ``vmap``; the last tree is the case's own.
        slope: of ⟨y, dy⟩ along a random direction of parameters and input, by central differences and by backward.
    """

    gradients: Gradients
    of_sum: chex.ArrayTree = ()
    sum_of: chex.ArrayTree = ()
    of_one: Gradients | tuple[()] = ()
    of_members: chex.ArrayTree = ()
    slope: tuple = ()


def gradients(layer, params, state, x, dy, *, train):
    def output(params, x):
        return layer.forward(params, state, x, train=train, key=KEY)[0]

    y, new_state, residuals = layer.forward(params, state, x, train=train, key=KEY)
    by_hand = layer.backward(residuals, dy)
    if jnp.issubdtype(x.dtype, jnp.floating):
        return Gradients(y, new_state, by_hand, jax.vjp(output, params, x)[1](dy))
    return Gradients(y, new_state, by_hand, (*jax.vjp(functools.partial(output, x=x), params)[1](dy), None))


def backward(layer, params, state, x, dy, key=KEY, *, train):
    return layer.backward(layer.forward(params, state, x, train=train, key=key)[2], dy)


@functools.cache
def arguments(case, train, dtype):
    params, state, x = drawn(case, dtype)
    y = jax.eval_shape(lambda: case.layer.forward(params, state, x, train=train, key=KEY)[0])
    dy, other_dy = (jnp.asarray(part, y.dtype) for part in np.random.default_rng(3).normal(size=(2, *y.shape)))
    return params, state, x, dy, other_dy


def answer(case, train, dtype, params, state, x, dy, other_dy):
    """Everything about one layer in one function, so that it compiles once."""
    found = gradients(case.layer, params, state, x, dy, train=train)
    if dtype != WIDEST:
        return Answers(found)
    residuals = case.layer.forward(params, state, x, train=train, key=KEY)[2]
    of_sum, of_other = (case.layer.backward(residuals, cotangent) for cotangent in (2 * dy - other_dy, other_dy))
    sum_of = jax.tree.map(lambda a, b: 2 * a - b, found.by_hand, of_other)
    of_one = gradients(case.layer, params, state, x[:1], jnp.ones_like(dy[:1]), train=train)
    if not train:
        return Answers(found, of_sum, sum_of, of_one)
    keys = jnp.stack([*jax.random.split(KEY, 2), KEY])
    members = jax.tree.map(lambda leaf: jnp.stack([leaf / 2, leaf * 2, leaf]), (params, state))
    run = functools.partial(backward, case.layer, x=x, dy=dy, train=True)
    of_members = jax.vmap(lambda params, state, key: run(params, state, key=key))(*members, keys)
    return Answers(found, of_sum, sum_of, of_one, of_members, slope_along(case, found.by_hand, params, state, x, dy))


def slope_along(case, by_hand, params, state, x, dy, *, step=1e-5):
    is_floating = jnp.issubdtype(x.dtype, jnp.floating)
    at, by_hand = ((params, x), by_hand) if is_floating else ((params,), by_hand[:1])
    rng = np.random.default_rng(4)
    direction = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), at)

    def value(sign):
        params, x_moved = (*jax.tree.map(lambda leaf, along: leaf + sign * step * along, at, direction), x)[:2]
        return (case.layer.forward(params, state, x_moved, train=True, key=KEY)[0] * dy).sum()

    above, below = jax.vmap(value)(jnp.array([1.0, -1.0], dy.dtype))
    products = jax.tree.map(lambda gradient, along: (gradient * along).sum(), by_hand, direction)
    return (above - below) / (2 * step), jax.tree.reduce(jnp.add, products, jnp.zeros((), dy.dtype))


@functools.cache
def is_same_in_both_modes(case) -> bool:
    """Whether training and prediction trace to the same forward and backward pass."""
    params, state, x, dy, _ = arguments(case, True, WIDEST)
    in_training, in_prediction = (
        jax.make_jaxpr(functools.partial(backward, case.layer, train=train))(params, state, x, dy)
        for train in (True, False)
    )
    return str(in_training) == str(in_prediction)


@functools.cache
def answers(case, train, dtype):
    if not train and is_same_in_both_modes(case):
        return answers(case, True, dtype)
    return jax.jit(functools.partial(answer, case, train, dtype))(*arguments(case, train, dtype))


# Other dtypes are tested on matrices: sequences and images are the same arithmetic on more rows.
WITH_DTYPES = [
    pytest.param(case, dtype, id=f"{case.name}-{dtype.__name__}", marks=marks(case, dtype))
    for case in LAYERS + MODELS
    for dtype in FLOATS
    if dtype == WIDEST or len(case.sample) == 1
]


@pytest.mark.parametrize(("case", "dtype"), WITH_DTYPES)
@both_modes
def test_backward_is_the_vjp_of_forward(case, train, dtype):
    found = answers(case, train, dtype).gradients
    assert relative_gap(found.by_hand, found.by_autodiff) <= TOLERANCES[dtype]
    params, state, x, dy, _ = arguments(case, train, dtype)
    expected = (params, x if jnp.issubdtype(x.dtype, jnp.floating) else None)
    chex.assert_trees_all_equal_shapes_and_dtypes(found.by_hand, expected)
    chex.assert_trees_all_equal_shapes_and_dtypes(found.new_state, state)
    chex.assert_trees_all_equal_shapes_and_dtypes(found.y, dy)


@every_layer
@both_modes
def test_backward_is_linear_in_the_cotangent(case, train):
    found = answers(case, train, WIDEST)
    assert relative_gap(found.of_sum, found.sum_of) <= TOLERANCES[WIDEST]


# Eager operations are compiled one by one, and the same Python builds both: a few layers are enough.
EAGER = ("softmax", "batch_norm", "dropout", "repeat")


@pytest.mark.parametrize(**named([case for case in LAYERS if case.name in EAGER]))
def test_eager_equals_jit(case):
    params, state, x, dy, _ = arguments(case, True, WIDEST)
    eager = gradients(case.layer, params, state, x, dy, train=True)
    assert largest_gap(eager, answers(case, True, WIDEST).gradients) <= 10 * TOLERANCES[WIDEST]


@every_layer
@pytest.mark.skipif(WIDEST != jnp.float64, reason="finite differences need float64's digits")
def test_backward_agrees_with_finite_differences(case):
    slope, product = answers(case, True, WIDEST).slope
    assert abs(slope - product) <= 1e-7 * max(abs(slope), 1)


@every_layer
def test_equal_calls_trace_once(case):
    params, state, x, dy, other_dy = arguments(case, True, WIDEST)
    traces = []

    @jax.jit
    def traced(params, state, x, dy):
        traces.append(case.name)
        return backward(case.layer, params, state, x, dy, train=True)

    # Lowering traces, and compiles nothing.
    traced.lower(params, state, x, dy)
    traced.lower(params, state, x, other_dy)
    assert len(traces) == 1


@every_layer
@both_modes
def test_a_batch_of_one(case, train):
    of_one = answers(case, train, WIDEST).of_one
    # Batch normalization of one sample divides by √ε alone, which magnifies rounding.
    assert largest_gap(of_one.by_hand, of_one.by_autodiff) <= 300 * TOLERANCES[WIDEST]


@every_layer
def test_vmap_over_models(case):
    found = answers(case, True, WIDEST)
    last = jax.tree.map(lambda leaf: leaf[2], found.of_members)
    assert largest_gap(last, found.gradients.by_hand) <= 10 * TOLERANCES[WIDEST]


FLOATING = pytest.mark.parametrize(**named([case for case in LAYERS + MODELS if case.dtype is None]))


@FLOATING
@pytest.mark.parametrize("axis", [0, -1], ids=["no sample", "no feature"])
def test_empty_input_is_refused(case, axis, as_for_users):
    params, state, x = drawn(case)
    empty = jax.lax.slice_in_dim(x, 0, 0, axis=axis)
    with pytest.raises(ValueError, match="expected at least one sample and one feature"):
        case.layer.forward(params, state, empty, train=True, key=KEY)


@FLOATING
def test_unbatched_input_is_refused(case, as_for_users):
    params, state, x = drawn(case)
    with pytest.raises(ValueError, match=r"expected x with the batch as its first axis.*pass x\[None, :\]"):
        case.layer.forward(params, state, x[(0,) * (x.ndim - 1)], train=True, key=KEY)


@FLOATING
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.complex64])
def test_features_that_are_not_floating_are_refused(case, dtype, as_for_users):
    params, state, x = drawn(case)
    with pytest.raises(TypeError, match=f"expected a floating dtype, got {dtype.__name__} of shape"):
        case.layer.forward(params, state, x.real.astype(dtype), train=True, key=KEY)
