"""Published wrong gradients: what funcnn finds, and what the test of each project finds.

``python -m experiments.benchmarks.published`` checks every report and its right twin in float64 and float32, prints
whether the mistake is caught, the cause that is named, whether the project's own test passes the mistake, and whether
the twin is passed, and writes the figures to published.json.
"""

import json
import sys
import time
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import tyro
from rich.markup import escape

import funcnn as fnn
from experiments.benchmarks.published import REPORTS, Report
from experiments.benchmarks.published.report import PLACES, Rule, passes_usual_test, pullback_of, registered
from experiments.harness.console import console, progress_bar, table

COMMAND = "python -m experiments.benchmarks.published"
COLUMNS = ("report", "source", "caught", "cause", "project's own test", "twin passed")


@dataclass(frozen=True, kw_only=True)
class PublishedSettings:
    """Wrong gradients from public trackers and their right twins, checked by funcnn."""

    dtypes: tuple[Literal["float64", "float32"], ...] = ("float64", "float32")
    """The dtypes of the parameters and of the data."""
    only: tuple[str, ...] = ()
    """The names or themes to check; all of them if none is given."""
    out: Path = Path("report")
    """The folder for published.json."""

    def __post_init__(self):
        known = {report.case.name for report in REPORTS} | {report.case.theme for report in REPORTS}
        unknown = set(self.only) - known
        if unknown:
            raise ValueError(f"--only: no report or theme is called {', '.join(sorted(unknown))}.")

    def chosen(self) -> tuple[Report, ...]:
        return tuple(r for r in REPORTS if not self.only or {r.case.name, r.case.theme} & set(self.only))


class Answer(NamedTuple):
    """The checker's result for one gradient.

    Fields:
        flagged: whether the gradient is reported as wrong; an exception counts as that.
        cause: the cause of the leaf where the mistake is, or of the first wrong leaf.
        verdict: the report's verdict, or the exception.
        seconds: of the call, compilation included.
    """

    flagged: bool
    cause: str | None
    verdict: str
    seconds: float


class Result(NamedTuple):
    """Both answers for a report in one dtype."""

    report: Report
    dtype: str
    wrong: Answer
    twin: Answer

    @property
    def is_named(self) -> bool:
        return self.wrong.flagged and self.wrong.cause in self.report.case.causes


def check(report: Report, dtype: str, is_twin: bool) -> Answer:
    """Return what funcnn reports of the mistake or of its right twin."""
    case = report.case
    params, args = case.make(dtype)
    start = time.perf_counter()
    try:
        if isinstance(case, Rule):
            vjp = case.right if is_twin else case.vjp
            if case.is_registered:
                found = fnn.check_custom_vjp(registered(case, vjp), params, *args)
            else:
                found = fnn.check_vjp(case.function, pullback_of(case, vjp), params, *args)
        else:
            found = fnn.check_gradients(case.loss_fn, case.right if is_twin else case.grad_fn, params, *args)
    except Exception as raised:  # an exception is no verdict, whatever it is
        text = f"{type(raised).__name__}: {raised}".splitlines()[0][:200]
        return Answer(True, None, text, time.perf_counter() - start)
    wrong = [leaf for leaf in found.leaves if not leaf.ok]
    at_mistake = [leaf.cause for leaf in wrong if case.leaf is None or leaf.path.endswith(case.leaf)]
    named = [cause for cause in at_mistake if cause in case.causes]
    cause = (named or at_mistake or [None])[0]
    return Answer(not found.ok, cause, found.verdict, time.perf_counter() - start)


def check_all(settings: PublishedSettings) -> list[Result]:
    """Return the results of all reports in all dtypes."""
    reports, results = settings.chosen(), []
    with progress_bar("reports") as progress, warnings.catch_warnings():
        # The checker warns of a gradient that is right and unstable; the table has a place for it.
        warnings.simplefilter("ignore")
        task = progress.add_task("", total=len(reports) * len(settings.dtypes))
        for report in reports:
            for dtype in settings.dtypes:
                if dtype in report.case.dtypes:
                    progress.update(task, description=f"{report.case.name}, {dtype}")
                    answers = (check(report, dtype, is_twin) for is_twin in (False, True))
                    results.append(Result(report, dtype, *answers))
                progress.advance(task)
    return results


def in_words(passed: bool | None) -> str:
    return {None: "none known", True: "passed", False: "failed"}[passed]


