"""How a report is shown: as plain text, by rich on a terminal, by jinja2 and matplotlib as a page."""

import base64
import cmath
import importlib.resources
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from funcnn._tables import (
    FIRST_ROWS,
    MOST_ROWS,
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
    from funcnn.gradcheck.report import GradientReport, LeafReport

_MOST_ORIGINS = 3
_NUMBERS = ("by hand", "autodiff", "difference", "relative", "tolerance")
_SPARE = ("relative", "at", "shape", "dtype", "tolerance", "by hand", "autodiff")
"""Columns that a narrow table leaves out, one after another; before them a dtype that all share."""
_FIRST_WRONG = "<- first wrong"
_HEADING = "properties of the gradient by hand"


def plain(report: "GradientReport") -> str:
    """The report as text without colours, at most 110 columns wide for paths and causes of usual length."""
    blocks = [aligned(table) for table in _tables(report, TABLE_WIDTH)]
    if report.properties:
        blocks.append("\n".join([f"{_HEADING}:", *told_properties(report.properties, TEXT_WIDTH)]))
    blocks.append(f"{wrapped(_verdict(report), TEXT_WIDTH)}\n{wrapped(report.diagnosis, TEXT_WIDTH)}".rstrip())
    return joined([*blocks, wrapped(_footer(report), TEXT_WIDTH)])


def for_terminal(report: "GradientReport") -> str | None:
    """The report with a terminal's colours and width; ``None`` where standard output is none or rich isn't there."""
    return on_terminal(
        lambda width: _tables(report, width), _HEADING, report.properties,
        words=f"{_verdict(report)}\n\n{report.diagnosis}", title="right" if report.ok else "wrong",
        colour="red" if not report.ok else "green" if report.verdict == "agrees" else "yellow",
        footer=_footer(report),
    )  # fmt: skip


def write_html(report: "GradientReport", path: str | os.PathLike[str]) -> None:
    """Write the report as a page that needs nothing beside it, a heat map for each leaf and step that isn't right.

    Raises:
        ModuleNotFoundError: jinja2 or matplotlib isn't installed.
    """
    try:
        import jinja2
        import matplotlib  # noqa: F401 - a page without its pictures isn't begun
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"GradientReport.to_html: expected jinja2 and matplotlib, got no {error.name}. "
            "Install them: pip install 'funcnn[report]'.",
            name=error.name,
        ) from error
    template = importlib.resources.files("funcnn.gradcheck").joinpath("report.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    different = [leaf for leaf in (*report.leaves, *report.steps) if not leaf.ok and any(map(any, leaf.differences))]
    page = environment.from_string(template).render(
        report=report,
        tables=list(zip(_tables(report, math.inf, math.inf), filter(None, (report.leaves, report.steps)), strict=True)),
        pictures=[(leaf, _picture(leaf)) for leaf in different],
        numbers=_NUMBERS,
        footer=_footer(report),
    )
    Path(path).write_text(page, encoding="utf-8")


def _tables(report: "GradientReport", width: int | float, most: int | float = MOST_ROWS) -> list[Table]:
    tables = [_table("", "parameter", report.leaves, width, most)] if report.leaves else []
    if report.steps:
        title = "intermediate gradients in backward order, from the loss to the input"
        tables.append(_table(title, "gradient of", report.steps, width, most))
    return tables


def _table(title: str, what: str, leaves: Sequence["LeafReport"], width: int | float, most: int | float) -> Table:
    shown, note = leaves, ""
    if len(leaves) > most:
        shown = [leaf for place, leaf in enumerate(leaves) if place < FIRST_ROWS or not leaf.ok or leaf.cause]
        note = f"{len(leaves) - len(shown)} more, all right, are left out."
    values = [_values(leaf) for leaf in shown]
    columns: dict[str, list[str]] = {
        what: [leaf.path or "." for leaf in shown],
        "shape": [str(leaf.shape) for leaf in shown],
        "dtype": [leaf.dtype for leaf in shown],
        "ok": ["NO" if not leaf.ok else "exact" if leaf.exact else "yes" for leaf in shown],
        "at": [str(list(leaf.worst)) if leaf.worst else "" for leaf in shown],
        "by hand": [by_hand for by_hand, _ in values],
        "autodiff": [by_autodiff for _, by_autodiff in values],
        "difference": [size(leaf.max_abs_difference) for leaf in shown],
        "relative": [size(leaf.relative_difference) for leaf in shown],
        "tolerance": [size(leaf.tolerance) for leaf in shown],
        "cause": [leaf.cause or "" for leaf in shown],
        "": ["" for _ in shown],
    }
    if title and any(not leaf.ok for leaf in shown):
        columns[""][[leaf.ok for leaf in shown].index(False)] = _FIRST_WRONG
    shared_dtype = ("dtype",) if len({leaf.dtype for leaf in shown}) == 1 else ()
    columns = fitted(columns, (*shared_dtype, *_SPARE), width)
    return Table(title, columns, _NUMBERS, [not leaf.ok for leaf in shown], note)


def _values(leaf: "LeafReport") -> tuple[str, str]:
    """The gradient by hand and by autodiff, in as many digits as tell a wrong one from the right one."""
    if all(map(cmath.isnan, (leaf.by_hand, leaf.by_autodiff))) and leaf.cause != "nonfinite":
        return "", ""
    return told_apart(leaf.by_hand, leaf.by_autodiff, leaf.ok)


def _verdict(report: "GradientReport") -> str:
    return f"verdict: {report.verdict}" + (f": {report.reason}" if report.reason else "")


def _footer(report: "GradientReport") -> str:
    leaves = (*report.leaves, *report.steps)
    dtypes = ", ".join(dict.fromkeys(leaf.dtype for leaf in report.leaves))
    parts = [f"{dtypes} compared in {report.precision}".strip()] if report.precision else []
    origins = list(dict.fromkeys(leaf.tolerance_origin for leaf in leaves if leaf.tolerance_origin))
    if len(origins) > _MOST_ORIGINS:
        origins[_MOST_ORIGINS:] = [f"{len(origins) - _MOST_ORIGINS} more"]
    parts += [f"tolerance: {', or '.join(origins)}"] if origins else []
    seconds, gradients, losses = report.cost
    if any(report.cost):
        counts = f"{gradients:,} gradient{'s' * (gradients != 1)} and {losses:,} loss{'es' * (losses != 1)}"
        parts.append(f"{counts} in {took(seconds)}")
    return "; ".join(parts)


def _picture(leaf: "LeafReport") -> str:
    """The differences as colours, blue where the gradient by hand is too small, as a PNG in a data URI."""
    from matplotlib.figure import Figure

    rows, columns = len(leaf.differences), len(leaf.differences[0])
    finite = [abs(entry) for row in leaf.differences for entry in row if math.isfinite(entry)]
    largest = max(finite, default=0.0) or 1.0
    # The axes count the gradient's own rows and columns, also where an entry stands for a block of them.
    high, wide = (leaf.shape[0], math.prod(leaf.shape[1:])) if len(leaf.shape) > 1 else (1, math.prod(leaf.shape))
    height = 1.2 + 3.4 * min(max(rows / columns, 0.08), 1.0)
    figure = Figure(figsize=(4.8, height), facecolor="none", layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("0.6")
    image = axes.imshow(
        [[entry if math.isfinite(entry) else math.nan for entry in row] for row in leaf.differences],
        cmap="RdBu_r", vmin=-largest, vmax=largest, aspect="auto", interpolation="nearest",
        extent=(-0.5, wide - 0.5, high - 0.5, -0.5),
    )  # fmt: skip
    axes.set(xlabel="column", ylabel="row")
    axes.locator_params(integer=True, min_n_ticks=1)
    figure.colorbar(image, ax=axes, label="by hand − autodiff", format="%.1e")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=144)
    return "data:image/png;base64," + base64.b64encode(picture.getvalue()).decode()
