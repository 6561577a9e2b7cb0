"""The checkpoints of one run, by Orbax: written while training continues, and read with all their bits checked."""

import contextlib
import hashlib
import json
import logging
import math
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding, SingleDeviceSharding
from jaxtyping import Array

from funcnn._optional import import_optional
from funcnn.training.checkpoints import Checkpoints
from funcnn.training.errors import CheckpointError, DamagedCheckpointError, OtherRunError
from funcnn.training.fingerprint import fingerprints, host_fingerprint, key_data
from funcnn.training.named_leaves import as_expected
from funcnn.training.run_folder import Owner, remove_step, remove_unfinished, saved_steps, step_path

FORMAT = 4
"""The version of a checkpoint's contents."""

MOST_BYTES, BYTES_AN_ARRAY = 2**21, 2**12
"""The largest file of a checkpoint that describes it, in bytes; what it may have more for each array of the run."""

MOST_HISTORY, MOST_COMPRESSION = 2**26, 16
"""The bytes of a history that are always read; how many times as large as its files a longer one may be."""

_orbax_lock = threading.Lock()
"""Held while Orbax writes or reads: it numbers its operations for the whole process, and mixes up those of threads."""


Compare: TypeAlias = Callable[[dict[str, Any]], str | None]


class Saved(NamedTuple):
    """The content of a checkpoint: arrays by name, and their description."""

    arrays: dict[str, Array]
    description: dict[str, Any]


