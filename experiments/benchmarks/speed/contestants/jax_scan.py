"""Plain JAX with the whole run in one program, ``lax.scan`` over the batches: the strongest peer, and the reference."""

from functools import partial

from experiments.benchmarks.speed.contestants import Contestant
from experiments.benchmarks.speed.contestants.jax_loops import scanned
from experiments.benchmarks.speed.contestants.jax_model import begin, outputs, step
from experiments.benchmarks.speed.networks import Network


def contestant(network: Network, x, y, start) -> Contestant:
    def predict(carry, x):
        return outputs(network, carry.params, carry.statistics, x, train=False)[0]

    return scanned(network, x, y, partial(begin, network, start), partial(step, network), predict)
