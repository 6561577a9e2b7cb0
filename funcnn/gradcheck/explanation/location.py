"""Where an operation stands in the user's code."""

import linecache
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any, NamedTuple

try:
    from jax._src import source_info_util
except ImportError:  # a release of JAX that keeps it elsewhere
    source_info_util = None  # type: ignore[assignment]

_LONGEST = 70
_CELL = "notebook cell"
_WORDS = {
    "dot_general": "the matrix product",
    "conv_general_dilated": "the convolution",
    "reduce_sum": "the sum over an axis",
    "reduce_max": "the maximum",
    "reduce_min": "the minimum",
    "mul": "the product",
    "div": "the quotient",
    "add": "the sum",
    "sub": "the difference",
    "max": "the maximum",
    "select_n": "the choice",
    "neg": "the negation",
    "integer_pow": "the power",
    "square": "the square",
    "exp": "the exponential",
    "log": "the logarithm",
    "logistic": "the sigmoid",
    "broadcast_in_dim": "the broadcast",
    "custom_jvp_call": "the activation",
    "scan_slice": "the slice",
    "gather": "the look-up",
}


class Location(NamedTuple):
    """A place in the user's code: the base name of its file, line, columns and text; empty where unknown.

    The file of a notebook's cell has a name that Jupyter makes up; it tells cells apart, and is not shown.
    """

    file: str
    line: int
    text: str
    columns: tuple[int, int] = (0, 0)

    @property
    def shown_file(self) -> str:
        """The name of the file as a reader knows it."""
        return _CELL if self.file.startswith(_CELL) else self.file

    def __str__(self):
        return f"{self.shown_file} line {self.line}"


def location(equation: Any) -> Location:
    """Return the line of the user's code that an equation comes from."""
    try:
        frame: Any = next(iter(_user_frames(equation)))
        text = linecache.getline(frame.file_name, frame.start_line).strip().rstrip(",")
        columns = getattr(frame, "start_column", 0), getattr(frame, "end_column", 0)
        return Location(_name(PurePath(frame.file_name)), frame.start_line, text, columns)
    except Exception:  # no traceback is kept, or JAX keeps it elsewhere
        return Location("", 0, "")


def _name(file: PurePath) -> str:
    is_cell = file.parent.name.startswith("ipykernel_") or file.name.startswith("<ipython-input")
    return f"{_CELL} {file.stem}" if is_cell else file.name


def _user_frames(equation: Any) -> Iterable[Any]:
    """Return the frames of the user's code, the innermost first."""
    recorded = equation.source_info
    try:
        return source_info_util.user_frames(recorded.traceback)
    except AttributeError:  # JAX before 0.7 takes the whole record
        return source_info_util.user_frames(recorded)


def is_inside(equation: Any, name: str) -> bool:
    """Whether an equation comes from a function of the user's of this name, or from what that calls.

    A library function that JAX compiles keeps the lines from which it was called first.
    """
    try:
        return any(frame.function_name.split(".")[-1] == name for frame in _user_frames(equation))
    except Exception:  # likewise
        return False


def call_stack(equation: Any) -> tuple[tuple[str, int, int, int], ...]:
    """Return the places in the user's code from which an equation comes, the innermost call first."""
    try:
        return tuple(
            (frame.file_name, frame.start_line, getattr(frame, "start_column", 0), getattr(frame, "end_column", 0))
            for frame in _user_frames(equation)
        )
    except Exception:  # likewise
        return ()


def describe_operation(step: Any) -> str:
    """Return a step of a tape in words: its kind and its line of code, where that is known."""
    where, kind = location(step.origin), _WORDS.get(step.name, f"the `{step.name}`")
    if not where.line:
        return kind
    text = where.text if len(where.text) <= _LONGEST else where.text[: _LONGEST - 1] + "…"
    return f"{kind} in `{text}` ({where})" if text else f"{kind} in {where}"
