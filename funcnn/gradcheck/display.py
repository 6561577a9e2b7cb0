"""How a report is shown: as plain text, by rich on a terminal, by jinja2 and matplotlib as a page."""

import base64
import cmath
import importlib.resources
import importlib.util
import io
import math
import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from funcnn.gradcheck.report import GradientReport, LeafReport

_TEXT_WIDTH = 96
_TABLE_WIDTH = 110
_MOST_ROWS = 40
_FIRST_ROWS = 10
_MOST_ORIGINS = 3
_NUMBERS = ("by hand", "autodiff", "difference", "relative", "tolerance")
_SPARE = ("relative", "at", "shape", "dtype", "tolerance", "by hand", "autodiff")
"""Columns that a narrow table leaves out, one after another; before them a dtype that all share."""
_FIRST_WRONG = "<- first wrong"


class _Table(NamedTuple):
    """Cells by the name of their column; a row for each of ``leaves``."""

    title: str
    leaves: Sequence["LeafReport"]
    columns: dict[str, list[str]]
    note: str


def plain(report: "GradientReport") -> str:
    """The report as text without colours, at most 110 columns wide for paths and causes of usual length."""
    blocks = [_aligned(table) for table in _tables(report, _TABLE_WIDTH)]
    if report.properties:
        blocks.append("\n".join(["properties of the gradient by hand:", *_properties(report, _TEXT_WIDTH)]))
    blocks.append(f"{_wrapped(_verdict(report), _TEXT_WIDTH)}\n{_wrapped(report.diagnosis, _TEXT_WIDTH)}".rstrip())
    blocks.append(_wrapped(_footer(report), _TEXT_WIDTH))
    lines = "\n\n".join(block for block in blocks if block).splitlines()
    return "\n".join(line.rstrip() for line in lines)


def for_terminal(report: "GradientReport") -> str | None:
    """The report with a terminal's colours and width; ``None`` where standard output is none or rich isn't there."""
    if not getattr(sys.stdout, "isatty", bool)() or importlib.util.find_spec("rich") is None:
        return None
    from rich.console import Console, RenderableType
    from rich.panel import Panel
    from rich.text import Text

    console = Console(highlight=False)
    width = min(console.width, _TEXT_WIDTH + 4)
    colour = "red" if not report.ok else "green" if report.verdict == "agrees" else "yellow"
    parts: list[RenderableType] = [_coloured(table) for table in _tables(report, console.width)]
    if report.properties:
        lines = [Text("properties of the gradient by hand", style="bold")]
        for line, item in zip(_properties(report, width), report.properties, strict=True):
            lines.append(Text(line, style="" if item.ok else "red"))
        parts.append(Text("\n").join(lines))
    words = f"{_wrapped(_verdict(report), width - 4)}\n\n{_wrapped(report.diagnosis, width - 4)}"
    title = "right" if report.ok else "wrong"
    parts.append(Panel(Text(words.rstrip()), title=title, border_style=colour, expand=False))
    parts.append(Text(_wrapped(_footer(report), width), style="dim"))
    with console.capture() as captured:
        for part in parts:
            console.print(part, *([] if isinstance(part, Panel) else [""]), sep="\n")
    return captured.get().rstrip("\n")


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
        tables=_tables(report, width=math.inf, most=math.inf),
        pictures=[(leaf, _picture(leaf)) for leaf in different],
        numbers=_NUMBERS,
        footer=_footer(report),
    )
    Path(path).write_text(page, encoding="utf-8")


def _tables(report: "GradientReport", width: int | float, most: int | float = _MOST_ROWS) -> list[_Table]:
    tables = [_table("", "parameter", report.leaves, width, most)] if report.leaves else []
    if report.steps:
        title = "intermediate gradients in backward order, from the loss to the input"
        tables.append(_table(title, "gradient of", report.steps, width, most))
    return tables


