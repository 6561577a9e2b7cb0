"""The report of a sweep: the report of one case, with a line for every other case."""

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from funcnn._reports.properties import PropertyReport
from funcnn.gradcheck.report import GradientReport, LeafReport
from funcnn.pytest_plugin.cases import Case
from funcnn.pytest_plugin.comparison import Outcome

_OK = {"right": True, "wrong": False, "rejected": None}


def failed_report(full: Callable[[Case], GradientReport], case: Case, outcome: Outcome) -> GradientReport | None:
    """Return the report of a case that fails in its own dtype; ``None`` if a whole check finds nothing wrong.

    A whole check compares in float64. It finds kinks and names causes. A fault of a narrow dtype alone is beyond it, so
    that there the values of the case itself decide.
    """
    report = None
    with contextlib.suppress(Exception):  # what the rule raises is in the outcome
        report = full(case)
    if report is not None and not report.ok:
        return report
    if report is not None:
        is_kink = any(leaf.cause == "kink" for leaf in report.leaves)
        if is_kink or (outcome.cause == "unstable" and not is_narrow(case)):
            return None
    leaves = tuple(leaf for leaf in outcome.leaves if not leaf.path.startswith("output") or not leaf.ok)
    wrong = next((leaf for leaf in leaves if not leaf.ok), None)
    cause = outcome.cause or "unknown"
    if wrong is None:  # the backward pass raises
        wrong = LeafReport("gradient", (), case.dtypes, False, False, math.nan, math.nan, 0.0, cause, "")
        leaves = (*leaves, wrong)
    where = f"{wrong.path} {wrong.detail}. " if wrong.detail else ""
    return GradientReport(
        False, leaves, f"{cause}: {where}{outcome.detail[:1].upper()}{outcome.detail[1:]}.", "hand-written wrong",
        outcome.detail, precision=case.dtypes,
    )  # fmt: skip


def is_narrow(case: Case) -> bool:
    """Whether a case has an array of a dtype below float32."""
    dtypes = [name for name in (*case.dtypes.split(", "), case.cotangent) if name]
    return any(jnp.finfo(name).bits < 32 for name in dtypes)


def swept_report(
    report: GradientReport, results: Sequence[tuple[Case, Outcome]], failing: Case | None
) -> GradientReport:
    """Return a report with a line for each case of the sweep.

    Args:
        report: of the given arguments, or of the failing case.
        results: every case with what was found.
        failing: the smallest case that fails, if one does.
    """
    lines = tuple(PropertyReport(str(case), _OK[found.state], found.detail) for case, found in results)
    report = report._replace(properties=(*report.properties, *lines))
    if failing is None:
        return report
    wrong = [case for case, found in results if found.state == "wrong"]
    is_smallest = failing.size == min(case.size for case in wrong)
    words = "" if is_smallest else " without an axis of 1"
    first = f"Smallest failing case{words}: {failing}; {len(wrong)} of {len(results)} cases are wrong."
    return report._replace(
        ok=False, verdict="hand-written wrong", reason=f"in the case {failing}: {report.reason}",
        diagnosis=f"{first}\n{report.diagnosis}",
    )  # fmt: skip


def record_of(
    kind: str, name: str, report: GradientReport, results: Sequence[tuple[Case, Outcome | None]]
) -> dict[str, Any]:
    """Return the row of a check on the page of a run, as strings, numbers and lists."""
    known = [found for _, found in results if found is not None]
    states = [found.state for found in known]
    judged = [found for found in known if math.isfinite(found.digits)]
    worst = min(judged, key=lambda found: found.digits - found.sound, default=None)
    cases = [case for case, found in results if found is None or found.state != "rejected"]
    return {
        "kind": kind,
        "name": name,
        "ok": report.ok,
        "verdict": report.verdict,
        "cause": cause_of(report),
        "cases": len(results),
        "wrong": states.count("wrong") if known else int(not report.ok),
        "rejected": states.count("rejected"),
        "shapes": list(dict.fromkeys(case.shapes for case in cases)),
        "dtypes": list(dict.fromkeys(case.dtypes for case in cases)),
        "digits": "" if worst is None else f"{worst.digits:.1f}",
        "sound": "" if worst is None else f"{worst.sound:.1f}",
        "text": report.to_text(),
    }


def cause_of(report: GradientReport) -> str:
    """Return the cause of the first wrong row, or the first property that doesn't hold; empty if all is right."""
    if report.ok:
        return ""
    rows = [leaf for leaf in (*report.leaves, *report.steps) if not leaf.ok]
    if rows:
        return rows[0].cause or "unknown"
    return next((entry.name for entry in report.properties if entry.ok is False), "unknown")
