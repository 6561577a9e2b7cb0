"""The health report of a run: a paragraph for each finding and a table of the layers."""

from typing import Any, NamedTuple

import numpy as np

from funcnn._reports.data import to_data, to_json
from funcnn._reports.document import FIRST_ROWS, MAX_ROWS, TABLE_WIDTH, Conclusion, Document, Note, Table
from funcnn._reports.terminal import render
from funcnn._reports.text import to_text
from funcnn.health.findings import diagnose_health
from funcnn.health.kinds import Finding
from funcnn.health.loss_curve import figure, loss_curve, outcome, sampled
from funcnn.health.record import HealthRecord, ModelFacts

_LEGEND = "gradient: ∂L/∂y over the last layer's. by weights: the gradient's norm. update: over the weights' norm."
_COLUMNS = {
    "mean": "mean", "spread": "spread", "saturated": "saturated", "dead": "dead", "gradient": "relative_cotangent",
    "by weights": "gradient_norm", "weights": "parameter_norm",
}  # fmt: skip
_OF_SEQUENCES = {"entropy": "attention_entropy", "over time": "growth_over_time"}


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
        return render(_document(self))

    def to_text(self) -> str:
        """Return the report as plain text without colours."""
        return to_text(_document(self))

    def to_dict(self) -> dict[str, Any]:
        """Return the report as dictionaries, lists, strings and numbers; NaN and infinities as strings."""
        return to_data(self)

    def to_json(self, **options: Any) -> str:
        """Return the report as JSON; ``options`` are those of ``json.dumps``."""
        return to_json(self, **options)


def health_report(record: HealthRecord, facts: ModelFacts) -> HealthReport:
    """Diagnose a run and report on it.

    Args:
        record: the run's figures.
        facts: the facts of its model.

    Returns:
        The report.

    Raises:
        ValueError: as ``diagnose_health``.
    """
    findings = diagnose_health(record, facts)
    return HealthReport(not findings, findings, record)


def _document(report: HealthReport) -> Document:
    record, findings = report.record, report.findings
    steps = len(np.ravel(record.step_losses))
    healthy = f"Nothing wrong was found in {steps} steps: {outcome(loss_curve(record))}."
    paragraphs = (healthy,) if report.ok else tuple(map(_paragraph, findings))
    return Document(
        (
            Conclusion(paragraphs, *(("healthy", "green") if report.ok else ("unhealthy", "red"))),
            _table(record, {finding.layer for finding in findings}),
            Note(_LEGEND, TABLE_WIDTH),
        )
    )


def _paragraph(finding: Finding) -> str:
    layer = f" in {finding.layer}" if finding.layer else ""
    return f"{finding.kind}{layer}, since step {finding.since_step}: {finding.sentence} {finding.remedy}"


def _table(record: HealthRecord, blamed: set) -> Table:
    """Return the figures of every layer at the last sampled step at which all figures are finite.

    A deep model shows the first layers and those with a finding.
    """
    measured = [name for name in record.measures._fields if np.ndim(getattr(record.measures, name)) == 2]
    whole = [np.isfinite(sampled(record, name)).all(axis=1) for name in measured]
    numbers = np.flatnonzero(np.all(whole, axis=0))
    last = int(numbers[-1]) if len(numbers) else len(record.steps) - 1
    shown = [
        place
        for place, name in enumerate(record.names)
        if place < FIRST_ROWS or name in blamed or len(record.names) <= MAX_ROWS
    ]
    of_sequences = {title: name for title, name in _OF_SEQUENCES.items() if np.any(getattr(record.measures, name))}
    shown_measures = _COLUMNS | of_sequences
    figures = {title: sampled(record, name)[last] for title, name in shown_measures.items()}
    figures["update"] = np.asarray(record.update_ratios, np.float64)[last]
    columns = {"layer": [record.names[place] for place in shown]}
    columns |= {title: [figure(values[place]) for place in shown] for title, values in figures.items()}
    columns["found"] = ["here" if record.names[place] in blamed else "" for place in shown]
    left_out = len(record.names) - len(shown)
    note = f"{left_out} more layers are left out." if left_out else ""
    failed = [record.names[place] in blamed for place in shown]
    return Table(f"step {record.steps[last]}", columns, tuple(figures), failed, note)
