"""The blind set: its right gradients are right, its bugs are bugs, each on one leaf at least."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks.blind import BUGS, CASES, COMPOSITE, RIGHT
from experiments.benchmarks.catalogue.case import CAUSES

LEAST_DIFFERENCE = 1e-3
LEAST_DIFFERENCE_IN_MIXED_PRECISION = 0.03


@pytest.fixture(autouse=True, scope="module")
def usual_promotion():
    """JAX as users have it: float32 and float64 meet, and a bias is added to a batch."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def central_differences(loss_fn, params, args, step=1e-6):
    """Slopes of a loss in NumPy, one number of the parameters after the other, to the fourth order of the step."""
    leaves, treedef = jax.tree.flatten(params)

    def slope(i, position):
        def loss(change):
            moved = [np.array(leaf) for leaf in leaves]
            moved[i][position] += change
            return float(loss_fn(jax.tree.unflatten(treedef, moved), *args))

        unit = step * max(1.0, abs(leaves[i][position]))
        return (8 * (loss(unit) - loss(-unit)) - (loss(2 * unit) - loss(-2 * unit))) / (12 * unit)

    gradients = [
        np.array([slope(i, position) for position in np.ndindex(np.shape(leaf))]).reshape(np.shape(leaf))
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(treedef, gradients)


class Evaluation(NamedTuple):
    """What the cases of a loss have in common: parameters, the expected gradient, and all gradients by hand."""

    params: Any
    expected: Any
    found: dict[Callable, Any]


@functools.cache
def evaluate(loss_fn, make) -> Evaluation:
    """Autodiff and all gradients by hand in one program, or NumPy and differences where JAX can't trace the loss."""
    params, args = make("float64")
    cases = [case for case in CASES if (case.loss_fn, case.make) == (loss_fn, make)]
    functions = {function for case in cases for function in (case.grad_fn, case.right or case.grad_fn)}

    def by_hand(params):
        return {function: function(params, *args) for function in functions}

    def with_autodiff(params):
        return jax.grad(loss_fn, allow_int=True)(params, *args), list(by_hand(params).values())

    try:
        expected, found = jax.jit(with_autodiff)(params)
        return Evaluation(params, expected, dict(zip(functions, found, strict=True)))
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError):
        return Evaluation(params, central_differences(loss_fn, params, args), by_hand(params))


def differences(params, found, expected) -> dict[str, float]:
    """The largest difference at each leaf of numbers, over the largest entry of the expected gradient there."""
    found, treedef = jax.tree.flatten_with_path(found)
    assert treedef == jax.tree.structure(params)
    compared = {}
    for (path, value), right, leaf in zip(found, jax.tree.leaves(expected), jax.tree.leaves(params), strict=True):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            value, right = np.asarray(value), np.asarray(right)
            comparable = value.shape == leaf.shape and value.dtype == leaf.dtype and np.isfinite(value).all()
            difference = np.abs(value - right).max() / (np.abs(right).max() or 1.0) if comparable else np.inf
            compared[jax.tree_util.keystr(path)] = float(difference)
    return compared


def tolerance(case) -> float:
    """The difference from the reference that rounding explains, and that of products in 16 bits where there are."""
    return max(case.tolerance, 1e-6)


def test_the_set_has_its_size():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert len(BUGS) >= 60
    assert len(COMPOSITE) >= 30
    assert len(RIGHT) >= 30
    for case in BUGS:
        assert case.causes, case.name
        assert case.causes <= CAUSES, case.name
    assert not any(case.causes for case in RIGHT)


@pytest.mark.benchmarks_smoke
@pytest.mark.parametrize("case", RIGHT, ids=lambda case: case.name)
def test_right_gradients_are_right(case):
    params, expected, found = evaluate(case.loss_fn, case.make)
    if case.autodiff_differs:
        lies_between_the_slopes(case, found[case.grad_fn])
    else:
        compared = differences(params, found[case.grad_fn], expected)
        assert max(compared.values()) <= tolerance(case), compared


def lies_between_the_slopes(case, gradient, step=1e-6, slack=1e-4):
    """Assert that each entry is one of the loss's one-sided slopes or lies between them."""
    params, args = case.make("float64")
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    losses = jax.jit(jax.vmap(lambda moved: case.loss_fn(unravel(moved), *args)))
    moves = step * jnp.eye(flat.size)
    here = case.loss_fn(params, *args)
    left, right = (here - losses(flat - moves)) / step, (losses(flat + moves) - here) / step
    entries, _ = jax.flatten_util.ravel_pytree(gradient)
    assert bool(jnp.all(entries >= jnp.minimum(left, right) - slack))
    assert bool(jnp.all(entries <= jnp.maximum(left, right) + slack))
    assert bool(jnp.any(jnp.abs(left - right) > slack))


@pytest.mark.benchmarks_smoke
@pytest.mark.parametrize("case", BUGS, ids=lambda case: case.name)
def test_bugs_differ_where_they_sit(case):
    params, expected, found = evaluate(case.loss_fn, case.make)
    right = differences(params, found[case.right], expected)
    assert max(right.values()) <= tolerance(case), right
    wrong = differences(params, found[case.grad_fn], expected)
    least = LEAST_DIFFERENCE_IN_MIXED_PRECISION if case.tolerance > LEAST_DIFFERENCE else LEAST_DIFFERENCE
    assert (wrong[case.leaf] if case.leaf else max(wrong.values())) >= least, wrong


@pytest.mark.benchmarks_smoke
def test_the_parameters_are_the_same_in_both_dtypes():
    for make in {case.make for case in CASES}:
        wide, narrow = (jax.tree.leaves(make(dtype)[0]) for dtype in ("float64", "float32"))
        for leaf, other in zip(wide, narrow, strict=True):
            assert leaf.shape == other.shape
            if jnp.issubdtype(leaf.dtype, jnp.inexact):
                assert (jnp.finfo(leaf.dtype).bits, jnp.finfo(other.dtype).bits) == (64, 32)
                np.testing.assert_allclose(leaf, other, rtol=1e-6, atol=1e-12)
