"""The report of a gradient check: a verdict, a row for each parameter, and the cause of each difference."""

import cmath
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from funcnn._reports.data import to_data, to_json
from funcnn._reports.document import FIRST_ROWS, MAX_ROWS, Conclusion, Document, Note, PropertyList, Table, fit_columns
from funcnn._reports.html import check_page_libraries, heat_map, write_page
from funcnn._reports.numbers import format_pair, format_seconds, format_size
from funcnn._reports.properties import PropertyReport as PropertyReport
from funcnn._reports.terminal import render
from funcnn._reports.text import to_text

Cause: TypeAlias = Literal[
    "scaled",
    "sign",
    "transposed",
    "swapped",
    "zero",
    "shape",
    "dtype",
    "structure",
    "nonfinite",
    "element",
    "unit",
    "subset_of_batch",
    "offset_by_parameter",
    "activation_derivative",
    "loss_derivative",
    "updated_weights",
    "lost_use",
    "lost_path",
    "scaled_path",
    "stop_gradient",
    "normalization_term",
    "mask",
    "wrong_operand",
    "wrong_axis",
    "kernel_flipped",
    "shifted",
    "conjugate",
    "clipped",
    "normalized",
    "accumulated",
    "noise",
    "kink",
    "unstable",
    "unknown",
]
"""What is wrong with a leaf:

- ``scaled``: autodiff's times a constant; ``detail`` says what that number is in this problem;
- ``sign``: autodiff's with the other sign;
- ``transposed``: autodiff's with axes exchanged, or a matrix or a linear map on the way that isn't transposed;
- ``swapped``: the gradient of another leaf, or of another part of a value that is cut, named in ``detail``;
- ``zero``: all zero where autodiff's is not;
- ``shape``, ``dtype``, ``structure``: not those of the value whose gradient it is;
- ``nonfinite``: a NaN or an infinity; ``detail`` has the first place;
- ``element``: a few entries are wrong, the rest is right;
- ``unit``: whole rows or columns are wrong, the rest is right;
- ``subset_of_batch``: the gradient of some samples only;
- ``offset_by_parameter``: off by a multiple of the parameter or of its sign, as where weight decay is left out or
  added twice;
- ``activation_derivative``: the derivative of an activation (σ, tanh, ReLU, softmax, a power, …) is left out, doubled,
  taken of the wrong variable, another activation's, or put in where it does not belong;
- ``loss_derivative``: the gradient of the loss by the outputs of the last layer has another formula;
- ``updated_weights``: weights are read after their own update;
- ``lost_use``: one of several uses of a parameter does not count;
- ``lost_path``: a path of the gradient is left out;
- ``scaled_path``: a path is off by a factor, or a factor on it is left out;
- ``stop_gradient``: the gradient goes through what the loss stops;
- ``normalization_term``: the terms of the mean or of the variance in the formula of a normalization;
- ``mask``: a mask is ignored, inverted, shifted, applied twice, or another one;
- ``wrong_operand``: a product takes another value than the right one;
- ``wrong_axis``: a sum or a mean is taken along another axis;
- ``kernel_flipped``: axes are reversed, as where a convolution's kernel is flipped;
- ``shifted``: moved by one along an axis;
- ``conjugate``: complex numbers are conjugated, or not, or only their real part is kept;
- ``clipped``: entries beyond a limit are at the limit;
- ``normalized``: the gradient is divided so that its length is a round number;
- ``accumulated``: another gradient or array is added, as momentum, or what was not cleared;
- ``unstable``: right in float64, but digits are lost in the caller's own dtype;
- ``unknown``: none of these.

Two may stand beside a leaf that is ok: ``noise``, where the difference is rounding, and ``kink``, where the gradient
lies between the one-sided derivatives at a point without a derivative. ``unstable`` does too, where autodiff loses the
same digits.
"""

Verdict: TypeAlias = Literal["agrees", "hand-written wrong", "autodiff wrong", "unstable", "undecided"]
"""Which gradient is right, that by hand or autodiff's, by the measured slope of the loss.

``unstable``: the gradient by hand is right in float64, but loses digits in the caller's own dtype that autodiff keeps.
``undecided``: the evidence isn't enough for a verdict; ``reason`` says what is missing.
"""


