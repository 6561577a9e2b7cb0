"""Figures of the report: Vega-Lite charts by Altair in one style, with tooltips.

A figure is a row of panels with a title, a caption and an alternative text. Colours come from the page, which is light
or dark; a chart names none.
"""

import base64
import io
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import altair as alt
import contourpy
import numpy as np
from matplotlib import colormaps
from numpy.typing import ArrayLike
from PIL import Image

MOST_POINTS = 200
HEIGHT = 260
LEGEND_LETTERS = 40
FORMAT = ".4~g"
POWERS = ".0e"
"""The format of labels that are powers of ten. The page writes them as 10⁻³."""
TICKS = 6
DASHES = ((4, 3), (1, 3), (9, 3), (9, 3, 2, 3))
"""The dashes of the first threshold, of the second, and so on."""
FRAME = (128, 128, 128, 70)
PALETTE = 64


class Panel(NamedTuple):
    """A chart as a Vega-Lite specification, with a subtitle and the names of its dashed lines.

    The names stand above the chart, where they cover no mark.
    """

    subtitle: str
    specification: dict[str, Any]
    thresholds: tuple[str, ...] = ()


class Figure(NamedTuple):
    """Panels that belong together.

    Fields:
        title: a statement of what the figure shows, or a noun phrase.
        alternative: the content and the result in words, for readers who can't see the figure.
        caption: the method, and how to read the figure.
    """

    title: str
    alternative: str
    panels: tuple[Panel, ...]
    caption: str = ""


class Curve(NamedTuple):
    """A curve, with a band around it if it has one (an interval, a spread)."""

    x: ArrayLike
    y: ArrayLike
    low: ArrayLike | None = None
    high: ArrayLike | None = None


def panel(chart: alt.TopLevelMixin, subtitle: str = "", thresholds: Collection[str] = ()) -> Panel:
    """Return a panel of an Altair chart in the page's style, as wide as its container."""
    specification = chart.to_dict()
    specification.pop("config", None)
    return Panel(subtitle, {"width": "container", "height": HEIGHT} | specification, tuple(thresholds))


def lines(
    curves: Mapping[str, Curve],
    *,
    x: str,
    y: str,
    subtitle: str = "",
    log: str = "",
    points: bool = False,
    thresholds: Mapping[str, float] | None = None,
    range_y: tuple[float, float] | None = None,
    dashed: Collection[str] = (),
) -> Panel:
    """Return a panel of curves with their bands, and of horizontal lines for thresholds. Dash curves that coincide.

    ``log`` names the logarithmic axes: ``""``, ``"x"``, ``"y"`` or ``"xy"``; values that aren't positive are left out.
    """
    rows = [row for name, curve in curves.items() for row in _curve_rows(name, curve, log)]
    across = alt.X("x:Q", title=x, scale=_scale("x" in log), axis=_axis("x" in log, _values(rows, "x")))
    vertical = _scale("y" in log, range_y)
    reached = range_y or [*_values(rows, "y", "low", "high"), *(thresholds or {}).values()]
    up = alt.Y("y:Q", title=y, scale=vertical, axis=_axis("y" in log, reached))
    colour = _colour(list(curves))
    base = alt.Chart().encode(x=across, color=colour)
    near = alt.selection_point(nearest=True, on="pointerover", fields=["x", "series"], empty=False, clear="pointerout")
    clip = range_y is not None
    hovered = base.mark_point(size=45, filled=True, clip=clip).encode(
        y=up, opacity=alt.condition(near, alt.value(1), alt.value(0.85 if points else 0)),
        tooltip=_tooltip(rows, {"series": "", "x": x, "y": y, "low": "from", "high": "to"}, len(curves)),
    ).add_params(near)  # fmt: skip
    kinds = {"strokeDash": _dashes(list(curves), dashed)} if dashed else {}
    layers = [base.mark_line(clip=clip).encode(y=up, **kinds)]
    if any("low" in row for row in rows):
        band = base.mark_area(opacity=0.18, clip=clip)
        layers.insert(0, band.encode(y=alt.Y("low:Q", title=y, scale=vertical), y2="high:Q"))
    marked = [_threshold(number, value) for number, value in enumerate((thresholds or {}).values())]
    return panel(alt.layer(*layers, *marked, hovered, data=alt.Data(values=rows)), subtitle, thresholds or ())


