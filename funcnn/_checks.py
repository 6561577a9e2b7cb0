"""Checks of arguments. Each error states what was expected, what came and what to do.

Shapes and dtypes are known while JAX traces and are always checked. Values are checked only on concrete arrays,
outside ``jit``, ``vmap`` and ``grad``.
"""

import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree


def is_concrete(*arrays: Any) -> bool:
    """Whether none of the arrays is being traced, so that their values are known."""
    return not any(isinstance(array, jax.core.Tracer) for array in arrays)


def describe(array: Any) -> str:
    """Describe an array for an error message: ``float32 of shape (4, 2)``."""
    return f"{jnp.result_type(array)} of shape {jnp.shape(array)}"


def numeric_array(name: str, value: Any) -> Array:
    """Return ``value`` as a JAX array; raise where it holds no numbers, or integers that JAX's dtype cannot hold."""
    if isinstance(value, jax.Array):
        return value
    array = np.asarray(value)
    if array.dtype.kind in "OUSMm":
        raise TypeError(
            f"{name}: expected an array of numbers, got {type(value).__name__} of dtype {array.dtype}. "
            "Encode words and dates as numbers first."
        )
    if array.dtype.kind in "iu" and array.size:
        held = np.iinfo(jax.dtypes.canonicalize_dtype(array.dtype))
        if array.min() < held.min or array.max() > held.max:
            raise ValueError(
                f"{name}: expected integers from {held.min} to {held.max}, got {array.min()} to {array.max()}. "
                "Renumber them, or enable 64-bit integers: jax.config.update('jax_enable_x64', True)."
            )
    return jnp.asarray(array)


def floating_array(name: str, value: Any) -> Array:
    """Return ``value`` as a JAX array; raise a TypeError where its dtype is not a real floating one."""
    converted = numeric_array(name, value)
    if not jnp.issubdtype(converted.dtype, jnp.floating):
        raise TypeError(
            f"{name}: expected a floating dtype, got {describe(converted)}. "
            "Convert it first, for example with x.astype(jnp.float32)."
        )
    return converted


def feature_array(name: str, x: Any) -> Array:
    """Return ``x`` as a JAX array with a batch axis, no empty axis and a floating dtype."""
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
    """Return ``x`` as an array of shape ``(batch, ..., features)`` in the parameters' dtype."""
    converted = feature_array(name, x)
    if converted.shape[-1] != features:
        between = "..., " if converted.ndim > 2 else ""
        raise ValueError(
            f"{name}: expected x of shape (batch, {between}{features}), got {converted.shape}. "
            f"Give it {features} features, or build the layer for the features that x has."
        )
    if converted.dtype != dtype:
        raise TypeError(
            f"{name}: expected x in the parameters' dtype {dtype}, got {converted.dtype}. "
            "Cast one of them: a silent promotion would change the precision of everything after it."
        )
    return converted


def check_vectors(name: str, dtype: Any, features: int, **vectors: Array) -> None:
    """Raise where parameters or statistics aren't ``(features,)`` in one dtype, and would broadcast."""
    for field, vector in vectors.items():
        if jnp.shape(vector) != (features,) or jnp.result_type(vector) != dtype:
            raise ValueError(
                f"{name}: expected {field} as {dtype} of shape ({features},), got {describe(vector)}. "
                "Use what init of this very layer returned, all in one dtype."
            )


def positive_integer(name: str, value: Any) -> int:
    """Return ``value`` as a Python integer; raise where it is not a positive integer."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: expected a positive integer, got {value!r} of type {type(value).__name__}.")
    try:
        count = operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name}: expected a positive integer, got {value!r}.") from error
    if count < 1:
        raise ValueError(f"{name}: expected a positive integer, got {count}.")
    return count


def check_real(name: str, value: Any) -> None:
    """Raise where the value isn't a finite Python number. Constructors are memoised, and arrays have no hash."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected a Python number, got {value!r} of type {type(value).__name__}.")
    if not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value}.")


def check_callable(name: str, value: Any, advice: str) -> None:
    """Raise where the value can't be called."""
    if not callable(value):
        raise TypeError(f"{name}: expected a function, got {value!r}. {advice}")


def check_key(name: str, key: Any) -> None:
    """Raise where the value isn't one random key, typed or legacy."""
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()
    legacy = getattr(key, "dtype", None) == jnp.uint32 and jnp.ndim(key) == 1
    if not (typed or legacy):
        came = f"{key.dtype} of shape {key.shape}" if hasattr(key, "shape") else repr(key)
        raise TypeError(
            f"{name}: expected one random key, got {came}. Make one with jax.random.key(0); "
            "for several runs at once, jax.vmap over an array of keys."
        )


