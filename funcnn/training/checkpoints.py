"""Checkpoints of a run, by Orbax: all that is needed to go on to the last bit, and to know a damaged or foreign one."""

import base64
import contextlib
import hashlib
import json
import logging
import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding, SingleDeviceSharding
from jaxtyping import Array

from funcnn._checks import positive_integer
from funcnn._optional import needed
from funcnn.training.fingerprint import fingerprints, host_fingerprint, key_data

FORMAT = 1


class Checkpoints(NamedTuple):
    """Where and how often ``fit`` saves a run.

    Fields:
        directory: a folder for this run alone; it is made where it doesn't exist.
        every: steps between two checkpoints; ``None`` for one after every epoch. The last step is always saved.
        keep: how many of the newest are kept.
        damaged: what a damaged checkpoint gets: ``"refuse"`` stops with the reason, ``"previous"`` passes it over for
            the one before it; it is replaced when the run comes to its step again.

    Example:
        >>> Checkpoints("runs/digits", every=100).keep
        3
    """

    directory: str | os.PathLike
    every: int | None = None
    keep: int = 3
    damaged: Literal["refuse", "previous"] = "refuse"


class CheckpointError(ValueError):
    """A checkpoint that can't be used: damaged, or of another run. The message says which and why."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint whose contents aren't what was written."""


class Saved(NamedTuple):
    """What a checkpoint holds: arrays by name, and what is told of them."""

    arrays: dict[str, Array]
    about: dict[str, Any]


def checked_checkpoints(given: Any) -> Checkpoints | None:
    """The settings, from themselves or a folder's path alone.

    Raises:
        TypeError, ValueError: settings that aren't valid.
    """
    if given is None:
        return None
    if isinstance(given, str | os.PathLike):
        given = Checkpoints(given)
    if not isinstance(given, Checkpoints):
        raise TypeError(f"fit(checkpoints): expected a folder or Checkpoints(folder, …), got {given!r}.")
    if given.every is not None:
        positive_integer("Checkpoints(every)", given.every)
    positive_integer("Checkpoints(keep)", given.keep)
    if given.damaged not in ("refuse", "previous"):
        raise ValueError(f"Checkpoints(damaged): expected 'refuse' or 'previous', got {given.damaged!r}.")
    folder = Path(given.directory).absolute()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"Checkpoints(directory): expected a folder, got the file {folder}.")
    return given._replace(directory=folder)