def bars(
    values: Mapping[str, float | tuple[float, float, float]],
    *,
    x: str,
    subtitle: str = "",
    log: bool = False,
    thresholds: Mapping[str, float] | None = None,
) -> Panel:
    """Return a panel of a dot for each name, with an interval for ``(estimate, low, high)``."""
    rows = []
    for name, value in values.items():
        estimate, *bounds = map(_round, np.atleast_1d(np.asarray(value, float)))
        rows.append({"name": name, "x": estimate} | dict(zip(("low", "high"), bounds, strict=False)))
    up = alt.Y("name:N", title=None, sort=None, axis=alt.Axis(labelLimit=260, grid=True))
    base = alt.Chart().encode(y=up)
    horizontal = _scale(log)
    reached = [*_values(rows, "x", "low", "high"), *(thresholds or {}).values()]
    across = alt.X("x:Q", title=x, scale=horizontal, axis=_axis(log, reached))
    layers = [base.mark_point(filled=True, size=70).encode(
        x=across, tooltip=_tooltip(rows, {"name": "", "x": x, "low": "from", "high": "to"}))]  # fmt: skip
    if any("low" in row for row in rows):
        layers.insert(
            0, base.mark_rule(strokeWidth=2.5).encode(x=alt.X("low:Q", title=x, scale=horizontal), x2="high:Q")
        )
    limits = (thresholds or {}).values()
    layers += [_threshold(number, value, upright=True) for number, value in enumerate(limits)]
    drawn = alt.layer(*layers, data=alt.Data(values=rows)).properties(height=alt.Step(26))
    return panel(drawn, subtitle, thresholds or ())


def histogram(
    values: Mapping[str, ArrayLike], *, x: str, subtitle: str = "", bins: int = 40, log: bool = False,
    thresholds: Mapping[str, float] | None = None,
) -> Panel:  # fmt: skip
    """Return a panel of the shares of values in common bins; with ``log``, of equal ratio."""
    together = np.concatenate([np.ravel(some) for some in values.values()]).astype(float)
    if log:
        edges = np.geomspace(together[together > 0].min(), together.max() * (1 + 1e-9), bins + 1)
    else:
        edges = np.histogram_bin_edges(together, bins)
    rows = []
    for name, some in values.items():
        counts, _ = np.histogram(np.ravel(some), edges)
        share = counts / max(1, np.size(some))
        rows += [
            {"series": name, "x": _round(left), "to": _round(right), "y": _round(height)}
            for left, right, height in zip(edges[:-1], edges[1:], share, strict=True)
            if height
        ]
    drawn = alt.Chart(alt.Data(values=rows)).mark_bar(opacity=0.6, binSpacing=0).encode(
        x=alt.X("x:Q", title=x, scale=_scale(log), axis=_axis(log, edges)), x2="to:Q",
        y=alt.Y("y:Q", title="share", stack=None), y2=alt.datum(0), color=_colour(list(values)),
        tooltip=_tooltip(rows, {"series": "", "x": "from", "to": "to", "y": "share"}, len(values)),
    )  # fmt: skip
    limits = (thresholds or {}).values()
    marked = [_threshold(number, value, upright=True) for number, value in enumerate(limits)]
    return panel(alt.layer(drawn, *marked), subtitle, thresholds or ())


