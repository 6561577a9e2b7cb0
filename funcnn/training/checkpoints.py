"""Checkpoints of a run, by Orbax. A run resumes from one bit by bit; a damaged or foreign one is recognized."""

import base64
import contextlib
import hashlib
import json
import logging
import math
import os
import warnings
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding, SingleDeviceSharding
from jaxtyping import Array

from funcnn._checks import positive_integer
from funcnn._optional import import_optional
from funcnn.training.fingerprint import fingerprints, host_fingerprint, key_data

FORMAT = 2
"""The version of a checkpoint's contents. Version 1 has other names of fields."""


class Checkpoints(NamedTuple):
    """Where and how often ``fit`` saves a run.

    Fields:
        folder: a folder for this run alone. It is created where it does not exist.
        every: steps between two checkpoints; ``None`` for one after every epoch. The last step is always saved.
        keep: how many of the newest checkpoints are kept.
        damaged: what to do with a damaged checkpoint. ``"refuse"`` raises an error with the reason. ``"previous"``
            resumes from the one before it; the damaged one is replaced when the run reaches its step again.

    Example:
        >>> Checkpoints("runs/digits", every=100).keep
        3
    """

    folder: str | os.PathLike
    every: int | None = None
    keep: int = 3
    damaged: Literal["refuse", "previous"] = "refuse"


class CheckpointError(ValueError):
    """A checkpoint cannot be used: it is damaged, or of another run. The message gives the reason."""


class DamagedCheckpointError(CheckpointError):
    """The content of a checkpoint is not what was written."""


class Saved(NamedTuple):
    """The content of a checkpoint: arrays by name, and their description."""

    arrays: dict[str, Array]
    description: dict[str, Any]


def checked_checkpoints(given: Any) -> Checkpoints | None:
    """Return the settings, from ``Checkpoints`` itself or from the path of a folder.

    Raises:
        TypeError, ValueError: the settings are not valid.
    """
    if given is None:
        return None
    if isinstance(given, str | os.PathLike):
        given = Checkpoints(given)
    if not isinstance(given, Checkpoints):
        raise TypeError(f"fit(checkpoints): expected a folder or Checkpoints(folder, …), got {given!r}. Pass a path.")
    if given.every is not None:
        positive_integer("Checkpoints(every)", given.every)
    positive_integer("Checkpoints(keep)", given.keep)
    if given.damaged not in ("refuse", "previous"):
        raise ValueError(
            f"Checkpoints(damaged): expected 'refuse' or 'previous', got {given.damaged!r}. Choose one of these."
        )
    folder = Path(given.folder).absolute()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"Checkpoints(folder): expected a folder, got the file {folder}. Choose another name.")
    return given._replace(folder=folder)


