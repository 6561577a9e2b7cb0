"""Detection of planted bugs by gradient checkers, and false alarms on right but difficult gradients.

``python -m experiments.benchmarks.detection`` applies every checker to every case of the sets in float64 and float32,
and prints what each catches, its false alarms, and how often funcnn's names the right cause. ``--verify`` checks the
cases themselves by measures that no checker here uses. ``--optimizers`` evaluates ``check_optimizer`` instead.
"""

import json
import platform
import statistics
import sys
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import tyro
from rich.markup import escape

from experiments.benchmarks import optimizer_detection
from experiments.benchmarks.case_sets import SETS, SetName
from experiments.benchmarks.catalogue.case import Case
from experiments.benchmarks.catalogue.verification import verify
from experiments.benchmarks.checkers import ABSENT, CHECKERS, TITLES
from experiments.harness.console import console, progress_bar, table
from experiments.harness.page_section import README, RESULTS, PageSection

PAGE = PageSection(RESULTS / "detection.md", "detection")
SUMMARY = PageSection(README, "detection")
COMMAND = "python -m experiments.benchmarks.detection"
LONG = 10.0
"""A call that takes more seconds is not repeated, because compilation is a small part of it."""
COLUMNS = ("checker", "dtype", "set", "bugs caught", "false alarms", "cause named", "named wrongly", "seconds a case")
NAMING_CHECKERS = ("funcnn",)
"""The checkers that name a cause."""
_READ = ("flagged", "found", "seconds", "error")


@dataclass(frozen=True, kw_only=True)
class DetectionSettings:
    """Planted bugs and right but difficult gradients, for every checker."""

    checkers: tuple[
        Literal["funcnn", "np.allclose", "check_grads", "check_vjp", "chex", "gradcheck", "gradcheck_fast"], ...
    ] = tuple(CHECKERS)
    """The checkers to compare."""
    dtypes: tuple[Literal["float64", "float32"], ...] = ("float64", "float32")
    """The dtypes of the parameters and of the data."""
    sets: tuple[SetName, ...] = ("catalogue",)
    """The sets of cases."""
    only: tuple[str, ...] = ()
    """The names or themes of the cases to check; all if none is given."""
    out: Path = Path("report")
    """The folder for detection.json."""
    readme: bool = False
    """Write the table into docs/results/detection.md and its short form into README.md."""
    records: tuple[Path, ...] = ()
    """Join these detection.json of runs on parts, of other checkers, sets or cases, in the place of a new run."""
    verify: bool = False
    """Check the cases instead of the checkers."""
    optimizers: bool = False
    """Check hand-written optimizers against optax's instead of gradients."""

    def __post_init__(self):
        cases: Any = optimizer_detection.CASES
        if not self.optimizers:
            cases = [case for name in self.sets for case in SETS[name].load()]
        unknown = set(self.only) - {case.name for case in cases} - {case.theme for case in cases}
        if unknown:
            raise ValueError(f"--only: no case or theme is called {', '.join(sorted(unknown))}.")
        if self.readme and (self.only or self.verify or self.optimizers):
            raise ValueError(
                "--readme: the table is that of all gradients; leave --only, --verify and --optimizers out."
            )
        if self.records and not self.readme:
            raise ValueError("--records: they are joined for the pages; add --readme, or leave --records out.")

    def selected_cases(self) -> dict[str, tuple[Case, ...]]:
        """Return the selected cases of each set."""
        return {
            name: tuple(case for case in SETS[name].load() if not self.only or {case.name, case.theme} & set(self.only))
            for name in self.sets
        }


class Verdict(NamedTuple):
    """The verdict of a checker on a case.

    Fields:
        case: the case.
        is_flagged: whether the checker calls the gradient wrong. An exception counts as that.
        causes: the causes that it names where the case's bug is.
        seconds: the duration of the second call.
        error: the exception, if it raised one.
    """

    case: Case
    is_flagged: bool
    causes: tuple[str, ...]
    seconds: float
    error: str | None

    @property
    def is_right(self) -> bool:
        return self.is_flagged == bool(self.case.causes)

    @property
    def is_named(self) -> bool:
        """Whether a right cause of a bug is named. ``unknown`` is none."""
        return self.is_flagged and bool(set(self.causes) & self.case.causes - {"unknown"})

    @property
    def is_named_wrongly(self) -> bool:
        """Whether a cause of a bug is named that is neither right nor ``unknown``."""
        return bool(self.case.causes) and self.is_flagged and bool(set(self.causes) - self.case.causes - {"unknown"})


