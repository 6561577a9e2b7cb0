"""Training on batches that are drawn anew at every step, for many seeds in one compiled program."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import optax
from jax import lax

import funcnn as fnn

Draw = Callable[[jax.Array, Any], fnn.Batch]
"""``(key, source) -> batch``; the source is an array to draw from or the problem's size."""


class FreshTraining(NamedTuple):
    """The parameters and state of every seed, and the loss at every step, ``(seeds, steps)``."""

    params: Any
    state: Any
    losses: jax.Array


@partial(jax.jit, static_argnames=("model", "loss", "optimizer", "draw", "steps", "grad", "source_axis"))
def train_on_draws(
    keys: jax.Array,
    source: Any,
    *,
    model: fnn.Layer,
    loss: fnn.Loss,
    optimizer: optax.GradientTransformation,
    draw: Draw,
    steps: int,
    grad: Callable[[fnn.Layer, fnn.Loss], fnn.GradFn],
    source_axis: int | None = None,
) -> FreshTraining:
    """Train a network for each key, each on batches of its own.

    Args:
        keys: a random key for each network.
        source: what ``draw`` gets, the same for all networks, or one for each along ``source_axis``.
        model, loss, optimizer, grad: as for ``fnn.train``.
        draw: the batch of a step.
        steps: how many batches are drawn.
        source_axis: ``None``, or the axis of the networks in ``source``.
    """
    gradient = grad(model, loss)

    def one(key, source):
        init_key, batch_key = jax.random.split(key)
        params, state = model.init(init_key)

        def step(carry, step_key):
            params, state, opt_state = carry
            (value, state), grads = gradient(params, state, draw(step_key, source))
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), state, opt_state), value

        carry = (params, state, optimizer.init(params))
        (params, state, _), losses = lax.scan(step, carry, jax.random.split(batch_key, steps))
        return FreshTraining(params, state, losses)

    return jax.vmap(one, in_axes=(0, source_axis))(keys, source)


@partial(jax.jit, static_argnames=("model", "draw"))
def predict_draw(params: Any, state: Any, key: jax.Array, source: Any, *, model: fnn.Layer, draw: Draw):
    """Return a new batch, the same for every network, and its predictions, ``(seeds, batch, …)``."""
    batch = draw(key, source)
    return batch, jax.vmap(lambda params, state: fnn.predict(model, params, state, batch.x))(params, state)
