"""funcnn's ``fit``, as its users call it: checked arguments, a fresh shuffle an epoch, every loss watched for NaN.

Every call goes on from the parameters of the one before, with a new optimizer state. Its samples come in an order of
its own, so its losses are compared with those of ``funcnn_scan``'s step over the very batches that it drew.
"""

import jax
import jax.numpy as jnp
import numpy as np

import funcnn as fnn
from experiments.benchmarks.speed.contestants import Contestant
from experiments.benchmarks.speed.contestants.funcnn_model import Carry, adam, begin, model_and_loss, step_by
from experiments.benchmarks.speed.networks import AnyNetwork, rows
from funcnn.training.steps import TrainingSetup, batch_and_key


def contestant(network: AnyNetwork, x, y, start) -> Contestant:
    model, loss = model_and_loss(network)
    data = fnn.Batch(jnp.array(x), jnp.array(y))
    batches = [data.x[rows(network, k)] for k in range(network.batches)]
    params, state, _ = begin(network, start)
    calls: list[int] = []

    def fit(epochs):
        nonlocal params, state
        key = jax.random.key(len(calls))
        calls.append(epochs)
        trained = fnn.fit(
            model, loss, adam(), data, epochs=epochs, batch_size=network.batch_size, key=key, params=params, state=state
        )
        params, state = jax.block_until_ready((trained.params, trained.state))
        return trained

    def train(steps):
        return np.asarray(fit(steps // network.batches).history.step_loss).ravel()

    def expected():
        """The losses of all the calls so far, by single steps over the batches that ``fit`` drew."""
        carry, losses = begin(network, start), []
        step = jax.jit(step_by(network, fnn.manual_value_and_grad))
        setup = TrainingSetup(model, loss, adam(), fnn.manual_value_and_grad, network.batch_size)
        for call, epochs in enumerate(calls):
            carry = Carry(carry.params, carry.state, adam().init(carry.params))
            key = jax.random.split(jax.random.key(call))[1]
            for position in range(epochs * network.batches):
                batch, _ = batch_and_key(data, key, np.int32(position), setup=setup)
                carry, value = step(carry, *batch)
                losses.append(value)
        return np.array(jax.device_get(losses))

    def predictions():
        return np.concatenate(jax.device_get([fnn.predict(model, params, state, batch) for batch in batches]))

    def restart():
        nonlocal params, state
        params, state, _ = begin(network, start)

    return Contestant(train, fit, predictions, restart, block=network.batches, expected=expected)