def heatmap(
    values: ArrayLike, *, rows: Sequence[Any], columns: Sequence[Any], x: str, y: str, value: str, subtitle: str = "",
    log: bool = False, diverging: bool = False, number: Callable[[float], str] | None = None,
) -> Panel:  # fmt: skip
    """Return a panel of cells for each row and column, coloured by their values.

    ``number`` formats the value that is written into a cell; without it cells have no text.
    """
    cells = [
        {"row": str(row), "column": str(column), "value": _round(values[i][j])}
        | ({"text": number(float(values[i][j]))} if number else {})
        for i, row in enumerate(rows)
        for j, column in enumerate(columns)
    ]
    kind = "symlog" if log and np.min(values) <= 0 else "log" if log else "linear"
    middle = {"domainMid": 0} if diverging else {}
    shade = alt.Color("value:Q", title=value, scale=alt.Scale(type=kind, **middle), legend=alt.Legend(format=FORMAT))
    base = alt.Chart().encode(x=alt.X("column:N", title=x, sort=None), y=alt.Y("row:N", title=y, sort=None))
    layers = [base.mark_rect().encode(color=shade, tooltip=_tooltip(cells, {"row": y, "column": x, "value": value}))]
    if number:
        half = (float(np.min(values)) + float(np.max(values))) / 2
        layers += [
            base.mark_text(style=style).encode(text="text:N").transform_filter(f"datum.value {relation} {half}")
            for style, relation in (("cell-label", "<="), ("cell-label-strong", ">"))
        ]
    return panel(alt.layer(*layers, data=alt.Data(values=cells)), subtitle)


def scatter(
    groups: Mapping[str, ArrayLike], *, x: str, y: str, subtitle: str = "", log: str = "", size: int = 30
) -> Panel:
    """Return a panel of points of a few groups, each ``(points, 2)``."""
    rows = [
        {"series": name, "x": _round(left), "y": _round(right)}
        for name, points in groups.items()
        for left, right in np.asarray(points, float)
    ]
    drawn = alt.Chart(alt.Data(values=rows)).mark_point(filled=True, size=size, opacity=0.75).encode(
        x=alt.X("x:Q", title=x, scale=_scale("x" in log, zero=False), axis=_axis("x" in log, _values(rows, "x"))),
        y=alt.Y("y:Q", title=y, scale=_scale("y" in log, zero=False), axis=_axis("y" in log, _values(rows, "y"))),
        color=_colour(list(groups)), tooltip=_tooltip(rows, {"series": "", "x": x, "y": y}, len(groups)),
    )  # fmt: skip
    return panel(drawn, subtitle)


def plane(
    values: ArrayLike, *, across: ArrayLike, up: ArrayLike, x: str, y: str, subtitle: str = "",
    levels: Sequence[float] = (), shade: tuple[float, float] | None = None,
    paths: Mapping[str, ArrayLike] | None = None, points: Mapping[str, ArrayLike] | None = None,
) -> Panel:  # fmt: skip
    """Return a panel of a function over a plane: shading, contours, paths and points.

    Args:
        values: the function on the grid, ``values[row of up, column of across]``.
        levels: the levels of the contours.
        shade: the values of the two full colours; without it nothing is shaded.
        paths: paths through the plane, ``(steps, 2)`` each.
        points: labelled points, ``(points, 2)`` each.
    """
    values, across, up = (np.asarray(array, float) for array in (values, across, up))
    scales = {
        "x": alt.X("x:Q", title=x, scale=alt.Scale(domain=[across[0], across[-1]], nice=False), axis=_axis(False)),
        "y": alt.Y("y:Q", title=y, scale=alt.Scale(domain=[up[0], up[-1]], nice=False), axis=_axis(False)),
    }
    layers = []
    if shade is not None:
        corner = {"x": across[0], "y": up[-1], "x2": across[-1], "y2": up[0], "url": _image_url(values, shade)}
        layers.append(alt.Chart(alt.Data(values=[corner])).mark_image(aspect=False).encode(
            **scales, x2="x2:Q", y2="y2:Q", url="url:N"))  # fmt: skip
    if len(levels):
        found = contourpy.contour_generator(across, up, values)
        rows = [
            {"x": _round(left), "y": _round(right), "level": level, "line": f"{level} {number}", "step": step}
            for level in map(float, levels)
            for number, line in enumerate(found.lines(level))
            for step, (left, right) in enumerate(_thin(line))
        ]
        layers.append(alt.Chart(alt.Data(values=rows)).mark_line(style="contour", clip=True).encode(
            **scales, detail="line:N", order="step:Q", tooltip=[alt.Tooltip("level:Q", format=FORMAT)]))  # fmt: skip
    if paths:
        rows = [
            {"series": name, "x": _round(left), "y": _round(right), "step": step}
            for name, path in paths.items()
            for step, (left, right) in _thin(list(enumerate(np.asarray(path, float).tolist())))
        ]
        way = alt.Chart().encode(
            **scales, order="step:Q", color=_colour(list(paths)),
            tooltip=_tooltip(rows, {"series": "", "step": "step", "x": x, "y": y}, len(paths)),
        )  # fmt: skip
        layers.append(
            alt.layer(
                way.mark_line(clip=True), way.mark_point(filled=True, size=28, clip=True), data=alt.Data(values=rows)
            )
        )
    if points:
        rows = [
            {"label": label, "x": _round(left), "y": _round(right)}
            for label, some in points.items()
            for left, right in np.asarray(some, float)
        ]
        spot = alt.Chart(alt.Data(values=rows)).encode(**scales)
        # A letter fits into its spot; a word stands above it.
        lifted = 0 if max(map(len, points)) <= 2 else -16
        layers += [
            spot.mark_point(style="spot", size=260 if lifted == 0 else 60),
            spot.mark_text(style="spot-label", dy=lifted).encode(text="label:N"),
        ]
    return panel(alt.layer(*layers).properties(height=320), subtitle)


