"""Figures of the report: Vega-Lite charts by Altair in one style, with tooltips.

A figure is a row of panels with a title, a caption and an alternative text. Colours come from the page, which is light
or dark; a chart names none.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import altair as alt
import contourpy
import numpy as np
from numpy.typing import ArrayLike

from experiments.harness.chart_parts import (
    FORMAT,
    axis,
    colours,
    dashes,
    image_url,
    rounded,
    scale,
    spread_evenly,
    thin,
    threshold,
    tooltips,
    values_of,
)

HEIGHT = 260
LABELLED = 40
"""Pixels of a picture with a label."""


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
        title: a noun phrase: what is plotted, against what. The result is in the alternative text.
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
    across = alt.X("x:Q", title=x, scale=scale("x" in log), axis=axis("x" in log, values_of(rows, "x")))
    vertical = scale("y" in log, range_y)
    reached = range_y or [*values_of(rows, "y", "low", "high"), *(thresholds or {}).values()]
    up = alt.Y("y:Q", title=y, scale=vertical, axis=axis("y" in log, reached))
    colour = colours(list(curves))
    base = alt.Chart().encode(x=across, color=colour)
    near = alt.selection_point(nearest=True, on="pointerover", fields=["x", "series"], empty=False, clear="pointerout")
    clip = range_y is not None
    hovered = base.mark_point(size=45, filled=True, clip=clip).encode(
        y=up, opacity=alt.condition(near, alt.value(1), alt.value(0.85 if points else 0)),
        tooltip=tooltips(rows, {"series": "", "x": x, "y": y, "low": "from", "high": "to"}, len(curves)),
    ).add_params(near)  # fmt: skip
    kinds = {"strokeDash": dashes(list(curves), dashed)} if dashed else {}
    layers = [base.mark_line(clip=clip).encode(y=up, **kinds)]
    if any("low" in row for row in rows):
        band = base.mark_area(opacity=0.18, clip=clip)
        layers.insert(0, band.encode(y=alt.Y("low:Q", title=y, scale=vertical), y2="high:Q"))
    marked = [threshold(number, value) for number, value in enumerate((thresholds or {}).values())]
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
        estimate, *bounds = map(rounded, np.atleast_1d(np.asarray(value, float)))
        rows.append({"name": name, "x": estimate} | dict(zip(("low", "high"), bounds, strict=False)))
    up = alt.Y("name:N", title=None, sort=None, axis=alt.Axis(labelLimit=260, grid=True))
    base = alt.Chart().encode(y=up)
    horizontal = scale(log)
    reached = [*values_of(rows, "x", "low", "high"), *(thresholds or {}).values()]
    across = alt.X("x:Q", title=x, scale=horizontal, axis=axis(log, reached))
    layers = [base.mark_point(filled=True, size=70).encode(
        x=across, tooltip=tooltips(rows, {"name": "", "x": x, "low": "from", "high": "to"}))]  # fmt: skip
    if any("low" in row for row in rows):
        layers.insert(
            0, base.mark_rule(strokeWidth=2.5).encode(x=alt.X("low:Q", title=x, scale=horizontal), x2="high:Q")
        )
    limits = (thresholds or {}).values()
    layers += [threshold(number, value, upright=True) for number, value in enumerate(limits)]
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
            {"series": name, "x": rounded(left), "to": rounded(right), "y": rounded(height)}
            for left, right, height in zip(edges[:-1], edges[1:], share, strict=True)
            if height
        ]
    drawn = alt.Chart(alt.Data(values=rows)).mark_bar(opacity=0.6, binSpacing=0).encode(
        x=alt.X("x:Q", title=x, scale=scale(log), axis=axis(log, edges)), x2="to:Q",
        y=alt.Y("y:Q", title="share", stack=None), y2=alt.datum(0), color=colours(list(values)),
        tooltip=tooltips(rows, {"series": "", "x": "from", "to": "to", "y": "share"}, len(values)),
    )  # fmt: skip
    limits = (thresholds or {}).values()
    marked = [threshold(number, value, upright=True) for number, value in enumerate(limits)]
    return panel(alt.layer(drawn, *marked), subtitle, thresholds or ())


def heatmap(
    values: ArrayLike, *, rows: Sequence[Any], columns: Sequence[Any], x: str, y: str, value: str, subtitle: str = "",
    log: bool = False, diverging: bool = False, number: Callable[[float], str] | None = None,
    plain: ArrayLike | None = None,
) -> Panel:  # fmt: skip
    """Return a panel of cells for each row and column, coloured by their values.

    ``number`` formats the value that is written into a cell; without it cells have no text. Cells where ``plain`` is
    true have no colour.
    """
    values = np.asarray(values, float)
    coloured = np.where(np.zeros(values.shape, bool) if plain is None else plain, np.nan, values)
    cells = [
        {"row": str(row), "column": str(column), "value": rounded(coloured[i, j])}
        | ({"text": number(float(values[i, j]))} if number else {})
        for i, row in enumerate(rows)
        for j, column in enumerate(columns)
    ]
    kind = "symlog" if log and np.nanmin(coloured) <= 0 else "log" if log else "linear"
    middle = {"domainMid": 0} if diverging else {}
    shade = alt.Color("value:Q", title=value, scale=alt.Scale(type=kind, **middle), legend=alt.Legend(format=FORMAT))
    base = alt.Chart().encode(
        x=alt.X("column:N", title=x, sort=list(map(str, columns))), y=alt.Y("row:N", title=y, sort=list(map(str, rows)))
    )
    layers = [base.mark_rect().encode(color=shade, tooltip=tooltips(cells, {"row": y, "column": x, "value": value}))]
    if number:
        half = (float(np.nanmin(coloured)) + float(np.nanmax(coloured))) / 2
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
        {"series": name, "x": rounded(left), "y": rounded(right)}
        for name, points in groups.items()
        for left, right in np.asarray(points, float)
    ]
    drawn = alt.Chart(alt.Data(values=rows)).mark_point(filled=True, size=size, opacity=0.75).encode(
        x=alt.X("x:Q", title=x, scale=scale("x" in log, zero=False), axis=axis("x" in log, values_of(rows, "x"))),
        y=alt.Y("y:Q", title=y, scale=scale("y" in log, zero=False), axis=axis("y" in log, values_of(rows, "y"))),
        color=colours(list(groups)), tooltip=tooltips(rows, {"series": "", "x": x, "y": y}, len(groups)),
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
        "x": alt.X("x:Q", title=x, scale=alt.Scale(domain=[across[0], across[-1]], nice=False), axis=axis(False)),
        "y": alt.Y("y:Q", title=y, scale=alt.Scale(domain=[up[0], up[-1]], nice=False), axis=axis(False)),
    }
    layers = []
    if shade is not None:
        corner = {"x": across[0], "y": up[-1], "x2": across[-1], "y2": up[0], "url": image_url(values, shade)}
        layers.append(alt.Chart(alt.Data(values=[corner])).mark_image(aspect=False).encode(
            **scales, x2="x2:Q", y2="y2:Q", url="url:N"))  # fmt: skip
    if len(levels):
        found = contourpy.contour_generator(across, up, values)
        rows = [
            {"x": rounded(left), "y": rounded(right), "level": level, "line": f"{level} {number}", "step": step}
            for level in map(float, levels)
            for number, line in enumerate(found.lines(level))
            for step, (left, right) in enumerate(thin(line))
        ]
        layers.append(alt.Chart(alt.Data(values=rows)).mark_line(style="contour", clip=True).encode(
            **scales, detail="line:N", order="step:Q", tooltip=[alt.Tooltip("level:Q", format=FORMAT)]))  # fmt: skip
    if paths:
        rows = [
            {"series": name, "x": rounded(left), "y": rounded(right), "step": step}
            for name, path in paths.items()
            for step, (left, right) in thin(list(enumerate(np.asarray(path, float).tolist())))
        ]
        way = alt.Chart().encode(
            **scales, order="step:Q", color=colours(list(paths)),
            tooltip=tooltips(rows, {"series": "", "step": "step", "x": x, "y": y}, len(paths)),
        )  # fmt: skip
        layers.append(
            alt.layer(
                way.mark_line(clip=True), way.mark_point(filled=True, size=28, clip=True), data=alt.Data(values=rows)
            )
        )
    if points:
        rows = [
            {"label": label, "x": rounded(left), "y": rounded(right)}
            for label, some in points.items()
            for left, right in np.asarray(some, float)
        ]
        spot = alt.Chart(alt.Data(values=rows)).encode(**scales)
        # A letter fits into its spot; a word stands above it.
        lifted = 0 if max(map(len, points)) <= 2 else -16
        layers += [
            spot.mark_point(style="spot", size=260 if lifted == 0 else 60),
            *([spot.mark_text(style="spot-halo", dy=lifted).encode(text="label:N")] if lifted else []),
            spot.mark_text(style="spot-label", dy=lifted).encode(text="label:N"),
        ]
    return panel(alt.layer(*layers).properties(height=320), subtitle)


def images(
    pictures: ArrayLike, *, subtitle: str = "", columns: int = 8, diverging: bool = True, each: bool = True
) -> Panel:
    """Return a panel of framed pictures ``(pictures, height, width)``, on one scale or ``each`` on its own."""
    pictures = np.asarray(pictures, float)
    count, high, wide = pictures.shape
    scaled = _scaled(pictures, diverging=diverging, each=each)
    rows, gap = -(-count // columns), max(1, round(max(high, wide) / 10))
    sheet = np.full((rows * (high + gap) + gap, columns * (wide + gap) + gap), np.nan)
    for number, picture in enumerate(scaled):
        top, left = gap + number // columns * (high + gap), gap + number % columns * (wide + gap)
        sheet[top : top + high, left : left + wide] = picture
    drawn = alt.Chart(alt.Data(values=[{"url": image_url(sheet[::-1], (-1, 1))}])).mark_image(
        aspect=True, width=alt.expr("width"), height=alt.expr("height")
    ).encode(x=alt.value(alt.expr("width / 2")), y=alt.value(alt.expr("height / 2")), url="url:N")  # fmt: skip
    return panel(drawn.properties(height=int(np.clip(420 * sheet.shape[0] / sheet.shape[1], 40, 420))), subtitle)


def labelled_images(pictures: ArrayLike, labels: Sequence[str], *, columns: int = 8) -> Panel:
    """Return a panel of pictures ``(pictures, height, width)`` with a label below each, every one on its own scale."""
    scaled = _scaled(pictures, diverging=False, each=True)
    rows = [
        {"row": number // columns, "column": number % columns, "label": label, "url": image_url(shown[::-1], (-1, 1))}
        for number, (shown, label) in enumerate(zip(scaled, labels, strict=True))
    ]
    high = -(-len(rows) // columns)
    cell = alt.Chart().encode(
        x=alt.X("column:O", axis=None, scale=alt.Scale(domain=list(range(columns)))),
        y=alt.Y("row:O", axis=None, scale=alt.Scale(domain=list(range(high)))),
    )
    picture = cell.mark_image(aspect=True, width=LABELLED, height=LABELLED, yOffset=-9).encode(url="url:N")
    label = cell.mark_text(dy=LABELLED / 2 + 2).encode(text="label:N")
    height = high * (LABELLED + 24)
    return panel(alt.layer(picture, label, data=alt.Data(values=rows)).properties(height=height))


def _scaled(pictures: ArrayLike, *, diverging: bool, each: bool) -> np.ndarray:
    """Return pictures divided by their largest value, or ``each`` by its own; from 0 where not ``diverging``."""
    pictures = np.asarray(pictures, float)
    if not diverging:
        pictures = pictures - pictures.min()
    bound = np.abs(pictures).max(axis=(1, 2), keepdims=True) if each else np.abs(pictures).max()
    return pictures / np.where(bound == 0, 1, bound)


def _curve_rows(name: str, curve: Curve, log: str) -> list[dict[str, Any]]:
    columns = {"x": curve.x, "y": curve.y, "low": curve.low, "high": curve.high}
    arrays = {key: np.ravel(np.asarray(column, float)) for key, column in columns.items() if column is not None}
    drawn = np.all([np.isfinite(array) for array in arrays.values()], axis=0)
    for letter in log:
        drawn &= arrays[letter] > 0
        if letter == "y" and "low" in arrays:
            arrays["low"] = np.where(arrays["low"] > 0, arrays["low"], arrays["y"])
    chosen = spread_evenly(np.flatnonzero(drawn), arrays["x"], "x" in log)
    return [{"series": name} | {key: rounded(array[i]) for key, array in arrays.items()} for i in chosen]
