"""The network in plain JAX, as one writes it without a library: what ``jax_step`` and ``jax_scan`` train."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from experiments.benchmarks.speed.architectures import Architecture
from experiments.benchmarks.speed.contestants.jax_architectures import FORWARDS, Arrays
from experiments.benchmarks.speed.networks import EPSILON, LEARNING_RATE, MEAN_DECAY, SQUARE_DECAY, AnyNetwork, Network

Pairs = list[tuple[Array, Array]]
MOMENTUM, NORMALIZATION_EPSILON = 0.9, 1e-5


class Parameters(NamedTuple):
    """(kernel, bias) of every layer and of the projections, (scale, shift) of every normalization."""

    layers: Pairs
    projections: Pairs
    normalizations: Pairs


class Carry(NamedTuple):
    """``statistics``: the running (mean, variance) of every normalization."""

    params: Parameters | Arrays
    statistics: Pairs
    opt_state: optax.OptState


def adam() -> optax.GradientTransformation:
    return optax.adam(LEARNING_RATE, b1=MEAN_DECAY, b2=SQUARE_DECAY, eps=EPSILON)


def adam_of_uncorrected_epsilon() -> optax.GradientTransformation:
    """ε is added before the second moment is corrected, as in Keras and scikit-learn: ε/√(1 − β₂ᵗ) behind it."""
    return optax.inject_hyperparams(optax.adam)(
        LEARNING_RATE, b1=MEAN_DECAY, b2=SQUARE_DECAY, eps=lambda t: EPSILON / jnp.sqrt(1 - SQUARE_DECAY ** (t + 1))
    )


def begin(network: AnyNetwork, start, optimizer: Callable[[], optax.GradientTransformation] = adam) -> Carry:
    if isinstance(network, Architecture):
        arrays = {name: jnp.array(array) for name, array in start.items()}
        return Carry(arrays, [], optimizer().init(arrays))
    pairs = [(jnp.array(kernel), jnp.array(bias)) for kernel, bias in start]
    layers, projections = pairs[: len(network.sizes) - 1], pairs[len(network.sizes) - 1 :]
    widths = network.sizes[1:-1] if network.normalization else ()
    params = Parameters(layers, projections, [(jnp.ones(width), jnp.zeros(width)) for width in widths])
    statistics = [(jnp.zeros(width), jnp.ones(width)) for width in widths]
    return Carry(params, statistics, optimizer().init(params))


def outputs(network: AnyNetwork, params, statistics: Pairs, x: Array, *, train: bool) -> tuple[Array, Pairs]:
    """The network's outputs, and the running statistics after the batch."""
    if isinstance(network, Architecture):
        return FORWARDS[network.name](params, x), statistics
    return _perceptron(network, params, statistics, x, train)


def _perceptron(network: Network, params: Parameters, statistics: Pairs, x: Array, train: bool) -> tuple[Array, Pairs]:
    activation = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}[network.activation]
    after = []
    for layer, (kernel, bias) in enumerate(params.layers[:-1]):
        z = x @ kernel + bias
        if network.normalization:
            z, running = _normalized(z, params.normalizations[layer], statistics[layer], train)
            after.append(running)
        a = activation(z)
        if layer in network.projected:
            kernel, bias = params.projections[network.projected.index(layer)]
            a = a + (x @ kernel + bias)
        elif network.skip:
            a = a + x
        x = a
    kernel, bias = params.layers[-1]
    return x @ kernel + bias, after


def _normalized(z, scale_and_shift, running, train):
    scale, shift = scale_and_shift
    mean, variance = (z.mean(axis=0), z.var(axis=0)) if train else running
    y = (z - mean) * lax.rsqrt(variance + NORMALIZATION_EPSILON) * scale + shift
    return y, tuple(MOMENTUM * old + (1 - MOMENTUM) * new for old, new in zip(running, (mean, variance), strict=True))


def loss_of(network: AnyNetwork, prediction: Array, y: Array) -> Array:
    if network.loss == "mean_squared_error":
        return jnp.mean((prediction - y) ** 2)
    return optax.softmax_cross_entropy_with_integer_labels(prediction, y).mean()


def step(
    network: AnyNetwork,
    carry: Carry,
    x: Array,
    y: Array,
    optimizer: Callable[[], optax.GradientTransformation] = adam,
) -> tuple[Carry, Array]:
    """The carry after one update, and the loss before it."""

    def loss(params):
        prediction, statistics = outputs(network, params, carry.statistics, x, train=True)
        return loss_of(network, prediction, y), statistics

    (value, statistics), gradients = jax.value_and_grad(loss, has_aux=True)(carry.params)
    updates, opt_state = optimizer().update(gradients, carry.opt_state, carry.params)
    return Carry(optax.apply_updates(carry.params, updates), statistics, opt_state), value
