"""The gradient sequences on which two optimizers are compared: common ones, and extreme ones."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

STEPS = 20
EXTRA_SHAPES = {"nested": [{"scalar": ()}]}
"""Shapes of the leaves that are added to the caller's tree, so that a scalar and nested containers are compared."""

_LARGEST_TREE = 256
_SHORTEST_AXIS = 4

_ZERO_PARAMETERS = ("vanishing", "huge", "parameters at zero", "small, parameters at zero")
"""Sequences whose parameters start at 0, so that weight decay has no effect at the first step."""


class ExtendedTree(NamedTuple):
    """The caller's tree and the extra leaves."""

    yours: PyTree
    extra: PyTree


def path_text(path: tuple) -> str:
    """Return a path in a tree of parameters or of a state as the caller knows it, without the extension."""
    own = [key for key in path if key != jax.tree_util.GetAttrKey("yours")]
    return jax.tree_util.keystr(tuple(own)) or "the root"


class Problem(NamedTuple):
    """Gradient sequences and initial parameters, every tree flattened to one row of numbers.

    Fields:
        names: the name of each sequence.
        shapes: a tree of the parameters' shapes.
        paths: the paths of the leaves that hold a number.
        starts: the place in a row where each of these leaves begins.
        params: ``(sequences, entries)``.
        gradients: ``(sequences, steps, entries)``.
        dtypes: the dtype of each of the caller's leaves, in the order of ``shapes``.
    """

    names: tuple[str, ...]
    shapes: PyTree
    paths: tuple[str, ...]
    starts: np.ndarray
    params: np.ndarray
    gradients: np.ndarray
    dtypes: tuple[Any, ...] = ()

    @property
    def dtype_name(self) -> str:
        """The dtypes of the caller's leaves as text: ``float32``, or ``bfloat16 and float32``."""
        return " and ".join(sorted({jnp.dtype(dtype).name for dtype in self.dtypes}))

    @property
    def spacing(self) -> float:
        """ε of the coarsest of the caller's dtypes."""
        return max(float(jnp.finfo(dtype).eps) for dtype in self.dtypes)

    def select(self, names: Sequence[str], steps: int = STEPS) -> "Problem":
        """Return the first ``steps`` steps of some of the sequences."""
        rows = [self.names.index(name) for name in names]
        return self._replace(names=tuple(names), params=self.params[rows], gradients=self.gradients[rows, :steps])

    def round_to(self, dtype: Any = None) -> "Problem":
        """Return the same problem with numbers rounded to a dtype, in float64; ``None`` for the caller's dtypes.

        Gradients are clipped, so that sums of their squares don't overflow. This has an effect in float16 alone.
        """
        largest = min(float(jnp.finfo(dtype).max) for dtype in (self.dtypes if dtype is None else (dtype,)))
        bound = math.sqrt(largest / 64)
        params, gradients = (
            np.concatenate([np.asarray(part, np.float64) for part in self._parts(rows, dtype)], axis=-1)
            for rows in (self.params, np.clip(self.gradients, -bound, bound))
        )
        return self._replace(params=params, gradients=gradients)

    def trees(self, dtype: Any = None) -> tuple[PyTree, PyTree]:
        """Return parameters, ``(sequences, ...)``, and gradients, ``(sequences, steps, ...)``, as trees of arrays.

        Args:
            dtype: the dtype of all leaves; ``None`` for the caller's dtypes.
        """
        return self._tree(self.params, dtype), self._tree(self.gradients, dtype)

    def locate(self, entry: int) -> tuple[str, tuple[int, ...]]:
        """Return the path of the leaf that holds an entry of a row, and the index in the leaf."""
        leaf = int(np.searchsorted(self.starts, entry, side="right")) - 1
        shape = [shape for shape in _shapes(self.shapes) if math.prod(shape)][leaf]
        index = np.unravel_index(entry - self.starts[leaf], shape) if shape else ()
        return self.paths[leaf], tuple(int(i) for i in index)

    def _parts(self, rows, dtype) -> list[np.ndarray]:
        """Return the entries of each leaf in its dtype."""
        # In NumPy, because JAX compiles a program for every slice of every leaf.
        ends = np.cumsum([math.prod(shape) for shape in _shapes(self.shapes)])
        parts = np.split(rows, ends[:-1], axis=-1)
        dtypes = self.dtypes if dtype is None else (dtype,) * len(parts)
        return [part.astype(dtype) for part, dtype in zip(parts, dtypes, strict=True)]

    def _tree(self, rows, dtype):
        parts = iter(self._parts(rows, dtype))
        return jax.tree.map(lambda shape: next(parts).reshape(*rows.shape[:-1], *shape), self.shapes, is_leaf=_is_shape)


