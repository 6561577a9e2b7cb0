"""Flax NNX with its functional training loop, the fastest of the forms that its page on performance describes.

The model and ``nnx.Optimizer`` are split once; a plain ``jax.jit`` step merges them inside, where it costs nothing.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.benchmarks.speed.architectures import Architecture
from experiments.benchmarks.speed.contestants import Contestant, flax_architectures
from experiments.benchmarks.speed.contestants.jax_loops import stepped
from experiments.benchmarks.speed.contestants.jax_model import adam, loss_of
from experiments.benchmarks.speed.networks import AnyNetwork, Network


class Skip(nnx.Module):
    """y = inner(x) + shortcut(x)."""

    def __init__(self, inner, shortcut):
        self.inner, self.shortcut = inner, shortcut

    def __call__(self, x):
        return self.inner(x) + self.shortcut(x)


def contestant(network: AnyNetwork, x, y, start) -> Contestant:
    def begin():
        model = built(network, start)
        model.train()
        return nnx.split((model, nnx.Optimizer(model, adam(), wrt=nnx.Param)))

    definition, _ = begin()

    @partial(jax.jit, donate_argnums=0)
    def step(state, x, y):
        model, optimizer = nnx.merge(definition, state)
        value, gradients = nnx.value_and_grad(lambda model: loss_of(network, model(x), y))(model)
        optimizer.update(model, gradients)
        return nnx.state((model, optimizer)), value

    @jax.jit
    def predict(state, x):
        model, _ = nnx.merge(definition, state)
        model.eval()
        return model(x)

    return stepped(network, x, y, lambda: begin()[1], step, predict)


def built(network: AnyNetwork, start) -> nnx.Module:
    if isinstance(network, Architecture):
        return flax_architectures.built(network, start)
    return _perceptron(network, start)


def _perceptron(network: Network, start) -> nnx.Sequential:
    activation = {"relu": nnx.relu, "sigmoid": nnx.sigmoid}[network.activation]
    keys = nnx.Rngs(0)
    linears = [_linear(*pair, keys) for pair in start]
    count = len(network.sizes) - 1
    blocks: list = []
    for layer, linear in enumerate(linears[: count - 1]):
        norm = [nnx.BatchNorm(network.sizes[layer + 1], momentum=0.9, rngs=keys)] if network.normalization else []
        block = [linear, *norm, activation]
        if network.skip:
            is_projected = layer in network.projected
            shortcut = linears[count + network.projected.index(layer)] if is_projected else nnx.identity
            block = [Skip(nnx.Sequential(*block), shortcut)]
        blocks += block
    return nnx.Sequential(*blocks, linears[count - 1])


def _linear(kernel, bias, keys: nnx.Rngs) -> nnx.Linear:
    linear = nnx.Linear(*kernel.shape, rngs=keys)
    linear.kernel[...], linear.bias[...] = jnp.array(kernel), jnp.array(bias)
    return linear
