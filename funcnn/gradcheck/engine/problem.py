"""The data around a gradient: the sizes of the problem, and the contribution of each sample."""

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnn._numerics.program import jaxpr_constants, jit_once
from funcnn.gradcheck.engine.precision import Comparison
from funcnn.gradcheck.explanation.problem import Problem

_MAX_NUMBERS = 20_000_000
_MAX_SAMPLES = 65_536


def describe_problem(comparison: Comparison) -> Problem:
    """Return what the diagnosis of a wrong gradient is made from."""
    return Problem(
        comparison.gradients.params,
        comparison.gradients.arguments[1:],
        comparison.program,
        comparison.gradient_program,
        comparison.spacing,
        functools.cache(lambda: known_sizes(comparison)),
        contributions(comparison),
        comparison.gradients.loss_fn,
    )


def known_sizes(comparison: Comparison) -> list[tuple[float, str]]:
    """Return numbers of this problem that may be factors of a wrong gradient, with their names; no number twice."""
    given = [leaf for leaf in jax.tree.leaves(comparison.gradients.arguments[1:]) if _is_data(leaf)]
    arrays = constants_of(comparison.program.jaxpr) if comparison.program else given
    batch = batch_size(given) or batch_size(arrays)
    widths = [np.shape(array)[-1] for array in arrays if np.ndim(array) >= 2]
    widths += [np.shape(leaf)[-1] for leaf in jax.tree.leaves(comparison.gradients.params) if np.ndim(leaf)]
    found: list[tuple[float, str]] = [(batch, "the batch size")] if batch else []
    found += [(batch * width, f"the batch size times {width}, the width of an array") for width in widths if batch]
    found += [(width, f"{width}, the width of an array (the number of outputs?)") for width in widths]
    for number, argument in enumerate(comparison.gradients.arguments[1:]):
        for leaf in jax.tree.leaves(argument):
            is_array = isinstance(leaf, jax.Array | np.ndarray | np.generic)
            is_number = is_array and leaf.ndim == 0 and jnp.issubdtype(leaf.dtype, np.number)
            if is_number or isinstance(leaf, float | int):
                found.append((float(np.real(leaf)), f"argument {number + 1} after the parameters"))
    for path, leaf in jax.tree_util.tree_leaves_with_path(comparison.gradients.params):
        if np.ndim(leaf) == 0:
            found.append((float(np.real(leaf)), f"the parameter {jax.tree_util.keystr(path)}"))
    unique: dict[float, str] = {}
    for value, word in found:
        unique.setdefault(float(value), word)
    return list(unique.items())


def constants_of(jaxpr: Any) -> list[Any]:
    """Return the arrays that a program closes over, those of the programs that it calls too, as a jitted one."""
    known = {id(array): array for array in jaxpr_constants(jaxpr) if jnp.ndim(array)}
    return [array for array in known.values() if not jnp.issubdtype(array.dtype, jax.dtypes.extended)]


def batch_size(arrays: list[Any]) -> int | None:
    """Return the most common length of the first axis: of matrices if there are any, of vectors otherwise.

    Of two that are as common, it is that of the later array: targets have the batch first, sequences may have the time.
    """
    for least in (2, 1):
        lengths = [np.shape(array)[0] for array in arrays if np.ndim(array) >= least]
        sizes = Counter(length for length in reversed(lengths) if length > 1)
        if sizes:
            return sizes.most_common(1)[0][0]
    return None


def contributions(comparison: Comparison) -> Callable[[int], np.ndarray | None]:
    """Return the function from a leaf's position to the gradient of each sample alone, ``(samples, *shape)``.

    It returns ``None`` if there are no samples. The arguments are sliced along their first axis. For a loss that isn't
    a mean over samples, as with batch normalization, the contributions don't add up to the gradient.
    """
    gradients = comparison.gradients
    leaves, structure = jax.tree.flatten(gradients.arguments[1:])
    samples = batch_size([leaf for leaf in leaves if _is_data(leaf)])
    params = jax.tree.leaves(gradients.params)

    def of_one(some, sample, positions):
        rest = [
            jax.lax.dynamic_slice_in_dim(jnp.asarray(part), sample, 1)
            if _is_data(part) and len(part) == samples
            else part
            for part in leaves
        ]
        given = dict(zip(positions, some, strict=True))
        whole = [given.get(number, param) for number, param in enumerate(params)]
        return gradients.loss_fn(
            jax.tree.unflatten(jax.tree.structure(gradients.params), whole), *jax.tree.unflatten(structure, rest)
        )

    @functools.cache
    def of_leaves(positions):
        if not samples or samples > _MAX_SAMPLES or samples * sum(params[n].size for n in positions) > _MAX_NUMBERS:
            return None
        gradient = jit_once(jax.vmap(jax.grad(functools.partial(of_one, positions=positions)), in_axes=(None, 0)))
        try:
            return [np.asarray(leaf) for leaf in gradient([params[n] for n in positions], np.arange(samples))]
        except Exception:  # the caller's function may need its whole batch, or NumPy's arrays
            return None

    def of_leaf(position):
        together = of_leaves(tuple(range(len(params))))
        if together is not None:
            return together[position]
        alone = of_leaves((position,))
        return None if alone is None else alone[0]

    return of_leaf


def _is_data(leaf):
    return isinstance(leaf, jax.Array | np.ndarray) and leaf.ndim > 0 and leaf.dtype != jnp.uint32
