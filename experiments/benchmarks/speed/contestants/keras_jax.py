"""Keras on its JAX backend, compiled by XLA: ``fit``, or ``train_on_batch`` where an epoch is one batch.

Each is the faster there. The losses of ``fit`` are means over an epoch; ε is added before the second moment is
corrected.
"""

import jax
import jax.numpy as jnp
import keras
import numpy as np

from experiments.benchmarks.speed.contestants import Contestant
from experiments.benchmarks.speed.networks import EPSILON, LEARNING_RATE, MEAN_DECAY, SQUARE_DECAY, Network


def contestant(network: Network, x, y, start) -> Contestant:
    model = built(network, start)
    first = model.get_weights()
    model.compile(
        optimizer=keras.optimizers.Adam(LEARNING_RATE, beta_1=MEAN_DECAY, beta_2=SQUARE_DECAY, epsilon=EPSILON),
        loss="mse" if network.loss == "mean_squared_error" else keras.losses.SparseCategoricalCrossentropy(True),
        steps_per_execution=network.batches,
        jit_compile=True,
    )

    def fit(epochs, shuffle):
        history = model.fit(x, y, batch_size=network.batch_size, epochs=epochs, shuffle=shuffle, verbose=0)
        return np.array(history.history["loss"])

    device_x, device_y = jnp.array(x), jnp.array(y)

    def train(steps):
        if network.batches > 1:
            return fit(steps // network.batches, shuffle=False)
        losses = np.array([model.train_on_batch(device_x, device_y) for _ in range(steps)])
        jax.block_until_ready([variable.value for variable in model.variables])
        return losses

    def restart():
        model.set_weights(first)
        for variable in model.optimizer.variables:
            if variable is not model.optimizer.learning_rate:
                variable.assign(jnp.zeros_like(variable.value))

    return Contestant(
        train=train,
        epochs=lambda number: fit(number, shuffle=network.batches > 1),
        predict=lambda: model.predict(x, batch_size=network.batch_size, verbose=0),
        restart=restart,
        block=network.batches,
        averaged=network.batches,
        uncorrected_epsilon=True,
    )


def built(network: Network, start) -> keras.Model:
    layers = keras.layers
    denses = [layers.Dense(kernel.shape[1]) for kernel, _ in start]
    count = len(network.sizes) - 1
    a = entrance = keras.Input((network.sizes[0],))
    for layer, dense in enumerate(denses[: count - 1]):
        before, a = a, dense(a)
        if network.normalization:
            a = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(a)
        a = layers.Activation(network.activation)(a)
        if layer in network.projected:
            before = denses[count + network.projected.index(layer)](before)
        if network.skip:
            a = layers.Add()([a, before])
    model = keras.Model(entrance, denses[count - 1](a))
    for dense, pair in zip(denses, start, strict=True):
        dense.set_weights(pair)
    return model
