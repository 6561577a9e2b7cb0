"""The chart: every contestant's steps a second relative to funcnn's, a panel a network."""

from collections.abc import Sequence
from pathlib import Path

import vl_convert

from experiments.benchmarks.speed.markdown import TITLES
from experiments.benchmarks.speed.rounds import Record
from experiments.harness import figures

WIDTH, PADDING = 480, 30
"""Pixels; around the panels there is room for names in a font wider than the one that they were measured in."""
OURS = "funcnn_scan"


def write(results: Sequence[Record], path: Path) -> bool:
    """Draw into an SVG file; whether there was something to draw."""
    panels = [panel(result) for result in results if OURS in result["ours_over"]]
    if panels:
        drawn = {"vconcat": panels, "config": {"view": {"stroke": None}}, "background": "white", "padding": PADDING}
        path.write_text(vl_convert.vegalite_to_svg(drawn), encoding="utf-8")
    return bool(panels)


def panel(result: Record) -> Record:
    """A dot for each contestant with its interval, where several rounds give one."""
    over = result["ours_over"][OURS]
    values = {title.replace("`", ""): relative(over[name]) for name, title in TITLES.items() if name in over}
    drawn = figures.bars(values, x="steps a second, as a multiple of funcnn's in a scan", log=True)
    return drawn.specification | {"width": WIDTH, "title": result["network"]["name"]}


def relative(ours_over: Record) -> float | tuple[float, float, float]:
    """A contestant over ours, from ours over it."""
    if ours_over["low"] is None:
        return 1 / ours_over["median"]
    return 1 / ours_over["median"], 1 / ours_over["high"], 1 / ours_over["low"]
