"""The identity of a run, beside the shapes of its arrays: what a checkpoint is compared with."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from funcnn.training.early_stopping import EarlyStopping
from funcnn.training.fingerprint import fingerprints, key_data
from funcnn.training.steps import Carry, TrainingSetup
from funcnn.types import Batch, LossSpec, setting_text


def setup_identity(setup: TrainingSetup, carry: Carry) -> dict[str, Any]:
    """Return the settings as text and numbers that are the same in another process and on another device.

    The settings of an optimizer cannot be read from its two functions: the sizes of its first updates stand for them.
    """
    return {
        "model": _without_addresses(repr(setup.model)).splitlines(),
        # A loss without a spec is known by its function.
        "loss": _name(setup.loss.forward) if setup.loss.spec == LossSpec() else _without_addresses(repr(setup.loss)),
        "grad": setting_text(setup.grad),
        **_first_updates(setup.optimizer, carry),
        "batch_size": setup.batch_size,
        "monitor": setup.monitor_every,
    }


def _without_addresses(text: str) -> str:
    """Remove the addresses of functions, which a user's own layer may have in its text."""
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _name(function: Callable) -> str:
    plain = function.func if isinstance(function, partial) else function
    return getattr(plain, "__name__", type(plain).__name__)


def _first_updates(optimizer: optax.GradientTransformation, carry: Carry) -> dict[str, float]:
    """Return the sums of three updates in a row.

    The gradients are different multiples of the parameters, so that the decay rates of the moments change the sums.
    """
    found, opt_state = {}, carry.opt_state
    for name, multiple in (("first_update", 1), ("second_update", -0.5), ("third_update", 2)):
        gradients = jax.tree.map(lambda leaf, multiple=multiple: (multiple * leaf).astype(leaf.dtype), carry.params)
        updates, opt_state = optimizer.update(gradients, opt_state, carry.params)
        found[name] = sum(float(np.abs(np.asarray(leaf, np.float64)).sum()) for leaf in jax.tree.leaves(updates))
    return found


def start_identity(key: jax.Array, given: PyTree) -> dict[str, Any]:
    """Return the random key, and the fingerprints of given parameters and state."""
    return {"key": np.asarray(key_data(key)).ravel().tolist(), "given": jax.tree.leaves(fingerprints(given))}


def data_identity(name: str, data: Batch | tuple | None) -> dict[str, Any]:
    """Return the fingerprints of arrays. ``None`` stands for an iterable, whose data is not known before it is read."""
    if data is None:
        return {f"{name}.x": None, f"{name}.y": None}
    return {f"{name}.{part}": fingerprints(jnp.asarray(array)) for part, array in zip("xy", data, strict=True)}


def validation_identity(
    has_validation: bool, every: int, metrics: list[str], early_stopping: EarlyStopping | None
) -> dict[str, Any]:
    """Return how a run is validated and when it stops early."""
    return {"validate": [has_validation, every, metrics], "early_stopping": early_stopping and list(early_stopping)}
