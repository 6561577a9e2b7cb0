"""The identity of a run: what a checkpoint is compared with, and the first difference in the user's terms."""

import hashlib
import re
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata
from itertools import zip_longest
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from funcnn._checks import numeric_array
from funcnn.training.early_stopping import EarlyStopping
from funcnn.training.fingerprint import fingerprints, host_fingerprint, key_data
from funcnn.training.program import held_settings, program_digest
from funcnn.training.steps import Carry, TrainingSetup
from funcnn.types import Batch, setting_text

JAX_SETTINGS = ("jax_enable_x64", "jax_threefry_partitionable", "jax_default_matmul_precision")
"""Settings of JAX that change numbers without changing a program."""

EXPLAINED_BY = {
    "model": ("the model's forward pass", ("model",)),
    "loss": ("the loss's forward pass", ("loss",)),
    "loss_backward": ("the loss's backward pass", ("loss_backward",)),
    "gradients": ("the gradient of a step", ("model", "gradients")),
    "optimizer": ("the optimizer's update", ("optimizer",)),
    "metrics": ("a metric", ()),
}
"""Of each program, in the order of comparison: its name for users, and the settings that may explain a difference."""


class Identity(NamedTuple):
    """What makes two runs the same.

    Fields:
        values: what is compared by value, by name.
        programs: from the shapes of a batch, ``[[shape, dtype], …]`` of x and y, to digests of the programs by name.
        settings: of each part, the names and values that explain a difference of its programs.
    """

    values: dict[str, Any]
    programs: Callable[[list], dict[str, str]]
    settings: dict[str, Any]

    def description(self, batch: list) -> dict[str, Any]:
        """Return what a checkpoint holds of it, as JSON."""
        return {
            "configuration": self.values,
            "batch": batch,
            "programs": self.programs(batch),
            "settings": self.settings,
            "versions": versions(),
        }


def versions() -> dict[str, str]:
    """Return the versions and the kind of device that the bits of a result may depend on."""
    try:
        own = metadata.version("funcnn")
    except metadata.PackageNotFoundError:
        own = "unknown"
    return {"jax": jax.__version__, "funcnn": own, "device": jax.default_backend()}


def batch_shapes(batch: Batch, size: int | None = None) -> list:
    """Return the shapes and dtypes of a batch, or of one with ``size`` samples, as JSON."""
    return [[list(part.shape if size is None else (size, *part.shape[1:])), str(part.dtype)] for part in batch]


def run_identity(
    setup: TrainingSetup, carry: Carry, key: jax.Array, given: PyTree, values: dict[str, Any], metrics: tuple
) -> Identity:
    """Return the identity of a run.

    Args:
        setup: model, loss, optimizer and gradient function.
        carry: the initial one.
        key: the run's key.
        given: parameters and state that the caller gave.
        values: what else is compared by value: data, validation and settings.
        metrics: pairs of a name and a function.
    """
    named = {name: getattr(jax.config, name) for name in JAX_SETTINGS}
    named |= {"key": [str(jax.random.key_impl(key)), *np.asarray(key_data(key)).ravel().tolist()]}
    named |= {"start (given parameters or state)": jax.tree.leaves(fingerprints(given)), **values}
    # Functions that hold the same settings may compute something else: programs decide, and settings explain.
    settings = {
        "model": _without_addresses(repr(setup.model)).splitlines(),
        "loss": {"function": _name(setup.loss.forward), **held_settings(setup.loss.forward)},
        "loss_backward": {"function": _name(setup.loss.backward), **held_settings(setup.loss.backward)},
        "gradients": {"gradient function": setting_text(setup.grad)},
        "optimizer": held_settings((setup.optimizer.init, setup.optimizer.update)),
    }
    return Identity(named, partial(_programs, setup._replace(placement=None), carry, key, metrics), settings)


def _programs(setup: TrainingSetup, carry: Carry, key: jax.Array, metrics: tuple, batch: list) -> dict[str, str]:
    parts: Any = [jax.ShapeDtypeStruct(tuple(shape), dtype) for shape, dtype in batch]
    x, y = parts
    model, loss, optimizer = setup.model, setup.loss, setup.optimizer

    def predict(params, state, x):
        return model.forward(params, state, x, train=False)[0]

    def gradients(params, state, batch, key):
        return setup.grad(model, loss)(params, state, batch, key=key)

    def measure(prediction, target):
        return [metric(prediction, target) for _, metric in metrics]

    def loss_backward(prediction, target):
        value, residuals = loss.forward(prediction, target)
        return loss.backward(residuals, jnp.ones_like(value))

    prediction = jax.eval_shape(predict, carry.params, carry.state, x)
    return {
        "model": program_digest(predict, carry.params, carry.state, x),
        "loss": program_digest(lambda *pair: loss.forward(*pair)[0], prediction, y),
        "loss_backward": program_digest(loss_backward, prediction, y),
        "gradients": program_digest(gradients, carry.params, carry.state, Batch(x, y), key),
        "optimizer": program_digest(_update_of(optimizer), carry.params, carry.opt_state),
        "metrics": program_digest(measure, prediction, y),
    }


def _update_of(optimizer: optax.GradientTransformation) -> Callable:
    """Return the start and the update of an optimizer as one function; gradients are like parameters."""

    def start_and_update(params, opt_state):
        return optimizer.init(params), optimizer.update(params, opt_state, params)

    return start_and_update


