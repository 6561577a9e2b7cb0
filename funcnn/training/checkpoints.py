"""Where and how often ``fit`` saves a run, and what it does with what it finds there."""

import os
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

from funcnn._checks import positive_integer


class Checkpoints(NamedTuple):
    """Where and how often ``fit`` saves a run.

    The checksums of a checkpoint prove that no byte of it was damaged after it was written. They do not prove who wrote
    it: whoever changes a checkpoint can also compute its checksums. Resume from folders that others cannot write.

    Fields:
        folder: a folder for this run alone. It is created where it does not exist.
        every: steps between two checkpoints; ``None`` for one after every epoch. The last step is always saved.
        keep: how many of the newest checkpoints are kept.
        damaged: what to do with a damaged checkpoint. ``"refuse"`` raises an error with the reason. ``"previous"``
            resumes from the one before it; the damaged one is replaced when the run reaches its step again.
        on_difference: what to do with checkpoints of another run. ``"refuse"`` raises an error that names the first
            difference. ``"restart"`` begins anew in a new folder beside it, ``folder-2``, ``folder-3`` and so on.

    Example:
        >>> Checkpoints("runs/digits", every=100).keep
        3
    """

    folder: str | os.PathLike
    every: int | None = None
    keep: int = 3
    damaged: Literal["refuse", "previous"] = "refuse"
    on_difference: Literal["refuse", "restart"] = "refuse"


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
    for name, choices in (("damaged", ("refuse", "previous")), ("on_difference", ("refuse", "restart"))):
        if getattr(given, name) not in choices:
            raise ValueError(
                f"Checkpoints({name}): expected {choices[0]!r} or {choices[1]!r}, got {getattr(given, name)!r}. "
                "Choose one of these."
            )
    folder = _checked_folder(given.folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"Checkpoints(folder): expected a folder, got the file {folder}. Choose another name.")
    return given._replace(folder=folder)


def _checked_folder(given: Any) -> Path:
    if not isinstance(given, str | os.PathLike):
        raise TypeError(f"Checkpoints(folder): expected a path, got {given!r}. Pass a string or a pathlib.Path.")
    text = os.fspath(given)
    if not text.strip():
        raise ValueError(
            "fit(checkpoints): expected the path of a folder, got an empty one. Pass a name such as 'runs/first', or "
            "None for no checkpoints."
        )
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
        raise ValueError(
            f"fit(checkpoints): expected a folder of this machine's file system, got the address {text}. Mount the "
            "remote storage as a folder, or copy the checkpoints there after training."
        )
    return Path(given).absolute()
