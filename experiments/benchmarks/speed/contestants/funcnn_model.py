"""The network in funcnn, with the parameters that all begin from."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import funcnn as fnn
from experiments.benchmarks.speed import architectures
from experiments.benchmarks.speed.architectures import Architecture
from experiments.benchmarks.speed.contestants import Contestant
from experiments.benchmarks.speed.contestants.jax_loops import Step, scanned
from experiments.benchmarks.speed.networks import (
    EPSILON,
    LEARNING_RATE,
    MEAN_DECAY,
    SQUARE_DECAY,
    AnyNetwork,
    Network,
    Start,
)


class Carry(NamedTuple):
    params: Any
    state: Any
    opt_state: Any


def adam() -> optax.GradientTransformation:
    return fnn.adam(LEARNING_RATE, b1=MEAN_DECAY, b2=SQUARE_DECAY, eps=EPSILON)


def model_and_loss(network: AnyNetwork) -> tuple[fnn.Layer, fnn.Loss]:
    if isinstance(network, Architecture):
        return _architecture(network), getattr(fnn, network.loss)
    model = fnn.mlp(
        network.sizes, {"relu": fnn.relu, "sigmoid": fnn.sigmoid}[network.activation],
        normalization=fnn.batch_norm if network.normalization else None, skip=network.skip,
    )  # fmt: skip
    return model, getattr(fnn, network.loss)


def _architecture(network: Architecture) -> fnn.Layer:
    match network.name:
        case "CNN":
            return fnn.cnn(1, architectures.CHANNELS, architectures.CLASSES)
        case "LSTM":
            return fnn.serial(
                fnn.lstm(architectures.IMAGE, architectures.HIDDEN),
                fnn.last_step,
                fnn.linear(architectures.HIDDEN, architectures.CLASSES),
            )
        case "GPT":
            return fnn.gpt(
                architectures.VOCABULARY,
                architectures.CONTEXT,
                architectures.FEATURES,
                architectures.HEADS,
                architectures.LAYERS,
            )


def begin(network: AnyNetwork, start) -> Carry:
    model, _ = model_and_loss(network)
    params, state = model.init(jax.random.key(0))
    params = _filled(network, params, start)
    return Carry(params, state, adam().init(params))


def _filled(network: AnyNetwork, params, start):
    """Return the model's tree with the arrays of the start, which has those of an architecture in the tree's order."""
    if isinstance(network, Architecture):
        shapes = [leaf.shape for leaf in jax.tree.leaves(params)]
        assert shapes == [array.shape for array in start.values()], shapes
        return jax.tree.unflatten(jax.tree.structure(params), map(jnp.array, start.values()))
    pairs = _in_order(network, start)
    return jax.tree.map(
        lambda part: fnn.LinearParams(*map(jnp.array, next(pairs))) if isinstance(part, fnn.LinearParams) else part,
        params,
        is_leaf=lambda part: isinstance(part, fnn.LinearParams),
    )


def _in_order(network: Network, start: Start) -> Iterator:
    """A block's own kernel, then its projection's, as they stand in the model's tree."""
    layers = len(network.sizes) - 1
    for layer, pair in enumerate(start[:layers]):
        yield pair
        if layer in network.projected:
            yield start[layers + network.projected.index(layer)]


def step_by(network: AnyNetwork, grad: Callable[[fnn.Layer, fnn.Loss], fnn.GradFn]) -> Step:
    """One update by a gradient of funcnn's, written as ``jax_scan``'s is."""
    value_and_grad = grad(*model_and_loss(network))

    def step(carry, x, y):
        (value, state), gradients = value_and_grad(carry.params, carry.state, (x, y))
        updates, opt_state = adam().update(gradients, carry.opt_state, carry.params)
        return Carry(optax.apply_updates(carry.params, updates), state, opt_state), value

    return step


def scanned_by(network: AnyNetwork, x, y, start, grad: Callable[[fnn.Layer, fnn.Loss], fnn.GradFn]) -> Contestant:
    """The whole run in one program, in the loops that ``jax_scan`` runs in."""
    model, _ = model_and_loss(network)

    def predict(carry, x):
        return model.forward(carry.params, carry.state, x, train=False)[0]

    return scanned(network, x, y, partial(begin, network, start), step_by(network, grad), predict)
