"""The blind set: its right gradients are right, its bugs are bugs, each on one leaf at least."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks.blind import BUGS, CASES, RIGHT

CAUSES = frozenset(
    "scaled sign transposed swapped zero shape dtype nonfinite element unit subset_of_batch offset_by_parameter "
    "activation_derivative updated_weights lost_use lost_path scaled_path stop_gradient normalization_term mask "
    "wrong_operand kernel_flipped shifted conjugate clipped normalized unstable".split()
)
MIXED_PRECISION_TOLERANCE = 0.02


@pytest.fixture(autouse=True, scope="module")
def usual_promotion():
    """JAX as users have it: float32 and float64 meet, and a bias is added to a batch."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def is_float(leaf) -> bool:
    return jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.inexact)


def central_differences(loss_fn, params, args, step=1e-6):
    """Slopes of a loss of NumPy arrays, one number of the parameters after the other."""
    leaves, treedef = jax.tree.flatten(params)

    def slope(i, position):
        def loss(change):
            moved = [np.array(leaf) for leaf in leaves]
            moved[i][position] += change
            return float(loss_fn(jax.tree.unflatten(treedef, moved), *args))

        return (8 * (loss(step) - loss(-step)) - (loss(2 * step) - loss(-2 * step))) / (12 * step)

    gradients = [np.zeros(np.shape(leaf)) for leaf in leaves]
    for i, leaf in enumerate(leaves):
        for position in np.ndindex(np.shape(leaf)):
            gradients[i][position] = slope(i, position)
    return jax.tree.unflatten(treedef, gradients)


REFERENCES: dict = {}


def reference(case):
    """The gradient by autodiff, or by differences where the loss is of NumPy; shared by the cases of a model."""
    key = (case.loss_fn, case.make)
    if key not in REFERENCES:
        params, args = case.make("float64")
        if any(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(params)):
            REFERENCES[key] = central_differences(case.loss_fn, params, args)
        else:
            REFERENCES[key] = jax.grad(case.loss_fn, allow_int=True)(params, *args)
    return REFERENCES[key]


def differences(params, found, expected) -> dict[str, float]:
    """The largest difference at each leaf, over the largest number of the expected gradient there."""
    found, treedef = jax.tree.flatten_with_path(found)
    assert treedef == jax.tree.structure(params)
    compared = {}
    for (path, value), right, leaf in zip(found, jax.tree.leaves(expected), jax.tree.leaves(params), strict=True):
        if is_float(leaf):
            value, right = np.asarray(value), np.asarray(right)
            same = value.shape == right.shape == np.shape(leaf) and bool(np.isfinite(value.astype(complex)).all())
            unit = np.abs(right).max() or 1.0
            compared[jax.tree_util.keystr(path)] = float(np.abs(value - right).max() / unit) if same else np.inf
    return compared


def tolerance(case) -> float:
    return max(case.tolerance, 1e-6)


@pytest.mark.parametrize("case", [case for case in RIGHT], ids=lambda case: case.name)
def test_right_gradients_are_right(case):
    params, args = case.make("float64")
    found = differences(params, case.grad_fn(params, *args), reference(case))
    assert max(found.values()) <= tolerance(case), found


@pytest.mark.parametrize("case", [case for case in BUGS], ids=lambda case: case.name)
def test_bugs_differ_at_their_leaf(case):
    params, args = case.make("float64")
    right, wrong = case.right(params, *args), case.grad_fn(params, *args)
    assert max(differences(params, right, reference(case)).values()) <= tolerance(case)
    found = differences(params, wrong, reference(case))
    if case.causes != {"dtype"}:
        assert found[case.leaf] > (0.03 if case.tolerance > 1e-6 else 1e-3), found
