"""Documents on a terminal: colours and the terminal's width, by rich."""

import importlib.util
import sys
from typing import Any, assert_never

from funcnn._reports.document import TEXT_WIDTH, Block, Conclusion, Document, Note, PropertyList, Table, fit_columns
from funcnn._reports.text import property_lines, to_text, wrap

_COLOURS = {"ok": "green", "cause": "yellow"}
_FAILED_COLOURS = dict.fromkeys(("ok", "difference", "cause", "found", ""), "bold red")


def render(document: Document) -> str:
    """Return the document for standard output: for a terminal if it is one, as plain text otherwise."""
    text = to_terminal(document)
    return to_text(document) if text is None else text


def to_terminal(document: Document) -> str | None:
    """Return the document with a terminal's colours and width.

    ``None`` if standard output is not a terminal or rich is not installed.
    """
    if not getattr(sys.stdout, "isatty", bool)() or importlib.util.find_spec("rich") is None:
        return None
    from rich.console import Console

    console = Console(highlight=False)
    parts = [part for part in (_block(block, console.width) for block in document.blocks) if part is not None]
    with console.capture() as captured:
        for part in parts:
            console.print(part)
            console.print()
    return captured.get().rstrip("\n")


def _block(block: Block, console_width: int) -> Any:
    from rich.panel import Panel
    from rich.text import Text

    width = min(console_width, TEXT_WIDTH + 4)
    match block:
        case Table():
            return _table(fit_columns(block, console_width))
        case PropertyList():
            lines = [Text(block.heading, style="bold")]
            for line, item in zip(property_lines(block.properties, width), block.properties, strict=True):
                lines.append(Text(line, style="red" if item.ok is False else ""))
            return Text("\n").join(lines) if block.properties else None
        case Conclusion():
            text = "\n\n".join(wrap(paragraph, width - 4) for paragraph in block.paragraphs)
            return Panel(Text(text.rstrip()), title=block.title, border_style=block.colour, expand=False)
        case Note():
            return Text(wrap(block.text, width), style="dim")
        case _:
            assert_never(block)


def _table(table: Table):
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    rich_table = RichTable(
        title=table.title or None, title_style="bold", title_justify="left", caption=table.note or None,
        caption_justify="left", header_style="bold", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False,
        padding=(0, 1, 0, 0),
    )  # fmt: skip
    for name in table.columns:
        rich_table.add_column(name, justify="right" if name in table.numbers else "left", overflow="fold")
    rows = list(zip(*table.columns.values(), strict=True))
    for failed, row in zip(table.failed or [False] * len(rows), rows, strict=True):
        colours = _FAILED_COLOURS if failed else _COLOURS
        # Text, because rich would read a path such as [0].kernel as markup.
        cells = (Text(cell, style=colours.get(name, "")) for name, cell in zip(table.columns, row, strict=True))
        rich_table.add_row(*cells)
    return rich_table