class LeafReport(NamedTuple):
    """The comparison of one gradient: a parameter's, an intermediate value's, or one of a layer's.

    Fields:
        path: where the parameter stands in the tree, ``[0].kernel``.
        shape, dtype: the parameter's own, which its gradient must have.
        ok: whether the gradient by hand is right.
        exact: whether every entry is autodiff's to the last bit, in the precision of the comparison.
        max_abs_difference: the largest difference of an entry, in the gradient's units; NaN where shapes differ or an
            entry is NaN.
        relative_difference: that, over the leaf's largest entry by autodiff.
        tolerance: the largest difference that rounding explains, in the gradient's units.
        tolerance_origin: where the tolerance comes from.
        worst: the index of the largest difference; ``by_hand`` and ``by_autodiff`` are the two values there.
        cause: what is wrong, ``None`` where nothing is.
        detail: the same as a sentence.
        differences: for a leaf that is not ok, by hand minus autodiff as rows and columns, at most 48 of each (of a
            larger leaf each entry is the largest of its block).
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    ok: bool
    exact: bool
    max_abs_difference: float
    relative_difference: float
    tolerance: float
    cause: Cause | None
    detail: str
    tolerance_origin: str = ""
    worst: tuple[int, ...] = ()
    by_hand: float | complex = math.nan
    by_autodiff: float | complex = math.nan
    differences: tuple[tuple[float, ...], ...] = ()


class Uncompared(NamedTuple):
    """A value that was passed on untouched: it has no gradient.

    Fields:
        path: where it stands in the tree, as in ``LeafReport``.
        dtype: its dtype; the name of its type where it has none.
        reason: why it has no gradient.
    """

    path: str
    dtype: str
    reason: str


class Cost(NamedTuple):
    """What a check took: seconds, and the numbers of evaluations of the gradients and of the loss."""

    seconds: float
    gradients: int
    losses: int


class GradientReport(NamedTuple):
    """Two gradients compared. ``print(report)`` shows it as a table.

    Fields:
        ok: whether the gradient by hand is right: every leaf, every step and every property.
        leaves: a row for each parameter.
        diagnosis: a short paragraph: what is wrong, where first, what to look at.
        verdict: which gradient is right; ``reason`` says why.
        steps: a row for each intermediate gradient, in backward order: tapped values, or the layers of a model.
        properties: what else was checked of the gradient.
        precision: the dtype in which the values were compared.
        cost: what the check took.
        no_autodiff: why autodiff was not evaluated, and the reference is the measured slope; empty if it was.
        not_compared: the parameters that have no gradient, such as integers.

    Example:
        >>> import jax.numpy as jnp
        >>> from funcnn.gradcheck import check_gradients
        >>> report = check_gradients(lambda w: (w**2).sum(), lambda w: w, jnp.array([1.0, 2.0]))  # 2 w is right
        >>> report.ok, report.verdict, report.leaves[0].cause
        (False, 'hand-written wrong', 'scaled')
    """

    ok: bool
    leaves: tuple[LeafReport, ...]
    diagnosis: str
    verdict: Verdict = "agrees"
    reason: str = ""
    steps: tuple[LeafReport, ...] = ()
    properties: tuple[PropertyReport, ...] = ()
    precision: str = ""
    cost: Cost = Cost(0.0, 0, 0)
    no_autodiff: str = ""
    not_compared: tuple[Uncompared, ...] = ()

    def __str__(self) -> str:
        return render(_document(self))

    def to_text(self) -> str:
        """Return the report as plain text without colours."""
        return to_text(_document(self))

    def to_dict(self) -> dict[str, Any]:
        """Return the report as dictionaries, lists, strings and numbers; complex numbers and NaN as strings."""
        return to_data(self)

    def to_json(self, **options: Any) -> str:
        """Return the report as JSON; ``options`` are those of ``json.dumps``.

        Example:
            >>> GradientReport(True, (), "There are no parameters to compare.").to_json()[:25]
            '{"ok": true, "leaves": []'
        """
        return to_json(self, **options)

    def to_html(self, path: Any) -> None:
        """Write the report as a self-contained page, with a heat map for every leaf that isn't ok.

        Args:
            path: the file to write.

        Raises:
            ModuleNotFoundError: jinja2 and matplotlib aren't installed; ``pip install 'funcnn[report]'``.
        """
        check_page_libraries("GradientReport.to_html")
        tables = [fit_columns(table, math.inf) for table in _tables(self, math.inf)]
        other = _reference(self)
        different = [leaf for leaf in (*self.leaves, *self.steps) if not leaf.ok and any(map(any, leaf.differences))]
        write_page(
            path,
            "funcnn.gradcheck",
            "report.html.jinja",
            report=self,
            tables=list(zip(tables, filter(None, (self.leaves, self.steps)), strict=True)),
            pictures=[(leaf, heat_map(leaf.differences, leaf.shape, f"by hand − {other}")) for leaf in different],
            numbers=_NUMBERS,
            other=other,
            remarks=_remarks(self),
            footer=_footer(self),
        )


_NUMBERS = ("by hand", "autodiff", "measured", "difference", "relative", "tolerance")
_OPTIONAL = ("relative", "at", "shape", "dtype", "tolerance", "by hand", "autodiff", "measured")
_MAX_ORIGINS = 3


def _document(report: GradientReport) -> Document:
    verdict = f"verdict: {report.verdict}" + (f": {report.reason}" if report.reason else "")
    colour = "red" if not report.ok else "green" if report.verdict == "agrees" else "yellow"
    return Document(
        (
            *_tables(report, MAX_ROWS),
            PropertyList("properties of the gradient by hand", report.properties),
            Conclusion((verdict, report.diagnosis, *_remarks(report)), "right" if report.ok else "wrong", colour),
            Note(_footer(report)),
        )
    )


def _remarks(report: GradientReport) -> Iterator[str]:
    """Yield why autodiff wasn't evaluated, if it wasn't, and which parameters weren't compared."""
    if report.no_autodiff:
        yield f"Autodiff was not evaluated: {report.no_autodiff}. The reference is the measured slope of the loss."
    if report.not_compared:
        by_reason: dict[str, list[str]] = {}
        for leaf in report.not_compared:
            by_reason.setdefault(leaf.reason, []).append(f"{leaf.path or '.'} {leaf.dtype}")
        yield f"not compared: {'; '.join(f'{_first(leaves)} ({reason})' for reason, leaves in by_reason.items())}"


