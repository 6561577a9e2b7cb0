"""The gradients on which two optimizers are compared: those that training meets every day, and those it seldom does."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

STEPS = 20
BESIDE = {"nested": [{"scalar": ()}]}
"""Shapes of what stands beside the caller's own tree, so that a scalar and nested containers are always there."""

_LARGEST_TREE = 256
_SHORTEST_AXIS = 4

_AT_ZERO = ("vanishing", "huge", "parameters at zero", "small, parameters at zero")
"""Sequences whose parameters start at 0, where no weight decay shows."""


class Problem(NamedTuple):
    """Gradient sequences and the parameters at their start, every tree laid out as one row of numbers.

    Fields:
        names: what each sequence is called.
        shapes: a tree of the parameters' shapes.
        paths: of the leaves that hold a number; ``starts`` is where each begins in a row.
        params: ``(sequences, entries)``.
        gradients: ``(sequences, steps, entries)``.
    """

    names: tuple[str, ...]
    shapes: PyTree
    paths: tuple[str, ...]
    starts: np.ndarray
    params: np.ndarray
    gradients: np.ndarray

    def chosen(self, names: Sequence[str], steps: int = STEPS) -> "Problem":
        """Some of the sequences, some of the steps."""
        rows = [self.names.index(name) for name in names]
        return self._replace(names=tuple(names), params=self.params[rows], gradients=self.gradients[rows, :steps])

    def rounded(self, dtype: Any) -> "Problem":
        """The same with numbers that a dtype holds."""
        params, gradients = (np.asarray(array.astype(dtype), np.float64) for array in (self.params, self.gradients))
        return self._replace(params=params, gradients=gradients)

    def trees(self, dtype: Any) -> tuple[PyTree, PyTree]:
        """Parameters and gradients as trees of NumPy's arrays in a dtype, the sequences (and steps) in front."""
        return self._tree(self.params, dtype), self._tree(self.gradients, dtype)

    def place(self, entry: int) -> tuple[str, tuple[int, ...]]:
        """The path of the leaf to which an entry belongs, and the index in it."""
        leaf = int(np.searchsorted(self.starts, entry, side="right")) - 1
        shape = [shape for shape in _shapes(self.shapes) if math.prod(shape)][leaf]
        index = np.unravel_index(entry - self.starts[leaf], shape) if shape else ()
        return self.paths[leaf], tuple(int(i) for i in index)

    def _tree(self, rows, dtype):
        # In NumPy: JAX would compile a program for every slice of every leaf.
        ends = np.cumsum([math.prod(shape) for shape in _shapes(self.shapes)])
        parts = iter(np.split(rows.astype(dtype), ends[:-1], axis=-1))
        return jax.tree.map(lambda shape: next(parts).reshape(*rows.shape[:-1], *shape), self.shapes, is_leaf=_is_shape)


def flattened(tree: PyTree, axes: int = 2) -> np.ndarray:
    """The leaves side by side in float64, behind the first ``axes`` axes."""
    leaves = [np.asarray(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)]
    return np.concatenate([leaf.reshape(*leaf.shape[:axes], -1) for leaf in leaves], axis=-1)


def awkward(params: PyTree, *, beside: bool) -> Problem:
    """Every sequence, for the caller's parameters and, unless told otherwise, what stands beside them.

    Leaves of a large tree are stood in for by their first rows and columns: an optimizer treats all entries alike.
    """
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    corner = _SHORTEST_AXIS if size > _LARGEST_TREE else None
    own = jax.tree.map(lambda leaf: np.asarray(leaf).astype(np.float64)[(slice(corner),) * leaf.ndim], params)
    shapes: PyTree = jax.tree.map(lambda leaf: _Shape(leaf.shape), own)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(own)]
    start = flattened(own, axes=0) if paths else np.zeros(0)
    if beside:
        others = jax.tree.map(_Shape, BESIDE, is_leaf=lambda node: isinstance(node, tuple))
        shapes = (shapes, others)
        found = jax.tree_util.tree_leaves_with_path(others, is_leaf=_is_shape)
        paths += [f"beside: {jax.tree_util.keystr(path)}" for path, _ in found]
        start = np.concatenate([start, np.zeros(sum(math.prod(shape) for _, shape in found))])
    random = np.random.default_rng(0)
    drawn = _numbers(random, start.size)
    # A parameter at 0 wouldn't show how it decays.
    start = np.where(np.isfinite(start) & (start != 0), start, drawn)
    sequences = _sequences(random, start.size)
    begun = np.stack([np.zeros_like(start) if name in _AT_ZERO else start for name in sequences])
    sizes = np.array([math.prod(shape) for shape in _shapes(shapes)])
    paths = [path for path, size in zip(paths, sizes, strict=True) if size]
    places = np.cumsum([0, *sizes[sizes > 0]])[:-1]
    return Problem(tuple(sequences), shapes, tuple(paths), places, begun, np.stack(list(sequences.values())))


def _sequences(random, size) -> dict[str, np.ndarray]:
    steps = np.arange(STEPS)[:, None]
    pattern = _numbers(random, size)

    def normal():
        return random.standard_normal((STEPS, size))

    return {
        "constant": np.broadcast_to(pattern, (STEPS, size)),
        "alternating": pattern * np.where(steps % 2, -1.0, 1.0),
        "random": normal(),
        "sparse": normal() * (random.random((STEPS, size)) < 0.15),
        "zero": np.zeros((STEPS, size)),
        "one step, then zero": pattern * (steps == 0),
        "tiny": 1e-8 * normal(),
        "small": 1e-4 * normal(),
        "vanishing": np.broadcast_to(1e-30 * pattern, (STEPS, size)),
        "huge": 1e10 * normal(),
        "growing": 1e-4 * pattern * 3.0**steps,
        "shrinking": 1e3 * pattern * 3.0**-steps,
        "parameters at zero": np.broadcast_to(pattern, (STEPS, size)),
        "small, parameters at zero": np.broadcast_to(1e-6 * pattern, (STEPS, size)),
    }


def _numbers(random, size):
    """Numbers of either sign between a half and two."""
    return random.choice([-1.0, 1.0], size) * random.uniform(0.5, 2.0, size)


class _Shape(tuple):
    """A shape that is a leaf of a tree, not a container."""

    __slots__ = ()


def _is_shape(node):
    return isinstance(node, _Shape)


def _shapes(tree) -> list[tuple[int, ...]]:
    return jax.tree.leaves(tree, is_leaf=_is_shape)
