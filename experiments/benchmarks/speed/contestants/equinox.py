"""Equinox: its layers under ``vmap``, and ``filter_jit`` over flattened trees, its documented low-overhead loop."""

import equinox as eqx
import jax
import jax.numpy as jnp

from experiments.benchmarks.speed.architectures import Architecture
from experiments.benchmarks.speed.contestants import Contestant, equinox_architectures
from experiments.benchmarks.speed.contestants.jax_loops import stepped
from experiments.benchmarks.speed.contestants.jax_model import adam, loss_of
from experiments.benchmarks.speed.networks import AnyNetwork, Network


class Skip(eqx.nn.StatefulLayer):
    """y = inner(x) + shortcut(x)."""

    inner: eqx.nn.Sequential
    shortcut: eqx.Module

    def __call__(self, x, state, *, key=None):
        y, state = self.inner(x, state)
        return y + self.shortcut(x), state


def contestant(network: AnyNetwork, x, y, start) -> Contestant:
    def begin():
        model, state = eqx.nn.make_with_state(built)(network, start)
        return jax.tree.flatten((model, state, adam().init(eqx.filter(model, eqx.is_inexact_array))))

    _, structure = begin()

    @eqx.filter_jit(donate="all-except-first")
    def step(batch, flat):
        x, y = batch
        model, state, opt_state = jax.tree.unflatten(structure, flat)

        @eqx.filter_value_and_grad(has_aux=True)
        def loss(model):
            outputs, after = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)
            return loss_of(network, outputs, y), after

        (value, state), gradients = loss(model)
        updates, opt_state = adam().update(gradients, opt_state, model)
        return jax.tree.leaves((eqx.apply_updates(model, updates), state, opt_state)), value

    @eqx.filter_jit
    def predict(flat, x):
        model, state, _ = jax.tree.unflatten(structure, flat)
        model = eqx.nn.inference_mode(model)
        return jax.vmap(lambda x: model(x, state)[0])(x)

    return stepped(network, x, y, lambda: begin()[0], lambda flat, x, y: step((x, y), flat), predict)


def built(network: AnyNetwork, start) -> eqx.Module:
    if isinstance(network, Architecture):
        return equinox_architectures.built(network, start)
    return _perceptron(network, start)


def _perceptron(network: Network, start) -> eqx.nn.Sequential:
    activation = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}[network.activation]
    linears = [_linear(*pair) for pair in start]
    count = len(network.sizes) - 1
    blocks: list[eqx.Module] = []
    for layer, linear in enumerate(linears[: count - 1]):
        width = network.sizes[layer + 1]
        norm = [eqx.nn.BatchNorm(width, "batch", momentum=0.9, mode="batch")] if network.normalization else []
        block = [linear, *norm, eqx.nn.Lambda(activation)]
        if network.skip:
            is_projected = layer in network.projected
            shortcut = linears[count + network.projected.index(layer)] if is_projected else eqx.nn.Identity()
            block = [Skip(eqx.nn.Sequential(block), shortcut)]
        blocks += block
    return eqx.nn.Sequential([*blocks, linears[count - 1]])


def _linear(kernel, bias) -> eqx.nn.Linear:
    """Our parameters; Equinox keeps its kernels ``(out, in)``."""
    linear = eqx.nn.Linear(*kernel.shape, key=jax.random.key(0))
    return eqx.tree_at(lambda layer: (layer.weight, layer.bias), linear, (jnp.array(kernel.T), jnp.array(bias)))