def in_dtypes(values: dict[str, str]) -> str:
    """Return the value of all dtypes, or each dtype's own where they differ."""
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    return ", ".join(f"{value} ({dtype})" for dtype, value in values.items())


def row(results: list[Result], usual: bool | None) -> tuple[str, ...]:
    """Return the line of a report, from its results in all dtypes."""
    report = results[0].report
    return (
        report.case.name,
        report.source,
        in_dtypes({result.dtype: "yes" if result.wrong.flagged else "NO" for result in results}),
        in_dtypes({result.dtype: result.wrong.cause or "–" for result in results}),
        in_words(usual),
        in_dtypes({result.dtype: "NO" if result.twin.flagged else "yes" for result in results}),
    )


def show_failures(results: list[Result]) -> None:
    """Print what was missed, which twins were taken for wrong, and which causes were not named."""
    show = partial(console.print, highlight=False, markup=False)
    for result in results:
        name, verdict = f"{result.report.case.name}, {result.dtype}", result.wrong.verdict
        if not result.wrong.flagged:
            show(f"missed: {name}: {verdict}")
        elif not result.is_named:
            wanted = " or ".join(sorted(result.report.case.causes))
            show(f"not named: {name}: {result.wrong.cause or verdict} for {wanted}")
        if result.twin.flagged:
            show(f"right twin flagged: {name}: {result.twin.verdict}")


def summary(results: list[Result], usual: dict[str, bool | None]) -> dict[str, dict[str, int]]:
    """Return the counts for each dtype, and those of the projects' own tests."""
    counts = {}
    for dtype in dict.fromkeys(result.dtype for result in results):
        of_dtype = [result for result in results if result.dtype == dtype]
        misnamed = [
            result
            for result in of_dtype
            if result.wrong.flagged and not result.is_named and result.wrong.cause not in (None, "unknown")
        ]
        counts[dtype] = {
            "reports": len(of_dtype),
            "caught": sum(result.wrong.flagged for result in of_dtype),
            "cause named": sum(result.is_named for result in of_dtype),
            "named by its place alone": sum(result.is_named and result.wrong.cause in PLACES for result in of_dtype),
            "cause named wrongly": len(misnamed),
            "twins passed": sum(not result.twin.flagged for result in of_dtype),
        }
    known = [passed for passed in usual.values() if passed is not None]
    counts["projects' own tests"] = {"known": len(known), "caught": len(known) - sum(known)}
    return counts


def as_record(result: Result, usual: bool | None) -> dict:
    """Return a result as JSON has it."""
    report, test = result.report, result.report.usual
    return {
        "name": report.case.name,
        "theme": report.case.theme,
        "source": report.source,
        "url": report.url,
        "title": report.title,
        "dtype": result.dtype,
        "causes": sorted(report.case.causes),
        "caught": result.wrong.flagged,
        "cause": result.wrong.cause,
        "cause_named": result.is_named,
        "verdict": result.wrong.verdict,
        "twin_passed": not result.twin.flagged,
        "twin_verdict": result.twin.verdict,
        "seconds": [result.wrong.seconds, result.twin.seconds],
        "project_test": in_words(usual),
        "project_test_description": test and test.description,
        "project_test_evidence": test and test.evidence,
    }


def run(settings: PublishedSettings) -> int:
    """Check, print and write."""
    # The runner imports the packages for figures, which the tests of this module do without.
    from experiments.harness.runner import environment

    # Where the parameters are float32 they stay so; without it nothing could be float64.
    jax.config.update("jax_enable_x64", True)
    console.rule("[bold]Published wrong gradients")
    results = check_all(settings)
    usual = {report.case.name: passes_usual_test(report) for report in settings.chosen()}
    shown = table(*COLUMNS)
    for name, passed in usual.items():
        of_report = [result for result in results if result.report.case.name == name]
        shown.add_row(*(escape(cell) for cell in row(of_report, passed)))
    console.print(shown)
    show_failures(results)
    counts = summary(results, usual)
    for name, figures in counts.items():
        console.print(f"{name}: " + ", ".join(f"{what} {count}" for what, count in figures.items()), highlight=False)
    settings.out.mkdir(parents=True, exist_ok=True)
    path = settings.out / "published.json"
    record = {
        "command": COMMAND,
        "only": settings.only,
        "about": environment(),
        "summary": counts,
        "results": [as_record(result, usual[result.report.case.name]) for result in results],
    }
    path.write_text(json.dumps(record, indent=1), encoding="utf-8")
    console.print(f"written: {path}", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(run(tyro.cli(PublishedSettings, prog=COMMAND)))
