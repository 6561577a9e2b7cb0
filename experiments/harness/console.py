"""The console of the scripts, their tables, and progress where there is no terminal."""

import contextlib
import threading
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

LINE_SECONDS = 25.0
"""The time between two lines of progress."""

console = Console()


def table(*columns: str, title: str | None = None) -> Table:
    """Return an empty table whose first column is text and whose others are figures."""
    result = Table(title=title, title_justify="left", header_style="bold")
    for position, column in enumerate(columns):
        # Wrap long names on a narrow terminal instead of cutting them.
        result.add_column(column, justify="left" if position == 0 else "right", overflow="fold")
    return result


@contextlib.contextmanager
def progress_bar(unit: str, seconds: float = LINE_SECONDS) -> Iterator[Progress]:
    """Yield a bar for the tasks of a long command. Where no terminal shows it, print a line every few seconds.

    Args:
        unit: what the task counts, as in "3 of 8 claims judged after 50 seconds".
        seconds: the time between two lines.
    """
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeElapsedColumn()
    has_ended = threading.Event()

    def print_lines():
        while not has_ended.wait(seconds):
            for task in bar.tasks[-1:]:
                line = f"{task.completed:.0f} of {task.total or 0:.0f} {unit} after {task.elapsed or 0:.0f} seconds"
                console.print(
                    f"{line}: {task.description}" if task.description else line, highlight=False, markup=False
                )

    thread = threading.Thread(target=print_lines, daemon=True)
    with Progress(*columns, console=console, transient=True) as bar:
        if not console.is_terminal:
            thread.start()
        try:
            yield bar
        finally:
            has_ended.set()
            if thread.is_alive():
                thread.join()
