"""Lines that say where a long command stands, where no terminal shows its bar."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

LINE_SECONDS = 25.0
"""The time between two lines."""


def shows_bars(console: Any) -> bool:
    """Return whether a console of rich shows a bar that moves. Files, pipes and dumb terminals don't."""
    return console.is_interactive or console.is_jupyter


@contextlib.contextmanager
def progress_lines(bar: Any, unit: str, seconds: float = LINE_SECONDS) -> Iterator[None]:
    """Print where the tasks of a disabled bar stand: each at its start, the newest every few seconds, all at the end.

    Args:
        bar: a ``rich.progress.Progress``. One that isn't disabled shows its tasks itself: no line is printed.
        unit: what the tasks count, as in "3 of 8 claims judged after 50 seconds".
        seconds: the time between two lines.
    """
    if not bar.disable:
        yield
        return
    has_ended = threading.Event()
    add_task = bar.add_task

    def add_and_print(*args, **settings):
        number = add_task(*args, **settings)
        _print(bar, bar.tasks[-1], unit, 0.0)
        return number

    def print_lines():
        # Output that is closed raises at the end too, where the caller learns of it.
        with contextlib.suppress(OSError, ValueError):
            while not has_ended.wait(seconds):
                for task in bar.tasks[-1:]:
                    _print(bar, task, unit, task.elapsed)

    bar.add_task = add_and_print  # rich calls nothing when a task begins, also that of track.
    thread = threading.Thread(target=print_lines, daemon=True)
    thread.start()
    try:
        yield
    finally:
        del bar.add_task
        has_ended.set()
        thread.join()
        for task in bar.tasks:
            _print(bar, task, unit, task.elapsed if task.finished_time is None else task.finished_time)


def _print(bar: Any, task: Any, unit: str, seconds: float | None) -> None:
    total = "" if task.total is None else f" of {task.total:.0f}"
    line = f"{task.completed:.0f}{total} {unit} after {seconds or 0:.0f} seconds"
    text = f"{line}: {task.description}" if task.description else line
    bar.console.print(text, highlight=False, markup=False, soft_wrap=True)
