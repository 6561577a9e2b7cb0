"""What bad input gets: errors that say what was expected, what came and what to do.

Shapes and dtypes are known while JAX traces and are always checked. Values are checked where they can be read:
outside ``jit``, ``vmap`` and ``grad``.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from funcnn.types import Layer


def is_concrete(*arrays: Array) -> bool:
    """Whether the values can be read: none of the arrays is being traced."""
    return not any(isinstance(array, jax.core.Tracer) for array in arrays)


def describe(array: Array) -> str:
    """An array in the words of the error messages: ``float32 of shape (4, 2)``."""
    return f"{array.dtype} of shape {array.shape}"


def floating_array(name: str, array: Any) -> Array:
    """``array`` as a JAX array, or a TypeError where its dtype isn't a real floating one."""
    converted = jnp.asarray(array)
    if not jnp.issubdtype(converted.dtype, jnp.floating):
        raise TypeError(
            f"{name}: expected a floating dtype, got {describe(converted)}. "
            "Convert it first, for example with x.astype(jnp.float32)."
        )
    return converted


def feature_array(name: str, x: Any) -> Array:
    """``x`` as a JAX array with a batch axis, no empty axis and a floating dtype."""
    converted = floating_array(name, x)
    if converted.ndim < 2:
        raise ValueError(
            f"{name}: expected x with the batch as its first axis, (batch, features), got shape {converted.shape}. "
            "For a single sample, pass x[None, :]."
        )
    if math.prod(converted.shape) == 0:
        raise ValueError(
            f"{name}: expected at least one sample and one feature, got shape {converted.shape}. Drop empty batches."
        )
    return converted


def check_features(name: str, x: Any, features: int, dtype: Any) -> Array:
    """``x`` as an array of shape ``(batch, features)`` in the parameters' dtype."""
    converted = feature_array(name, x)
    if converted.ndim != 2 or converted.shape[1] != features:
        raise ValueError(
            f"{name}: expected x of shape (batch, {features}), got {converted.shape}. "
            f"Give it {features} features, or build the layer for the features that x has."
        )
    if converted.dtype != dtype:
        raise TypeError(
            f"{name}: expected x in the parameters' dtype {dtype}, got {converted.dtype}. "
            "Cast one of them: a silent promotion would change the precision of everything after it."
        )
    return converted


def check_positive_integer(name: str, value: Any) -> None:
    """Refuse what isn't a positive Python integer."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected a positive integer, got {value!r} of type {type(value).__name__}.")
    if value < 1:
        raise ValueError(f"{name}: expected a positive integer, got {value}.")


def check_real(name: str, value: Any) -> None:
    """Refuse what isn't a Python number: constructors are remembered by their arguments, and arrays have no hash."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected a Python number, got {value!r} of type {type(value).__name__}.")


def check_is_layer(name: str, value: Any) -> None:
    """Refuse what isn't a layer: a constructor that wasn't called, a plain function, a name."""
    if not isinstance(value, Layer):
        raise TypeError(
            f"{name}: expected a layer, got {value!r}. "
            "Call the constructor (linear(2, 3), leaky_relu()); activations without settings are values (relu)."
        )


def check_finite(name: str, array: Array) -> None:
    """Refuse concrete arrays that hold a NaN or an infinity, and say where the first one is."""
    if is_concrete(array) and jnp.issubdtype(array.dtype, jnp.inexact):
        _refuse_where(
            lambda values: ~np.isfinite(values),
            array,
            f"{name}: expected finite values",
            "Remove or impute such entries before training.",
        )


def check_unit_interval(name: str, array: Array, advice: str) -> None:
    """Refuse concrete arrays with entries outside [0, 1]."""
    if is_concrete(array):
        _refuse_where(
            lambda values: ~((values >= 0) & (values <= 1)), array, f"{name}: expected values in [0, 1]", advice
        )


def check_labels(name: str, labels: Array, classes: int) -> None:
    """Refuse concrete integer labels outside 0…classes−1, which indexing under JAX would clip silently."""
    if is_concrete(labels):
        _refuse_where(
            lambda values: (values < 0) | (values >= classes),
            labels,
            f"{name}: expected class labels from 0 to {classes - 1}",
            "Renumber the labels, or give the network an output for every class.",
        )


def _refuse_where(is_bad, array, expected, advice):
    # In NumPy: while JAX traces, its operations would be traced even on arrays whose values are known.
    values = np.asarray(array)
    bad = is_bad(values)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"{expected}, got {values[first]} at index {first} ({bad.sum()} such in all). {advice}")


def check_same_structure(name: str, tree: PyTree, reference: PyTree, reference_name: str) -> None:
    """Refuse a tree whose containers differ from the reference's."""
    structure: Any = jax.tree.structure(tree)
    expected: Any = jax.tree.structure(reference)
    if structure != expected:
        raise ValueError(
            f"{name}: expected the tree structure of {reference_name}, {expected}, got {structure}. "
            "Give one entry for every parameter, in the same containers."
        )


def check_same_tree(name: str, tree: PyTree, reference: PyTree, reference_name: str, *, dtypes: bool = True) -> None:
    """Refuse a tree whose structure, shapes or (unless told otherwise) dtypes differ from the reference's."""
    check_same_structure(name, tree, reference, reference_name)
    wanted = jax.tree_util.tree_leaves_with_path(reference)
    for leaf, (path, like) in zip(jax.tree.leaves(tree), wanted, strict=True):
        if leaf.shape != like.shape or (dtypes and leaf.dtype != like.dtype):
            raise ValueError(
                f"{name}: expected {describe(like)} at {jax.tree_util.keystr(path) or 'the root'}, "
                f"like {reference_name}, got {describe(leaf)}."
            )
