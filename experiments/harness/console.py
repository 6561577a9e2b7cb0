"""The console of the scripts, and their tables."""

from rich.console import Console
from rich.table import Table

console = Console()


def table(*columns: str, title: str | None = None) -> Table:
    """Return an empty table whose first column is text and whose others are figures."""
    result = Table(title=title, title_justify="left", header_style="bold")
    for position, column in enumerate(columns):
        # Wrap long names on a narrow terminal instead of cutting them.
        result.add_column(column, justify="left" if position == 0 else "right", overflow="fold")
    return result