class Round(NamedTuple):
    """A checker on the cases of a set in a dtype: one row of the table."""

    checker: str
    dtype: str
    set_name: str


def evaluate_checker(checker, case: Case, dtype: str) -> Verdict:
    """Return the verdict of a checker, with the duration of a second call, because the first one compiles."""
    for call in range(2):
        params, args = case.make(dtype)
        jax.block_until_ready(jax.tree.leaves(params))
        start, error = time.perf_counter(), None
        try:
            is_flagged, causes = checker(case, params, args)
        except Exception as raised:  # whatever a checker raises, it is all that its user gets
            is_flagged, causes, error = True, (), f"{type(raised).__name__}: {raised}".splitlines()[0][:200]
        seconds = time.perf_counter() - start
        if call == 0 and seconds > LONG:
            break
    return Verdict(case, bool(is_flagged), causes, seconds, error)


def evaluate_all(settings: DetectionSettings) -> dict[Round, list[Verdict]]:
    """Return every verdict."""
    cases = settings.selected_cases()
    checkers = [name for name in settings.checkers if name not in ABSENT]
    rounds = [
        Round(checker, dtype, name)
        for checker in checkers
        for name in settings.sets
        for dtype in settings.dtypes
        if any(dtype in case.dtypes for case in cases[name])
    ]
    total = sum(each.dtype in case.dtypes for each in rounds for case in cases[each.set_name])
    verdicts: dict[Round, list[Verdict]] = {}
    with progress_bar("cases") as progress, warnings.catch_warnings():
        # gradcheck warns of every input that isn't float64.
        warnings.simplefilter("ignore")
        task = progress.add_task("", total=total)
        for each in rounds:
            verdicts[each] = []
            for case in cases[each.set_name]:
                if each.dtype in case.dtypes:
                    progress.update(task, description=f"{each.checker}, {each.dtype}: {case.name}")
                    verdicts[each].append(evaluate_checker(CHECKERS[each.checker], case, each.dtype))
                    progress.advance(task)
            # Otherwise a checker would profit from what another one has compiled.
            jax.clear_caches()
    return verdicts


def row(each: Round, verdicts: list[Verdict]) -> tuple[str, ...]:
    """Return a row of the table. Causes are counted over all bugs, whether they are caught or not."""
    bugs = [verdict for verdict in verdicts if verdict.case.causes]
    rights = [verdict for verdict in verdicts if not verdict.case.causes]
    names_causes = each.checker in NAMING_CHECKERS
    return (
        *each,
        f"{sum(verdict.is_flagged for verdict in bugs)} of {len(bugs)}",
        f"{sum(verdict.is_flagged for verdict in rights)} of {len(rights)}",
        f"{sum(verdict.is_named for verdict in bugs)} of {len(bugs)}" if names_causes else "–",
        f"{sum(verdict.is_named_wrongly for verdict in bugs)} of {len(bugs)}" if names_causes else "–",
        f"{statistics.median(verdict.seconds for verdict in verdicts):.2g}",
    )


def show_failures(each: Round, verdicts: list[Verdict]) -> None:
    """Print the names of missed bugs, false alarms, and bugs whose cause is not named or named wrongly."""
    bugs = [verdict for verdict in verdicts if verdict.case.causes]
    missed = [verdict for verdict in bugs if not verdict.is_flagged]
    alarmed = [verdict for verdict in verdicts if not verdict.case.causes and verdict.is_flagged]
    unnamed = [
        verdict
        for verdict in bugs
        if each.checker in NAMING_CHECKERS and verdict.is_flagged and (verdict.is_named_wrongly or not verdict.is_named)
    ]
    if not (missed or alarmed or unnamed):
        return
    console.print(f"[bold]{each.checker}[/], {each.dtype}, {each.set_name}", highlight=False)
    for words, failed in (("missed", missed), ("false alarms", alarmed)):
        if failed:
            names = [verdict.case.name + (f" ({verdict.error})" if verdict.error else "") for verdict in failed]
            console.print(f"  {words}: {escape(', '.join(names))}", highlight=False)
    for verdict in unnamed:
        words = "named wrongly" if verdict.is_named_wrongly else "not named"
        expected = " or ".join(sorted(verdict.case.causes))
        found = verdict.error or ", ".join(verdict.causes) or "no cause"
        console.print(f"  {words}: {verdict.case.name}, {found} for {expected}", highlight=False, markup=False)


