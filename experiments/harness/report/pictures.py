"""The figures of a report as files: an SVG for each panel."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vl_convert

from experiments.harness.store import Record

WIDTH = 420
STRONG = "cell-label-strong"
"""The style of numbers on dark cells."""


def write_pictures(records: Sequence[Record], folder: Path) -> list[Path]:
    """Write every panel of every figure into ``folder``, on white, and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    figures = [figure for record in records for part in record["parts"] for figure in part.get("figures", ())]
    for number, figure in enumerate(figures, start=1):
        for place, panel in enumerate(figure["panels"], start=1):
            end = f"_{place}" if len(figure["panels"]) > 1 else ""
            file = folder / f"{number:02}_{file_name(figure['title'])}{end}.svg"
            title = " ".join(filter(None, (figure["title"], panel["subtitle"])))
            drawn = _with_white(panel["specification"]) | {"width": WIDTH, "background": "white", "title": title}
            file.write_text(vl_convert.vegalite_to_svg(drawn), encoding="utf-8")
            files.append(file)
    return files


def _with_white(part: Any) -> Any:
    """Return a part of a specification with white numbers on dark cells. The page sets them by a script."""
    if isinstance(part, list):
        return [_with_white(one) for one in part]
    if not isinstance(part, dict):
        return part
    inner = {name: _with_white(one) for name, one in part.items()}
    return inner | {"color": "white"} if part.get("style") == STRONG else inner


def file_name(title: str) -> str:
    """Return a title as a file's name.

    Example:
        >>> file_name("The mistakes on 9 of 360 test images")
        'the_mistakes_on_9_of_360_test_images'
    """
    return re.sub(r"\W+", "_", title.lower()).strip("_")[:60].rstrip("_")