def data_identity(name: str, data: Batch | tuple | None) -> dict[str, Any]:
    """Return the fingerprints of arrays. ``None`` stands for an iterable, whose batches are compared when they come."""
    if data is None:
        return {f"{name}.x": None, f"{name}.y": None}
    return {f"{name}.{part}": fingerprints(jnp.asarray(array)) for part, array in zip("xy", data, strict=True)}


def batches_identity(name: str, data: Any) -> str | None:
    """Return one fingerprint of a list of batches; ``None`` for everything else, also for other iterables.

    Another order of the batches is another list.
    """
    if not isinstance(data, Sequence) or isinstance(data, tuple):
        return None
    parts = (np.asarray(numeric_array(name, part)) for batch in data for part in batch)
    return hashlib.sha256(" ".join(map(host_fingerprint, parts)).encode()).hexdigest()[:16]


def validation_identity(
    has_validation: bool, every: int, metrics: list[str], early_stopping: EarlyStopping | None
) -> dict[str, Any]:
    """Return how a run is validated and when it stops early."""
    found: dict[str, Any] = {"validation": has_validation, "epochs between validations": every, "metrics": metrics}
    return found | {"early_stopping": early_stopping and list(early_stopping)}


def first_difference(
    description: dict[str, Any], expected: dict[str, Any], optional: dict[str, Any], identity: Identity
) -> str | None:
    """Return the first difference between the run of a checkpoint and this one; ``None`` where they are the same.

    A difference of versions alone becomes a warning.

    Args:
        description: of the checkpoint.
        expected: the arrays of this run, by name, with shapes and dtypes.
        optional: those that a checkpoint may have.
        identity: of this run.
    """
    was = description["configuration"]
    found = next(
        (_changed(name, was.get(name), now) for name, now in identity.values.items() if was.get(name) != now), None
    )
    found = found or _difference_of_leaves(description["leaves"], expected, optional)
    if found is not None:
        return found
    older = {name: now for name, now in versions().items() if description["versions"].get(name) != now}
    try:
        programs = identity.programs(description["batch"])
    except (TypeError, ValueError) as error:
        return f"its batches don't fit this model: {str(error).splitlines()[0]}"
    for name, (title, parts) in EXPLAINED_BY.items():
        if description["programs"].get(name) != programs[name]:
            reasons = (
                _difference_of_settings(description["settings"].get(part), identity.settings[part]) for part in parts
            )
            reason = next(filter(None, reasons), None)
            # Another version of JAX may trace the same functions to another program: then the settings decide.
            if reason is not None or not older:
                return reason or f"{title} differs"
    if older:
        before = ", ".join(f"{name} {description['versions'].get(name)}" for name in older)
        now = ", ".join(f"{name} {version}" for name, version in older.items())
        warnings.warn(
            f"fit(checkpoints): expected the versions that wrote the checkpoint, {before}, got {now}. Training "
            "goes on; its bits may differ from those of a run without interruption.",
            stacklevel=2,
        )
    return None


def _difference_of_leaves(leaves: dict[str, Any], expected: dict[str, Any], optional: dict[str, Any]) -> str | None:
    for name, leaf in expected.items():
        now, was = [list(leaf.shape), str(leaf.dtype)], leaves.get(name)
        if was != now:
            old = "missing" if was is None else f"{was[1]} of shape {tuple(was[0])}"
            return f"{name} was {old} and is {now[1]} of shape {tuple(now[0])}"
    for name, leaf in optional.items():
        if name in leaves and leaves[name] != [list(leaf.shape), str(leaf.dtype)]:
            return f"{name} has another shape or dtype than the parameters and the state"
    known = expected.keys() | optional.keys()
    more = [name for name in leaves if name not in known and not name.startswith("history.")]
    return f"it also holds {more[0]}" if more else None


def _difference_of_settings(was: Any, now: Any) -> str | None:
    if isinstance(now, list):
        return None if was == now else _changed("model", *_differing_lines(was, now))
    for name in {**was, **now}:
        if was.get(name) != now.get(name):
            return _changed(*_in_users_terms(name, was.get(name), now.get(name)))
    return None


def _in_users_terms(name: str, was: Any, now: Any) -> tuple[str, Any, Any]:
    """Return the name and the values. Optax keeps a learning rate as a step size with the opposite sign."""
    is_rate = name == "step_size" and all(isinstance(size, int | float) and size <= 0 for size in (was, now))
    return ("learning rate", -was, -now) if is_rate else (name.replace("_", " "), was, now)


def _changed(name: str, was: Any, now: Any) -> str:
    """Return the difference of two values in words."""
    if name.split(".")[0] in ("data", "validation") and None not in (was, now):
        return f"the values of {name} are others than in the checkpoint"
    if name in ("key", "start (given parameters or state)"):
        return f"another {name} than in the checkpoint"
    shown = ["none" if value is None else str(value) for value in (was, now)]
    return f"{name} {shown[0]} in the checkpoint, {shown[1]} here"


def _differing_lines(was: list[str], now: list[str]) -> tuple[str, str]:
    """Return the first lines that differ."""
    pairs = ((old.strip(" ,"), new.strip(" ,")) for old, new in zip_longest(was, now, fillvalue="missing"))
    old, new = zip(*[pair for pair in pairs if pair[0] != pair[1]][:3], strict=True)
    return "; ".join(old), "; ".join(new)


def _without_addresses(text: str) -> str:
    """Remove the addresses of functions, which a user's own layer may have in its text."""
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _name(function: Callable) -> str:
    plain = function.func if isinstance(function, partial) else function
    return getattr(plain, "__name__", type(plain).__name__)
