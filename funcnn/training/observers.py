"""Observers of training: a progress bar, a file of JSON lines, TensorBoard.

An observer is a context manager that yields ``observe(event)``. The loop calls it after every range of steps. An
observer that fails is reported once, by a warning, and never ends a run.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import jax

from funcnn._optional import import_optional
from funcnn._progress_lines import LINE_SECONDS, progress_lines, shows_bars
from funcnn.training.callbacks import Callbacks, JSONLines, TensorBoard
from funcnn.training.results import Progress
from funcnn.training.writers import EventFile, JSONLinesFile


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
    contexts = [_guarded("the progress bar", progress_bar(epochs, steps, step, epoch))] if has_bar else []
    contexts += [_guarded(repr(writer), _file(writer, step, epoch)) for writer in callbacks.writers]
    return tuple(stack.enter_context(context) for context in contexts)


@contextlib.contextmanager
def _guarded(name: str, observer: contextlib.AbstractContextManager[Observe]) -> Iterator[Observe]:
    """Enter an observer. Its first error becomes a warning, and later ones are ignored."""
    has_failed = False

    @contextlib.contextmanager
    def guard():
        nonlocal has_failed
        try:
            yield
        except ModuleNotFoundError:
            raise
        except Exception as error:  # whatever a file system or a terminal raises
            if not has_failed:
                has_failed = True
                warnings.warn(
                    f"fit: expected {name} to work, got {type(error).__name__}: {error}. Training goes on without it.",
                    stacklevel=2,
                )

    observe: Observe | None = None
    with guard():
        observe = observer.__enter__()

    def guarded(event):
        with guard():
            observe(event)

    try:
        yield guarded if observe is not None else lambda event: None
    finally:
        if observe is not None:
            with guard():
                observer.__exit__(None, None, None)


@contextlib.contextmanager
def progress_bar(
    epochs: int, steps: int | None, step: int, epoch: int, seconds: float = LINE_SECONDS
) -> Iterator[Observe]:
    """Show a bar with the epoch, the loss, steps per second and the time left. Print lines where no terminal shows it.

    Args:
        epochs: epochs of the run.
        steps: steps of an epoch, where they are known.
        step, epoch: steps and epochs done, for a run that resumes.
        seconds: the time between two lines.
    """
    rich = import_optional("rich.progress", "fit(progress)", "training")
    columns = [
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn("{task.fields[rate]}"),
        rich.TimeRemainingColumn(),
    ]
    bar = rich.Progress(*columns)
    bar.disable = not shows_bars(bar.console)
    with bar, progress_lines(bar, "steps", seconds):
        total = None if steps is None else epochs * steps
        task = bar.add_task(f"epoch {epoch}/{epochs}", total=total, completed=step, rate="")

        def observe(event):
            description = f"epoch {event.epoch}/{epochs}  loss {event.loss:z.4g}"
            speed = bar.tasks[task].speed
            rate = "" if speed is None else f"{speed:,.0f} steps/s"
            bar.update(task, completed=event.step, description=description, rate=rate)

        yield observe


@contextlib.contextmanager
def _file(writer: JSONLines | TensorBoard, step: int, epoch: int) -> Iterator[Observe]:
    """Write to a file after every epoch."""
    file = JSONLinesFile(writer, epoch) if isinstance(writer, JSONLines) else EventFile(writer, step)

    def observe(event):
        if event.progress is not None:
            file.write(event.progress)

    try:
        yield observe
    finally:
        file.close()