class Store:
    """The checkpoints of one run in their folder."""

    def __init__(self, settings: Checkpoints, manager: Any, orbax: Any, default_sharding: Sharding):
        self._settings, self._manager, self._orbax, self._default_sharding = settings, manager, orbax, default_sharding
        self._skipped: set[int] = set()

    def save(self, step: int, arrays: dict[str, Array], history: dict[str, np.ndarray],
             description: dict[str, Any]) -> None:  # fmt: skip
        """Write a checkpoint while training continues. It appears in the folder when it is complete.

        Args:
            step: steps done.
            arrays: parameters, states and what else the run resumes from, by name.
            history: the arrays that grow during the run, by name.
            description: everything else, as JSON.
        """
        if step in self._skipped:
            self._skipped.remove(step)
            self._manager.delete(step)
        if step in self._manager.all_steps():
            return
        plain = {name: key_data(jnp.asarray(leaf)) for name, leaf in arrays.items()}
        prints = fingerprints(plain) | {name: host_fingerprint(array) for name, array in history.items()}
        plain |= {name: jax.device_put(array, self._default_sharding) for name, array in history.items()}
        whole = description | {
            "format": FORMAT,
            "step": step,
            "leaves": {name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in plain.items()},
            "fingerprints": prints,
        }
        whole = json.loads(json.dumps(whole))  # tuples become lists before the hash is taken
        args = self._orbax.args
        self._manager.save(
            step,
            args=args.Composite(arrays=args.StandardSave(plain), about=args.JsonSave(whole | {"sha256": _hash(whole)})),
            force=True,
        )

    def newest(self, expected: dict[str, Any], optional: dict[str, Any], configuration: dict[str, Any]) -> Saved | None:
        """Return the newest checkpoint, with ``damaged="previous"`` the newest undamaged one; ``None`` for none.

        Args:
            expected: the arrays of the run, by name, with shapes, dtypes and shardings.
            optional: those that it may have. All others, of the history, are returned as they are.
            configuration: what has to be equal in the run that was saved.

        Raises:
            CheckpointError: it is damaged, or of another run.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                return self._read(step, expected, optional, configuration)
            except DamagedCheckpointError as error:
                if self._settings.damaged == "refuse":
                    raise
                self._skipped.add(step)
                warnings.warn(
                    f"{error} It is skipped: damaged='previous' resumes from the one before it.", stacklevel=4
                )
        if self._skipped:
            raise CheckpointError(
                f"fit(checkpoints): expected a whole checkpoint in {self._settings.folder}, got damaged ones only: "
                f"{', '.join(map(str, sorted(self._skipped)))}. Begin again in another folder."
            )
        return None

    def _read(self, step, expected, optional, configuration) -> Saved:
        args = self._orbax.args
        with self._damage_as_error(step):
            description = self._manager.restore(step, args=args.Composite(about=args.JsonRestore())).about
            if not isinstance(description, dict) or description.get("sha256") != _hash(_without(description, "sha256")):
                raise DamagedCheckpointError("its description isn't what was written")
        self._compare(step, description, expected, optional, configuration)
        known = expected | optional
        with self._damage_as_error(step):
            target = {
                name: jax.ShapeDtypeStruct(
                    tuple(shape), dtype, sharding=getattr(known.get(name), "sharding", self._default_sharding)
                )
                for name, (shape, dtype) in description["leaves"].items()
            }
            found = self._manager.restore(step, args=args.Composite(arrays=args.StandardRestore(target))).arrays
            prints = fingerprints({name: leaf for name, leaf in found.items() if name in known})
            prints |= {name: host_fingerprint(np.asarray(leaf)) for name, leaf in found.items() if name not in known}
            wrong = sorted(name for name, value in description["fingerprints"].items() if prints[name] != value)
            if wrong:
                raise DamagedCheckpointError(f"{wrong[0]} isn't what was written")
        arrays = {name: _as_expected(leaf, known.get(name)) for name, leaf in found.items()}
        return Saved(arrays, description)

    def _compare(self, step, description, expected, optional, configuration) -> None:
        """Raise where the checkpoint is of another run; the message names the first difference."""
        folder = self._settings.folder
        if description.get("format") != FORMAT:
            raise CheckpointError(
                f"fit(checkpoints): expected checkpoints of format {FORMAT} in {folder}, got format "
                f"{description.get('format')} at step {step}. Resume with the version of funcnn that wrote it, or use "
                "another folder."
            )
        where = f"fit(checkpoints): expected a checkpoint of this run in {folder}, got step {step} of another"
        advice = "Use a folder of its own for each run, or give back what was changed."
        for name, leaf in expected.items():
            now = [list(leaf.shape), str(leaf.dtype)]
            was = description["leaves"].get(name)
            if was != now:
                old = "missing" if was is None else f"{was[1]} of shape {tuple(was[0])}"
                raise CheckpointError(f"{where}: {name} was {old} and is {now[1]} of shape {tuple(now[0])}. {advice}")
        known = expected.keys() | optional.keys()
        more = [name for name in description["leaves"] if name not in known and not name.startswith("history.")]
        if more:
            raise CheckpointError(f"{where}: it also holds {more[0]}. {advice}")
        for name, value in configuration.items():
            was = description["configuration"].get(name)
            if not _is_same(was, value):
                was, value = _differences(was, value)
                raise CheckpointError(f"{where}: {name} was {was} and is {value}. {advice}")

    @contextlib.contextmanager
    def _damage_as_error(self, step) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever Orbax, TensorStore or a decoder raises at broken bytes
            is_known = isinstance(error, DamagedCheckpointError)
            reason = str(error) if is_known else f"{type(error).__name__}: {error}".splitlines()[0][:200]
            raise DamagedCheckpointError(
                f"fit(checkpoints): expected a whole checkpoint, got a damaged one, step {step} in "
                f"{self._settings.folder}: {reason}. For the one before it: Checkpoints(…, damaged='previous')."
            ) from error

    def wait(self) -> None:
        """Wait until everything that was saved is on disk."""
        self._manager.wait_until_finished()


@contextlib.contextmanager
def open_store(settings: Checkpoints | None, default_sharding: Sharding | None) -> Iterator[Store | None]:
    """Open the checkpoints of a run. At the end of the context everything is on disk.

    Args:
        settings: where and how often; ``None`` for no checkpoints.
        default_sharding: where arrays are placed that are not part of the carry; ``None`` for the first device.
    """
    if settings is None:
        yield None
        return
    orbax = import_optional("orbax.checkpoint", "fit(checkpoints)", "training")
    # Orbax logs every step that it takes. Errors reach the caller as exceptions.
    logging.getLogger("absl").setLevel(logging.ERROR)
    options = orbax.CheckpointManagerOptions(
        max_to_keep=settings.keep, create=True, cleanup_tmp_directories=jax.process_count() == 1,
        step_format_fixed_length=12,
    )  # fmt: skip
    manager = orbax.CheckpointManager(settings.folder, options=options, item_names=("arrays", "about"))
    try:
        yield Store(settings, manager, orbax, default_sharding or SingleDeviceSharding(jax.local_devices()[0]))
        manager.wait_until_finished()
    finally:
        manager.close()


def named_leaves(prefix: str, tree: Any) -> dict[str, Array]:
    """Return the arrays of a tree by name: ``params.0.kernel``."""
    return {".".join([prefix, *map(_key_name, path)]): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def with_leaves(prefix: str, tree: Any, arrays: dict[str, Array]) -> Any:
    """Return the tree with its arrays replaced by those of the same names."""
    return jax.tree.unflatten(jax.tree.structure(tree), [arrays[name] for name in named_leaves(prefix, tree)])


def as_text(reader_state: Any) -> Any:
    """Return an iterator's state in a form for JSON: bytes in base 64, everything else unchanged."""
    return (
        {"base64": base64.b64encode(reader_state).decode()}
        if isinstance(reader_state, bytes)
        else {"json": reader_state}
    )


