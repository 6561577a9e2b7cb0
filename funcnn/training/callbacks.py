"""The callbacks of ``fit``: functions, and the settings of files that are written after every epoch."""

import inspect
import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from funcnn._checks import check_callable
from funcnn.training.checkpoints import Checkpoints
from funcnn.training.early_stopping import EarlyStopping
from funcnn.training.results import Progress


class JSONLines(NamedTuple):
    """A callback of ``fit`` that writes one line of JSON after every epoch.

    A line holds the number of the epoch, the steps, the loss, the validation figures and the seconds. A new run
    replaces the content of the file. A run that resumes from a checkpoint keeps the lines of the epochs it has done,
    and appends to them. Lines that cannot be written, for example to a full disk, are written later where that becomes
    possible; training does not depend on it.

    Fields:
        path: the file, in an existing folder.
    """

    path: str | os.PathLike


class TensorBoard(NamedTuple):
    """A callback of ``fit`` that writes event files for TensorBoard: ``loss`` and ``validation/…`` of every epoch.

    Fields:
        folder: the folder of the event files. It is created where it does not exist.
    """

    folder: str | os.PathLike


class Callbacks(NamedTuple):
    """The callbacks of a run: functions of ``Progress``, and what writes files."""

    functions: tuple[Callable[[Progress], Any], ...]
    writers: tuple[JSONLines | TensorBoard, ...]


def checked_callbacks(callbacks: Any) -> Callbacks:
    """Return the callbacks of ``fit``, functions and writers apart.

    Raises:
        TypeError: they are not a sequence, or one is neither a function nor a writer.
        ValueError: a file cannot be written, or two writers have the same file.
    """
    _check_own_argument(callbacks)
    is_one = callable(callbacks) or isinstance(callbacks, JSONLines | TensorBoard | str)
    if is_one or not isinstance(callbacks, Iterable):
        raise TypeError(
            "fit(callbacks): expected a sequence of functions, JSONLines(path) and TensorBoard(folder), "
            f"got {callbacks!r}. Pass a tuple or a list, such as [print]."
        )
    functions: list[Callable] = []
    writers: list[JSONLines | TensorBoard] = []
    for callback in callbacks:
        _check_own_argument(callback)
        if isinstance(callback, JSONLines | TensorBoard):
            _check_writer(callback, writers)
            writers.append(callback)
        elif callback in (JSONLines, TensorBoard):
            raise TypeError(
                f"fit(callbacks): expected {callback.__name__} with its path, got the class itself. "
                f"Pass {callback.__name__}(…)."
            )
        else:
            check_callable("fit(callbacks)", callback, "A callback is (progress) -> None, JSONLines or TensorBoard.")
            _check_is_synchronous(callback)
            functions.append(callback)
    return Callbacks(tuple(functions), tuple(writers))


def _check_own_argument(callback: Any) -> None:
    """Raise where it is the setting of another argument of ``fit``."""
    for kind, argument in ((EarlyStopping, "early_stopping"), (Checkpoints, "checkpoints")):
        if isinstance(callback, kind) or callback is kind:
            name = kind.__name__
            raise TypeError(
                f"fit(callbacks): expected functions, JSONLines(path) and TensorBoard(folder), got {name}. "
                f"Pass it as an argument of its own: {argument}={name}(…)."
            )


def _check_writer(writer, others) -> None:
    (field,), (path,), name = writer._fields, writer, type(writer).__name__
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{name}({field}): expected a path, got {path!r}. Pass a string or a pathlib.Path.")
    place = Path(path).absolute()
    if isinstance(writer, JSONLines) and (not place.parent.is_dir() or place.is_dir()):
        raise ValueError(f"JSONLines(path): expected a file in an existing folder, got {path}. Make the folder first.")
    if isinstance(writer, TensorBoard) and place.exists() and not place.is_dir():
        raise ValueError(f"TensorBoard(folder): expected a folder, got the file {path}. Choose another name.")
    if any(type(other) is type(writer) and Path(other[0]).resolve() == place.resolve() for other in others):
        raise ValueError(f"fit(callbacks): expected one {name} for each path, got two for {path}. Remove one.")


def _check_is_synchronous(callback: Callable) -> None:
    call = callback if inspect.isroutine(callback) else getattr(callback, "func", type(callback).__call__)
    if any(is_kind(call) for is_kind in (inspect.iscoroutinefunction, inspect.isasyncgenfunction)):
        raise TypeError(
            f"fit(callbacks): expected a function that returns None, True or False, got the coroutine function "
            f"{callback!r}, whose call runs nothing. Write it with def instead of async def."
        )


def is_end(callback: Callable, answer: Any) -> bool:
    """Return whether the answer of a callback ends training: a truth value, also as an array of one element.

    A number that is not 0 may be meant as one, or be what ``file.write`` returns. It doesn't end training, and gets a
    warning. Other answers have no meaning.

    Raises:
        TypeError: it is an array of several truth values, or a coroutine.
    """
    if inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()
        raise TypeError(
            f"fit(callbacks): expected None, True or False from {callback!r}, got a coroutine, which runs nothing. "
            "Call asyncio.run on it inside the callback."
        )
    if not isinstance(answer, bool | int | float | np.generic | np.ndarray | jax.Array):
        return False
    if np.asarray(answer).dtype != np.bool_:
        _warn_of_number(callback, np.asarray(answer))
        return False
    if np.size(answer) != 1:
        raise TypeError(
            f"fit(callbacks): expected None, True or False from {callback!r}, got an array of shape "
            f"{np.shape(answer)}. Reduce it with .any() or .all()."
        )
    return bool(np.asarray(answer).reshape(()))


def _warn_of_number(callback: Callable, answer: np.ndarray) -> None:
    if answer.size == 1 and np.issubdtype(answer.dtype, np.number) and answer.any():
        warnings.warn(
            f"fit(callbacks): expected None, True or False from {callback!r}, got a number, {answer.dtype}, which does "
            "not end training. Return None to go on, or a truth value, such as loss < 0.1, to end it.",
            stacklevel=2,
        )
