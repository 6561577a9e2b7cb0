"""``funcnn_scan`` with ``jax.grad`` over the same forward in the place of the hand-written backward passes."""

import funcnn as fnn
from experiments.benchmarks.speed.contestants import Contestant
from experiments.benchmarks.speed.contestants.funcnn_model import scanned_by
from experiments.benchmarks.speed.networks import AnyNetwork


def contestant(network: AnyNetwork, x, y, start) -> Contestant:
    return scanned_by(network, x, y, start, fnn.autodiff_value_and_grad)
