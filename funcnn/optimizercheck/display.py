"""How the comparison of two optimizers is shown: as plain text, and by rich on a terminal."""

import importlib.util
import sys
from typing import TYPE_CHECKING

from funcnn.gradcheck.display import _aligned, _coloured, _size, _Table, _widths, _wrapped

if TYPE_CHECKING:
    from funcnn.optimizercheck.report import OptimizerReport, SequenceReport

_TEXT_WIDTH = 96
_TABLE_WIDTH = 110
_NUMBERS = ("step", "candidate", "reference", "difference", "tolerance")
_SPARE = ("at", "tolerance", "reference", "candidate", "leaf")
"""Columns that a narrow table leaves out, one after another."""


def plain(report: "OptimizerReport") -> str:
    """The report as text without colours."""
    blocks = [_aligned(_table(report, _TABLE_WIDTH))] if report.sequences else []
    if report.properties:
        blocks.append("\n".join(["what else was asked of the candidate:", *_properties(report, _TEXT_WIDTH)]))
    blocks += [_wrapped(report.diagnosis, _TEXT_WIDTH), _wrapped(_footer(report), _TEXT_WIDTH)]
    lines = "\n\n".join(block for block in blocks if block).splitlines()
    return "\n".join(line.rstrip() for line in lines)


def for_terminal(report: "OptimizerReport") -> str | None:
    """The report with a terminal's colours and width; ``None`` where standard output is none or rich isn't there."""
    if not getattr(sys.stdout, "isatty", bool)() or importlib.util.find_spec("rich") is None:
        return None
    from rich.console import Console, RenderableType
    from rich.panel import Panel
    from rich.text import Text

    console = Console(highlight=False)
    width = min(console.width, _TEXT_WIDTH + 4)
    parts: list[RenderableType] = [_coloured(_table(report, console.width))] if report.sequences else []
    if report.properties:
        lines = [Text("what else was asked of the candidate", style="bold")]
        for line, item in zip(_properties(report, width), report.properties, strict=True):
            lines.append(Text(line, style="" if item.ok else "red"))
        parts.append(Text("\n").join(lines))
    title, colour = ("the same", "green") if report.ok else ("different", "red")
    parts.append(Panel(Text(_wrapped(report.diagnosis, width - 4)), title=title, border_style=colour, expand=False))
    parts.append(Text(_wrapped(_footer(report), width), style="dim"))
    with console.capture() as captured:
        for part in parts:
            console.print(part, *([] if isinstance(part, Panel) else [""]), sep="\n")
    return captured.get().rstrip("\n")


def pair(row: "SequenceReport") -> tuple[str, str]:
    """Both updates, in as many digits as tell a wrong one from the right one."""
    for digits in range(4, 18):
        candidate, reference = f"{row.candidate:.{digits}g}", f"{row.reference:.{digits}g}"
        if row.ok or row.candidate == row.reference or candidate != reference:
            break
    return candidate, reference


def _table(report: "OptimizerReport", width: int | float) -> _Table:
    rows = report.sequences
    pairs = [pair(row) for row in rows]
    columns: dict[str, list[str]] = {
        "gradients": [row.name for row in rows],
        "ok": ["yes" if row.ok else "NO" for row in rows],
        "step": [str(row.step or "") for row in rows],
        "leaf": [row.path or "." for row in rows],
        "at": [str(list(row.entry)) if row.entry else "" for row in rows],
        "candidate": [candidate for candidate, _ in pairs],
        "reference": [reference for _, reference in pairs],
        "difference": [_size(row.difference) for row in rows],
        "tolerance": [_size(row.tolerance) for row in rows],
    }
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    for name in _SPARE:
        if sum(_widths(columns)) + 2 * len(columns) - 2 > width:
            columns.pop(name, None)
    widths = dict(zip(columns, _widths(columns), strict=True))
    aligned = {
        name.rjust(widths[name]) if name in _NUMBERS else name: [
            cell.rjust(widths[name]) if name in _NUMBERS else cell for cell in cells
        ]
        for name, cells in columns.items()
    }
    return _Table("", rows, aligned, "")  # type: ignore[arg-type]  # a row of either report has ``ok``


def _properties(report: "OptimizerReport", width: int) -> list[str]:
    lines = [f"{'yes' if item.ok else 'NO':<3}  {item.name}: {item.detail}" for item in report.properties]
    return [_wrapped(line.removesuffix(": "), width, hanging=7) for line in lines]


def _footer(report: "OptimizerReport") -> str:
    parts = [f"tolerance: {report.tolerance}"] if report.tolerance else []
    if report.seconds:
        parts.append(f"{report.seconds:.1f} s" if report.seconds >= 0.1 else f"{1000 * report.seconds:.0f} ms")
    return "; ".join(parts)
