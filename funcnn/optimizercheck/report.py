"""What the comparison of two optimizers returns: a verdict, a row for each sequence, and what was done otherwise."""

import json
from typing import Any, Literal, NamedTuple, TypeAlias

from funcnn._tables import plain_data
from funcnn.gradcheck.report import PropertyReport
from funcnn.optimizercheck import display

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
"""What the candidate does otherwise than the reference. Every cause but the last three was simulated, and gives the
candidate's updates on every sequence:

- ``bias_correction_missing``: of m, of v or of both, or there where the reference has none;
- ``bias_correction_shifted``: by βᵗ⁻¹ or βᵗ⁺¹, of m, of v or of both; by a count that goes on at every leaf; with the
  other β;
- ``epsilon_inside_root``: √(v + ε) for √v + ε, or the reverse;
- ``epsilon_before_correction``: √v + ε corrected afterwards, Keras' form, or the reverse;
- ``epsilon_size``: none, or another number; ``epsilon_floor``: max(√v, ε);
- ``rate_inside_velocity``: v ← μ v − α g, which differs once α changes, or the reverse;
- ``dampening``: v ← μ v + (1−μ) g, or the reverse;
- ``factor_missing``: g or g² enters a mean without its 1 − β; ``factors_exchanged``: β and 1 − β in each other's place;
- ``nesterov``: against plain; ``nesterov_form``: another direction made of the gradient and the velocity;
- ``decay_coupling``: weight decay in the gradient for beside it, or the reverse; ``decay_unscaled``: without α;
  ``decay_missing``; ``decay_added``: where the reference has none; ``decay_size``: another number, or the other sign;
  ``decay_form``: of the parameters' signs; ``decay_masking``: on all leaves, where the reference leaves some out;
  ``decay_and_clipping_order``: added before the clipping for after, or the reverse;
- ``betas_exchanged``: β₁ and β₂; ``coefficient``: another β or μ;
- ``root_missing``; ``square_missing``: |g| for g²; ``squared_otherwise``: m² for g², or a leaf's mean square;
- ``accumulation``: a sum of squares for their mean (Adagrad for RMSprop), or the reverse, or a maximum;
- ``initial_accumulator``: v begins at another number;
- ``clipping_kind``: by value, by global norm, by each leaf's norm; ``clipping_missing``; ``clipping_added``, where the
  reference clips nothing; ``clipping_bound``; ``clipping_place``: the update for the gradient;
- ``state_reset``: a moment or the count begins anew at every step; ``state_late``: a moment is used before it takes in
  the gradient;
- ``rate_scaled``: every update times a factor; ``sign``: ascent;
- ``schedule_shifted``: the schedule's rate of the next step, or of the last;
- ``dtype``: updates or state come back in another dtype, shape or structure;
- ``unstable``: right in float64, but digits are lost in float32 or bfloat16;
- ``several``: two of these together, named in ``detail``;
- ``unknown``: none of these.
"""


class SequenceReport(NamedTuple):
    """Both optimizers on one gradient sequence.

    Fields:
        name: of the sequence; those in a lower dtype have it behind.
        ok: whether the candidate's updates are the reference's.
        step: the first step that differs, counted from 1; ``None`` where none does.
        path, entry: the leaf and the place in it that differs most at that step; else the nearest to its tolerance.
        candidate, reference: both updates there.
        difference: their distance; ``tolerance``: the largest one that rounding explains.
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
    """Two optimizers compared. ``print(report)`` shows it as a table.

    Fields:
        ok: whether the candidate is the reference: every sequence and every property.
        sequences: a row for each gradient sequence in float64, and one for each lower dtype.
        cause: what the candidate does otherwise, ``None`` where nothing.
        detail: the same as a sentence.
        diagnosis: a short paragraph: what differs, where first, and what was found out.
        properties: what else was asked of the candidate, and what couldn't be.
        tolerance: where the tolerances come from.
        seconds: what the check took.
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
        return display.for_terminal(self) or display.plain(self)

    def to_text(self) -> str:
        """The report as plain text, without a terminal's colours."""
        return display.plain(self)

    def to_dict(self) -> dict[str, Any]:
        """The report as dictionaries, lists, strings and numbers; NaN and infinities as strings."""
        return plain_data(self)

    def to_json(self, **options: Any) -> str:
        """The report as JSON; ``options`` are ``json.dumps``'s.

        Example:
            >>> OptimizerReport(True, (), None, "", "There are no parameters to compare.").to_json()[:28]
            '{"ok": true, "sequences": []'
        """
        return json.dumps(self.to_dict(), allow_nan=False, **options)