class Store:
    """The checkpoints of one run in their folder."""

    def __init__(self, settings: Checkpoints, manager: Any, orbax: Any, elsewhere: Sharding):
        self._settings, self._manager, self._orbax, self._elsewhere = settings, manager, orbax, elsewhere
        self._passed_over: set[int] = set()

    def save(self, step: int, arrays: dict[str, Array], history: dict[str, np.ndarray], about: dict[str, Any]) -> None:
        """Write a checkpoint while training goes on; it takes its place when all of it is on disk, never in part.

        Args:
            step: steps done.
            arrays: what the run goes on from, by name.
            history: what grows while it lasts, by name.
            about: what else is told, as JSON has it.
        """
        if step in self._passed_over:
            self._passed_over.remove(step)
            self._manager.delete(step)
        if step in self._manager.all_steps():
            return
        plain = {name: key_data(jnp.asarray(leaf)) for name, leaf in arrays.items()}
        told = fingerprints(plain) | {name: host_fingerprint(array) for name, array in history.items()}
        plain |= {name: jax.device_put(array, self._elsewhere) for name, array in history.items()}
        whole = about | {
            "format": FORMAT,
            "step": step,
            "leaves": {name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in plain.items()},
            "fingerprints": told,
        }
        whole = json.loads(json.dumps(whole))  # tuples become lists now, not on the way
        args = self._orbax.args
        self._manager.save(
            step,
            args=args.Composite(arrays=args.StandardSave(plain), about=args.JsonSave(whole | {"sha256": _seal(whole)})),
            force=True,
        )

    def newest(self, expected: dict[str, Any], maybe: dict[str, Any], configuration: dict[str, Any]) -> Saved | None:
        """The newest checkpoint, or with ``damaged="previous"`` the newest that is whole; ``None`` where there is none.

        Args:
            expected: the arrays that the run has, by name, with shapes, dtypes and shardings.
            maybe: those that it may have. What else is found (the history) comes as it is.
            configuration: what has to be the same in the run that was saved.

        Raises:
            CheckpointError: it is damaged, or of another run.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                return self._read(step, expected, maybe, configuration)
            except DamagedCheckpointError as error:
                if self._settings.damaged == "refuse":
                    raise
                self._passed_over.add(step)
                warnings.warn(f"{error} It is passed over, for the one before it is asked for.", stacklevel=4)
        if self._passed_over:
            raise CheckpointError(
                f"fit(checkpoints): expected a whole checkpoint in {self._settings.directory}, got damaged ones only: "
                f"{', '.join(map(str, sorted(self._passed_over)))}. Begin again in another folder."
            )
        return None

    def _read(self, step, expected, maybe, configuration) -> Saved:
        args = self._orbax.args
        with self._naming_damage(step):
            about = self._manager.restore(step, args=args.Composite(about=args.JsonRestore())).about
            if not isinstance(about, dict) or about.get("sha256") != _seal(_without(about, "sha256")):
                raise DamagedCheckpointError("its description isn't what was written")
        self._compare(step, about, expected, maybe, configuration)
        known = expected | maybe
        with self._naming_damage(step):
            target = {
                name: jax.ShapeDtypeStruct(
                    tuple(shape), dtype, sharding=getattr(known.get(name), "sharding", self._elsewhere)
                )
                for name, (shape, dtype) in about["leaves"].items()
            }
            found = self._manager.restore(step, args=args.Composite(arrays=args.StandardRestore(target))).arrays
            told = fingerprints({name: leaf for name, leaf in found.items() if name in known})
            told |= {name: host_fingerprint(np.asarray(leaf)) for name, leaf in found.items() if name not in known}
            wrong = sorted(name for name, value in about["fingerprints"].items() if told[name] != value)
            if wrong:
                raise DamagedCheckpointError(f"{wrong[0]} isn't what was written")
        arrays = {name: _as_expected(leaf, known.get(name)) for name, leaf in found.items()}
        return Saved(arrays, about)

    def _compare(self, step, about, expected, maybe, configuration) -> None:
        """Refuse the checkpoint of another run, and say in what it differs."""
        folder = self._settings.directory
        where = f"fit(checkpoints): expected a checkpoint of this run in {folder}, got step {step} of another"
        advice = "Use a folder of its own for each run, or give back what was changed."
        for name, leaf in expected.items():
            now = [list(leaf.shape), str(leaf.dtype)]
            if about["leaves"].get(name) != now:
                was = about["leaves"].get(name)
                told = "missing" if was is None else f"{was[1]} of shape {tuple(was[0])}"
                raise CheckpointError(f"{where}: {name} was {told} and is {now[1]} of shape {tuple(now[0])}. {advice}")
        known = expected.keys() | maybe.keys()
        more = [name for name in about["leaves"] if name not in known and not name.startswith("history.")]
        if more:
            raise CheckpointError(f"{where}: it also holds {more[0]}. {advice}")
        for name, value in configuration.items():
            was = about["configuration"].get(name)
            if not _is_same(was, value):
                raise CheckpointError(f"{where}: {name} was {was} and is {value}. {advice}")

    @contextlib.contextmanager
    def _naming_damage(self, step) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever Orbax, TensorStore or a decoder raises at broken bytes
            is_told = isinstance(error, DamagedCheckpointError)
            reason = str(error) if is_told else f"{type(error).__name__}: {error}".splitlines()[0][:200]
            raise DamagedCheckpointError(
                f"fit(checkpoints): expected a whole checkpoint, got a damaged one, step {step} in "
                f"{self._settings.directory}: {reason}. For the one before it: Checkpoints(…, damaged='previous')."
            ) from error

    def wait(self) -> None:
        """Until everything that was saved is on disk."""
        self._manager.wait_until_finished()


@contextlib.contextmanager
def opened(settings: Checkpoints | None, elsewhere: Sharding | None) -> Iterator[Store | None]:
    """The store of a run; at the end everything is on disk.

    ``elsewhere`` is where arrays are put that aren't the carry's; ``None`` for the first device.
    """
    if settings is None:
        yield None
        return
    orbax = needed("orbax.checkpoint", "fit(checkpoints)", "training")
    # Orbax tells of every step it takes; what matters reaches the caller as an exception.
    logging.getLogger("absl").setLevel(logging.ERROR)
    options = orbax.CheckpointManagerOptions(
        max_to_keep=settings.keep, create=True, cleanup_tmp_directories=jax.process_count() == 1,
        step_format_fixed_length=12,
    )  # fmt: skip
    manager = orbax.CheckpointManager(settings.directory, options=options, item_names=("arrays", "about"))
    try:
        yield Store(settings, manager, orbax, elsewhere or SingleDeviceSharding(jax.local_devices()[0]))
        manager.wait_until_finished()
    finally:
        manager.close()


def named_leaves(prefix: str, tree: Any) -> dict[str, Array]:
    """The arrays of a tree by name: ``params.0.kernel``."""
    return {".".join([prefix, *map(_word, path)]): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def with_leaves(prefix: str, tree: Any, arrays: dict[str, Array]) -> Any:
    """A tree with the arrays of those names in it."""
    return jax.tree.unflatten(jax.tree.structure(tree), [arrays[name] for name in named_leaves(prefix, tree)])


def as_text(reading: Any) -> Any:
    """An iterator's own state as JSON holds it: bytes in base 64, all else as it is."""
    return {"base64": base64.b64encode(reading).decode()} if isinstance(reading, bytes) else {"json": reading}


def from_text(text: Any) -> Any:
    """The inverse of ``as_text``."""
    return base64.b64decode(text["base64"]) if "base64" in text else text["json"]


def _word(entry):
    return str(next(getattr(entry, field) for field in ("name", "key", "idx") if hasattr(entry, field)))


def _seal(about: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _is_same(was: Any, value: Any) -> bool:
    """Whether a setting is the same; figures that a device computed may differ by its rounding."""
    if isinstance(was, float) and isinstance(value, float):
        return math.isclose(was, value, rel_tol=1e-3)
    return bool(was == value)


def _without(about, name):
    return {key: value for key, value in about.items() if key != name}


def _as_expected(leaf, expected):
    if expected is not None and hasattr(expected, "key_impl"):
        return jax.random.wrap_key_data(leaf, impl=expected.key_impl)
    return leaf


class ExpectedKey(NamedTuple):
    """What a typed random key is in a checkpoint: its words, and how to make it a key again."""

    shape: tuple[int, ...]
    dtype: Any
    sharding: Any
    key_impl: Any


def expected_leaf(leaf: Array) -> Any:
    """What a checkpoint has to hold in an array's place."""
    words = key_data(leaf)
    if words is not leaf:
        return ExpectedKey(words.shape, words.dtype, words.sharding, jax.random.key_impl(leaf))
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
