"""A model with its loss and its right gradient, and bugs that each replace one line of that gradient."""

import inspect
import linecache
import textwrap
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.catalogue.case import Case


class Model(NamedTuple):
    """A loss and its right gradient by hand.

    Fields:
        theme: the heading of its cases.
        loss_fn: ``(params, *args) -> scalar``.
        grad_fn: ``(params, *args) -> gradients``, right, a plain function at the top level of its module.
        make: ``(dtype) -> (params, args)``.
        options: further fields of every case of the model.
    """

    theme: str
    loss_fn: Callable[..., Any]
    grad_fn: Callable[..., Any]
    make: Callable[[str], tuple[Any, tuple]]
    options: Mapping[str, Any] = MappingProxyType({})

    def right(self, name: str, **options) -> Case:
        """Return the right gradient as a case; ``options`` are further fields."""
        return Case(name, self.theme, self.loss_fn, self.grad_fn, self.make, **{**self.options, **options})

    def bug(self, name: str, causes: str, leaf: str | None, line: str, replacement: str, **options) -> Case:
        """Return a case whose gradient has ``replacement`` in the place of ``line``; ``causes`` are words."""
        wrong = with_line(self.grad_fn, line, replacement, name)
        case = Case(name, self.theme, self.loss_fn, wrong, self.make, frozenset(causes.split()), leaf)
        return case._replace(right=self.grad_fn, **{**self.options, **options})


def with_line(function: Callable, line: str, replacement: str, name: str) -> Callable:
    """Return ``function`` with ``replacement`` in the place of ``line``, a piece of one line of its source.

    Raises:
        ValueError: if the line is not in the source exactly once, or either is longer than a line.
    """
    source = textwrap.dedent(inspect.getsource(function))
    if source.count(line) != 1 or "\n" in line + replacement:
        raise ValueError(f"{name}: expected one line of {function.__name__} with {line!r}, found {source.count(line)}")
    source, filename = source.replace(line, replacement), f"<{name}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    namespace: dict[str, Any] = {}
    exec(compile(source, filename, "exec"), function.__globals__, namespace)
    return namespace[function.__name__]


def numpy_normal(dtype: str, seed: int, *shapes: tuple[int, ...]) -> list:
    """Return standard normal NumPy arrays of these shapes, the same numbers in every dtype."""
    generator = np.random.default_rng(seed)
    return [generator.normal(size=shape).astype(dtype) for shape in shapes]


def jax_normal(dtype: str, seed: int, *shapes: tuple[int, ...]) -> list:
    """Return standard normal JAX arrays of these shapes, the same numbers in every dtype."""
    return [jnp.asarray(array) for array in numpy_normal(dtype, seed, *shapes)]