def check_is_layer(name: str, value: Any) -> None:
    """Raise where the value lacks a layer's functions: a constructor that wasn't called, a function, a name."""
    if not all(callable(getattr(value, field, None)) for field in ("init", "forward", "backward")):
        raise TypeError(
            f"{name}: expected a layer, got {value!r}. "
            "Call the constructor (linear(2, 3), leaky_relu()); activations without settings are values (relu)."
        )


def check_is_loss(name: str, value: Any) -> None:
    """Raise where the value lacks a loss's functions."""
    if not all(callable(getattr(value, field, None)) for field in ("forward", "backward")):
        raise TypeError(
            f"{name}: expected a Loss(forward, backward), got {value!r}. "
            "Pass one of funcnn's, such as mean_squared_error, or pack a forward and a backward of your own."
        )


def check_scalar(name: str, value: Any, *, floating: bool = True) -> None:
    """Raise where a loss or a metric isn't one (floating) number."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if dtype is None or shape != () or (floating and not jnp.issubdtype(dtype, jnp.floating)):
        came = repr(value) if dtype is None else f"{dtype} of shape {shape}"
        raise ValueError(
            f"{name}: expected a {'floating ' if floating else ''}scalar, got {came}. Take the mean over the batch."
        )


def check_finite(name: str, array: Array) -> None:
    """Raise where a concrete array holds a NaN or an infinity, with the place of the first one."""
    if is_concrete(array) and jnp.issubdtype(array.dtype, jnp.inexact):
        _refuse_where(
            lambda values: ~np.isfinite(values),
            array,
            f"{name}: expected finite values",
            "Remove or impute such entries before training.",
        )


def check_unit_interval(name: str, array: Array, advice: str) -> None:
    """Raise where a concrete array has entries outside [0, 1]."""
    if is_concrete(array):
        _refuse_where(
            lambda values: ~((values >= 0) & (values <= 1)), array, f"{name}: expected values in [0, 1]", advice
        )


def check_labels(name: str, labels: Array, classes: int) -> None:
    """Raise where concrete integer labels lie outside 0…classes−1; JAX's indexing would clip them silently."""
    if is_concrete(labels):
        _refuse_where(
            lambda values: (values < 0) | (values >= classes),
            labels,
            f"{name}: expected class labels from 0 to {classes - 1}",
            "Renumber the labels, or give the network an output for every class.",
        )


def wide_labels(labels: Array) -> Array:
    """Return labels in at least 32 bits: in an int8 or uint8, a larger count of classes would wrap."""
    return labels.astype(jnp.int32) if labels.dtype.itemsize < 4 else labels


def _refuse_where(is_bad, array, expected, advice):
    # In NumPy: while JAX traces, its operations would be traced even on arrays whose values are known.
    values = np.asarray(array)
    bad = is_bad(values)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"{expected}, got {values[first]} at index {first} ({bad.sum()} such in all). {advice}")


def same_structure(tree: PyTree, reference: PyTree) -> bool:
    """Whether two trees have the same containers."""
    structure: Any = jax.tree.structure(tree)
    return structure == jax.tree.structure(reference)


def check_same_structure(name: str, tree: PyTree, reference: PyTree, reference_name: str) -> None:
    """Raise where the containers of a tree differ from the reference's."""
    if not same_structure(tree, reference):
        structure, expected = jax.tree.structure(tree), jax.tree.structure(reference)
        raise ValueError(
            f"{name}: expected the tree structure of {reference_name}, {expected}, got {structure}. "
            "Give one entry for every parameter, in the same containers."
        )


def check_same_tree(name: str, tree: PyTree, reference: PyTree, reference_name: str, *, dtypes: bool = True) -> None:
    """Raise where structure, shapes or, with ``dtypes``, dtypes of a tree differ from the reference's."""
    check_same_structure(name, tree, reference, reference_name)
    wanted = jax.tree_util.tree_leaves_with_path(reference)
    for leaf, (path, like) in zip(jax.tree.leaves(tree), wanted, strict=True):
        if jnp.shape(leaf) != like.shape or (dtypes and jnp.result_type(leaf) != like.dtype):
            raise ValueError(
                f"{name}: expected {describe(like)} at {jax.tree_util.keystr(path) or 'the root'}, "
                f"like {reference_name}, got {describe(leaf)}."
            )