class Store:
    """The checkpoints of one run in their folder. Only one save is on its way at a time."""

    def __init__(self, settings: Checkpoints, owner: Owner, orbax: Any, default_sharding: Sharding):
        self.folder = Path(settings.folder)
        self._settings, self._owner, self._orbax, self._default_sharding = settings, owner, orbax, default_sharding
        self._skipped: set[int] = set()
        self._writing: threading.Thread | None = None
        self._failure: Exception | None = None
        self._is_warned = False

    def save(self, step: int, arrays: dict[str, Array], history: dict[str, np.ndarray],
             description: dict[str, Any]) -> None:  # fmt: skip
        """Write a checkpoint while training continues. It appears in the folder when it is complete.

        A save that fails is reported by a warning. The next one tries again.

        Args:
            step: steps done.
            arrays: parameters, states and what else the run resumes from, by name.
            history: the arrays that grow during the run, by name.
            description: everything else, as JSON.
        """
        self._warn_of_failure()
        try:
            self._failure = None
            self._begin(step, arrays, history, description)
        except Exception as error:  # whatever Orbax, TensorStore or the file system raises
            self._failure = error
            self._clean()

    def _begin(self, step, arrays, history, description) -> None:
        if jax.process_index() == 0:
            self._owner.acquire()
        if step in self._skipped:
            self._skipped.remove(step)
            remove_step(self.folder, step)
        if step in saved_steps(self.folder):
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
        text = json.dumps(whole)
        most = _most_bytes(len(plain))
        if len(text) > most:
            raise ValueError(
                f"a description of {len(text)} bytes, where at most {most} are read again. The state of the data's "
                f"iterator has {len(json.dumps(description['reader_state']))} of them: keep less in it"
            )
        whole = json.loads(text)  # tuples become lists before the hash is taken
        args = self._orbax.args
        content = args.Composite(arrays=args.StandardSave(plain), about=args.JsonSave(whole | {"sha256": _hash(whole)}))
        _orbax_lock.acquire()
        try:
            # A checkpointer of its own for every save: one that has failed is not used again.
            checkpointer = self._orbax.AsyncCheckpointer(self._orbax.CompositeCheckpointHandler())
            checkpointer.save(step_path(self.folder, step), args=content)
            self._writing = threading.Thread(target=self._end, args=(checkpointer,))
            self._writing.start()
        except BaseException:
            _orbax_lock.release()
            raise

    def _end(self, checkpointer) -> None:
        """Wait until a checkpoint is on disk, and remove those that are no longer kept."""
        try:
            checkpointer.wait_until_finished()
            checkpointer.close()
            if jax.process_index() == 0:
                for step in saved_steps(self.folder)[: -self._settings.keep]:
                    remove_step(self.folder, step)
        except Exception as error:
            self._failure = error
            self._clean()
        finally:
            _orbax_lock.release()

    def _clean(self) -> None:
        if jax.process_count() == 1:
            remove_unfinished(self.folder)

    def wait(self) -> Exception | None:
        """Wait until everything that was saved is on disk. Return the error of the newest save, ``None`` for none."""
        if self._writing is not None:
            self._writing.join()
            self._writing = None
        return self._failure

    def finish(self) -> None:
        """Wait until everything is on disk.

        Raises:
            CheckpointError: the last save has failed.
        """
        failure = self.wait()
        if failure is not None:
            raise CheckpointError(
                f"fit(checkpoints): expected to save the end of the run in {self.folder}, got {_reason(failure)}. The "
                "run is complete, and its result is in this error's .trained."
            ) from failure

    def _warn_of_failure(self) -> None:
        """Warn of the first of several saves in a row that fail."""
        failure = self.wait()
        if failure is not None and not self._is_warned:
            warnings.warn(
                f"fit(checkpoints): expected to save in {self.folder}, got {_reason(failure)}. Training goes on; the "
                "next save tries again.",
                stacklevel=2,
            )
        self._is_warned = failure is not None

    def newest(self, expected: dict[str, Any], optional: dict[str, Any], compare: Compare) -> Saved | None:
        """Return the newest checkpoint, with ``damaged="previous"`` the newest undamaged one; ``None`` for none.

        Args:
            expected: the arrays of the run, by name, with shapes, dtypes and shardings.
            optional: those that it may have. All others, of the history, are returned as they are.
            compare: from the description to the first difference of the two runs, ``None`` for none.

        Raises:
            CheckpointError: it is damaged, or of another run.
        """
        for step in reversed(saved_steps(self.folder)):
            try:
                return self._read(step, expected, optional, compare)
            except DamagedCheckpointError as error:
                if self._settings.damaged == "refuse":
                    raise
                self._skipped.add(step)
                warnings.warn(
                    f"{error} It is skipped: damaged='previous' resumes from the one before it.", stacklevel=4
                )
        if self._skipped:
            raise CheckpointError(
                f"fit(checkpoints): expected a whole checkpoint in {self.folder}, got damaged ones only: "
                f"{', '.join(map(str, sorted(self._skipped)))}. Begin again in another folder."
            )
        return None

    def _read(self, step, expected, optional, compare) -> Saved:
        known = expected | optional
        with self._damage_as_error(step):
            _check_sizes(step_path(self.folder, step), _most_bytes(len(known)))
            description = self._restore(step, about=self._orbax.args.JsonRestore()).about
            if not isinstance(description, dict) or description.get("sha256") != _hash(_without(description, "sha256")):
                raise DamagedCheckpointError("its description isn't what was written")
        self._check_same_run(step, description, compare)
        with self._damage_as_error(step):
            _check_history(step_path(self.folder, step), description["leaves"], known)
            target = {
                name: jax.ShapeDtypeStruct(
                    tuple(shape), dtype, sharding=getattr(known.get(name), "sharding", self._default_sharding)
                )
                for name, (shape, dtype) in description["leaves"].items()
            }
            found = self._restore(step, arrays=self._orbax.args.StandardRestore(target)).arrays
            prints = fingerprints({name: leaf for name, leaf in found.items() if name in known})
            prints |= {name: host_fingerprint(np.asarray(leaf)) for name, leaf in found.items() if name not in known}
            wrong = sorted(name for name, value in description["fingerprints"].items() if prints[name] != value)
            if wrong:
                raise DamagedCheckpointError(f"{wrong[0]} isn't what was written")
        arrays = {name: as_expected(leaf, known.get(name)) for name, leaf in found.items()}
        return Saved(arrays, description)

    def _check_same_run(self, step, description, compare) -> None:
        if description.get("format") != FORMAT:
            raise OtherRunError(
                f"fit(checkpoints): expected checkpoints of format {FORMAT} in {self.folder}, got format "
                f"{description.get('format')} at step {step}. Resume with the version of funcnn that wrote it, or use "
                "another folder."
            )
        difference = compare(description)
        if difference is not None:
            raise OtherRunError(
                f"fit(checkpoints): expected a checkpoint of this run in {self.folder}, got step {step} of another: "
                f"{difference}. Use a folder of its own for each run, or give back what was changed."
            )

    @contextlib.contextmanager
    def _damage_as_error(self, step) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever Orbax, TensorStore or a decoder raises at broken bytes
            is_known = isinstance(error, DamagedCheckpointError)
            reason = str(error) if is_known else f"{type(error).__name__}: {error}".splitlines()[0][:200]
            raise DamagedCheckpointError(
                f"fit(checkpoints): expected a whole checkpoint, got a damaged one, step {step} in "
                f"{self.folder}: {reason}. For the one before it: Checkpoints(…, damaged='previous')."
            ) from error

    def _restore(self, step, **items) -> Any:
        args = self._orbax.args
        with (
            _orbax_lock,
            contextlib.closing(self._orbax.Checkpointer(self._orbax.CompositeCheckpointHandler())) as reader,
        ):
            return reader.restore(step_path(self.folder, step), args=args.Composite(**items))


