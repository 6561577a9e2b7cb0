"""The console of the scripts, their tables, and progress where there is no terminal."""

import contextlib
import threading
from collections.abc import Iterator

from rich.console import Console
from rich.progress import Progress
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
def lines_of_progress(bar: Progress, unit: str, seconds: float = LINE_SECONDS) -> Iterator[None]:
    """Print how far the first task of a bar is every few seconds, where no terminal shows the bar."""
    has_ended = threading.Event()

    def print_lines():
        while not has_ended.wait(seconds):
            if not bar.tasks:
                continue
            task = bar.tasks[0]
            line = f"{task.completed:.0f} of {task.total or 0:.0f} {unit} after {task.elapsed or 0:.0f} seconds"
            console.print(line, highlight=False)

    thread = threading.Thread(target=print_lines, daemon=True)
    if not console.is_terminal:
        thread.start()
    try:
        yield
    finally:
        has_ended.set()
        if thread.is_alive():
            thread.join()
