"""Observers of training: a progress bar, a file of JSON lines, TensorBoard.

An observer is a context manager that yields ``observe(event)``. The loop calls it after every range of steps.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from funcnn._checks import check_callable
from funcnn._optional import import_optional
from funcnn.training.checkpoints import Checkpoints
from funcnn.training.early_stopping import EarlyStopping
from funcnn.training.results import Progress


class JSONLines(NamedTuple):
    """A callback of ``fit`` that writes one line of JSON after every epoch.

    A line holds the number of the epoch, the steps, the loss, the validation figures and the seconds. A new run
    replaces the content of the file. A run that resumes from a checkpoint keeps the lines of the epochs it has done.

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


class LoopEvent(NamedTuple):
    """What an observer receives after a range of steps.

    Fields:
        step: steps done, over all epochs.
        epoch: whole epochs done.
        loss: loss of the newest step.
        progress: what callbacks receive, where an epoch has just ended; ``None`` elsewhere.
    """

    step: int
    epoch: int
    loss: float
    progress: Progress | None


Observe: TypeAlias = Callable[[LoopEvent], None]


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


def open_observers(
    stack: contextlib.ExitStack, callbacks: Callbacks, *, has_bar: bool, epochs: int, steps: int | None, step: int,
    epoch: int,
) -> tuple[Observe, ...]:  # fmt: skip
    """Enter the observers of a run into ``stack`` and return their functions. Only process 0 has any.

    Args:
        stack: closes the observers at its end.
        callbacks: their writers become observers.
        has_bar: whether to show a progress bar.
        epochs: epochs of the run.
        steps: steps of an epoch, where they are known.
        step, epoch: steps and epochs done, for a run that resumes.
    """
    if jax.process_index():
        return ()
    contexts = [progress_bar(epochs, steps, step, epoch)] if has_bar else []
    for writer in callbacks.writers:
        contexts.append(_json_lines(writer, epoch) if isinstance(writer, JSONLines) else _event_files(writer, step))
    return tuple(stack.enter_context(context) for context in contexts)


@contextlib.contextmanager
def progress_bar(epochs: int, steps: int | None, step: int, epoch: int) -> Iterator[Observe]:
    """Show a bar with the epoch, the loss, steps per second and the time left.

    Args:
        epochs: epochs of the run.
        steps: steps of an epoch, where they are known.
        step, epoch: steps and epochs done, for a run that resumes.
    """
    rich = import_optional("rich.progress", "fit(progress)", "training")
    columns = [
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn("{task.fields[rate]}"),
        rich.TimeRemainingColumn(),
    ]
    with rich.Progress(*columns) as bar:
        total = None if steps is None else epochs * steps
        task = bar.add_task(f"epoch {epoch}/{epochs}", total=total, completed=step, rate="")

        def observe(event):
            description = f"epoch {event.epoch}/{epochs}  loss {event.loss:.4g}"
            speed = bar.tasks[task].speed
            rate = "" if speed is None else f"{speed:,.0f} steps/s"
            bar.update(task, completed=event.step, description=description, rate=rate)

        yield observe


@contextlib.contextmanager
def _json_lines(writer: JSONLines, epoch: int) -> Iterator[Observe]:
    """Write a line for every epoch. Lines of epochs up to ``epoch`` stay, later ones are removed."""
    file = Path(writer.path)
    lines = file.read_text(encoding="utf-8").splitlines() if epoch and file.exists() else []
    kept = [line for line in lines if _epoch_of(line) <= epoch]
    file.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    with file.open("a", encoding="utf-8") as output:

        def observe(event):
            if event.progress is not None:
                progress = event.progress
                validation = {name: _or_null(figure) for name, figure in progress.validation.items()}
                record = {"epoch": progress.epoch, "step": progress.step, "loss": progress.loss,
                          "validation": validation, "seconds": round(progress.seconds, 3)}  # fmt: skip
                output.write(json.dumps(record) + "\n")
                output.flush()

        yield observe


def _or_null(figure: float) -> float | None:
    """Return ``None`` for a figure that is not finite: JSON cannot hold it."""
    return figure if np.isfinite(figure) else None


def _epoch_of(line: str) -> float:
    try:
        return json.loads(line)["epoch"]
    except (ValueError, KeyError, TypeError):  # a line that a crash left incomplete
        return np.inf


@contextlib.contextmanager
def _event_files(writer: TensorBoard, step: int) -> Iterator[Observe]:
    """Write scalars by step. Scalars of steps after ``step`` are removed."""
    tensorboard = import_optional("tensorboardX", "TensorBoard(folder)", "training")
    output = tensorboard.SummaryWriter(os.fspath(writer.folder), purge_step=step + 1 if step else None)

    def observe(event):
        if event.progress is not None:
            output.add_scalar("loss", event.progress.loss, event.progress.step)
            for name, value in event.progress.validation.items():
                output.add_scalar(f"validation/{name}", value, event.progress.step)
            output.flush()

    try:
        yield observe
    finally:
        output.close()
