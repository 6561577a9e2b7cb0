"""Plain JAX with the whole run in one program, ``lax.scan`` over the batches: the strongest peer, and the reference."""

from collections.abc import Callable
from functools import partial

import numpy as np
import optax

from experiments.benchmarks.speed.contestants import Contestant
from experiments.benchmarks.speed.contestants.jax_loops import scanned
from experiments.benchmarks.speed.contestants.jax_model import (
    adam,
    adam_of_uncorrected_epsilon,
    begin,
    outputs,
    step,
)
from experiments.benchmarks.speed.networks import Network


def contestant(network: Network, x, y, start) -> Contestant:
    return trained_by(network, x, y, start, adam)


def uncorrected_losses(network: Network, x, y, start, steps: int) -> np.ndarray:
    """The first losses that Keras and scikit-learn have to give, whose Adam differs by where its ε is added."""
    return trained_by(network, x, y, start, adam_of_uncorrected_epsilon).train(steps)


def moved_losses(network: Network, x, y, start, steps: int) -> np.ndarray:
    """The first losses from kernels moved by one rounding: how far rounding alone may lead."""
    moved = tuple((np.nextafter(kernel, np.float32(np.inf)), bias) for kernel, bias in start)
    return trained_by(network, x, y, moved, adam).train(steps)


def trained_by(network: Network, x, y, start, optimizer: Callable[[], optax.GradientTransformation]) -> Contestant:
    def predict(carry, x):
        return outputs(network, carry.params, carry.statistics, x, train=False)[0]

    begin_anew = partial(begin, network, start, optimizer)
    return scanned(network, x, y, begin_anew, partial(step, network, optimizer=optimizer), predict)
