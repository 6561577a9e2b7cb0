"""Writing ``index.html`` and ``results.json`` from what was measured."""

import json
import math
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import vl_convert
from markupsafe import Markup

from experiments.harness.claims import Section, number
from experiments.harness.store import Record, plain, write_whole

HERE = Path(__file__).parent
WIDTH, HEIGHT, MARGIN = 150.0, 22.0, 6.0


class Picture(NamedTuple):
    """An interval beside its threshold, in the units of a small SVG: the part that the claim allows, and what came."""

    allowed: tuple[float, float]
    interval: tuple[float, float]
    estimate: float


def write_report(records: Sequence[Record], folder: Path, name: str = "index") -> Path:
    """The page, ``name``.html, and the numbers, results.json (or ``name``.json); returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = "results.json" if name == "index" else f"{name}.json"
    parts = [part for record in records for part in record["parts"]]
    findings = [finding for part in parts for finding in part.get("findings", ())]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"figure": shown, "paragraphs": paragraphs, "json": embedded, "picture": picture}
    environment.tests["figure"] = is_figure
    text = environment.get_template("page.html.jinja").render(
        records=records,
        sections=[(section.value, [one for one in findings if one["section"] == section.value]) for section in Section],
        counts={word: sum(one["verdict"] == word for one in findings) for word in ("holds", "fails", "undecided")},
        measured_on=next((part["environment"] for part in parts if "environment" in part), {}),
        numbers=numbers,
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "page.js").read_text(encoding="utf-8")),
        vega=vega(),
        size=(WIDTH, HEIGHT),
    )
    page = folder / f"{name}.html"
    write_whole(page, text)
    write_whole(folder / numbers, json.dumps(list(records), indent=1, ensure_ascii=False, default=plain))
    return page


@cache
def vega() -> Markup:
    """The library that draws the charts, to stand inside the page."""
    return Markup(vl_convert.javascript_bundle().replace("</script", "<\\/script"))


def shown(value: Any) -> str:
    """A number as people read it; words as they are, a minus as one."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(value)
    return str(value).replace("-", "−") if is_figure(value) else str(value)


def is_figure(value: Any) -> bool:
    """Whether a cell of a table is a number, or a number in words."""
    return isinstance(value, int | float) or re.fullmatch(r"[+\-−]?[\d.,]+(e[+-]?\d+)?\s?%?", str(value)) is not None


def paragraphs(text: str) -> list[str]:
    return [block.strip() for block in text.split("\n\n") if block.strip()]


def embedded(value: Any) -> Markup:
    """JSON that can stand inside a script element."""
    return Markup(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=plain).replace("</", "<\\/"))


def picture(finding: Record) -> Picture:
    """Where the threshold, the interval and the estimate lie; on a logarithmic axis where they are far apart."""
    limits = [finding[name] for name in ("at_least", "at_most") if name in finding]
    values = [*limits, finding["low"], finding["high"], finding["estimate"]]
    logarithmic = min(values) > 0 and max(values) > 100 * min(values)
    scaled = [math.log(value) for value in values] if logarithmic else values
    low, high = min(scaled), max(scaled)
    spread = (high - low) or abs(high) or 1.0

    def across(value: float) -> float:
        at = math.log(value) if logarithmic else value
        return round(MARGIN + (WIDTH - 2 * MARGIN) * (0.12 + 0.76 * (at - low) / spread), 1)

    allowed = (
        across(finding["at_least"]) if "at_least" in finding else 0.0,
        across(finding["at_most"]) if "at_most" in finding else WIDTH,
    )
    return Picture(allowed, (across(finding["low"]), across(finding["high"])), across(finding["estimate"]))