def from_text(text: Any) -> Any:
    """Return the iterator's state, the inverse of ``as_text``."""
    return base64.b64decode(text["base64"]) if "base64" in text else text["json"]


def _key_name(entry):
    return str(next(getattr(entry, field) for field in ("name", "key", "idx") if hasattr(entry, field)))


def _hash(description: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def _is_same(was: Any, value: Any) -> bool:
    """Return whether a setting is unchanged. Numbers that a device computes may differ by rounding."""
    if isinstance(was, float) and isinstance(value, float):
        return math.isclose(was, value, rel_tol=1e-3)
    return bool(was == value)


def _differences(was: Any, value: Any) -> tuple[Any, Any]:
    """Return the first lines that differ where both values are lists of lines, and the values themselves elsewhere."""
    if not all(isinstance(lines, list) and all(isinstance(line, str) for line in lines) for lines in (was, value)):
        return was, value
    pairs = ((old.strip(" ,"), new.strip(" ,")) for old, new in zip_longest(was, value, fillvalue="missing"))
    differing = [pair for pair in pairs if pair[0] != pair[1]][:3]
    old, new = ("; ".join(lines) for lines in zip(*differing, strict=True))
    return old, new


def _without(description, name):
    return {key: value for key, value in description.items() if key != name}


def _as_expected(leaf, expected):
    if expected is not None and hasattr(expected, "key_impl"):
        return jax.random.wrap_key_data(leaf, impl=expected.key_impl)
    return leaf


class ExpectedKey(NamedTuple):
    """A typed random key in a checkpoint: its words, and the implementation of the key."""

    shape: tuple[int, ...]
    dtype: Any
    sharding: Any
    key_impl: Any


def expected_leaf(leaf: Array) -> Any:
    """Return the shape, dtype and sharding that a checkpoint has to hold for an array."""
    words = key_data(leaf)
    if words is not leaf:
        return ExpectedKey(words.shape, words.dtype, words.sharding, jax.random.key_impl(leaf))
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
