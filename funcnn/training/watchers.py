"""Who looks on while a network trains: a progress bar, a file of JSON lines, TensorBoard. Each is told every stretch.

A watcher is a context manager that gives ``tell(moment)``.
"""

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

import jax
import numpy as np

from funcnn._optional import needed
from funcnn.training.results import Progress


class Moment(NamedTuple):
    """What a watcher is told.

    Fields:
        step: steps done, over all epochs.
        epoch: whole epochs done.
        loss: the newest step's loss.
        ended: what callbacks are told, where an epoch has just ended.
    """

    step: int
    epoch: int
    loss: float
    ended: Progress | None


Tell: TypeAlias = Callable[[Moment], None]


@contextlib.contextmanager
def progress_bar(epochs: int, steps: int | None, done: int, epoch: int) -> Iterator[Tell]:
    """A bar with the epoch, the loss, steps a second and the time left; ``steps`` an epoch, where they are known.

    ``done`` steps and ``epoch`` epochs stand behind a run that goes on.
    """
    rich = needed("rich.progress", "fit(progress)", "training")
    columns = [
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn("{task.fields[rate]}"),
        rich.TimeRemainingColumn(),
    ]
    with rich.Progress(*columns) as bar:
        total = None if steps is None else epochs * steps
        task = bar.add_task(f"epoch {epoch}/{epochs}", total=total, completed=done, rate="")

        def tell(moment):
            words = f"epoch {moment.epoch}/{epochs}  loss {moment.loss:.4g}"
            speed = bar.tasks[task].speed
            rate = "" if speed is None else f"{speed:,.0f} steps/s"
            bar.update(task, completed=moment.step, description=words, rate=rate)

        yield tell


@contextlib.contextmanager
def json_lines(path: str | os.PathLike, done: int) -> Iterator[Tell]:
    """A line for every epoch: its number, steps, loss, validation figures and seconds.

    A run that goes on after ``done`` epochs keeps the lines of those and drops what was written of later ones.
    """
    file = Path(path)
    if not file.parent.is_dir() or file.is_dir():
        raise ValueError(f"fit(log): expected a file in an existing folder, got {file}. Make the folder first.")
    before = file.read_text(encoding="utf-8").splitlines() if done and file.exists() else []
    kept = [line for line in before if _epoch_of(line) <= done]
    file.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    with file.open("a", encoding="utf-8") as lines:

        def tell(moment):
            if moment.ended is not None:
                ended = moment.ended
                validation = {name: _or_null(figure) for name, figure in ended.validation.items()}
                record = {"epoch": ended.epoch, "step": ended.step, "loss": ended.loss,
                          "validation": validation, "seconds": round(ended.seconds, 3)}  # fmt: skip
                lines.write(json.dumps(record) + "\n")
                lines.flush()

        yield tell


def _or_null(figure: float) -> float | None:
    """JSON has no word for what isn't finite."""
    return figure if np.isfinite(figure) else None


def _epoch_of(line: str) -> float:
    try:
        return json.loads(line)["epoch"]
    except (ValueError, KeyError, TypeError):  # a line that a crash cut short
        return np.inf


@contextlib.contextmanager
def tensorboard_files(directory: str | os.PathLike, done: int) -> Iterator[Tell]:
    """Scalars by step for TensorBoard: ``loss`` of every epoch, and ``validation/…``."""
    writers = needed("tensorboardX", "fit(tensorboard)", "training")
    writer = writers.SummaryWriter(os.fspath(directory), purge_step=done + 1 if done else None)

    def tell(moment):
        if moment.ended is not None:
            writer.add_scalar("loss", moment.ended.loss, moment.ended.step)
            for name, value in moment.ended.validation.items():
                writer.add_scalar(f"validation/{name}", value, moment.ended.step)
            writer.flush()

    try:
        yield tell
    finally:
        writer.close()


@contextlib.contextmanager
def interruptible(is_wanted: bool) -> Iterator[Callable[[], int]]:
    """While it lasts, the first Ctrl-C or SIGTERM is only noted, for the run to be saved; the second one acts.

    Gives a function that says which signal came, 0 where none did. Handlers are the main thread's: elsewhere nothing
    is changed. Nor is it in one of several processes, which can only save together: there a signal acts at once.
    """
    came: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    if not is_wanted or not is_main or jax.process_count() > 1:
        yield lambda: 0
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number, frame):
        came.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: came[0] if came else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
