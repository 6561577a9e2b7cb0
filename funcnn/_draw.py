"""Drawing arrays, a model's parameters and state, and their shapes without drawing them."""

import math
from functools import partial

import jax

MOST_DRAWN_AT_ONCE = 16
"""Arrays of a model up to which one program draws them all sooner than one for each of their shapes."""


def drawn_in_line(draw, key, shape, **given):
    """``draw(key, shape=shape)`` to the bit, as a vector: XLA compiles it in a fifth of the time of a few columns."""
    return draw(key, shape=(math.prod(shape),), **given).reshape(shape)


@partial(jax.jit, static_argnames="model")
def _drawn(key, *, model):
    return model.init(key)


def drawn(model, key):
    """``model.init(key)``: of a deep model array by array, for XLA takes seconds for one program of all of them.

    Equal keys give equal parameters either way, up to a rounding.
    """
    leaves = jax.tree.leaves(shapes_of(model))
    return _drawn(key, model=model) if len(leaves) <= MOST_DRAWN_AT_ONCE else model.init(key)


def shapes_of(model):
    """The shapes and dtypes of a model's parameters and state; of a model that was asked about before, at once."""
    return _drawn.eval_shape(jax.random.key(0), model=model)


@partial(jax.jit, static_argnames="model")
def initial_state(key, *, model):
    """The state that ``model.init`` gives, without the work of drawing parameters."""
    return model.init(key)[1]