def import_orbax() -> Any:
    return import_optional("orbax.checkpoint", "fit(checkpoints)", "training")


@contextlib.contextmanager
def open_store(settings: Checkpoints, default_sharding: Sharding | None) -> Iterator[Store]:
    """Take the folder of a run. At the end of the context everything is on disk, and the folder is free.

    Args:
        settings: where and how often.
        default_sharding: where arrays are placed that are not part of the carry; ``None`` for the first device.

    Raises:
        CheckpointError: another run has the folder, or it cannot be written.
    """
    orbax = import_orbax()
    # Orbax logs every step that it takes. Errors reach the caller as exceptions.
    logging.getLogger("absl").setLevel(logging.ERROR)
    owner = Owner(Path(settings.folder))
    if jax.process_index() == 0:
        owner.acquire()
    store = Store(settings, owner, orbax, default_sharding or SingleDeviceSharding(jax.local_devices()[0]))
    try:
        store._clean()
        yield store
    finally:
        store.wait()
        owner.release()


def _most_bytes(arrays: int) -> int:
    return MOST_BYTES + BYTES_AN_ARRAY * arrays


def _check_sizes(folder: Path, most: int) -> None:
    """Raise where a file that describes a checkpoint is larger than any that was written. The others hold arrays."""
    for file in folder.rglob("*"):
        is_of_arrays = file.parent.name == "d" or file.name == "manifest.ocdbt"
        size = 0 if is_of_arrays or not file.is_file() else file.stat().st_size
        if size > most:
            raise DamagedCheckpointError(f"{file.relative_to(folder)} has {size} bytes, more than {most}")


def _check_history(folder: Path, leaves: dict[str, Any], known: dict[str, Any]) -> None:
    """Raise where a history takes more memory than its files can hold. All other arrays are those of the run."""
    shapes = {name: (tuple(shape), np.dtype(dtype)) for name, (shape, dtype) in leaves.items() if name not in known}
    promised = sum(math.prod(shape) * dtype.itemsize for shape, dtype in shapes.values())
    held = sum(file.stat().st_size for file in (folder / "arrays").rglob("*") if file.is_file())
    if promised > max(MOST_HISTORY, MOST_COMPRESSION * held):
        raise DamagedCheckpointError(f"its history takes {promised} bytes, and its files have {held}")


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


def _hash(description: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def _without(description, name):
    return {key: value for key, value in description.items() if key != name}
