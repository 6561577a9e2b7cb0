"""What the modules of the set share."""

import jax.numpy as jnp

from experiments.benchmarks.catalogue.case import Case, Problem


def right(problem: Problem, name: str, make=None, **lines) -> Case:
    """The problem with its right gradient, or with other lines that are right as well.

    With data of its own it has a loss of its own too, for cases that share a loss are checked on shared data.
    """
    if make is None:
        return Case(name, problem.theme, problem.loss_fn, problem.gradient(**lines), problem.make)

    def loss_fn(params, *args):
        return problem.loss_fn(params, *args)

    return Case(name, problem.theme, loss_fn, problem.gradient(**lines), make)


def softmax_back(probability, cotangent, axis=-1):
    """∂/∂scores from ∂/∂probability."""
    return probability * (cotangent - jnp.sum(probability * cotangent, axis=axis, keepdims=True))


def sigmoid(x):
    return 1 / (1 + jnp.exp(-x))


def mean_square(prediction, target):
    """Mean over all the entries."""
    return jnp.mean((prediction - target) ** 2)


def mean_square_back(prediction, target):
    return 2 * (prediction - target) / target.size
