"""Plain JAX, a jitted step called for every batch: ``jax.value_and_grad`` and ``optax.adam``, the old carry donated."""

from functools import partial

import jax

from experiments.benchmarks.speed.contestants import Contestant
from experiments.benchmarks.speed.contestants.jax_loops import stepped
from experiments.benchmarks.speed.contestants.jax_model import begin, outputs, step
from experiments.benchmarks.speed.networks import AnyNetwork


def contestant(network: AnyNetwork, x, y, start) -> Contestant:
    @jax.jit
    def predict(carry, x):
        return outputs(network, carry.params, carry.statistics, x, train=False)[0]

    compiled = jax.jit(partial(step, network), donate_argnums=0)
    return stepped(network, x, y, partial(begin, network, start), compiled, predict)
