"""What a check returns: a verdict, a row for each parameter, and a word on what is wrong. Plain data throughout."""

import json
import math
from typing import Any, Literal, NamedTuple, TypeAlias

from funcnn._tables import plain_data
from funcnn.gradcheck import display

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
    "noise",
    "kink",
    "unstable",
    "unknown",
]
"""What is wrong with a leaf:

- ``scaled``: autodiff's times a constant; ``detail`` says what that number is in this problem;
- ``sign``: autodiff's with the other sign;
- ``transposed``: autodiff's with axes exchanged;
- ``swapped``: the gradient of another leaf, named in ``detail``;
- ``zero``: all zero where autodiff's is not;
- ``shape``, ``dtype``, ``structure``: not those of the value whose gradient it is;
- ``nonfinite``: a NaN or an infinity; ``detail`` has the first place;
- ``element``: a few entries are wrong, the rest is right;
- ``unit``: whole rows or columns are wrong, the rest is right;
- ``subset_of_batch``: the gradient of some samples only;
- ``offset_by_parameter``: off by a multiple of the parameter or of its sign, as where weight decay is left out or
  added twice;
- ``unstable``: right in float64, but digits are lost in the caller's own dtype;
- ``unknown``: none of these.

Two may stand beside a leaf that is ok: ``noise``, where the difference is rounding, and ``kink``, where the gradient
lies between the one-sided derivatives at a point without a derivative. ``unstable`` does too, where autodiff loses the
same digits.
"""

Verdict: TypeAlias = Literal["agrees", "hand-written wrong", "autodiff wrong", "undecided"]
"""Who is right, by hand, autodiff and the measured slope of the loss."""


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


class PropertyReport(NamedTuple):
    """Whether the hand-written gradient has a property: the same twice, the same under ``jit``, linear, …"""

    name: str
    ok: bool
    detail: str


class Cost(NamedTuple):
    """What a check took: seconds, and how often it asked for a gradient (either) and for the loss."""

    seconds: float
    gradients: int
    losses: int


class GradientReport(NamedTuple):
    """Two gradients compared. ``print(report)`` shows it as a table.

    Fields:
        ok: whether the gradient by hand is right: every leaf, every step and every property.
        leaves: a row for each parameter.
        diagnosis: a short paragraph: what is wrong, where first, what to look at.
        verdict: who is right; ``reason`` says why.
        steps: a row for each intermediate gradient, in backward order: tapped values, or the layers of a model.
        properties: what else was asked of the gradient.
        precision: the dtype in which the values were compared.
        cost: what the check took.
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

    def __str__(self) -> str:
        return display.for_terminal(self) or display.plain(self)

    def to_text(self) -> str:
        """The report as plain text, without a terminal's colours."""
        return display.plain(self)

    def to_dict(self) -> dict[str, Any]:
        """The report as dictionaries, lists, strings and numbers; complex numbers and NaN as strings."""
        return plain_data(self)

    def to_json(self, **options: Any) -> str:
        """The report as JSON; ``options`` are ``json.dumps``'s.

        Example:
            >>> GradientReport(True, (), "There are no parameters to compare.").to_json()[:25]
            '{"ok": true, "leaves": []'
        """
        return json.dumps(self.to_dict(), allow_nan=False, **options)

    def to_html(self, path: Any) -> None:
        """Write the report as a page of its own, with the differences of every leaf that isn't ok as a heat map.

        Args:
            path: the file to write.

        Raises:
            ModuleNotFoundError: jinja2 and matplotlib aren't installed; ``pip install 'funcnn[report]'``.
        """
        display.write_html(self, path)