def _table(title: str, what: str, leaves: Sequence["LeafReport"], width: int | float, most: int | float) -> _Table:
    shown, note = leaves, ""
    if len(leaves) > most:
        shown = [leaf for place, leaf in enumerate(leaves) if place < _FIRST_ROWS or not leaf.ok or leaf.cause]
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
        "difference": [_size(leaf.max_abs_difference) for leaf in shown],
        "relative": [_size(leaf.relative_difference) for leaf in shown],
        "tolerance": [_size(leaf.tolerance) for leaf in shown],
        "cause": [leaf.cause or "" for leaf in shown],
        "": ["" for _ in shown],
    }
    if title and any(not leaf.ok for leaf in shown):
        columns[""][[leaf.ok for leaf in shown].index(False)] = _FIRST_WRONG
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    for name in ("dtype" if len({leaf.dtype for leaf in shown}) == 1 else "", *_SPARE):
        if name and sum(_widths(columns)) + 2 * len(columns) - 2 > width:
            columns.pop(name, None)
    return _Table(title, shown, columns, note)


def _values(leaf: "LeafReport") -> tuple[str, str]:
    """The gradient by hand and by autodiff, in as many digits as tell a wrong one from the right one."""
    pair = (leaf.by_hand, leaf.by_autodiff)
    if all(map(cmath.isnan, pair)) and leaf.cause != "nonfinite":
        return "", ""
    for digits in range(4, 18):
        by_hand, by_autodiff = (f"{value:.{digits}g}" for value in pair)
        if leaf.ok or pair[0] == pair[1] or by_hand != by_autodiff:
            break
    return by_hand, by_autodiff


def _size(figure: float) -> str:
    return "0" if figure == 0 else f"{figure:.1e}"


def _widths(columns: dict[str, list[str]]) -> list[int]:
    return [max(map(len, (name, *cells))) for name, cells in columns.items()]


def _aligned(table: _Table) -> str:
    widths = _widths(table.columns)
    rows = [list(table.columns), ["-" * width for width in widths], *zip(*table.columns.values(), strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if name in _NUMBERS else cell.ljust(width)
            for name, cell, width in zip(table.columns, row, widths, strict=True)
        )
        for row in rows
    ]
    return "\n".join([*([f"{table.title}:"] if table.title else []), *lines, *([table.note] if table.note else [])])


def _coloured(table: _Table):
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(
        title=table.title or None, title_style="bold", title_justify="left", caption=table.note or None,
        caption_justify="left", header_style="bold", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False,
        padding=(0, 1, 0, 0),
    )  # fmt: skip
    for name in table.columns:
        made.add_column(name, justify="right" if name in _NUMBERS else "left", overflow="fold")
    for leaf, row in zip(table.leaves, zip(*table.columns.values(), strict=True), strict=True):
        colours = {"ok": "green", "cause": "yellow"}
        if not leaf.ok:
            colours = dict.fromkeys(("ok", "difference", "cause", ""), "bold red")
        # Text, for a path such as [0].kernel would be read as rich's markup.
        made.add_row(*(Text(cell, style=colours.get(name, "")) for name, cell in zip(table.columns, row, strict=True)))
    return made


def _properties(report: "GradientReport", width: int) -> list[str]:
    lines = [f"{'yes' if item.ok else 'NO':<3}  {item.name}: {item.detail}" for item in report.properties]
    return [_wrapped(line.removesuffix(": "), width, hanging=7) for line in lines]


def _verdict(report: "GradientReport") -> str:
    return f"verdict: {report.verdict}" + (f": {report.reason}" if report.reason else "")


def _wrapped(text: str, width: int, hanging: int = 2) -> str:
    """Each line a paragraph of its own. Paths and hyphenated words stay whole."""
    wrapper = textwrap.TextWrapper(
        max(width, 20), subsequent_indent=" " * hanging, break_long_words=False, break_on_hyphens=False
    )  # fmt: skip
    return "\n".join(wrapper.fill(line) for line in text.splitlines())


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
        time = f"{seconds:.1f} s" if seconds >= 0.1 else f"{1000 * seconds:.0f} ms"
        counts = f"{gradients:,} gradient{'s' * (gradients != 1)} and {losses:,} loss{'es' * (losses != 1)}"
        parts.append(f"{counts} in {time}")
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