def images(
    pictures: ArrayLike, *, subtitle: str = "", columns: int = 8, diverging: bool = True, each: bool = True
) -> Panel:
    """Return a panel of framed pictures ``(pictures, height, width)``, on one scale or ``each`` on its own."""
    pictures = np.asarray(pictures, float)
    count, high, wide = pictures.shape
    if not diverging:
        pictures = pictures - pictures.min()
    bound = np.abs(pictures).max(axis=(1, 2), keepdims=True) if each else np.abs(pictures).max()
    scaled = pictures / np.where(bound == 0, 1, bound)
    rows, gap = -(-count // columns), max(1, round(max(high, wide) / 10))
    sheet = np.full((rows * (high + gap) + gap, columns * (wide + gap) + gap), np.nan)
    for number, picture in enumerate(scaled):
        top, left = gap + number // columns * (high + gap), gap + number % columns * (wide + gap)
        sheet[top : top + high, left : left + wide] = picture
    drawn = alt.Chart(alt.Data(values=[{"url": _image_url(sheet[::-1], (-1, 1))}])).mark_image(
        aspect=True, width=alt.expr("width"), height=alt.expr("height")
    ).encode(x=alt.value(alt.expr("width / 2")), y=alt.value(alt.expr("height / 2")), url="url:N")  # fmt: skip
    return panel(drawn.properties(height=int(np.clip(420 * sheet.shape[0] / sheet.shape[1], 40, 420))), subtitle)


# Helpers --------------------------------------------------------------------------------------------------------------


def _curve_rows(name: str, curve: Curve, log: str) -> list[dict[str, Any]]:
    columns = {"x": curve.x, "y": curve.y, "low": curve.low, "high": curve.high}
    arrays = {key: np.ravel(np.asarray(column, float)) for key, column in columns.items() if column is not None}
    drawn = np.all([np.isfinite(array) for array in arrays.values()], axis=0)
    for axis in log:
        drawn &= arrays[axis] > 0
        if axis == "y" and "low" in arrays:
            arrays["low"] = np.where(arrays["low"] > 0, arrays["low"], arrays["y"])
    chosen = _spread_evenly(np.flatnonzero(drawn), arrays["x"], "x" in log)
    return [{"series": name} | {key: _round(array[i]) for key, array in arrays.items()} for i in chosen]


def _spread_evenly(places: np.ndarray, x: np.ndarray, log: bool) -> np.ndarray:
    """Return at most MOST_POINTS of the indices, evenly spread over the drawn axis."""
    if len(places) <= MOST_POINTS:
        return places
    at = np.log(x[places]) if log else x[places]
    wanted = np.linspace(at.min(), at.max(), MOST_POINTS)
    return places[np.unique(np.searchsorted(at, wanted, side="left").clip(0, len(places) - 1))]


def _thin(line: Sequence[Any]) -> list[Any]:
    keep = np.unique(np.linspace(0, len(line) - 1, min(len(line), MOST_POINTS)).astype(int))
    return [line[i] for i in keep]


def _round(value: float) -> float | None:
    """Round to five digits, which keeps the page small."""
    return float(f"{value:.5g}") if np.isfinite(value) else None


def _scale(log: bool, domain: tuple[float, float] | None = None, *, zero: bool | None = None) -> alt.Scale:
    wanted: dict[str, Any] = {"type": "log"} if log else {"type": "linear", "zero": bool(zero)}
    return alt.Scale(**wanted, **({"domain": list(domain), "nice": False} if domain else {}))


def _axis(log: bool, reached: Sequence[float] | np.ndarray = ()) -> alt.Axis:
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


def _values(rows: Sequence[Mapping[str, Any]], *keys: str) -> list[float]:
    return [row[key] for row in rows for key in keys if row.get(key) is not None]


def _colour(names: list[str]) -> alt.Color | alt.utils.schemapi.UndefinedType:
    if len(names) == 1:
        return alt.Undefined
    columns = max(1, LEGEND_LETTERS // (max(map(len, names)) + 4))
    return alt.Color("series:N", title=None, sort=None, scale=alt.Scale(domain=names),
                     legend=alt.Legend(orient="top", labelLimit=260, columns=columns, symbolOpacity=1))  # fmt: skip


def _dashes(names: list[str], dashed: Collection[str]) -> alt.StrokeDash:
    scale = alt.Scale(domain=names, range=[[5, 4] if name in dashed else [1, 0] for name in names])
    return alt.StrokeDash(field="series", type="nominal", scale=scale, legend=None)


def _tooltip(rows: list[dict[str, Any]], titles: Mapping[str, str], names: int = 2) -> list[alt.Tooltip]:
    known = {key for row in rows for key in row}
    return [
        alt.Tooltip(f"{key}:{'N' if key in ('series', 'name', 'row', 'column', 'label') else 'Q'}", title=title or " ",
                    **({} if key in ("series", "name", "row", "column", "label") else {"format": FORMAT}))
        for key, title in titles.items()
        if key in known and not (key == "series" and names == 1)
    ]  # fmt: skip


def _threshold(number: int, value: float, *, upright: bool = False) -> alt.Chart:
    """Return the dashed line of a panel's threshold. Its name stands above the panel."""
    place = {"x": "at:Q"} if upright else {"y": "at:Q"}
    dashes = list(DASHES[number % len(DASHES)])
    return alt.Chart(alt.Data(values=[{"at": value}])).mark_rule(style="threshold", strokeDash=dashes).encode(**place)


def _image_url(values: np.ndarray, shade: tuple[float, float]) -> str:
    """Return values as an image in a data URL: full colour at both ends, transparent between, a frame where NaN."""
    is_frame = np.isnan(values)
    values = np.where(is_frame, shade[0], values)
    place = np.clip((values - shade[0]) / (shade[1] - shade[0]), 0, 1)
    colours = (colormaps["PuOr_r"](place) * 255).astype(np.uint8)
    colours[..., 3] = (255 * np.abs(2 * place - 1) ** 0.7).astype(np.uint8)
    colours[is_frame] = FRAME
    written = io.BytesIO()
    # A palette takes a fifth of the bytes; the eye finds no difference.
    picture = Image.fromarray(colours[::-1]).quantize(PALETTE, method=Image.Quantize.FASTOCTREE)
    picture.save(written, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()
