"""Parts of a page: a template with its values, and heat maps."""

import base64
import importlib.resources
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def check_page_libraries(name: str) -> None:
    """Check that jinja2 and matplotlib are installed, for the public method ``name``.

    Raises:
        ModuleNotFoundError: one of them isn't installed.
    """
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{name}: expected jinja2 and matplotlib, got no {error.name}. Install them: pip install 'funcnn[report]'.",
            name=error.name,
        ) from error


def write_page(path: str | os.PathLike[str], package: str, template: str, **values: Any) -> None:
    """Write a page from the jinja2 template in a package, with the values of its variables."""
    import jinja2

    text = importlib.resources.files(package).joinpath(template).read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    Path(path).write_text(environment.from_string(text).render(values), encoding="utf-8")


def heat_map(rows: Sequence[Sequence[float]], shape: tuple[int, ...], label: str) -> str:
    """Return a heat map of an array as a PNG in a data URI; negative entries are blue, positive ones red.

    Args:
        rows: the entries, or the largest of each block of a larger array.
        shape: the array's shape; its first axis gives the rows, the others together the columns.
        label: the label of the colour bar.
    """
    from matplotlib.figure import Figure

    finite = [abs(entry) for row in rows for entry in row if math.isfinite(entry)]
    peak = max(finite, default=0.0) or 1.0
    # The axes show the array's own rows and columns, also if an entry represents a block of them.
    height, width = (shape[0], math.prod(shape[1:])) if len(shape) > 1 else (1, math.prod(shape))
    figure_height = 1.2 + 3.4 * min(max(len(rows) / len(rows[0]), 0.08), 1.0)
    figure = Figure(figsize=(4.8, figure_height), facecolor="none", layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("0.6")
    image = axes.imshow(
        [[entry if math.isfinite(entry) else math.nan for entry in row] for row in rows],
        cmap="RdBu_r", vmin=-peak, vmax=peak, aspect="auto", interpolation="nearest",
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
    )  # fmt: skip
    axes.set(xlabel="column", ylabel="row")
    axes.locator_params(integer=True, min_n_ticks=1)
    figure.colorbar(image, ax=axes, label=label, format="%.1e")
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=144)
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()
