"""funcnn's hand-written gradients and its Adam in a scan over the batches."""

import funcnn as fnn
from experiments.benchmarks.speed.contestants import Contestant
from experiments.benchmarks.speed.contestants.funcnn_model import scanned_by
from experiments.benchmarks.speed.networks import AnyNetwork


def contestant(network: AnyNetwork, x, y, start) -> Contestant:
    return scanned_by(network, x, y, start, fnn.manual_value_and_grad)