def about() -> dict[str, str]:
    """Return the versions and the device on which the figures depend."""
    packages = ("jax", "jaxlib", "numpy", "chex", *(() if ABSENT else ("torch",)))
    versions = {package: version(package) for package in packages}
    return versions | {
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
    }


def markdown(rows: list[tuple[str, ...]], cases: dict[str, tuple[Case, ...]], facts: dict[str, str]) -> str:
    """Return the table of the site, with the command, the origin of each set, and the versions."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|---|---|" + "---:|" * (len(COLUMNS) - 3)]
    lines += [f"| {' | '.join((TITLES[name], *cells))} |" for name, *cells in rows]
    sets = [f"{name}, {_count(of_set)}, {SETS[name].origin}" for name, of_set in cases.items()]
    lines += [
        "",
        f"*`{COMMAND} --readme --sets {' '.join(cases)}`. Sets: {'; '.join(sets)}. Some bugs exist in one dtype only. "
        'Cause named: bugs whose right cause is named, of all bugs; "unknown" counts as not named. Named wrongly: '
        "bugs for which another cause is named. Seconds: the median of each case's second call. "
        f"{', '.join(f'{name} {value}' for name, value in facts.items())}.*",
    ]
    return "\n".join(lines)


def short_markdown(rows: list[tuple[str, ...]]) -> str:
    """Return the table of README.md: what the checkers of JAX find in the catalogue in float32.

    Example:
        >>> print(short_markdown([("chex", "float32", "catalogue", "9 of 10", "0 of 3", "–", "–", "0.1")]))
        | checker, float32 | bugs caught | false alarms | cause named |
        |---|---:|---:|---:|
        | `chex.assert_numerical_grads` | 9 of 10 | 0 of 3 | – |
    """
    lines = ["| checker, float32 | bugs caught | false alarms | cause named |", "|---|---:|---:|---:|"]
    chosen = [row for row in rows if row[1:3] == ("float32", "catalogue") and "torch" not in TITLES[row[0]]]
    return "\n".join(lines + [f"| {TITLES[row[0]]} | {' | '.join(row[3:6])} |" for row in chosen])


def _count(cases) -> str:
    bugs = sum(bool(case.causes) for case in cases)
    return f"{bugs} bugs and {len(cases) - bugs} right gradients"


def theme_table(cases: tuple[Case, ...]):
    """Return a table with the number of bugs and right cases of each theme."""
    counts = table("theme", "planted bugs", "right cases")
    for theme in dict.fromkeys(case.theme for case in cases):
        of_theme = Counter(bool(case.causes) for case in cases if case.theme == theme)
        counts.add_row(theme, str(of_theme[True]), str(of_theme[False]))
    counts.add_section()
    total = Counter(bool(case.causes) for case in cases)
    counts.add_row("together", str(total[True]), str(total[False]))
    return counts


def verify_all(cases: tuple[Case, ...]) -> int:
    """Verify every case and print the failures. Return their number."""
    failures = []
    with progress_bar("cases") as progress:
        task = progress.add_task("", total=len(cases))
        for case in cases:
            progress.update(task, description=case.name)
            try:
                verify(case)
            except AssertionError as broken:
                failures.append(str(broken))
            progress.advance(task)
    console.print(theme_table(cases))
    names = Counter(case.name for case in cases)
    failures += [f"{name}: {count} cases of that name" for name, count in names.items() if count > 1]
    for failure in failures:
        console.print(failure, style="red", highlight=False, markup=False)
    console.print(f"{len(failures)} failures in {len(cases)} cases.", highlight=False)
    return len(failures)


def run(settings: DetectionSettings) -> int:
    """Evaluate the checkers, print the table and write the record. With ``verify`` return the number of failures."""
    if settings.optimizers:
        return optimizer_detection.run(settings.only, settings.out)
    # Without it nothing could be float64. Parameters in float32 stay so.
    jax.config.update("jax_enable_x64", True)
    console.rule("[bold]Detection by gradient checkers")
    cases = settings.selected_cases()
    if settings.verify:
        return verify_all(tuple(case for of_set in cases.values() for case in of_set))
    if settings.readme:
        for section in (PAGE, SUMMARY):
            section.surroundings()  # fails before the long run, not after it
    if settings.records:
        return write_joined(settings.records)
    facts = about()
    verdicts = evaluate_all(settings)
    rows = [row(each, of_round) for each, of_round in verdicts.items()]
    shown = table(*COLUMNS)
    shown.columns[0].no_wrap = True
    for cells in rows:
        shown.add_row(*cells)
    console.print(shown)
    for name in settings.sets:
        console.print(f"{name}: {_count(cases[name])}, {SETS[name].origin}", highlight=False)
    console.print(f"{COMMAND}; seconds: the median of each case's second call, without the first compilation.")
    console.print("   ".join(f"[dim]{name}[/] {value}" for name, value in facts.items()), highlight=False)
    for name in sorted(ABSENT & set(settings.checkers)):
        console.print(f"{name}: skipped, because torch isn't installed.", highlight=False)
    for each, of_round in verdicts.items():
        show_failures(each, of_round)
    settings.out.mkdir(parents=True, exist_ok=True)
    path = settings.out / "detection.json"
    path.write_text(json.dumps(as_record(settings, facts, rows, verdicts), indent=1), encoding="utf-8")
    console.print(f"written: {path}", highlight=False)
    return write_pages(rows, cases, facts) if settings.readme else 0


def write_pages(rows, cases, facts) -> int:
    """Write the table of the site and that of README.md. Return 0."""
    PAGE.write(markdown(rows, cases, facts))
    SUMMARY.write(short_markdown(rows))
    return 0


def write_joined(paths: Sequence[Path]) -> int:
    """Write the pages from the records of runs on parts: of other checkers, dtypes, sets or cases. Return 0.

    Raises:
        ValueError: two records are of other versions, or a checker has no verdict on some cases of a set.
    """
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    for path, record in zip(paths, records, strict=True):
        if record["about"] != records[0]["about"]:
            raise ValueError(f"--records: {path} is of other versions than {paths[0]}; run both again with the same.")
    entries = [entry for record in records for entry in record["verdicts"]]
    cases = {name: SETS[name].load() for name in SETS if name in {entry["set"] for entry in entries}}
    found: dict[Round, dict[str, dict]] = {
        Round(checker, dtype, name): {} for checker in CHECKERS for name in cases for dtype in ("float64", "float32")
    }
    for entry in entries:
        found[Round(entry["checker"], entry["dtype"], entry["set"])][entry["case"]] = entry
    rows = []
    for each, by_name in found.items():
        if by_name:
            asked = [case for case in cases[each.set_name] if each.dtype in case.dtypes]
            if missing := [case.name for case in asked if case.name not in by_name]:
                raise ValueError(
                    f"--records: {' '.join(each)} has no verdict on {len(missing)} of {len(asked)} cases, such as "
                    f"{missing[0]}; run them with --only, and give that record as well."
                )
            verdicts = [Verdict(case, *(by_name[case.name][field] for field in _READ)) for case in asked]
            rows.append(row(each, [verdict._replace(causes=tuple(verdict.causes)) for verdict in verdicts]))
    return write_pages(rows, cases, records[0]["about"])


def as_record(settings, facts, rows, verdicts) -> dict:
    """Return the settings, the table and every verdict for JSON."""
    return {
        "command": COMMAND,
        "sets": settings.sets,
        "only": settings.only,
        "about": facts,
        "table": [dict(zip(COLUMNS, cells, strict=True)) for cells in rows],
        "verdicts": [
            {
                "checker": each.checker,
                "dtype": each.dtype,
                "set": each.set_name,
                "case": verdict.case.name,
                "theme": verdict.case.theme,
                "causes": sorted(verdict.case.causes),
                "flagged": verdict.is_flagged,
                "right": verdict.is_right,
                "found": verdict.causes,
                "named": verdict.is_named,
                "named_wrongly": verdict.is_named_wrongly,
                "seconds": verdict.seconds,
                "error": verdict.error,
            }
            for each, of_round in verdicts.items()
            for verdict in of_round
        ],
    }


if __name__ == "__main__":
    sys.exit(min(1, run(tyro.cli(DetectionSettings, prog=COMMAND))))
