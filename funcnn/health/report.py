"""What the doctor says of a run, as text: a paragraph and a table of the layers."""

from typing import NamedTuple

import numpy as np

from funcnn._tables import FIRST_ROWS, MOST_ROWS, TEXT_WIDTH, Table, aligned, joined, wrapped
from funcnn.health.findings import Finding, diagnose_health
from funcnn.health.loss_curve import figure, loss_curve, outcome, sampled
from funcnn.health.record import HealthRecord, ModelFacts

_LEGEND = "gradient: ∂L/∂y over the last layer's. by weights: the gradient's norm. update: over the weights' norm."
_COLUMNS = {
    "mean": "mean", "spread": "spread", "saturated": "saturated", "dead": "dead", "gradient": "relative_cotangent",
    "by weights": "gradient_norm", "weights": "parameter_norm",
}  # fmt: skip


class HealthReport(NamedTuple):
    """A run's health. ``print(report)`` shows it as a paragraph and a table.

    Fields:
        ok: whether nothing was found.
        findings: what was found, causes before consequences.
        record: what it was found in.
    """

    ok: bool
    findings: tuple[Finding, ...]
    record: HealthRecord

    def __str__(self) -> str:
        words = [_verdict(self.record)] if self.ok else [_said(finding) for finding in self.findings]
        return joined(["\n".join(words), _layers(self.record, {finding.layer for finding in self.findings}), _LEGEND])


def health_report(record: HealthRecord, facts: ModelFacts) -> HealthReport:
    """Diagnose a run and report on it.

    Args:
        record: the run's figures.
        facts: what is known of its recipe.

    Returns:
        The report.

    Raises:
        ValueError: as ``diagnose_health``.
    """
    findings = diagnose_health(record, facts)
    return HealthReport(not findings, findings, record)


def _verdict(record: HealthRecord) -> str:
    steps = len(np.ravel(record.step_losses))
    return wrapped(f"Nothing wrong was found in {steps} steps: {outcome(loss_curve(record))}.", TEXT_WIDTH)


def _said(finding: Finding) -> str:
    where = f" in {finding.layer}" if finding.layer else ""
    said = f"{finding.kind}{where}, since step {finding.since_step}: {finding.sentence} {finding.remedy}"
    return wrapped(said, TEXT_WIDTH)


def _layers(record: HealthRecord, blamed: set) -> str:
    """The last sampled step whose figures are all numbers, layer by layer; of a deep model the first and the blamed."""
    whole = [np.isfinite(sampled(record, name)).all(axis=1) for name in record.measures._fields]
    numbers = np.flatnonzero(np.all(whole, axis=0))
    last = int(numbers[-1]) if len(numbers) else len(record.steps) - 1
    shown = [
        place
        for place, name in enumerate(record.names)
        if place < FIRST_ROWS or name in blamed or len(record.names) <= MOST_ROWS
    ]
    figures = {title: sampled(record, name)[last] for title, name in _COLUMNS.items()}
    figures["update"] = np.asarray(record.update_ratios, np.float64)[last]
    columns = {"layer": [record.names[place] for place in shown]}
    columns |= {title: [figure(values[place]) for place in shown] for title, values in figures.items()}
    columns["found"] = ["here" if record.names[place] in blamed else "" for place in shown]
    left_out = len(record.names) - len(shown)
    note = f"{left_out} more layers are left out." if left_out else ""
    columns = {title: cells for title, cells in columns.items() if any(cells)}
    return aligned(Table(f"step {record.steps[last]}", columns, tuple(figures), note=note))
