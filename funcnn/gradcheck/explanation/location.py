"""Where an operation stands in the user's code."""

import linecache
import os
from typing import NamedTuple

from funcnn.gradcheck.explanation.tape import Step

try:
    from jax._src import source_info_util
except ImportError:  # a release of JAX that keeps it elsewhere
    source_info_util = None  # type: ignore[assignment]

_LONGEST = 70
_WORDS = {
    "dot_general": "a matrix product",
    "conv_general_dilated": "a convolution",
    "reduce_sum": "a sum",
    "reduce_max": "a maximum",
    "mul": "a product",
    "div": "a quotient",
    "add": "a sum of two",
    "sub": "a difference",
    "select_n": "a `where`",
}


class Location(NamedTuple):
    """A line of the user's code: the base name of its file, its number and its text; empty where unknown."""

    file: str
    line: int
    text: str


def location(step: Step) -> Location:
    """Return the line of the user's code that an operation comes from."""
    try:
        frame = source_info_util.user_frame(step.equation.source_info.traceback)
        text = linecache.getline(frame.file_name, frame.start_line).strip().rstrip(",")
        return Location(os.path.basename(frame.file_name), frame.start_line, text)
    except Exception:  # no traceback is kept, or JAX keeps it elsewhere
        return Location("", 0, "")


def describe_operation(step: Step) -> str:
    """Return an operation in words: its line of code, or its kind where the line is unknown."""
    where = location(step)
    if not where.line:
        return _WORDS.get(step.name, f"`{step.name}`")
    text = where.text if len(where.text) <= _LONGEST else where.text[: _LONGEST - 1] + "…"
    place = f"{where.file} line {where.line}"
    return f"`{text}` ({place})" if text else f"{_WORDS.get(step.name, step.name)} in {place}"
