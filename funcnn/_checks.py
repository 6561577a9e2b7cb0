"""Checks of arguments. Each error states what was expected, what came and what to do.

Shapes and dtypes are known while JAX traces and are always checked. Values are checked only on concrete arrays,
outside ``jit``, ``vmap`` and ``grad``.
"""

import contextlib
import functools
import inspect
import math
import operator
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from funcnn._conversion import plain_array
from funcnn._untraceable import errors_of_tracing
from funcnn.types import Layer, Loss

_PASS_INTEGER = "Pass a Python integer, such as 1."


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
    array = plain_array(name, value)
    if array.dtype.kind in "iu" and array.size:
        held = np.iinfo(jax.dtypes.canonicalize_dtype(array.dtype))
        if array.min() < held.min or array.max() > held.max:
            raise ValueError(
                f"{name}: expected integers from {held.min} to {held.max}, got {array.min()} to {array.max()}. "
                "Renumber them, or enable 64-bit integers: jax.config.update('jax_enable_x64', True)."
            )
    if array.dtype == np.float64 and jax.dtypes.canonicalize_dtype(array.dtype) == np.float32:
        beyond = np.isfinite(array) & (abs(array) > np.finfo(np.float32).max)
        if beyond.any():
            raise ValueError(
                f"{name}: expected numbers that float32 holds, got {array[beyond][0]:g}. Divide them first, "
                "x / np.abs(x).max(), or enable 64-bit floats: jax.config.update('jax_enable_x64', True)."
            )
    return jnp.asarray(array)


def floating_array(name: str, value: Any) -> Array:
    """Return ``value`` as a JAX array; raise a TypeError where its dtype is not a real floating one."""
    converted = numeric_array(name, value)
    if not jnp.issubdtype(converted.dtype, jnp.floating):
        advice = "Convert it first: x = jnp.asarray(x, float)."
        if jnp.issubdtype(converted.dtype, jnp.complexfloating):
            advice = "Give the two parts as features: jnp.concatenate([x.real, x.imag], axis=-1)."
        raise TypeError(f"{name}: expected a floating dtype, got {describe(converted)}. {advice}")
    return converted


def feature_array(name: str, x: Any, features: int | None = None) -> Array:
    """Return ``x`` as a JAX array with a batch axis, no empty axis and a floating dtype.

    Args:
        name: of the layer, for errors.
        x: its input.
        features: how many the layer takes, where it is known.
    """
    converted = floating_array(name, x)
    if converted.ndim < 2:
        advice = "For a single sample, pass x[None, :]."
        if features == 1 and converted.ndim:
            advice = "For samples of one feature, pass x[:, None], or np.asarray(x)[:, None] for a pandas Series."
        raise ValueError(
            f"{name}: expected x with the batch as its first axis, (batch, features), got shape {converted.shape}. "
            f"{advice}"
        )
    if math.prod(converted.shape) == 0:
        raise ValueError(
            f"{name}: expected at least one sample and one feature, got shape {converted.shape}. Drop empty batches."
        )
    return converted


def check_features(name: str, x: Any, features: int, dtype: Any) -> Array:
    """Return ``x`` as an array of shape ``(batch, ..., features)`` in the parameters' dtype."""
    converted = feature_array(name, x, features)
    if converted.shape[-1] != features:
        between = "..., " if converted.ndim > 2 else ""
        advice = f"Give it {features} features, or build the layer for the {converted.shape[-1]} that x has."
        if math.prod(converted.shape[1:]) == features:
            advice = "Flatten every sample to its features: x.reshape(len(x), -1)."
        elif converted.ndim == 2 and converted.shape[0] == features:
            advice += " Samples are rows: where they are columns, pass x.T."
        raise ValueError(f"{name}: expected x of shape (batch, {between}{features}), got {converted.shape}. {advice}")
    if converted.dtype != dtype:
        raise TypeError(
            f"{name}: expected x in the parameters' dtype {dtype}, got {converted.dtype}. "
            f"Cast one of them, x = jnp.asarray(x, jnp.{dtype}): a silent promotion would change the precision of "
            "everything after it."
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


def checked_pair(name: str, pair: Any, kinds: Any = (tuple, list)) -> tuple[Any, Any]:
    """Return inputs and targets; raise where the value isn't a pair."""
    if not isinstance(pair, kinds) or len(pair) != 2:
        came = type(pair).__name__
        came = f"a {came} of length {len(pair)}" if isinstance(pair, tuple | list) else came
        raise TypeError(
            f"{name}: expected Batch(x, y) or (x, y), got {came}. Pass a tuple of inputs and targets, (x, y)."
        )
    return pair[0], pair[1]


def checked_bool(name: str, value: Any) -> bool:
    """Return ``value`` as a Python bool; raise for anything else, which may be a mistake."""
    if not isinstance(value, bool | np.bool_):
        came = "a traced value" if isinstance(value, jax.core.Tracer) else f"{value!r} of type {type(value).__name__}"
        advice = " Under jit, list it in static_argnames." if isinstance(value, jax.core.Tracer) else ""
        raise TypeError(f"{name}: expected True or False, got {came}. Pass a Python bool.{advice}")
    return bool(value)


def positive_integer(name: str, value: Any, expected: str = "a positive integer") -> int:
    """Return ``value`` as a Python integer; raise where it is not a positive one, or a TypeError on ``expected``."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        is_whole = isinstance(value, float) and value.is_integer() and value >= 1
        advice = f"Pass {int(value)}; a quotient is an integer by //." if is_whole else _PASS_INTEGER
        raise TypeError(f"{name}: expected {expected}, got {value!r} of type {type(value).__name__}. {advice}")
    try:
        count = operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name}: expected {expected}, got {value!r}. {_PASS_INTEGER}") from error
    if count < 1:
        raise ValueError(f"{name}: expected a positive integer, got {count}. Pass 1 or more.")
    return count


def check_real(name: str, value: Any) -> None:
    """Raise where the value isn't a finite Python number. Constructors are memoised, and arrays have no hash."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        advice = "Pass float(…) of it." if _is_single_number(value) else "Pass one such as 0.1."
        raise TypeError(f"{name}: expected a Python number, got {value!r} of type {type(value).__name__}. {advice}")
    if not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value}. Pass one such as 0.1.")


