"""The report of an optimizer comparison: a verdict, a row for each sequence, and the cause of a difference."""

from typing import Any, Literal, NamedTuple, TypeAlias

from funcnn._reports.data import to_data, to_json
from funcnn._reports.document import Conclusion, Document, Note, PropertyList, Table
from funcnn._reports.numbers import format_pair, format_seconds, format_size
from funcnn._reports.properties import PropertyReport
from funcnn._reports.terminal import render
from funcnn._reports.text import to_text

OptimizerCause: TypeAlias = Literal[
    "bias_correction_missing",
    "bias_correction_shifted",
    "epsilon_inside_root",
    "epsilon_before_correction",
    "epsilon_size",
    "epsilon_floor",
    "rate_inside_velocity",
    "dampening",
    "factor_missing",
    "factors_exchanged",
    "nesterov",
    "nesterov_form",
    "decay_coupling",
    "decay_unscaled",
    "decay_missing",
    "decay_added",
    "decay_form",
    "decay_size",
    "decay_masking",
    "decay_and_clipping_order",
    "betas_exchanged",
    "coefficient",
    "root_missing",
    "square_missing",
    "squared_otherwise",
    "accumulation",
    "initial_accumulator",
    "clipping_kind",
    "clipping_missing",
    "clipping_added",
    "clipping_bound",
    "clipping_place",
    "state_reset",
    "state_late",
    "rate_scaled",
    "sign",
    "schedule_shifted",
    "dtype",
    "unstable",
    "several",
    "unknown",
]
"""The causes of a difference. Except for ``dtype``, ``unstable`` and ``unknown``, each was simulated, and the
simulation reproduces the candidate's updates on every sequence:

- ``bias_correction_missing``: m, v or both are not corrected, or are corrected where the reference has no correction;
- ``bias_correction_shifted``: m, v or both are corrected with βᵗ⁻¹ or βᵗ⁺¹, with a count that increases at every leaf,
  or with the other β;
- ``epsilon_inside_root``: √(v + ε) instead of √v + ε, or the reverse;
- ``epsilon_before_correction``: √v + ε is corrected afterwards, as in Keras, or the reverse;
- ``epsilon_size``: no ε, or another value; ``epsilon_floor``: max(√v, ε);
- ``rate_inside_velocity``: v ← μ v − α g, which differs when α changes, or the reverse;
- ``dampening``: v ← μ v + (1−μ) g, or the reverse;
- ``factor_missing``: g or g² enters a mean without the factor 1 − β; ``factors_exchanged``: β and 1 − β are exchanged;
- ``nesterov``: Nesterov's momentum instead of plain momentum, or the reverse; ``nesterov_form``: another direction made
  of the gradient and the velocity;
- ``decay_coupling``: coupled instead of decoupled weight decay, or the reverse; ``decay_unscaled``: without α;
  ``decay_missing``; ``decay_added``: the reference has none; ``decay_size``: another value, or the other sign;
  ``decay_form``: of the parameters' signs; ``decay_masking``: on all leaves, where the reference excludes some;
  ``decay_and_clipping_order``: added before the clipping instead of after it, or the reverse;
- ``betas_exchanged``: β₁ and β₂ are exchanged; ``coefficient``: another β or μ;
- ``root_missing``; ``square_missing``: |g| instead of g²; ``squared_otherwise``: m² instead of g², or a leaf's mean
  square;
- ``accumulation``: a sum of squares (Adagrad) instead of their mean (RMSprop), or the reverse, or a maximum;
- ``initial_accumulator``: v starts at another value;
- ``clipping_kind``: by value, by global norm, by each leaf's norm; ``clipping_missing``; ``clipping_added``: the
  reference doesn't clip; ``clipping_bound``: another bound; ``clipping_place``: the update instead of the gradient;
- ``state_reset``: a moment or the count is reset at every step; ``state_late``: a moment is used before the gradient is
  accumulated;
- ``rate_scaled``: every update is multiplied by a factor; ``sign``: the candidate ascends;
- ``schedule_shifted``: the schedule's rate of the next or of the previous step;
- ``dtype``: updates or state have another dtype, shape or structure;
- ``unstable``: the update rule is right, but digits are lost in the dtype of the parameters;
- ``several``: two of these together, named in ``detail``;
- ``unknown``: none of these.
"""


