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
from experiments.benchmarks.speed.networks import AnyNetwork, moved

MOVED = 5
"""Starts that are moved by one rounding."""


def contestant(network: AnyNetwork, x, y, start) -> Contestant:
    return trained_by(network, x, y, start, adam)


def uncorrected_losses(network: AnyNetwork, x, y, start, steps: int) -> np.ndarray:
    """The first losses that Keras and scikit-learn have to give, whose Adam differs by where its ε is added."""
    return trained_by(network, x, y, start, adam_of_uncorrected_epsilon).train(steps)


def moved_losses(network: AnyNetwork, x, y, start, steps: int) -> np.ndarray:
    """The first losses from starts whose kernels are moved up or down by one rounding: how far rounding may lead."""
    losses = []
    for seed in range(MOVED):
        near = moved(start, np.random.default_rng(seed))
        losses.append(trained_by(network, x, y, near, adam).train(steps))
    return np.array(losses)


def trained_by(network: AnyNetwork, x, y, start, optimizer: Callable[[], optax.GradientTransformation]) -> Contestant:
    def predict(carry, x):
        return outputs(network, carry.params, carry.statistics, x, train=False)[0]

    begin_anew = partial(begin, network, start, optimizer)
    return scanned(network, x, y, begin_anew, partial(step, network, optimizer=optimizer), predict)
