"""What tells one run from another, beside the shapes of its arrays: what a checkpoint is compared with."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from funcnn.training.fingerprint import fingerprints, key_data
from funcnn.training.steps import Carry, Recipe
from funcnn.types import Batch


def told_recipe(recipe: Recipe, carry: Carry) -> dict[str, Any]:
    """The recipe in words and figures that are the same in another process, on another device.

    An optimizer is a pair of functions that don't tell their settings: the sizes of its first updates stand for it.
    """
    return {
        "model": repr(recipe.model).splitlines(),
        "loss": repr(recipe.loss),
        "grad": _name(recipe.grad),
        **_first_updates(recipe.optimizer, carry),
        "batch_size": recipe.batch_size,
        "monitor": recipe.watched,
    }


def _first_updates(optimizer: optax.GradientTransformation, carry: Carry) -> dict[str, float]:
    """Sums of three updates in a row; the gradients, multiples of the parameters, differ, for decays to be seen."""
    found, opt_state = {}, carry.opt_state
    for name, multiple in (("first_update", 1), ("second_update", -0.5), ("third_update", 2)):
        gradients = jax.tree.map(lambda leaf, multiple=multiple: (multiple * leaf).astype(leaf.dtype), carry.params)
        updates, opt_state = optimizer.update(gradients, opt_state, carry.params)
        found[name] = sum(float(np.abs(np.asarray(leaf, np.float64)).sum()) for leaf in jax.tree.leaves(updates))
    return found


def told_start(key: jax.Array, given: PyTree) -> dict[str, Any]:
    """The random key, and the parameters and state that were given, not drawn."""
    return {"key": np.asarray(key_data(key)).ravel().tolist(), "given": jax.tree.leaves(fingerprints(given))}


def told_data(name: str, data: Batch | tuple | None) -> dict[str, Any]:
    """The fingerprints of arrays; of an iterable nothing is known before it has been read."""
    if data is None:
        return {f"{name}.x": None, f"{name}.y": None}
    return {f"{name}.{part}": fingerprints(jnp.asarray(array)) for part, array in zip("xy", data, strict=True)}


def _name(function: Callable) -> str:
    plain = function.func if isinstance(function, partial) else function
    return getattr(plain, "__name__", type(plain).__name__)