def _first(names: Sequence[str]) -> str:
    """Return names as a list, many of them cut short."""
    left_out = len(names) - FIRST_ROWS
    return ", ".join([*names[:FIRST_ROWS], *([f"and {left_out} more"] if left_out > 0 else [])])


def _reference(report: GradientReport) -> str:
    """Return the name of what the hand-written gradient is compared with."""
    return "measured" if report.no_autodiff else "autodiff"


def _tables(report: GradientReport, max_rows: int | float) -> list[Table]:
    other = _reference(report)
    tables = [_table("", "parameter", report.leaves, max_rows, other)] if report.leaves else []
    if report.steps:
        title = "intermediate gradients in backward order, from the loss to the input"
        tables.append(_table(title, "gradient of", report.steps, max_rows, "autodiff"))
    return tables


def _table(title: str, first_column: str, leaves: Sequence[LeafReport], max_rows: int | float, other: str) -> Table:
    shown, note = leaves, ""
    if len(leaves) > max_rows:
        shown = [leaf for position, leaf in enumerate(leaves) if position < FIRST_ROWS or not leaf.ok or leaf.cause]
        note = f"{len(leaves) - len(shown)} more, all right, are left out."
    values = [_values(leaf) for leaf in shown]
    columns: dict[str, list[str]] = {
        first_column: [leaf.path or "." for leaf in shown],
        "shape": [str(leaf.shape) for leaf in shown],
        "dtype": [leaf.dtype for leaf in shown],
        "ok": ["NO" if not leaf.ok else "exact" if leaf.exact else "yes" for leaf in shown],
        "at": [str(list(leaf.worst)) if leaf.worst else "" for leaf in shown],
        "by hand": [by_hand for by_hand, _ in values],
        other: [by_autodiff for _, by_autodiff in values],
        "difference": [format_size(leaf.max_abs_difference) for leaf in shown],
        "relative": [format_size(leaf.relative_difference) for leaf in shown],
        "tolerance": [format_size(leaf.tolerance) for leaf in shown],
        # The cause of a step is that of the parameters after it, where it has none of its own.
        "cause": ["" if title and leaf.cause == "unknown" else leaf.cause or "" for leaf in shown],
        "": ["" for _ in shown],
    }
    failed = [not leaf.ok for leaf in shown]
    if title and any(failed):
        columns[""][failed.index(True)] = "<- first wrong"
    shared_dtype = ("dtype",) if len({leaf.dtype for leaf in shown}) == 1 else ()
    return Table(title, columns, _NUMBERS, failed, note, (*shared_dtype, *_OPTIONAL))


def _values(leaf: LeafReport) -> tuple[str, str]:
    """Return both gradients at the worst entry as text, with enough digits to show their difference."""
    if all(map(cmath.isnan, (leaf.by_hand, leaf.by_autodiff))) and leaf.cause != "nonfinite":
        return "", ""
    return format_pair(leaf.by_hand, leaf.by_autodiff, leaf.ok)


def _footer(report: GradientReport) -> str:
    leaves = (*report.leaves, *report.steps)
    dtypes = ", ".join(dict.fromkeys(leaf.dtype for leaf in report.leaves))
    parts = [f"{dtypes} compared in {report.precision}".strip()] if report.precision else []
    origins = list(dict.fromkeys(leaf.tolerance_origin for leaf in leaves if leaf.tolerance_origin))
    shared = origins[0].partition(", and ")[0] if origins else ""
    if len(origins) > 1 and all(origin.partition(", and ")[0] == shared for origin in origins):
        further = [origin.removeprefix(shared).removeprefix(", and ") for origin in origins]
        origins = [f"{shared}, and in some rows {' or '.join(filter(None, further))}"]
    if len(origins) > _MAX_ORIGINS:
        origins[_MAX_ORIGINS:] = [f"{len(origins) - _MAX_ORIGINS} more"]
    parts += [f"tolerance: {', or '.join(origins)}"] if origins else []
    seconds, gradients, losses = report.cost
    if any(report.cost):
        counts = f"{gradients:,} gradient{'s' * (gradients != 1)} and {losses:,} loss{'es' * (losses != 1)}"
        parts.append(f"{counts} in {format_seconds(seconds)}")
    return "; ".join(parts)
