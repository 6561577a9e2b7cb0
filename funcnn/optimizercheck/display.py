"""Rendering of an optimizer report: as plain text, and with rich on a terminal."""

from typing import TYPE_CHECKING

from funcnn._tables import (
    TABLE_WIDTH,
    TEXT_WIDTH,
    Table,
    aligned,
    fitted,
    joined,
    on_terminal,
    size,
    told_apart,
    told_properties,
    took,
    wrapped,
)

if TYPE_CHECKING:
    from funcnn.optimizercheck.report import OptimizerReport, SequenceReport

_NUMBERS = ("step", "candidate", "reference", "difference", "tolerance")
_SPARE = ("at", "tolerance", "reference", "candidate", "leaf")
"""The columns that a narrow table omits, in this order."""
_HEADING = "other properties of the candidate"


def plain(report: "OptimizerReport") -> str:
    """Return the report as text without colours."""
    blocks = [aligned(table) for table in _tables(report, TABLE_WIDTH)]
    if report.properties:
        blocks.append("\n".join([f"{_HEADING}:", *told_properties(report.properties, TEXT_WIDTH)]))
    return joined([*blocks, wrapped(report.diagnosis, TEXT_WIDTH), wrapped(_footer(report), TEXT_WIDTH)])


def for_terminal(report: "OptimizerReport") -> str | None:
    """Return the report for a terminal; ``None`` if standard output is no terminal or rich isn't installed."""
    title, colour = ("the same", "green") if report.ok else ("different", "red")
    return on_terminal(
        lambda width: _tables(report, width), _HEADING, report.properties, words=report.diagnosis,
        title=title, colour=colour, footer=_footer(report),
    )  # fmt: skip


def pair(row: "SequenceReport") -> tuple[str, str]:
    """Return both updates as text, with enough digits to show their difference."""
    return told_apart(row.candidate, row.reference, row.ok)


def _tables(report: "OptimizerReport", width: int | float) -> list[Table]:
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
        "difference": [size(row.difference) for row in rows],
        "tolerance": [size(row.tolerance) for row in rows],
    }
    failed = [not row.ok for row in rows]
    return [Table("", fitted(columns, _SPARE, width), _NUMBERS, failed)] if rows else []


def _footer(report: "OptimizerReport") -> str:
    parts = [f"tolerance: {report.tolerance}"] if report.tolerance else []
    return "; ".join([*parts, took(report.seconds)] if report.seconds else parts)
