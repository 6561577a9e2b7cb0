"""A report as a document: the blocks that every report is made of, in the order in which they are shown."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from funcnn._reports.properties import PropertyReport

TEXT_WIDTH = 96
TABLE_WIDTH = 110
MAX_ROWS = 40
FIRST_ROWS = 10
"""A table with more than ``MAX_ROWS`` rows shows the first ``FIRST_ROWS`` and those that matter."""


class Table(NamedTuple):
    """Cells by the name of their column.

    Fields:
        title: the line above the table; empty for none.
        columns: from names to cells, one for each row.
        numbers: the columns that are aligned to the right.
        failed: for each row whether it is highlighted; empty for none.
        note: the line below the table; empty for none.
        optional: the columns that a narrow table leaves out, in this order.
    """

    title: str
    columns: dict[str, list[str]]
    numbers: tuple[str, ...] = ()
    failed: Sequence[bool] = ()
    note: str = ""
    optional: tuple[str, ...] = ()


class PropertyList(NamedTuple):
    """A heading and a line for each property."""

    heading: str
    properties: tuple[PropertyReport, ...]


class Conclusion(NamedTuple):
    """Paragraphs; on a terminal in a panel with a title and a colour."""

    paragraphs: tuple[str, ...]
    title: str
    colour: str


class Note(NamedTuple):
    """A small remark, such as where the tolerances come from."""

    text: str
    width: int = TEXT_WIDTH


Block: TypeAlias = Table | PropertyList | Conclusion | Note


class Document(NamedTuple):
    """The blocks of a report. ``to_text`` and ``to_terminal`` render it."""

    blocks: tuple[Block, ...]


def column_widths(columns: dict[str, list[str]]) -> list[int]:
    """Return the width of each column."""
    return [max(map(len, (name, *cells))) for name, cells in columns.items()]


def fit_columns(table: Table, width: int | float) -> Table:
    """Return the table without empty columns, and without as many optional ones as the width requires.

    Example:
        >>> table = Table("", {"name": ["a"], "shape": ["(2, 3)"], "cause": [""]}, optional=("shape",))
        >>> list(fit_columns(table, 8).columns)
        ['name']
    """
    columns = {name: cells for name, cells in table.columns.items() if any(cells)}
    for name in table.optional:
        if sum(column_widths(columns)) + 2 * len(columns) - 2 > width:
            columns.pop(name, None)
    return table._replace(columns=columns)
