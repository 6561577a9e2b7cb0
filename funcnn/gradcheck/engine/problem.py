"""What a check knows of the problem around a gradient: its sizes, and what each sample contributes."""

from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnn.gradcheck.engine.precision import Judged

_MOST_NUMBERS = 20_000_000
_MOST_SAMPLES = 65_536


def known_sizes(judged: Judged) -> list[tuple[float, str]]:
    """Numbers of this problem that may have got into a gradient, with their names; no number twice."""
    arrays = [array for array in judged.program.constants if jnp.ndim(array)] if judged.program else []
    batch = batch_size(arrays)
    widths = [np.shape(array)[-1] for array in arrays if np.ndim(array) >= 2]
    widths += [np.shape(leaf)[-1] for leaf in jax.tree.leaves(judged.evaluated.params) if np.ndim(leaf)]
    found: list[tuple[float, str]] = [(batch, "the batch size")] if batch else []
    found += [(batch * width, f"the batch size times {width}, the width of an array") for width in widths if batch]
    found += [(width, f"{width}, the width of an array (the number of outputs?)") for width in widths]
    for number, argument in enumerate(judged.evaluated.arguments[1:]):
        for leaf in jax.tree.leaves(argument):
            is_array = isinstance(leaf, jax.Array | np.ndarray | np.generic)
            is_number = is_array and leaf.ndim == 0 and jnp.issubdtype(leaf.dtype, np.number)
            if is_number or isinstance(leaf, float | int):
                found.append((float(np.real(leaf)), f"argument {number + 1} after the parameters"))
    for path, leaf in jax.tree_util.tree_leaves_with_path(judged.evaluated.params):
        if np.ndim(leaf) == 0:
            found.append((float(np.real(leaf)), f"the parameter {jax.tree_util.keystr(path)}"))
    unique: dict[float, str] = {}
    for value, word in found:
        unique.setdefault(float(value), word)
    return list(unique.items())


def batch_size(arrays: list[Any]) -> int | None:
    """The commonest first axis, of the arrays with most axes first: labels and matrices have it, vectors may not."""
    for least in (2, 1):
        sizes = Counter(np.shape(array)[0] for array in arrays if np.ndim(array) >= least and np.shape(array)[0] > 1)
        if sizes:
            return sizes.most_common(1)[0][0]
    return None


def contributions(judged: Judged, position: int) -> np.ndarray | None:
    """The gradient of each sample alone for one leaf, ``(samples, *shape)``; ``None`` where there are no samples.

    The arguments are cut along their first axis; losses that aren't means over samples (batch normalization) show by
    their samples not adding up.
    """
    evaluated = judged.evaluated
    leaves, structure = jax.tree.flatten(evaluated.arguments[1:])
    samples = batch_size([leaf for leaf in leaves if _is_data(leaf)])
    params, params_structure = jax.tree.flatten(evaluated.params)
    if not samples or samples > _MOST_SAMPLES or samples * params[position].size > _MOST_NUMBERS:
        return None

    def of_one(leaf, sample):
        rest = [
            jax.lax.dynamic_slice_in_dim(jnp.asarray(part), sample, 1)
            if _is_data(part) and len(part) == samples
            else part
            for part in leaves
        ]
        whole = [leaf if number == position else param for number, param in enumerate(params)]
        return evaluated.loss_fn(jax.tree.unflatten(params_structure, whole), *jax.tree.unflatten(structure, rest))

    try:
        gradient = jax.vmap(jax.grad(of_one), in_axes=(None, 0))
        return np.asarray(gradient(params[position], jnp.arange(samples)))
    except Exception:  # the caller's function may need its whole batch, or NumPy's arrays
        return None


def _is_data(leaf):
    return isinstance(leaf, jax.Array | np.ndarray) and leaf.ndim > 0 and leaf.dtype != jnp.uint32
