"""Documents as plain text: aligned columns and wrapped paragraphs."""

import textwrap
from collections.abc import Sequence
from typing import assert_never

from funcnn._reports.document import (
    TABLE_WIDTH,
    TEXT_WIDTH,
    Block,
    Conclusion,
    Document,
    Note,
    PropertyList,
    Table,
    column_widths,
    fit_columns,
)
from funcnn._reports.properties import PropertyReport


def to_text(document: Document) -> str:
    """Return the document as text without colours.

    There is an empty line between two blocks, and no space at the end of a line. Tables are at most 110 columns wide
    for names of usual length, paragraphs 96.
    """
    text = "\n\n".join(block for block in map(_block, document.blocks) if block)
    return "\n".join(line.rstrip() for line in text.splitlines())


def _block(block: Block) -> str:
    match block:
        case Table():
            return align_table(fit_columns(block, TABLE_WIDTH))
        case PropertyList():
            lines = property_lines(block.properties, TEXT_WIDTH)
            return "\n".join([f"{block.heading}:", *lines]) if lines else ""
        case Conclusion():
            return "\n".join(wrap(paragraph, TEXT_WIDTH) for paragraph in block.paragraphs).rstrip()
        case Note():
            return wrap(block.text, block.width)
        case _:
            assert_never(block)


def align_table(table: Table) -> str:
    """Return the table with aligned columns.

    Example:
        >>> print(align_table(Table("", {"name": ["a", "bc"], "size": ["1", "20"]}, numbers=("size",))))
        name  size
        ----  ----
        a        1
        bc      20
    """
    widths = column_widths(table.columns)
    rows = [list(table.columns), ["-" * width for width in widths], *zip(*table.columns.values(), strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if name in table.numbers else cell.ljust(width)
            for name, cell, width in zip(table.columns, row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join([*([f"{table.title}:"] if table.title else []), *lines, *([table.note] if table.note else [])])


def wrap(text: str, width: int, indent: int = 2) -> str:
    """Return the text with each line wrapped as a paragraph, whose further lines are indented.

    Paths and hyphenated words are never broken.
    """
    wrapper = textwrap.TextWrapper(
        max(width, 20), subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )  # fmt: skip
    return "\n".join(wrapper.fill(line) for line in text.splitlines())


def property_lines(properties: Sequence[PropertyReport], width: int) -> list[str]:
    """Return a line for each property, with yes, NO, or – if it was not checked."""
    marks = {True: "yes", False: "NO", None: "–"}
    lines = [f"{marks[item.ok]:<3}  {item.name}: {item.detail}" for item in properties]
    return [wrap(line.removesuffix(": "), width, indent=7) for line in lines]