def _is_single_number(value: Any) -> bool:
    if not isinstance(value, jax.Array | np.ndarray | np.generic) or not is_concrete(value) or value.shape != ():
        return False
    return jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)


def check_callable(name: str, value: Any, advice: str) -> None:
    """Raise where the value can't be called. A layer can't: it is three functions."""
    if not callable(value) or _is_layer(value):
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
    if not _is_layer(value):
        raise TypeError(f"{name}: expected a layer, got {value!r}. {_layer_advice(value)}")
    for field, expected, arguments in _CALLS:
        if not _takes(getattr(value, field), *arguments):  # remembered: it takes as long as a small prediction
            is_exchanged = field == "forward" and _takes(value.backward, *arguments)
            advice = "Were forward and backward exchanged? " if is_exchanged else ""
            raise TypeError(
                f"{name}: expected a layer with {field}{expected}, got one with "
                f"{field}{_names_of_arguments(getattr(value, field))}. {advice}Write Layer(init, forward, backward)."
            )


_CALLS: tuple[tuple[str, str, tuple[tuple, tuple[str, ...]]], ...] = (
    ("init", "(key)", ((None,), ())),
    ("forward", "(params, state, x, *, train, key=None)", ((None,) * 3, ("train", "key"))),
    ("backward", "(residuals, dy)", ((None,) * 2, ())),
)
"""The functions of a layer, their arguments in words, and those of a call: by position and by name."""


def _takes(function: Callable, arguments: tuple, names: tuple[str, ...]) -> bool:
    """Whether a function takes these arguments; one without a known signature may."""
    try:
        return _binds(function, arguments, names)
    except TypeError:  # without a hash
        return _binds.__wrapped__(function, arguments, names)


@functools.lru_cache(4096)
def _binds(function: Callable, arguments: tuple, names: tuple[str, ...]) -> bool:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError, NameError):  # NameError: an annotation that exists for type checkers alone
        return True
    try:
        signature.bind(*arguments, **dict.fromkeys(names))
    except TypeError:
        return False
    return True


def _names_of_arguments(function: Callable) -> str:
    """Return a function's arguments as they are defined, without their types."""
    signature = inspect.signature(function)
    plain = [_plain(argument) for argument in signature.parameters.values()]
    return str(signature.replace(parameters=plain, return_annotation=signature.empty))


def _plain(argument: inspect.Parameter) -> inspect.Parameter:
    """Return an argument without its type, and with ``...`` for a default that may be long."""
    is_short = argument.default is argument.empty or isinstance(argument.default, bool | int | float | str | None)
    return argument.replace(annotation=argument.empty, default=argument.default if is_short else ...)


def _is_layer(value: Any) -> bool:
    return all(callable(getattr(value, field, None)) for field in ("init", "forward", "backward"))


def _layer_advice(value: Any) -> str:
    """Return how to get the layer that was probably meant, by the name of a function or a string."""
    usual = "Call the constructor (linear(2, 3), leaky_relu()); activations without settings are values (relu)."
    if isinstance(value, Loss):
        return "That is a loss, which functions take after the model."
    if isinstance(value, list | tuple) and value and all(map(_is_layer, value)):
        return "Pass the layers one by one: serial(*layers)."
    name = value if isinstance(value, str) else getattr(value, "__name__", "")
    known = getattr(sys.modules["funcnn"], name, None)
    if known is None or known is value:
        return usual
    return f"Pass funcnn's own: funcnn.{name}{'' if _is_layer(known) else '(…)'}."