class SequenceReport(NamedTuple):
    """Both optimizers on one gradient sequence.

    Fields:
        name: the name of the sequence, followed by the dtype if that isn't float64.
        ok: whether the candidate's updates are the reference's.
        step: the first step that differs, counted from 1; ``None`` if no step differs.
        path, entry: the leaf and the index of the entry that differs most at that step, or, if no step differs, of the
            entry nearest to its tolerance.
        candidate, reference: both updates of this entry.
        difference: their absolute difference.
        tolerance: the largest difference that rounding explains.
    """

    name: str
    ok: bool
    step: int | None
    path: str
    entry: tuple[int, ...]
    candidate: float
    reference: float
    difference: float
    tolerance: float


class OptimizerReport(NamedTuple):
    """The comparison of two optimizers. ``print(report)`` shows it as a table.

    Fields:
        ok: whether the candidate agrees with the reference on every sequence and has every property. Properties that
            are not checked, whose own ``ok`` is ``None``, count neither for nor against.
        sequences: a row for each gradient sequence, in float64 where the candidate runs in it, and one for each other
            dtype in which the optimizers are compared.
        cause: the cause of the difference; ``None`` if there is none.
        detail: a sentence that describes the cause.
        diagnosis: a short paragraph: what differs, where it differs first, and the cause.
        properties: the other properties of the candidate that were checked, and those that couldn't be.
        tolerance: the formula of the tolerances.
        seconds: the duration of the check.
    """

    ok: bool
    sequences: tuple[SequenceReport, ...]
    cause: OptimizerCause | None
    detail: str
    diagnosis: str
    properties: tuple[PropertyReport, ...] = ()
    tolerance: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        return render(_document(self))

    def to_text(self) -> str:
        """Return the report as plain text without colours."""
        return to_text(_document(self))

    def to_dict(self) -> dict[str, Any]:
        """Return the report as dictionaries, lists, strings and numbers; NaN and infinities as strings."""
        return to_data(self)

    def to_json(self, **options: Any) -> str:
        """Return the report as JSON; ``options`` are those of ``json.dumps``.

        Example:
            >>> OptimizerReport(True, (), None, "", "There are no parameters to compare.").to_json()[:28]
            '{"ok": true, "sequences": []'
        """
        return to_json(self, **options)


_NUMBERS = ("step", "candidate", "reference", "difference", "tolerance")
_OPTIONAL = ("at", "tolerance", "reference", "candidate", "leaf")


def format_updates(row: SequenceReport) -> tuple[str, str]:
    """Return both updates as text, with enough digits to show their difference."""
    return format_pair(row.candidate, row.reference, row.ok)


def _document(report: OptimizerReport) -> Document:
    title, colour = ("the same", "green") if report.ok else ("different", "red")
    parts = [f"tolerance: {report.tolerance}"] if report.tolerance else []
    parts += [format_seconds(report.seconds)] if report.seconds else []
    return Document(
        (
            *([_table(report.sequences)] if report.sequences else []),
            PropertyList("other properties of the candidate", report.properties),
            Conclusion((report.diagnosis,), title, colour),
            Note("; ".join(parts)),
        )
    )


def _table(rows: tuple[SequenceReport, ...]) -> Table:
    updates = [format_updates(row) for row in rows]
    columns: dict[str, list[str]] = {
        "gradients": [row.name for row in rows],
        "ok": ["yes" if row.ok else "NO" for row in rows],
        "step": [str(row.step or "") for row in rows],
        "leaf": [row.path or "." for row in rows],
        "at": [str(list(row.entry)) if row.entry else "" for row in rows],
        "candidate": [candidate for candidate, _ in updates],
        "reference": [reference for _, reference in updates],
        "difference": [format_size(row.difference) for row in rows],
        "tolerance": [format_size(row.tolerance) for row in rows],
    }
    return Table("", columns, _NUMBERS, [not row.ok for row in rows], optional=_OPTIONAL)
