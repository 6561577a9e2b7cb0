"""The console of the scripts, their tables, and progress where there is no terminal."""

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from funcnn._progress_lines import LINE_SECONDS, progress_lines, shows_bars

console = Console()


def table(*columns: str, title: str | None = None) -> Table:
    """Return an empty table whose first column is text and whose others are figures."""
    result = Table(title=title, title_justify="left", header_style="bold")
    for position, column in enumerate(columns):
        # Wrap long names on a narrow terminal instead of cutting them.
        result.add_column(column, justify="left" if position == 0 else "right", overflow="fold")
    return result


@contextlib.contextmanager
def progress_bar(unit: str, seconds: float = LINE_SECONDS, *, redraws: bool = True) -> Iterator[Progress]:
    """Yield a bar for the tasks of a long command. Where no terminal shows it, print lines in its place.

    Args:
        unit: what the tasks count, as in "3 of 8 claims judged after 50 seconds".
        seconds: the time between two lines.
        redraws: whether to draw the bar several times a second. Without it the bar takes no time from a measurement,
            and ``track`` draws it after each item.
    """
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeElapsedColumn()
    is_shown = shows_bars(console)
    # The thread that redraws a bar counts for its track, and ends at once where the bar is disabled.
    bar = Progress(*columns, console=console, transient=True, auto_refresh=redraws and is_shown, disable=not is_shown)
    with bar, progress_lines(bar, unit, seconds):
        yield bar