def check_is_loss(name: str, value: Any) -> None:
    """Raise where the value lacks a loss's functions."""
    has_both = all(callable(getattr(value, field, None)) for field in ("forward", "backward"))
    if not has_both or isinstance(value, Layer):
        advice = "Pass one of funcnn's, such as mean_squared_error, or pack a forward and a backward of your own."
        advice = "That is a layer: the model comes first, then the loss." if has_both else advice
        raise TypeError(f"{name}: expected a Loss(forward, backward), got {value!r}. {advice}")


def check_scalar(name: str, value: Any, *, floating: bool = True) -> None:
    """Raise where a loss or a metric isn't one (floating) number."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if dtype is None or shape != () or (floating and not jnp.issubdtype(dtype, jnp.floating)):
        came = repr(value) if dtype is None else f"{dtype} of shape {shape}"
        raise ValueError(
            f"{name}: expected a {'floating ' if floating else ''}scalar, got {came}. Take the mean over the batch."
        )


def check_finite(name: str, array: Array | np.ndarray, columns: list[str] | None = None) -> None:
    """Raise where a concrete array holds a NaN or an infinity, with the place of the first one.

    Args:
        name: of the argument, for errors.
        array: the array.
        columns: the names of its columns, where it comes from a data frame.
    """
    if is_concrete(array) and jnp.issubdtype(array.dtype, jnp.inexact):
        refuse_where(
            lambda values: ~np.isfinite(values),
            array,
            f"{name}: expected finite values",
            "Drop such samples: " + _finite_samples(name),
            columns,
        )


def _finite_samples(name: str) -> str:
    """Return code that keeps the samples that are finite."""
    variable = "y" if name.endswith(": y") else "x"
    keep = f"keep = np.isfinite(np.asarray({variable}, float)).reshape(len({variable}), -1).all(axis=1); "
    if name.endswith((": x", ": y")):
        return keep + "x, y = np.asarray(x)[keep], np.asarray(y)[keep]."
    return keep + "x = np.asarray(x)[keep]."


def check_unit_interval(name: str, array: Array, advice: str) -> None:
    """Raise where a concrete array has entries outside [0, 1]."""
    if is_concrete(array):
        refuse_where(
            lambda values: ~((values >= 0) & (values <= 1)), array, f"{name}: expected values in [0, 1]", advice
        )


def check_labels(name: str, labels: Array | np.ndarray, classes: int) -> None:
    """Raise where concrete integer labels lie outside 0…classes−1; JAX's indexing would clip them silently."""
    if is_concrete(labels):
        refuse_where(
            lambda values: (values < 0) | (values >= classes),
            labels,
            f"{name}: expected class labels from 0 to {classes - 1}",
            "Renumber the labels, or give the network an output for every class.",
        )


def wide_labels(labels: Array) -> Array:
    """Return labels in at least 32 bits: in an int8 or uint8, a larger count of classes would wrap."""
    return labels.astype(jnp.int32) if labels.dtype.itemsize < 4 else labels


def refuse_where(
    is_bad: Callable[[np.ndarray], np.ndarray],
    array: Array | np.ndarray,
    expected: str,
    advice: str,
    columns: list[str] | None = None,
) -> None:
    """Raise where a concrete array has entries that are bad, with the first of them and their number."""
    # In NumPy: while JAX traces, its operations would be traced even on arrays whose values are known.
    values = np.asarray(array)
    bad = is_bad(values)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        column = "" if columns is None or len(first) != 2 else f" in column {columns[first[1]]!r}"
        raise ValueError(
            f"{expected}, got {values[first]} at index {first}{column} ({bad.sum()} such in all). {advice}"
        )


@contextlib.contextmanager
def errors_at(place: str) -> Iterator[None]:
    """Add the place of a layer to errors that are raised inside: ``layers[2].inner: linear(3, 4): expected …``."""
    try:
        yield
    except (ValueError, TypeError) as error:
        if type(error) in (ValueError, TypeError):  # Subclasses have constructors and messages of their own.
            inner, message = error.__dict__.get("place", ("", str(error)))
            error.__dict__["place"] = (f"{place}.{inner}" if inner else place, message)
            error.args = (": ".join(error.__dict__["place"]),)
        raise


@contextlib.contextmanager
def errors_of(argument: str) -> Iterator[None]:
    """Add the name of an argument to errors that are raised inside: ``fit(validation): …``."""
    with errors_of_tracing(argument.partition("(")[0]):
        try:
            yield
        except (ValueError, TypeError) as error:
            if type(error) in (ValueError, TypeError):
                error.args = (f"{argument}: {error}",)
            raise
