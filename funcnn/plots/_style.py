"""What all plots share: the figure, ten colours, ten markers, and the legend above the axes."""

from typing import TYPE_CHECKING, Any, TypeAlias

from funcnn._optional import import_optional

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

    Canvas: TypeAlias = Figure | SubFigure
else:
    # matplotlib is imported by the first plot, not by ``import funcnn``.
    Canvas = Any

COLOURS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
"""Ten colours that differ for readers with each kind of colour blindness too.

Source: Petroff, "Accessible color sequences for data visualization", 2021, arXiv:2107.02270.
"""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
"""Each class has a marker beside its colour."""
INK = "#333333"
GRID = "#dddddd"


def new_canvas(call: str, figure: Canvas | None, size: tuple[float, float]) -> Canvas:
    """Return the figure that was given, or a new one of a size in inches that notebooks show."""
    module = import_optional("matplotlib.figure", call, "plots")
    if figure is not None:
        if not isinstance(figure, module.Figure | module.SubFigure):
            raise TypeError(
                f"{call}(figure): expected a matplotlib figure or subfigure, got {figure!r}. "
                "Pass plt.figure(), or leave it out."
            )
        return figure
    made = module.Figure(figsize=size, layout="constrained", dpi=120)
    # A figure that pyplot did not make has no picture in a notebook otherwise.
    made._repr_png_ = lambda: _png(made)
    return made


def _png(figure: Any) -> bytes:
    import io

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    return buffer.getvalue()


def tidy(axes: Any, *, title: str = "", x: str = "", y: str = "", grid: bool = True) -> None:
    """Set title and labels, and draw light lines behind the data."""
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    if grid:
        axes.grid(color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)


def legend_above(axes: Any, columns: int = 4) -> None:
    """Draw the legend above the axes, where it covers no data; the title stays above the legend."""
    entries = len(axes.get_legend_handles_labels()[1])
    if entries < 2:
        return
    rows = -(-entries // columns)
    title = axes.get_title(loc="left")
    axes.set_title(title, loc="left", fontsize=10, color=INK, pad=8 + 15 * rows)
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=columns, frameon=False, fontsize=9,
        borderaxespad=0.1, handletextpad=0.4, columnspacing=1.2,
    )  # fmt: skip
