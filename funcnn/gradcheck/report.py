"""What a check returns: a row for each parameter, and a word on what is wrong."""

import textwrap
from typing import Literal, NamedTuple, TypeAlias

Cause: TypeAlias = Literal["shape", "dtype", "nonfinite", "zero", "sign", "scaled", "transposed", "unknown"]
"""What is wrong with a leaf:

- ``shape``, ``dtype``: not the parameter's own;
- ``nonfinite``: a NaN or an infinity, on either side, or in the parameters' own dtype though not in float64;
- ``zero``: all zero where autodiff's is not;
- ``sign``: autodiff's with the other sign;
- ``scaled``: autodiff's times a constant, named in ``detail``;
- ``transposed``: autodiff's with rows and columns exchanged;
- ``unknown``: none of these.
"""


class LeafReport(NamedTuple):
    """The comparison of one parameter's gradient.

    Fields:
        path: where the parameter stands in the tree, ``[0].kernel``.
        shape, dtype: the parameter's own, which its gradient must have.
        ok: whether the largest difference is within the tolerance.
        exact: whether every entry is the same to the last bit, in the precision of the comparison.
        max_abs_difference: the largest difference of an entry, in the gradient's units; NaN where shapes differ or an
            entry is NaN.
        relative_difference: that, over the leaf's largest entry by autodiff.
        tolerance: the largest difference that rounding explains, in the gradient's units.
        cause: what is wrong, ``None`` where the leaf is ok.
        detail: the same as a sentence.
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


class GradientReport(NamedTuple):
    """Two gradients compared. ``print(report)`` shows it as a table.

    Fields:
        ok: whether every leaf is.
        leaves: a row for each parameter.
        diagnosis: a short paragraph: what is wrong, where first.
    """

    ok: bool
    leaves: tuple[LeafReport, ...]
    diagnosis: str

    def __str__(self) -> str:
        header = ("parameter", "shape", "dtype", "ok", "difference", "relative", "tolerance", "cause")
        rows = [header, *map(_row, self.leaves)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines.insert(1, "  ".join("-" * width for width in widths))
        paragraphs = [textwrap.fill(line, 96, subsequent_indent="  ") for line in self.diagnosis.splitlines()]
        return "\n".join([*lines, "", *paragraphs])


def _row(leaf: LeafReport) -> tuple[str, ...]:
    verdict = "exact" if leaf.exact else "yes" if leaf.ok else "NO"
    figures = (leaf.max_abs_difference, leaf.relative_difference, leaf.tolerance)
    return (
        leaf.path or ".",
        str(leaf.shape),
        leaf.dtype,
        verdict,
        *(f"{figure:.1e}" for figure in figures),
        leaf.cause or "",
    )
