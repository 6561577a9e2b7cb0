"""Shapes and dtypes of predictions and losses by tracing, in which the layers and the loss check their input."""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnn._checks import is_concrete


def trace_prediction(model, params, state, x) -> jax.ShapeDtypeStruct:
    """Return the shape and dtype of the model's output while training.

    The layers see the values of a concrete x, which they cannot see under ``jit``, and check them.
    """

    def prediction(params, state, key):
        return model.forward(params, state, x, train=True, key=key)[0]

    dtypes = tuple(leaf.dtype for leaf in jax.tree.leaves((params, state)))
    return _trace(prediction, (params, state, jax.random.key(0)), x, (model, dtypes))


def trace_loss(loss, prediction, y) -> jax.ShapeDtypeStruct:
    """Return the shape and dtype of the loss, which sees the values of a concrete y and checks them."""
    return _trace(
        lambda prediction: loss.forward(prediction, y)[0], (prediction,), y, (loss, prediction.shape, prediction.dtype)
    )


class _Accepted(NamedTuple):
    """The result of a trace, and the lowest and the highest value that it has seen without an error."""

    result: jax.ShapeDtypeStruct
    lowest: Any
    highest: Any


def _trace(function, arguments, values, signature) -> jax.ShapeDtypeStruct:
    """Return the shape and dtype of a function's output.

    A trace takes milliseconds, so that a function that has accepted values as low and as high is not traced again.

    Args:
        function: what to trace; ``values`` are constants in it.
        arguments: its arguments, or their shapes.
        values: the array whose values it checks.
        signature: what identifies the function, beside the shape and dtype of ``values``.
    """
    known = _accepted(*signature, values.shape, values.dtype)
    lowest, highest = _span(values)
    if not known or lowest < known[0].lowest or highest > known[0].highest:
        result = jax.eval_shape(function, *arguments)
        if known:
            lowest, highest = min(lowest, known[0].lowest), max(highest, known[0].highest)
        known[:] = [_Accepted(result, lowest, highest)]
    return known[0].result


@lru_cache(maxsize=1024)
def _accepted(*signature) -> list[_Accepted]:
    return []


def _span(values) -> tuple[Any, Any]:
    """Return the lowest and the highest value; infinity and its negative where they are not known."""
    is_known = is_concrete(values) and values.size and values.is_fully_addressable
    if not is_known or jnp.issubdtype(values.dtype, jnp.complexfloating):
        return math.inf, -math.inf
    array = np.asarray(values)
    return array.min().item(), array.max().item()
