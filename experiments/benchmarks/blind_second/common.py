"""Functions that several themes share: data, softmax, and the right twin of a problem."""

from collections.abc import Callable

import jax.numpy as jnp

from experiments.benchmarks.catalogue.case import Case, Problem, normal


def right(problem: Problem, name: str) -> Case:
    """Return the case of the problem with its right gradient."""
    return Case(name, problem.theme, problem.loss_fn, problem.gradient(), problem.make)


def maker(seed: int, shapes: dict, *arg_shapes: tuple, extra: tuple = (), scale: float = 0.5, add=None) -> Callable:
    """Return ``make``: normal parameters times ``scale``, normal arguments, then the ``extra`` arguments.

    ``add`` holds a constant for each parameter that doesn't have mean zero.
    """

    def make(dtype):
        arrays = normal(dtype, seed, *shapes.values(), *arg_shapes)
        params = {name: jnp.asarray(scale, dtype) * array for name, array in zip(shapes, arrays, strict=False)}
        for name, value in (add or {}).items():
            params[name] = params[name] + jnp.asarray(value, dtype)
        extras = tuple(jnp.asarray(value, dtype) if value.dtype.kind == "f" else jnp.asarray(value) for value in extra)
        return params, (*arrays[len(shapes) :], *extras)

    return make


def softmax(scores, axis=-1):
    powers = jnp.exp(scores - scores.max(axis, keepdims=True))
    return powers / powers.sum(axis, keepdims=True)


def softmax_backward(p, dp):
    return p * (dp - (p * dp).sum(-1, keepdims=True))


def cross_entropy(scores, targets):
    """Mean cross-entropy of the one-hot ``targets``."""
    shifted = scores - scores.max(-1, keepdims=True)
    return -(targets * (shifted - jnp.log(jnp.exp(shifted).sum(-1, keepdims=True)))).sum() / len(targets)


def sigmoid(x):
    return 1 / (1 + jnp.exp(-x))


def t(x):
    """The transpose of the last two axes."""
    return x.swapaxes(-1, -2)


def unit(x):
    norm = jnp.sqrt((x**2).sum(-1, keepdims=True))
    return x / norm, norm


def unit_backward(g, direction, norm):
    return (g - direction * (g * direction).sum(-1, keepdims=True)) / norm
