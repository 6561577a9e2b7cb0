"""``index.html`` and ``results.json`` from the records of the parts."""

import base64
import contextlib
import gzip
import json
import math
import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import vl_convert
from markupsafe import Markup

from experiments.harness.chart_parts import DASHES
from experiments.harness.claims import Section, format_number, format_power
from experiments.harness.report.mathematics import set_equations
from experiments.harness.report.papers import paper_address
from experiments.harness.report.stories import shown_stories
from experiments.harness.store import Record, json_default, write_atomically
from experiments.harness.topics import topic_path

HERE = Path(__file__).parent
WIDTH, HEIGHT, MARGIN = 150.0, 22.0, 6.0


class IntervalPicture(NamedTuple):
    """An interval beside the range that a claim allows, in the units of a small SVG."""

    allowed: tuple[float, float]
    interval: tuple[float, float]
    estimate: float


def write_report(records: Sequence[Record], folder: Path, name: str = "index") -> Path:
    """Write the page, ``name``.html, and the numbers, results.json (or ``name``.json); return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = "results.json" if name == "index" else f"{name}.json"
    parts = [part for record in records for part in record["parts"]]
    results = [result for part in parts for result in part.get("findings", ())]
    charts = Charts()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {
        "figure": format_cell,
        "paragraphs": paragraphs,
        "picture": interval_picture,
        "number": charts.number,
        "level": level_panels,
        "dashes": dashes,
        "address": paper_address,
        "equations": set_equations,
    }
    environment.tests["figure"] = is_figure
    text = environment.get_template("page.html.jinja").render(
        records=records,
        stories=shown_stories(records),
        sections=[(section.value, [one for one in results if one["section"] == section.value]) for section in Section],
        count=count_verdicts,
        counts=count_verdicts(results),
        code={record["name"]: code_path(record["name"], folder) for record in records},
        measured_on=next((part["environment"] for part in parts if "environment" in part), {}),
        numbers=numbers,
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "page.js").read_text(encoding="utf-8")),
        vega=packed_vega(),
        charts=charts,
        size=(WIDTH, HEIGHT),
    )
    page = folder / f"{name}.html"
    write_atomically(page, text)
    write_atomically(folder / numbers, json.dumps(list(records), indent=1, ensure_ascii=False, default=json_default))
    return page


class Charts:
    """The specifications of the page's charts, each once. They travel compressed at the end of the page."""

    def __init__(self):
        self._found: list[Any] = []
        self._numbers: dict[str, int] = {}

    def number(self, specification: Any) -> int:
        """Return the number of a specification, and add it if it is new."""
        text = json.dumps(specification, default=json_default)
        if text not in self._numbers:
            self._numbers[text] = len(self._found)
            self._found.append(specification)
        return self._numbers[text]

    def packed(self) -> str:
        return pack(json.dumps(self._found, ensure_ascii=False, separators=(",", ":"), default=json_default))


def pack(text: str) -> str:
    """Return a text as base64 of gzip, which a page unpacks with ``DecompressionStream``."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


@cache
def packed_vega() -> str:
    """Return the library that draws the charts."""
    return pack(vl_convert.javascript_bundle())


def count_verdicts(results: Sequence[Record]) -> dict[str, int]:
    return {word: sum(one["verdict"] == word for one in results) for word in ("holds", "fails", "undecided")}


def code_path(name: str, folder: Path) -> str:
    """Return the path from the report's folder to an experiment's script; empty where there is none."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        return Path(os.path.relpath(topic_path(name), folder)).as_posix()
    return ""


def level_panels(panels: Sequence[Record]) -> list[Record]:
    """Return a figure's panels with one height, the largest; panels whose height follows from their rows keep it."""
    heights = [panel["specification"].get("height") for panel in panels]
    if not all(isinstance(height, int) for height in heights):
        return list(panels)
    return [panel | {"specification": panel["specification"] | {"height": max(heights)}} for panel in panels]


def dashes(number: int) -> str:
    """Return the dashes of a panel's threshold, for SVG."""
    return " ".join(map(str, DASHES[number % len(DASHES)]))


def format_cell(value: Any) -> str:
    """Format a cell of a table: numbers by ``format_number``, other values as they are."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return format_number(value)
    return format_power(str(value)) if is_figure(value) else str(value)


def is_figure(value: Any) -> bool:
    """Return whether a cell of a table is a number or the text of one."""
    return isinstance(value, int | float) or re.fullmatch(r"[+\-−]?[\d.,]+(e[+-]?\d+)?\s?%?", str(value)) is not None


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a text, which are separated by empty lines."""
    return [block.strip() for block in text.split("\n\n") if block.strip()]


def interval_picture(result: Record) -> IntervalPicture:
    """Return the positions of threshold, interval and estimate, on a logarithmic axis where they are far apart."""
    limits = [result[name] for name in ("at_least", "at_most") if name in result]
    values = [*limits, result["low"], result["high"], result["estimate"]]
    logarithmic = min(values) > 0 and max(values) > 100 * min(values)
    scaled = [math.log(value) for value in values] if logarithmic else values
    low, high = min(scaled), max(scaled)
    spread = (high - low) or abs(high) or 1.0

    def position(value: float) -> float:
        scaled = math.log(value) if logarithmic else value
        return round(MARGIN + (WIDTH - 2 * MARGIN) * (0.12 + 0.76 * (scaled - low) / spread), 1)

    allowed = (
        position(result["at_least"]) if "at_least" in result else 0.0,
        position(result["at_most"]) if "at_most" in result else WIDTH,
    )
    return IntervalPicture(allowed, (position(result["low"]), position(result["high"])), position(result["estimate"]))
