"""Reports as text: aligned columns, wrapped paragraphs, and the same in a terminal's colours by rich."""

import importlib.util
import math
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

TEXT_WIDTH = 96
TABLE_WIDTH = 110
MOST_ROWS = 40
FIRST_ROWS = 10
"""Of a table with more than ``MOST_ROWS`` the first ones are shown, and those that say something."""


class Table(NamedTuple):
    """Cells by the name of their column.

    Fields:
        columns: from names to cells, a row for each.
        numbers: the columns that are aligned to the right.
        failed: for each row whether it is to stand out; empty for none.
    """

    title: str
    columns: dict[str, list[str]]
    numbers: tuple[str, ...] = ()
    failed: Sequence[bool] = ()
    note: str = ""


@runtime_checkable
class Property(Protocol):
    """What a report says of something that was asked beside the values."""

    @property
    def name(self) -> str: ...
    @property
    def ok(self) -> bool: ...
    @property
    def detail(self) -> str: ...


def widths(columns: dict[str, list[str]]) -> list[int]:
    """The width of each column."""
    return [max(map(len, (name, *cells))) for name, cells in columns.items()]


def fitted(columns: dict[str, list[str]], spare: Sequence[str], width: int | float) -> dict[str, list[str]]:
    """The columns that aren't empty, without as many of the ``spare`` ones as the width demands.

    Example:
        >>> list(fitted({"name": ["a"], "shape": ["(2, 3)"], "cause": [""]}, ("shape",), 8))
        ['name']
    """
    kept = {name: cells for name, cells in columns.items() if any(cells)}
    for name in spare:
        if sum(widths(kept)) + 2 * len(kept) - 2 > width:
            kept.pop(name, None)
    return kept


def aligned(table: Table) -> str:
    """The table in plain text.

    Example:
        >>> print(aligned(Table("", {"name": ["a", "bc"], "size": ["1", "20"]}, numbers=("size",))))
        name  size
        ----  ----
        a        1
        bc      20
    """
    spaces = widths(table.columns)
    rows = [list(table.columns), ["-" * width for width in spaces], *zip(*table.columns.values(), strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if name in table.numbers else cell.ljust(width)
            for name, cell, width in zip(table.columns, row, spaces, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join([*([f"{table.title}:"] if table.title else []), *lines, *([table.note] if table.note else [])])


def wrapped(text: str, width: int, hanging: int = 2) -> str:
    """Each line a paragraph of its own. Paths and hyphenated words stay whole."""
    wrapper = textwrap.TextWrapper(
        max(width, 20), subsequent_indent=" " * hanging, break_long_words=False, break_on_hyphens=False
    )  # fmt: skip
    return "\n".join(wrapper.fill(line) for line in text.splitlines())


def told_properties(properties: Sequence[Property], width: int) -> list[str]:
    """A line for each property, yes or NO."""
    lines = [f"{'yes' if item.ok else 'NO':<3}  {item.name}: {item.detail}" for item in properties]
    return [wrapped(line.removesuffix(": "), width, hanging=7) for line in lines]


def joined(blocks: Sequence[str]) -> str:
    """Blocks of text with an empty line between them, without spaces at the lines' ends."""
    lines = "\n\n".join(block for block in blocks if block).splitlines()
    return "\n".join(line.rstrip() for line in lines)


def on_terminal(
    tables: Callable[[int], list[Table]],
    heading: str,
    properties: Sequence[Property],
    words: str,
    title: str,
    colour: str,
    footer: str,
) -> str | None:
    """A report with a terminal's colours and width; ``None`` where standard output is none or rich isn't there.

    Args:
        tables: from the terminal's width to the tables that fit it.
        heading: what stands over the properties.
        properties: what else was asked.
        words: the paragraphs in the panel, an empty line between them.
        title, colour: the panel's.
        footer: what stands below, dim.
    """
    if not getattr(sys.stdout, "isatty", bool)() or importlib.util.find_spec("rich") is None:
        return None
    from rich.console import Console, RenderableType
    from rich.panel import Panel
    from rich.text import Text

    console = Console(highlight=False)
    width = min(console.width, TEXT_WIDTH + 4)
    parts: list[RenderableType] = [_coloured(table) for table in tables(console.width)]
    if properties:
        lines = [Text(heading, style="bold")]
        for line, item in zip(told_properties(properties, width), properties, strict=True):
            lines.append(Text(line, style="" if item.ok else "red"))
        parts.append(Text("\n").join(lines))
    paragraphs = "\n\n".join(wrapped(paragraph, width - 4) for paragraph in words.split("\n\n"))
    parts.append(Panel(Text(paragraphs.rstrip()), title=title, border_style=colour, expand=False))
    parts.append(Text(wrapped(footer, width), style="dim"))
    with console.capture() as captured:
        for part in parts:
            console.print(part, *([] if isinstance(part, Panel) else [""]), sep="\n")
    return captured.get().rstrip("\n")


def _coloured(table: Table):
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    made = RichTable(
        title=table.title or None, title_style="bold", title_justify="left", caption=table.note or None,
        caption_justify="left", header_style="bold", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False,
        padding=(0, 1, 0, 0),
    )  # fmt: skip
    for name in table.columns:
        made.add_column(name, justify="right" if name in table.numbers else "left", overflow="fold")
    rows = list(zip(*table.columns.values(), strict=True))
    for failed, row in zip(table.failed or [False] * len(rows), rows, strict=True):
        colours = {"ok": "green", "cause": "yellow"}
        if failed:
            colours = dict.fromkeys(("ok", "difference", "cause", ""), "bold red")
        # Text, for a path such as [0].kernel would be read as rich's markup.
        made.add_row(*(Text(cell, style=colours.get(name, "")) for name, cell in zip(table.columns, row, strict=True)))
    return made


def size(figure: float) -> str:
    """A difference or a tolerance in two digits."""
    return "0" if figure == 0 else f"{figure:.1e}"


def told_apart(first: Any, second: Any, same: bool) -> tuple[str, str]:
    """Two numbers in as many digits as tell them apart, four where they are the ``same``.

    Example:
        >>> told_apart(1.0, 1.00000001, False)
        ('1', '1.00000001')
    """
    for digits in range(4, 18):
        ours, theirs = f"{first:.{digits}g}", f"{second:.{digits}g}"
        if same or first == second or ours != theirs:
            break
    return ours, theirs


def took(seconds: float) -> str:
    """A time in words."""
    return f"{seconds:.1f} s" if seconds >= 0.1 else f"{1000 * seconds:.0f} ms"


def plain_data(value: Any) -> Any:
    """NamedTuples as dictionaries and tuples as lists, all the way down; what JSON has no word for as text."""
    if hasattr(value, "_asdict"):
        return {name: plain_data(field) for name, field in value._asdict().items()}
    if isinstance(value, tuple | list):
        return [plain_data(item) for item in value]
    if isinstance(value, complex) or (isinstance(value, float) and not math.isfinite(value)):
        return str(value)
    return value
