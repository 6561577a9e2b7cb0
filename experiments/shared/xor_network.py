"""One network that holds all those compared on XOR, with masks for the smaller ones.

The output is sigmoid branch + tanh branch + ReLU branch + shortcut: what a smaller network lacks has weights of zero
that never move. XLA then compiles one program instead of fifteen.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import funcnn as fnn
from experiments.harness.claims import Claim
from experiments.harness.experiment import Settings, checked_value_and_grad
from experiments.shared.logic_gates import gate_inputs, gate_targets, masked_value_and_grad

MOST_UNITS = 8
ACTIVATIONS = {"sigmoid": fnn.sigmoid, "tanh": fnn.tanh, "ReLU": fnn.relu}
SHAPES = {"1 with shortcut": (1, 1.0), "2": (2, 0.0), "3": (3, 0.0), "4": (4, 0.0), "8": (8, 0.0)}


def branch(activation: fnn.Layer) -> fnn.Layer:
    return fnn.serial(fnn.linear(2, MOST_UNITS), activation, fnn.linear(MOST_UNITS, 1))


EVERY = fnn.skip(fnn.skip(branch(fnn.sigmoid), branch(fnn.tanh)), fnn.skip(branch(fnn.relu), fnn.linear(2, 1)))


def branch_params(branches, shortcut) -> fnn.SkipParts:
    """Return a tree like EVERY's parameters, of its three branches and its shortcut."""
    sigmoid, tanh, relu = branches
    return fnn.SkipParts(fnn.SkipParts(sigmoid, tanh), fnn.SkipParts(relu, shortcut))


def parameter_mask(activation: str, units: int, shortcut: float) -> fnn.SkipParts:
    """Return 1 for the parameters of EVERY that a network has, 0 for those that it lacks."""
    branches = []
    for name in ACTIVATIONS:
        row = jnp.where(jnp.arange(MOST_UNITS) < units, float(name == activation), 0.0)
        # The output's bias is the used branch's.
        output = fnn.LinearParams(row[:, None], jnp.full(1, float(name == activation)))
        branches.append((fnn.LinearParams(jnp.stack([row, row]), row), (), output))
    return branch_params(branches, fnn.LinearParams(jnp.full((2, 1), shortcut), jnp.zeros(1)))


def initial_params(key: Array, present: fnn.SkipParts) -> fnn.SkipParts:
    """Draw kernels from N(0, 1/inputs), with twice that variance in the ReLU branch; biases are 0."""
    branches, keys = [], jax.random.split(key, 7)
    masks = (present.inner.inner, present.inner.shortcut, present.shortcut.inner)
    for number, (gain, mask) in enumerate(zip((1.0, 1.0, 2.0), masks, strict=True)):
        hidden = jax.random.normal(keys[2 * number], (2, MOST_UNITS)) * jnp.sqrt(gain / 2)
        units = jnp.maximum(mask[2].kernel.sum(), 1)
        output = jax.random.normal(keys[2 * number + 1], (MOST_UNITS, 1)) * jnp.sqrt(gain / units)
        branches.append((fnn.LinearParams(hidden, jnp.zeros(MOST_UNITS)), (), fnn.LinearParams(output, jnp.zeros(1))))
    shortcut = fnn.LinearParams(jax.random.normal(keys[6], (2, 1)) * jnp.sqrt(0.5), jnp.zeros(1))
    return jax.tree.map(jnp.multiply, branch_params(branches, shortcut), present)


class HiddenRuns(NamedTuple):
    """Last losses, parameters, and who learned XOR by the end and by half time, by activation, shape and start."""

    losses: Array
    params: Any
    learned: Array
    learned_by_half: Array


SMALL = 0.1
"""A loss below this has all four answers right: one wrong answer alone costs ln(2)/4 = 0.17."""


def train_hidden(settings: Settings, claim: Claim) -> HiddenRuns:
    x, y = gate_inputs(), gate_targets("XOR")
    grad = checked_value_and_grad(settings, EVERY, fnn.sigmoid_cross_entropy, fnn.Batch(x, y))
    epochs = settings.steps(quick=1_500, full=3_000)

    def run(present, key):
        trained = fnn.train(
            EVERY, fnn.sigmoid_cross_entropy, fnn.adam(0.03), (x, y), epochs=epochs, key=key,
            grad=masked_value_and_grad(grad, present), params=initial_params(key, present),
        )  # fmt: skip
        losses = trained.history.loss
        return HiddenRuns(losses[-1], trained.params, losses[-1] < SMALL, losses[epochs // 2] < SMALL)

    each = [parameter_mask(activation, *shape) for activation in ACTIVATIONS for shape in SHAPES.values()]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    runs = jax.jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))(stacked, settings.keys_of(claim))
    return jax.tree.map(lambda leaf: leaf.reshape(len(ACTIVATIONS), len(SHAPES), *leaf.shape[1:]), runs)


def loss_of_equal_answers(patterns: int) -> float:
    """Return the least loss of a network that gives the same answer to a number of patterns of XOR."""
    ones = patterns // 2
    share = ones / patterns
    return -patterns / 4 * (share * np.log(share) + (1 - share) * np.log(1 - share))


LEVELS = {
    f"{number} patterns alike": loss_of_equal_answers(count)
    for count, number in ((2, "two"), (3, "three"), (4, "four"))
}
