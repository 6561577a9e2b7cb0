"""What the doctor says of a run, as text: a paragraph and a table of the layers."""

import textwrap
from typing import NamedTuple

import numpy as np

from funcnn.health.course import course_of, figure, outcome, sampled
from funcnn.health.findings import Finding, diagnose_health
from funcnn.health.record import HealthRecord, RecipeFacts

_WIDTH = 96
_MOST_ROWS = 40
_FIRST_ROWS = 10


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
        return "\n".join([*words, "", *_table(self.record, {finding.layer for finding in self.findings})])


def health_report(record: HealthRecord, facts: RecipeFacts) -> HealthReport:
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
    return _wrapped(f"Nothing wrong was found in {steps} steps: {outcome(course_of(record))}.")


def _said(finding: Finding) -> str:
    where = f" in {finding.layer}" if finding.layer else ""
    return _wrapped(f"{finding.kind}{where}, since step {finding.since_step}: {finding.sentence} {finding.remedy}")


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _table(record: HealthRecord, blamed: set) -> list[str]:
    """The last sampled step whose figures are all numbers, layer by layer; of a deep model the first and the blamed."""
    whole = [np.isfinite(sampled(record, name)).all(axis=1) for name in record.measures._fields]
    numbers = np.flatnonzero(np.all(whole, axis=0))
    last = int(numbers[-1]) if len(numbers) else len(record.steps) - 1
    columns = {"layer": list(record.names)}
    for title, name in (
        ("mean", "mean"), ("spread", "spread"), ("saturated", "saturated"), ("dead", "dead"),
        ("gradient", "relative_cotangent"), ("by weights", "gradient_norm"), ("weights", "parameter_norm"),
    ):  # fmt: skip
        columns[title] = [figure(value) for value in sampled(record, name)[last]]
    columns["update"] = [figure(value) for value in np.asarray(record.update_ratios, np.float64)[last]]
    columns[""] = ["<-" if name in blamed else "" for name in record.names]
    rows = list(zip(*columns.values(), strict=True))
    shown = [row for place, row in enumerate(rows) if place < _FIRST_ROWS or row[-1] or len(rows) <= _MOST_ROWS]
    widths = [max(map(len, cells)) for cells in zip(columns, *shown, strict=True)]
    lines = [tuple(columns), tuple("-" * width for width in widths), *shown]
    aligned = [
        "  ".join([cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))])
        for cells in lines
    ]
    legend = "gradient: ∂L/∂y over the last layer's. by weights: the gradient's norm. update: over the weights' norm."
    note = [f"{len(rows) - len(shown)} more layers are left out."] if len(shown) < len(rows) else []
    return [f"step {record.steps[last]}:", *(line.rstrip() for line in aligned), *note, legend]
