"""The parts that charts share: axes, scales, colours, tooltips, dashed lines, and the rows of their data."""

import base64
import io
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
from matplotlib import colormaps
from PIL import Image

MOST_POINTS = 200
LEGEND_LETTERS = 40
FORMAT = ".4~g"
POWERS = ".0e"
"""The format of labels that are powers of ten. The page writes them as 10⁻³."""
TICKS = 6
DASHES = ((4, 3), (1, 3), (9, 3), (9, 3, 2, 3))
"""The dashes of the first threshold, of the second, and so on."""
FRAME = (128, 128, 128, 70)
PALETTE = 64


def spread_evenly(places: np.ndarray, x: np.ndarray, log: bool) -> np.ndarray:
    """Return at most MOST_POINTS of the indices, evenly spread over the drawn axis."""
    if len(places) <= MOST_POINTS:
        return places
    at = np.log(x[places]) if log else x[places]
    wanted = np.linspace(at.min(), at.max(), MOST_POINTS)
    return places[np.unique(np.searchsorted(at, wanted, side="left").clip(0, len(places) - 1))]


def thin(line: Sequence[Any]) -> list[Any]:
    """Return at most MOST_POINTS of the entries, evenly spread."""
    keep = np.unique(np.linspace(0, len(line) - 1, min(len(line), MOST_POINTS)).astype(int))
    return [line[i] for i in keep]


def rounded(value: float) -> float | None:
    """Round to five digits, which keeps the page small."""
    return float(f"{value:.5g}") if np.isfinite(value) else None


def scale(log: bool, domain: tuple[float, float] | None = None, *, zero: bool | None = None) -> alt.Scale:
    """Return the scale of an axis."""
    wanted: dict[str, Any] = {"type": "log"} if log else {"type": "linear", "zero": bool(zero)}
    return alt.Scale(**wanted, **({"domain": list(domain), "nice": False} if domain else {}))


def axis(log: bool, reached: Sequence[float] | np.ndarray = ()) -> alt.Axis:
    """Return an axis. A logarithmic one over two decades or more has labels at powers of ten."""
    powers = _powers_of_ten(reached) if log else []
    if powers:
        return alt.Axis(format=POWERS, values=powers, labelOverlap=True)
    return alt.Axis(format=FORMAT, tickCount=TICKS if log else 5, labelOverlap=True)


def _powers_of_ten(values: Sequence[float] | np.ndarray) -> list[float]:
    """Return at most seven powers of ten around positive values; none where they span less than two decades."""
    positive = [float(value) for value in values if value > 0]
    if not positive:
        return []
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    if high - low < 2:
        return []
    step = -(-(high - low) // TICKS)
    return [10.0**exponent for exponent in range(-(-low // step) * step, high + 1, step)]


def values_of(rows: Sequence[Mapping[str, Any]], *keys: str) -> list[float]:
    """Return the rows' values of some keys."""
    return [row[key] for row in rows for key in keys if row.get(key) is not None]


def colours(names: list[str]) -> alt.Color | alt.utils.schemapi.UndefinedType:
    """Return the colour of each series with a legend; undefined for a single series."""
    if len(names) == 1:
        return alt.Undefined
    columns = max(1, LEGEND_LETTERS // (max(map(len, names)) + 4))
    return alt.Color("series:N", title=None, sort=None, scale=alt.Scale(domain=names),
                     legend=alt.Legend(orient="top", labelLimit=260, columns=columns, symbolOpacity=1))  # fmt: skip


def dashes(names: list[str], dashed: Collection[str]) -> alt.StrokeDash:
    """Return dashes for some of the series."""
    scale = alt.Scale(domain=names, range=[[5, 4] if name in dashed else [1, 0] for name in names])
    return alt.StrokeDash(field="series", type="nominal", scale=scale, legend=None)


def tooltips(rows: list[dict[str, Any]], titles: Mapping[str, str], names: int = 2) -> list[alt.Tooltip]:
    """Return the tooltips of the keys that the rows have, with their titles."""
    known = {key for row in rows for key in row}
    return [
        alt.Tooltip(f"{key}:{'N' if key in ('series', 'name', 'row', 'column', 'label') else 'Q'}", title=title or " ",
                    **({} if key in ("series", "name", "row", "column", "label") else {"format": FORMAT}))
        for key, title in titles.items()
        if key in known and not (key == "series" and names == 1)
    ]  # fmt: skip


def threshold(number: int, value: float, *, upright: bool = False) -> alt.Chart:
    """Return the dashed line of a panel's threshold. Its name stands above the panel."""
    place = {"x": "at:Q"} if upright else {"y": "at:Q"}
    dashes = list(DASHES[number % len(DASHES)])
    return alt.Chart(alt.Data(values=[{"at": value}])).mark_rule(style="threshold", strokeDash=dashes).encode(**place)


def image_url(values: np.ndarray, shade: tuple[float, float]) -> str:
    """Return values as an image in a data URL: full colour at both ends, transparent between, a frame where NaN."""
    is_frame = np.isnan(values)
    values = np.where(is_frame, shade[0], values)
    place = np.clip((values - shade[0]) / (shade[1] - shade[0]), 0, 1)
    colours = (colormaps["PuOr_r"](place) * 255).astype(np.uint8)
    colours[..., 3] = (255 * np.abs(2 * place - 1) ** 0.7).astype(np.uint8)
    colours[is_frame] = FRAME
    written = io.BytesIO()
    # A palette takes a fifth of the bytes, without a visible difference.
    picture = Image.fromarray(colours[::-1]).quantize(PALETTE, method=Image.Quantize.FASTOCTREE)
    picture.save(written, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()
