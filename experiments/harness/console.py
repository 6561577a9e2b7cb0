"""What the scripts share of the terminal."""

from rich.console import Console
from rich.table import Table

console = Console()


def table(*columns: str, title: str | None = None) -> Table:
    """An empty table whose first column is text and whose others are figures."""
    made = Table(title=title, title_justify="left", header_style="bold")
    for position, column in enumerate(columns):
        # On a narrow terminal a long name goes on in the next line; rich would cut it.
        made.add_column(column, justify="left" if position == 0 else "right", overflow="fold")
    return made
