"""Every layer's gradient is right, linear and well typed, the same under jit and vmap, at any batch size and dtype.

What is asked of a layer in one dtype is one compiled program, ``Answers``; the tests read its parts.
"""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import pytest
from jax.test_util import check_vjp

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

every_layer = pytest.mark.parametrize(**named(LAYERS + MODELS))
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
        of_sum, sum_of: the gradients of a sum of cotangents, and the sum of their gradients.
        of_one: at a batch of one sample.
        members: backward's gradients for three parameter trees under ``vmap``, and for the last of them alone.
    """

    gradients: Gradients
    of_sum: chex.ArrayTree = ()
    sum_of: chex.ArrayTree = ()
    of_one: Gradients | tuple[()] = ()
    members: tuple = ()


def gradients(layer, params, state, x, dy, *, train):
    def output(params, x):
        return layer.forward(params, state, x, train=train, key=KEY)[0]

    y, new_state, residuals = layer.forward(params, state, x, train=train, key=KEY)
    by_hand = layer.backward(residuals, dy)
    if jnp.issubdtype(x.dtype, jnp.floating):
        return Gradients(y, new_state, by_hand, jax.vjp(output, params, x)[1](dy))
    return Gradients(y, new_state, by_hand, (*jax.vjp(functools.partial(output, x=x), params)[1](dy), None))


def linear_in_cotangent(layer, params, state, x, dy, other_dy, *, train):
    residuals = layer.forward(params, state, x, train=train, key=KEY)[2]
    sum_of = jax.tree.map(lambda a, b: 2 * a - b, layer.backward(residuals, dy), layer.backward(residuals, other_dy))
    return layer.backward(residuals, 2 * dy - other_dy), sum_of


def member(layer, params, state, x, key):
    y, _, residuals = layer.forward(params, state, x, train=True, key=key)
    return layer.backward(residuals, y)


@functools.cache
def arguments(case, train, dtype):
    params, state, x = drawn(case, dtype)
    y = jax.eval_shape(lambda: case.layer.forward(params, state, x, train=train, key=KEY)[0])
    dy, other_dy = (jax.random.normal(key, y.shape, WIDEST).astype(y.dtype) for key in jax.random.split(KEY))
    return params, state, x, dy, other_dy


def answer(case, train, dtype, given, several):
    """Everything about one layer in one function, so that it compiles once."""
    params, state, x, dy, other_dy = given
    found = Answers(gradients(case.layer, params, state, x, dy, train=train))
    if dtype != WIDEST:
        return found
    of_sum, sum_of = linear_in_cotangent(case.layer, params, state, x, dy, other_dy, train=train)
    of_one = gradients(case.layer, params, state, x[:1], jnp.ones_like(dy[:1]), train=train)
    members: tuple = ()
    if train:
        last = jax.tree.map(lambda leaf: leaf[2], several)
        together = jax.vmap(lambda params, state, key: member(case.layer, params, state, x, key))(*several)
        members = (jax.tree.map(lambda leaf: leaf[2], together), member(case.layer, *last[:2], x, last[2]))
    return Answers(found.gradients, of_sum, sum_of, of_one, members)


@functools.cache
def program(case, train, dtype) -> str:
    """The traced forward and backward pass, as text."""
    params, state, x, dy, _ = arguments(case, train, dtype)
    return str(jax.make_jaxpr(functools.partial(gradients, case.layer, train=train))(params, state, x, dy))


@functools.cache
def answers(case, train, dtype):
    if not train and program(case, False, dtype) == program(case, True, dtype):
        return answers(case, True, dtype)
    several: tuple = ()
    if train and dtype == WIDEST:
        keys = jax.random.split(KEY, 3)
        several = (*jax.jit(jax.vmap(case.layer.init))(keys), keys)
    return jax.jit(functools.partial(answer, case, train, dtype))(arguments(case, train, dtype), several)


# A layer's dtypes are tested on matrices: sequences and images are the same arithmetic on more rows.
WITH_DTYPES = [
    (case, dtype) for case in LAYERS + MODELS for dtype in FLOATS if dtype == WIDEST or len(case.sample) == 1
]


@pytest.mark.parametrize(
    ("case", "dtype"), WITH_DTYPES, ids=[f"{case.name}-{dtype.__name__}" for case, dtype in WITH_DTYPES]
)
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


# One layer of each kind: models are made of them, and eager operations are compiled one by one.
EAGER = ("relu", "softmax", "linear", "batch_norm", "layer_norm", "dropout", "skip", "repeat", "recompute", "lookup")


@pytest.mark.parametrize(**named([case for case in LAYERS if case.name in EAGER]))
def test_eager_equals_jit(case):
    params, state, x, dy, _ = arguments(case, True, WIDEST)
    eager = gradients(case.layer, params, state, x, dy, train=True)
    assert largest_gap(eager, answers(case, True, WIDEST).gradients) <= 10 * TOLERANCES[WIDEST]


@every_layer
@pytest.mark.skipif(WIDEST != jnp.float64, reason="finite differences need float64's digits")
def test_backward_agrees_with_finite_differences(case):
    params, state, x = drawn(case)
    is_floating = jnp.issubdtype(x.dtype, jnp.floating)

    dy = arguments(case, True, WIDEST)[3]

    @jax.jit
    def both(dy, params, *x_if_floating):
        y, _, residuals = case.layer.forward(params, state, *(x_if_floating or (x,)), train=True, key=KEY)
        return y, case.layer.backward(residuals, dy)[: 1 + is_floating]

    def forward(*at):
        return both(dy, *at)[0]

    check_vjp(
        forward,
        lambda *at: (forward(*at), lambda dy: both(jnp.asarray(dy), *at)[1]),
        (params, x) if is_floating else (params,),
        atol=1e-6,
        rtol=1e-6,
        eps=1e-5,
    )


@every_layer
def test_equal_calls_trace_once(case):
    params, state, x, dy, other_dy = arguments(case, True, WIDEST)
    traces = []

    @jax.jit
    def backward(params, state, x, dy):
        traces.append(case.name)
        return case.layer.backward(case.layer.forward(params, state, x, train=True, key=KEY)[2], dy)

    # Lowering traces, and compiles nothing.
    backward.lower(params, state, x, dy)
    backward.lower(params, state, x, other_dy)
    assert len(traces) == 1


@every_layer
@both_modes
def test_a_batch_of_one(case, train):
    of_one = answers(case, train, WIDEST).of_one
    # Batch normalization of one sample divides by √ε alone, which magnifies rounding.
    assert largest_gap(of_one.by_hand, of_one.by_autodiff) <= 300 * TOLERANCES[WIDEST]


@every_layer
def test_vmap_over_models(case):
    last_of_all, last_alone = answers(case, True, WIDEST).members
    assert largest_gap(last_of_all, last_alone) <= 10 * TOLERANCES[WIDEST]


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
