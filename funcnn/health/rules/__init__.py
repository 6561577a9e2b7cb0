"""The rules of the monitor, one function for each kind of finding.

A rule is ``(record, facts, curve) -> findings``: from the measures of a run, the facts of its model and its loss curve.
A new rule is a function in the file that fits and an entry in ``RULES``; a new kind of finding is also a name in
``funcnn.health.kinds``.
"""

from collections.abc import Callable, Iterator
from typing import TypeAlias

from funcnn.health.kinds import Finding
from funcnn.health.loss_curve import LossCurve
from funcnn.health.record import HealthRecord, ModelFacts
from funcnn.health.rules.data import unfit_labels, unscaled_input
from funcnn.health.rules.parameters import decay, equal_units, thinned, zero_start
from funcnn.health.rules.signal import dead_units, exploding, saturation, vanishing
from funcnn.health.rules.step_size import no_fall, rate_too_high, rate_too_low

Rule: TypeAlias = Callable[[HealthRecord, ModelFacts, LossCurve], Iterator[Finding]]

RULES: tuple[Rule, ...] = (
    unfit_labels,
    unscaled_input,
    exploding,
    dead_units,
    saturation,
    vanishing,
    rate_too_high,
    rate_too_low,
    no_fall,
)
"""The rules in the order of their findings, causes before consequences."""

EXPLANATIONS: tuple[Rule, ...] = (zero_start, equal_units, decay, thinned)
"""Rules whose finding explains those on the signal, on the size of the steps and on the loss, and replaces them."""
