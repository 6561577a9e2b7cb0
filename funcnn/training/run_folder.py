"""The folder of a run's checkpoints: its owner, and which of its entries are ours."""

import contextlib
import json
import os
import re
import shutil
import socket
import warnings
from pathlib import Path
from typing import Any

from funcnn.training.errors import CheckpointError

try:
    import fcntl
except ImportError:  # Windows, where a folder has no lock
    fcntl = None  # type: ignore[assignment]

LOCK = ".funcnn.lock"
DIGITS = 12
"""Digits of a step in the name of its folder."""

_STEP = re.compile(rf"\d{{{DIGITS},}}")
_UNFINISHED = re.compile(rf"\d{{{DIGITS},}}\.orbax-checkpoint-tmp.*")


def step_path(folder: Path, step: int) -> Path:
    return folder / f"{step:0{DIGITS}d}"


def saved_steps(folder: Path) -> list[int]:
    """Return the steps of the checkpoints in a folder, in order. Other folders named by numbers are not ours."""
    if not folder.is_dir():
        return []
    found = (entry for entry in folder.iterdir() if _STEP.fullmatch(entry.name))
    return sorted(int(entry.name) for entry in found if (entry / "about").exists() or (entry / "arrays").exists())


def remove_step(folder: Path, step: int) -> None:
    shutil.rmtree(step_path(folder, step), ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed process or a failed save left of a checkpoint that it was writing."""
    with contextlib.suppress(OSError):
        for entry in list(folder.iterdir()):
            if _UNFINISHED.fullmatch(entry.name):
                shutil.rmtree(entry, ignore_errors=True)


class Owner:
    """The ownership of a folder: a locked file with the process id and the host of the run.

    The operating system unlocks the file when the process ends, however it ends, so that the lock of a killed process
    blocks no other run.
    """

    def __init__(self, folder: Path):
        self._folder, self._path = folder, folder / LOCK
        self._file: int | None = None

    def acquire(self) -> None:
        """Make the folder and take its lock, unless it is held already.

        Raises:
            CheckpointError: another run has it, or the folder cannot be written.
        """
        if self._is_held():
            return
        self.release()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            while self._file is None:
                self._file = self._locked_file()
        except OSError as error:
            raise CheckpointError(
                f"fit(checkpoints): expected a folder that can be written, got {self._folder}: {error}. "
                "Choose another folder, or change its permissions."
            ) from error

    def release(self) -> None:
        """Remove the lock file, where it is ours, and unlock it."""
        if self._file is None:
            return
        if self._is_held():
            with contextlib.suppress(OSError):
                self._path.unlink()
        os.close(self._file)
        self._file = None

    def _is_held(self) -> bool:
        """Return whether the file at the path is still the one that we have locked."""
        return self._file is not None and _is_at(self._file, self._path)

    def _locked_file(self) -> int | None:
        """Return the descriptor of the locked file; ``None`` where it was replaced meanwhile."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not self._lock(file):
                os.close(file)
                return None
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(file)
            raise
        return file

    def _lock(self, file: int) -> bool:
        """Lock the file. Return whether it is still the one at the path."""
        if fcntl is None:
            return True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _content(file)
            if not _has_ended(owner):
                raise CheckpointError(
                    f"fit(checkpoints): expected a folder that no other run uses, got {self._folder}, in which process "
                    f"{owner.get('pid', 'unknown')} on host {owner.get('host', 'unknown')} is training. Wait for its "
                    "end, or choose a folder of its own for each run."
                ) from None
            # A child of the killed process still has the file open: the next run begins a new one.
            with contextlib.suppress(OSError):
                if _is_at(file, self._path):
                    self._path.unlink()
            return False
        except OSError as error:
            warnings.warn(
                f"fit(checkpoints): the file system of {self._folder} has no locks ({error}): another run in the same "
                "folder would not be noticed.",
                stacklevel=2,
            )
        return _is_at(file, self._path)


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except OSError:
        return False


def _content(file: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(file, 4096, 0))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _has_ended(owner: dict[str, Any]) -> bool:
    """Return whether the owner was a process of this host that no longer runs."""
    if owner.get("host") != socket.gethostname() or not isinstance(owner.get("pid"), int):
        return False
    try:
        os.kill(owner["pid"], 0)
    except OSError as error:  # another one is that of a running process of another user
        return isinstance(error, ProcessLookupError)
    return False
