"""The two ways to run a JAX step: from Python, a call a step; and in a scan, a call for all of them."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.benchmarks.speed.contestants import Contestant
from experiments.benchmarks.speed.networks import AnyNetwork, rows

Step = Callable[[Any, jax.Array, jax.Array], tuple[Any, jax.Array]]
Predict = Callable[[Any, jax.Array], jax.Array]


def shuffled(network: AnyNetwork, random: np.random.Generator, *arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """The batches of an epoch, gathered from NumPy's arrays; an only batch needs no order."""
    if network.batches == 1:
        yield arrays
        return
    order = random.permutation(network.samples)
    for batch in range(network.batches):
        chosen = order[rows(network, batch)]
        yield tuple(array[chosen] for array in arrays)


def stepped(
    network: AnyNetwork, x: np.ndarray, y: np.ndarray, begin: Callable[[], Any], step: Step, predict: Predict
) -> Contestant:
    """A contestant that calls a compiled step for every batch, and waits for the device once at the end."""
    carry, random = begin(), np.random.default_rng(0)
    batches = [(jnp.array(x[at]), jnp.array(y[at])) for at in (rows(network, k) for k in range(network.batches))]
    position = 0

    def train(steps):
        nonlocal carry, position
        losses = []
        for number in range(position, position + steps):
            carry, loss = step(carry, *batches[number % network.batches])
            losses.append(loss)
        position += steps
        jax.block_until_ready((carry, losses))
        return losses

    def epochs(number):
        nonlocal carry
        for _ in range(number):
            for batch in shuffled(network, random, x, y):
                carry, _ = step(carry, *batch)
        jax.block_until_ready(carry)

    def predictions():
        return np.concatenate(jax.device_get([predict(carry, batch) for batch, _ in batches]))

    def restart():
        nonlocal carry, position
        carry, position = begin(), 0

    return Contestant(train, epochs, predictions, restart)


def scanned(
    network: AnyNetwork, x: np.ndarray, y: np.ndarray, begin: Callable[[], Any], step: Step, predict: Predict
) -> Contestant:
    """A contestant that runs any number of epochs in one program, a scan of scans over the batches."""
    carry = begin()
    shape = (network.batches, network.batch_size)
    data = tuple(jnp.array(array.reshape(*shape, *array.shape[1:])) for array in (x, y))
    flat = jnp.array(x), jnp.array(y)
    keys = map(jax.random.key, count())

    def over_batches(carry, batches):
        if network.batches == 1:
            carry, loss = step(carry, *(array[0] for array in batches))
            return carry, loss[None]
        return lax.scan(lambda carry, batch: step(carry, *batch), carry, batches)

    @partial(jax.jit, static_argnames="number", donate_argnames="carry")
    def in_order(carry, batches, *, number):
        return lax.scan(lambda carry, _: over_batches(carry, batches), carry, length=number)

    @partial(jax.jit, static_argnames="number", donate_argnames="carry")
    def in_fresh_order(carry, arrays, key, *, number):
        def epoch(carry, key):
            order = jax.random.permutation(key, network.samples).reshape(shape)
            return lax.scan(lambda carry, chosen: step(carry, *(array[chosen] for array in arrays)), carry, order)

        return lax.scan(epoch, carry, jax.random.split(key, number))

    predict = jax.jit(predict)

    def train(steps):
        nonlocal carry
        carry, losses = jax.block_until_ready(in_order(carry, data, number=steps // network.batches))
        return np.asarray(losses).ravel()

    def epochs(number):
        nonlocal carry
        carry, _ = jax.block_until_ready(in_fresh_order(carry, flat, next(keys), number=number))

    def predictions():
        return np.concatenate(jax.device_get([predict(carry, data[0][k]) for k in range(network.batches)]))

    def restart():
        nonlocal carry
        carry = begin()

    shuffles = network.batches > 1
    return Contestant(train, epochs if shuffles else train, predictions, restart, block=network.batches)
