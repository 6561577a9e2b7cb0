"""The published wrong gradients through the pytest plugin, beside a test of the gradient of ``.sum()``.

``python -m experiments.benchmarks.published.plugin`` calls the fixture ``gradcheck`` on every report and on its right
twin, with the default sweep. A twin is right at the published sizes. What it doesn't do at others, such as a broadcast,
is listed below the table, and ``--sweep given`` leaves those cases out. Beside it stands the usual test of a kernel:
the gradient of the output's sum, with the tolerance of the project's own test, or NumPy's where none is known.
"""

import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.markup import escape

from experiments.benchmarks.published import REPORTS, Report
from experiments.benchmarks.published.report import Rule, pullback_of, registered
from experiments.harness.console import console, progress_bar, table
from funcnn.gradcheck.check import WrongGradientError
from funcnn.pytest_plugin.cases import Sweep
from funcnn.pytest_plugin.fixture import Gradcheck

COMMAND = "python -m experiments.benchmarks.published.plugin"
RTOL, ATOL = 1e-5, 1e-8
"""NumPy's tolerances, for a report without a known test."""


class Answer(NamedTuple):
    """What the fixture finds.

    Fields:
        fails: whether it fails the test.
        cause: of the failure.
        cases: in all, and those that are wrong or don't apply.
        text: the first lines of the report.
    """

    fails: bool
    cause: str
    cases: tuple[int, int, int]
    text: str


class Row(NamedTuple):
    """A report, what the fixture finds in the mistake and in the twin, and whether ``.sum()`` passes the mistake."""

    report: Report
    dtype: str
    wrong: Answer
    twin: Answer
    passes_sum: bool


@dataclass(frozen=True, kw_only=True)
class PluginSettings:
    """The published wrong gradients and their right twins, through the fixture ``gradcheck``."""

    sweep: Literal["default", "given"] = "default"
    """The cases: the default sweep, or the published arguments in their own dtype and in bfloat16."""
    only: tuple[str, ...] = ()
    """The names of the reports; all of them if none is given."""
    out: Path = Path("report")
    """The folder for published_plugin.json."""


GIVEN = Sweep(dtypes=("float32", "bfloat16"))


def call_fixture(report: Report, dtype: str, is_twin: bool, sweep: Sweep = GIVEN) -> Answer:
    """Return what the fixture finds in the mistake or in its right twin."""
    case, checks = report.case, Gradcheck(sweep)
    params, args = case.make(dtype)
    try:
        if isinstance(case, Rule):
            vjp = case.right if is_twin else case.vjp
            if case.is_registered:
                checks.rule(registered(case, vjp), params, *args, reference=case.function)
            else:
                checks.vjp(case.function, pullback_of(case, vjp), params, *args)
        else:
            checks.gradients(case.loss_fn, case.right if is_twin else case.grad_fn, params, *args)
    except WrongGradientError as error:
        text = " ".join(error.report.diagnosis.splitlines()[:2])
    except Exception as error:  # the fixture lets through what a gradient raises, and the test fails
        return Answer(True, type(error).__name__, (0, 0, 0), str(error).splitlines()[0][:200])
    else:
        text = ""
    (record,) = checks.records
    return Answer(bool(text), record["cause"], (record["cases"], record["wrong"], record["rejected"]), text)


def passes_sum(report: Report, dtype: str) -> bool:
    """Return whether the mistake passes the test of the sum's gradient with the project's tolerance."""
    case, usual = report.case, report.usual
    params, args = case.make(dtype)
    if isinstance(case, Rule):
        output, pullback = jax.vjp(lambda params: case.function(params, *args), params)
        ones = jnp.ones_like(output)
        found, expected = case.vjp(params, ones, *args), pullback(ones)[0]
    else:
        found, expected = case.grad_fn(params, *args), jax.grad(case.loss_fn)(params, *args)
    rtol, atol = (RTOL, ATOL) if usual is None else (usual.rtol, usual.atol)
    is_close: Callable = lambda a, b: np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=rtol, atol=atol)  # noqa: E731
    return bool(jax.tree.all(jax.tree.map(is_close, found, expected)))


def run(settings: PluginSettings) -> int:
    """Check, print and write."""
    from experiments.harness.runner import environment

    jax.config.update("jax_enable_x64", True)  # some reports exist in float64 alone
    chosen = [report for report in REPORTS if not settings.only or report.case.name in settings.only]
    rows, sweep = [], GIVEN if settings.sweep == "given" else Sweep()
    with progress_bar("reports") as bar, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for report in bar.track(chosen, description=""):
            dtype = "float32" if "float32" in report.case.dtypes else "float64"
            answers = (call_fixture(report, dtype, is_twin, sweep) for is_twin in (False, True))
            rows.append(Row(report, dtype, *answers, passes_sum(report, dtype)))
    shown = table("report", "source", "gradcheck", "cause", ".sum()", "twin")
    for row in rows:
        verdicts = "fails" if row.wrong.fails else "PASSES", row.wrong.cause
        usual, twin = "passes" if row.passes_sum else "fails", "FAILS" if row.twin.fails else "passes"
        shown.add_row(row.report.case.name, escape(row.report.source), *verdicts, usual, twin)
    console.print(shown)
    for row in rows:
        if row.twin.fails or not row.wrong.fails:
            console.print(f"{row.report.case.name}: {row.twin.text or row.wrong.text}", highlight=False, markup=False)
    counts = {
        "reports": len(rows),
        "failed by gradcheck": sum(row.wrong.fails for row in rows),
        "cause as published": sum(row.wrong.cause in row.report.case.causes for row in rows),
        "failed by .sum()": sum(not row.passes_sum for row in rows),
        "twins passed": sum(not row.twin.fails for row in rows),
        "cases": sum(answer.cases[0] - answer.cases[2] for row in rows for answer in (row.wrong, row.twin)),
    }
    console.print(", ".join(f"{what} {count}" for what, count in counts.items()), highlight=False)
    settings.out.mkdir(parents=True, exist_ok=True)
    results = [
        {
            "name": row.report.case.name,
            "source": row.report.source,
            "dtype": row.dtype,
            "gradcheck": row.wrong._asdict(),
            "twin": row.twin._asdict(),
            "passes_sum": row.passes_sum,
        }
        for row in rows
    ]
    record = {"command": COMMAND, "about": environment(), "summary": counts, "results": results}
    (settings.out / "published_plugin.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(run(tyro.cli(PluginSettings, prog=COMMAND, description=__doc__)))
