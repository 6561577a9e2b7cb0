"""What a case of the catalogue is, and the data and losses that the themes share."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np

from funcnn.gradcheck.report import Cause

BOTH = ("float64", "float32")
CAUSES = frozenset(get_args(Cause)) - {"noise", "kink", "unknown"}
"""The causes that a planted bug may have: those of a leaf that isn't right, and not ``unknown``."""


class Case(NamedTuple):
    """A loss, a gradient written by hand, and the point where a checker is asked about the two.

    Fields:
        name: in snake_case, unique in the catalogue.
        theme: the heading under which it is counted.
        loss_fn: ``(params, *args) -> scalar``, always right.
        grad_fn: ``(params, *args) -> gradients``, with a planted bug or right.
        make: ``(dtype) -> (params, args)``, the same numbers in every dtype.
        causes: what a diagnosis may call the planted bug, by the facts; empty where the gradient is right.
        leaf: the path of the parameter at which the bug itself sits, where the cause is judged; ``None`` for any
            leaf that fails.
        dtypes: the dtypes in which the case exists: a bug of precision is none in float64.
        right: the gradient without the bug, that the catalogue can show what was planted; ``None`` for right cases.
        autodiff_differs: ``jax.grad`` is no measure here: a kink met exactly, where it follows a convention, a NaN of
            its own, or a wrong rule in the loss. One-sided differences of the loss stand in for it.
        tolerance: relative difference that the rounding of float64 explains, of the right gradient from autodiff's.
        scale: the size of the terms of which the gradient is made, where they cancel to something much smaller, so
            that rounding is relative to them.
        other_in_float32: the loss is another function in another dtype, for it draws random numbers in it.
    """

    name: str
    theme: str
    loss_fn: Callable[..., Any]
    grad_fn: Callable[..., Any]
    make: Callable[[str], tuple[Any, tuple]]
    causes: frozenset[str] = frozenset()
    leaf: str | None = None
    dtypes: tuple[str, ...] = BOTH
    right: Callable[..., Any] | None = None
    autodiff_differs: bool = False
    tolerance: float = 1e-8
    scale: float = 0.0
    other_in_float32: bool = False


class Problem(NamedTuple):
    """A loss and its right gradient, taken apart so that a bug can stand in the place of one line.

    Fields:
        theme: of the cases made from it.
        loss_fn: ``(params, *args) -> scalar``.
        gradient: from lines of the backward pass, by keyword, to a ``grad_fn``; each line's default is the right one.
        make: ``(dtype) -> (params, args)``.
    """

    theme: str
    loss_fn: Callable[..., Any]
    gradient: Callable[..., Callable[..., Any]]
    make: Callable[[str], tuple[Any, tuple]]

    def bug(
        self, name: str, causes: Iterable[str], leaf: str | None = None, *, make=None, options=None, **lines
    ) -> Case:
        """The problem with other ``lines`` in its backward pass; ``options`` are further fields of the case."""
        grad_fn, right, made = self.gradient(**lines), self.gradient(), make or self.make
        return Case(
            name, self.theme, self.loss_fn, grad_fn, made, frozenset(causes), leaf, right=right, **(options or {})
        )


def plain(loss_fn: Callable, grad_fn: Callable, make: Callable, theme: str) -> Problem:
    """A problem whose bugs replace the whole gradient: ``bug(..., grad_fn=wrong)``."""
    return Problem(theme, loss_fn, lambda grad_fn=grad_fn: grad_fn, make)


def normal(dtype: str, seed: int, *shapes: tuple[int, ...]) -> list:
    """Standard normal arrays of these shapes, the same numbers in every dtype."""
    generator = np.random.default_rng(seed)
    return [jnp.asarray(generator.normal(size=shape), dtype) for shape in shapes]


def labels(seed: int, samples: int, classes: int):
    """Integer class labels."""
    return jnp.asarray(np.random.default_rng(seed).integers(classes, size=samples))


def one_hot(targets, scores):
    """One row for each label, in the scores' dtype."""
    return (targets[:, None] == jnp.arange(scores.shape[-1])).astype(scores.dtype)


def squared_error(prediction, target):
    """Mean over the samples of the squared error, summed over the outputs."""
    return ((prediction - target) ** 2).reshape(len(target), -1).sum(axis=1).mean()


def squared_error_backward(prediction, target):
    """Its ∂/∂prediction."""
    return 2 * (prediction - target) / len(target)