def flatten(tree: PyTree, axes: int = 2) -> np.ndarray:
    """Concatenate the leaves in float64 along one axis that follows the first ``axes`` axes."""
    leaves = [np.asarray(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)]
    return np.concatenate([leaf.reshape(*leaf.shape[:axes], -1) for leaf in leaves], axis=-1)


def make_problem(params: PyTree, *, extra_leaves: bool) -> Problem:
    """Return every sequence for the caller's parameters.

    Leaves of a large tree are replaced by their first rows and columns, because an optimizer treats all entries alike.

    Args:
        params: a tree of floating arrays.
        extra_leaves: whether to add leaves of the shapes ``EXTRA_SHAPES``.
    """
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    corner = _SHORTEST_AXIS if size > _LARGEST_TREE else None
    own = jax.tree.map(lambda leaf: np.asarray(leaf).astype(np.float64)[(slice(corner),) * leaf.ndim], params)
    shapes: PyTree = jax.tree.map(lambda leaf: _Shape(leaf.shape), own)
    dtypes = [jnp.result_type(leaf) for leaf in jax.tree.leaves(params)]
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(own)]
    start = flatten(own, axes=0) if paths else np.zeros(0)
    if extra_leaves:
        extra = jax.tree.map(_Shape, EXTRA_SHAPES, is_leaf=lambda node: isinstance(node, tuple))
        shapes = ExtendedTree(shapes, extra)
        found = jax.tree_util.tree_leaves_with_path(extra, is_leaf=_is_shape)
        paths += [f"extra: {jax.tree_util.keystr(path)}" for path, _ in found]
        dtypes += dtypes[:1] * len(found)
        start = np.concatenate([start, np.zeros(sum(math.prod(shape) for _, shape in found))])
    random = np.random.default_rng(0)
    drawn = _random_pattern(random, start.size)
    # Weight decay has no effect on a parameter at 0.
    start = np.where(np.isfinite(start) & (start != 0), start, drawn)
    sequences = _sequences(random, start.size)
    initial = np.stack([np.zeros_like(start) if name in _ZERO_PARAMETERS else start for name in sequences])
    sizes = np.array([math.prod(shape) for shape in _shapes(shapes)])
    paths = [path for path, size in zip(paths, sizes, strict=True) if size]
    starts = np.cumsum([0, *sizes[sizes > 0]])[:-1]
    gradients = np.stack(list(sequences.values()))
    return Problem(tuple(sequences), shapes, tuple(paths), starts, initial, gradients, tuple(dtypes))


def _sequences(random, size) -> dict[str, np.ndarray]:
    steps = np.arange(STEPS)[:, None]
    pattern = _random_pattern(random, size)

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


def _random_pattern(random, size):
    """Return numbers of random sign, between 1/2 and 2 in size."""
    return random.choice([-1.0, 1.0], size) * random.uniform(0.5, 2.0, size)


class _Shape(tuple):
    """A shape that JAX treats as a leaf of a tree, not as a container."""

    __slots__ = ()


def _is_shape(node):
    return isinstance(node, _Shape)


def _shapes(tree) -> list[tuple[int, ...]]:
    return jax.tree.leaves(tree, is_leaf=_is_shape)
