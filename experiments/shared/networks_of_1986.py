"""The networks of Rumelhart, Hinton and Williams 1986: their rule, their tasks and the weights that they printed."""

from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import funcnn as fnn
from experiments.shared.logic_gates import gate_inputs, gate_targets, masked_value_and_grad


class Protocol(NamedTuple):
    """How a network was trained: Δw = −ε ∂E/∂w + α Δw, once a sweep, for E = ½ Σ (y − d)² over the sweep's patterns.

    Fields:
        rate, momentum: ε and α.
        spread: the first weights and biases are uniform between minus this and this.
        low: the target that stands for 0; 1 less it stands for 1. The chapter says that they take 0.1 and 0.9.
    """

    rate: Any
    momentum: Any = 0.9
    spread: Any = 0.3
    low: Any = 0.1


class Network(NamedTuple):
    """A model, and its patterns with targets 0 and 1."""

    model: fnn.Layer
    x: Array
    y: Array


class RunSweeps(NamedTuple):
    """The first sweep whose error is small enough (the number of sweeps where none is), and the last parameters."""

    sweeps: Array
    params: Any


def scale_targets(y: Array, low: Any) -> Array:
    return low + (1 - 2 * low) * y


def initial_params(model: fnn.Layer, key: Array, spread: Any, present: Any) -> Any:
    leaves, tree = jax.tree.flatten(present)
    keys = jax.random.split(key, len(leaves))
    drawn = [
        spread * mask * jax.random.uniform(k, mask.shape, minval=-1.0) for k, mask in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, drawn)


def train_runs(
    network: Network, grad, presents, protocols: Protocol, enough: Array, keys: Array, sweeps: int
) -> RunSweeps:
    """Train once for every key, with its own mask of parameters, protocol and sufficient error."""
    model, x, y = network

    def run(present, protocol, enough, key):
        # The mean squared error over all patterns, times half their number, is E.
        optimizer = fnn.sgd(protocol.rate * len(x) / 2, momentum=protocol.momentum)
        trained = fnn.train(
            model, fnn.mean_squared_error, optimizer, (x, scale_targets(y, protocol.low)), epochs=sweeps, key=key,
            grad=masked_value_and_grad(grad, present), params=initial_params(model, key, protocol.spread, present),
        )  # fmt: skip
        there = trained.history.loss <= enough
        return RunSweeps(jnp.where(there.any(), there.argmax(), sweeps), trained.params)

    return jax.jit(jax.vmap(run))(presents, protocols, enough, keys)


def mean_squared_error_of(network: Network, params: Any, low: float) -> float:
    """Return the mean squared error of a network with given weights."""
    state = network.model.init(jax.random.key(0))[1]
    answers = fnn.predict(network.model, params, state, network.x)
    return float(fnn.mean_squared_error.forward(answers, scale_targets(network.y, low))[0])


def repeat_trees(trees: list[Any], times: list[int]) -> Any:
    """Stack trees, each repeated a number of times."""
    return jax.tree.map(
        lambda *leaves: jnp.concatenate(
            [
                jnp.broadcast_to(jnp.asarray(leaf, float), (n, *jnp.shape(leaf)))
                for leaf, n in zip(leaves, times, strict=True)
            ]
        ),
        *trees,
    )


def split_runs(sweeps: Array, times: list[int]) -> list[np.ndarray]:
    return np.split(np.asarray(sweeps, float), np.cumsum(times)[:-1])


def direct_network() -> Network:
    """Return a network of 2 inputs, up to 2 hidden units and an output that sees the inputs as well; sigmoid units."""
    inner = fnn.serial(fnn.linear(2, 2), fnn.sigmoid, fnn.linear(2, 1))
    return Network(fnn.serial(fnn.skip(inner, fnn.linear(2, 1)), fnn.sigmoid), gate_inputs(), gate_targets("XOR"))


def direct_params(hidden, hidden_bias, output, output_bias, direct):
    """Return the parameters of ``direct_network``. The shortcut's bias is redundant and stays 0."""
    kernel, bias = jnp.array([hidden, hidden], float), jnp.array(hidden_bias, float)
    inner = (
        fnn.LinearParams(kernel, bias),
        (),
        fnn.LinearParams(jnp.array(output, float)[:, None], jnp.array([output_bias])),
    )
    return fnn.SkipParts(inner, fnn.LinearParams(jnp.full((2, 1), direct), jnp.zeros(1))), ()


ONE_AND_DIRECT = ((1, 0), (1, 0), (1, 0), 1.0, 1.0)
TWO_HIDDEN = ((1, 1), (1, 1), (1, 1), 1.0, 0.0)
PUBLISHED_XOR = ((-6.4, 0), (2.2, 0), (-9.4, 0), 6.3, -4.2)


def mirror_network() -> Network:
    """Return a network of 6 inputs, 2 hidden units and 1 output: whether the inputs are mirror symmetric."""
    x = jnp.asarray(list(product((0.0, 1.0), repeat=6)))
    y = jnp.where((x[:, :3] == x[:, :2:-1]).all(axis=1, keepdims=True), 1.0, 0.0)
    return Network(fnn.mlp((6, 2, 1), fnn.sigmoid, fnn.sigmoid), x, y)


def published_mirror_params():
    """Return the weights of the letter's figure 1."""
    row = jnp.array([14.2, -3.6, 7.2, -7.2, 3.6, -14.2])
    hidden = fnn.LinearParams(jnp.stack([row, -row], axis=1), jnp.full(2, -1.1))
    return hidden, (), fnn.LinearParams(jnp.full((2, 1), -9.4), jnp.array([6.4])), ()


class MirrorWeights(NamedTuple):
    """Measurements of the hidden units' kernels ``(seeds, 6, 2)``: ratios of sizes, and distances ``(seeds,)``."""

    ratios: np.ndarray
    from_ratios: np.ndarray
    from_opposite: np.ndarray
    from_twins: np.ndarray


def mirror_weights(kernels: np.ndarray) -> MirrorWeights:
    near, far = kernels[:, :3], kernels[:, :2:-1]
    sizes = np.sort((abs(near) + abs(far)) / 2, axis=1)
    ratios = sizes[:, 1:] / sizes[:, :1]
    larger = np.maximum(abs(near), abs(far))
    twins = abs(kernels.sum(axis=2)) / abs(kernels).max(axis=2)
    return MirrorWeights(
        ratios,
        abs(ratios / np.array([2, 4])[None, :, None] - 1).max(axis=(1, 2)),
        (abs(near + far) / larger).max(axis=(1, 2)),
        twins.max(axis=1),
    )
