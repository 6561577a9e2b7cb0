"""What gradient checkers find: planted bugs caught, and right but hard gradients let pass.

``python -m experiments.benchmarks.detection`` asks every checker about every case of the catalogue, in float64 and in
float32, and prints what each caught, what it took for wrong though it is right, and whether funcnn's names the cause.
``--verify`` holds the catalogue itself against what it promises, by measures that no checker here uses;
``--optimizers`` asks about hand-rolled optimizers instead.
"""

import json
import platform
import statistics
import sys
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import tyro
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from experiments.benchmarks import optimizer_detection
from experiments.benchmarks.catalogue import BUGS, CASES, RIGHT, Case
from experiments.benchmarks.catalogue.verification import verify
from experiments.benchmarks.checkers import ABSENT, CHECKERS, TITLES
from experiments.harness.console import console, table
from experiments.harness.readme_section import readme_section

SECTION = readme_section("detection")
COMMAND = "python -m experiments.benchmarks.detection"
LONG = 10.0
"""A call of so many seconds isn't made twice: what it compiled is little of it."""
COLUMNS = ("checker", "dtype", "bugs caught", "false alarms", "right cause named", "seconds a case")


@dataclass(frozen=True, kw_only=True)
class DetectionSettings:
    """Planted bugs and right but hard gradients, shown to every checker."""

    checkers: tuple[
        Literal["funcnn", "np.allclose", "check_grads", "check_vjp", "chex", "gradcheck", "gradcheck_fast"], ...
    ] = tuple(CHECKERS)
    """Whom to ask."""
    dtypes: tuple[Literal["float64", "float32"], ...] = ("float64", "float32")
    """The dtypes of the parameters and of the data."""
    only: tuple[str, ...] = ()
    """The cases or themes to ask about; all of them if none is named."""
    out: Path = Path("report")
    """The folder for detection.json."""
    readme: bool = False
    """Write the table into README.md, between its markers."""
    verify: bool = False
    """Check the catalogue instead of the checkers."""
    optimizers: bool = False
    """Ask about optimizers beside optax's instead of gradients."""

    def __post_init__(self):
        cases = optimizer_detection.CASES if self.optimizers else CASES
        unknown = set(self.only) - {case.name for case in cases} - {case.theme for case in cases}
        if unknown:
            raise ValueError(f"--only: no case or theme is called {', '.join(sorted(unknown))}.")
        if self.readme and (self.only or self.verify or self.optimizers):
            raise ValueError(
                "--readme: the table is that of all gradients; leave --only, --verify and --optimizers out."
            )

    def chosen(self) -> tuple[Case, ...]:
        return tuple(case for case in CASES if not self.only or {case.name, case.theme} & set(self.only))


class Verdict(NamedTuple):
    """What a checker said of a case."""

    case: Case
    flagged: bool
    cause: str | None
    seconds: float
    error: str | None

    @property
    def right(self) -> bool:
        return self.flagged == bool(self.case.causes)


def ask(checker, case: Case, dtype: str) -> Verdict:
    """A checker's verdict on a case, with the time of a second call: the first one's includes what JAX compiles."""
    for call in range(2):
        params, args = case.make(dtype)
        jax.block_until_ready(jax.tree.leaves(params))
        start, error = time.perf_counter(), None
        try:
            flagged, cause = checker(case, params, args)
        except Exception as raised:  # whatever a checker raises, its user has no verdict but this
            flagged, cause, error = True, None, f"{type(raised).__name__}: {raised}".splitlines()[0][:200]
        seconds = time.perf_counter() - start
        if call == 0 and seconds > LONG:
            break
    return Verdict(case, bool(flagged), cause, seconds, error)


def ask_all(settings: DetectionSettings) -> dict[tuple[str, str], list[Verdict]]:
    """Every verdict, by checker and dtype."""
    rounds = [(name, dtype) for name in settings.checkers if name not in ABSENT for dtype in settings.dtypes]
    cases = settings.chosen()
    total = sum(dtype in case.dtypes for _, dtype in rounds for case in cases)
    verdicts = {}
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress, warnings.catch_warnings():
        # gradcheck warns of every input that isn't float64.
        warnings.simplefilter("ignore")
        task = progress.add_task("", total=total)
        for name, dtype in rounds:
            verdicts[name, dtype] = []
            for case in cases:
                if dtype in case.dtypes:
                    progress.update(task, description=f"{name}, {dtype}: {case.name}")
                    verdicts[name, dtype].append(ask(CHECKERS[name], case, dtype))
                    progress.advance(task)
            # Nothing that one checker compiled speeds up the next.
            jax.clear_caches()
    return verdicts


def row(name: str, dtype: str, verdicts: list[Verdict]) -> tuple[str, ...]:
    """A line of the table."""
    bugs = [verdict for verdict in verdicts if verdict.case.causes]
    rights = [verdict for verdict in verdicts if not verdict.case.causes]
    caught = [verdict for verdict in bugs if verdict.flagged]
    named = sum(verdict.cause in verdict.case.causes for verdict in caught)
    return (
        name,
        dtype,
        f"{len(caught)} of {len(bugs)}",
        f"{sum(verdict.flagged for verdict in rights)} of {len(rights)}",
        f"{named} of {len(caught)}" if name == "funcnn" else "–",
        f"{statistics.median(verdict.seconds for verdict in verdicts):.2g}",
    )


def show_failures(name: str, dtype: str, verdicts: list[Verdict]) -> None:
    """By name, what a checker missed, what it took for wrong, and what it called by another name."""
    missed = [verdict for verdict in verdicts if verdict.case.causes and not verdict.flagged]
    alarmed = [verdict for verdict in verdicts if not verdict.case.causes and verdict.flagged]
    misnamed = [
        verdict
        for verdict in verdicts
        if name == "funcnn" and verdict.case.causes and verdict.flagged and verdict.cause not in verdict.case.causes
    ]
    if not (missed or alarmed or misnamed):
        return
    console.print(f"[bold]{name}[/], {dtype}", highlight=False)
    for words, failed in (("missed", missed), ("false alarms", alarmed)):
        if failed:
            names = [verdict.case.name + (f" ({verdict.error})" if verdict.error else "") for verdict in failed]
            console.print(f"  {words}: {escape(', '.join(names))}", highlight=False)
    for verdict in misnamed:
        wanted = " or ".join(sorted(verdict.case.causes))
        console.print(
            f"  misnamed: {verdict.case.name}, {verdict.error or verdict.cause} for {wanted}",
            highlight=False,
            markup=False,
        )


def about() -> dict[str, str]:
    """What the figures depend on."""
    packages = ("jax", "jaxlib", "numpy", "chex", *(() if ABSENT else ("torch",)))
    versions = {package: version(package) for package in packages}
    return versions | {
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
    }


def markdown(rows: list[tuple[str, ...]], facts: dict[str, str]) -> str:
    """The table for README.md, with the command and what the figures depend on."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|---|" + "---:|" * (len(COLUMNS) - 2)]
    lines += [f"| {' | '.join((TITLES[name], *cells))} |" for name, *cells in rows]
    lines += [
        "",
        f"*`{COMMAND} --readme`: {len(BUGS)} planted bugs, some of which exist in one dtype only, and {len(RIGHT)} "
        f"right but hard gradients. Seconds: the median of each case's second call. "
        f"{', '.join(f'{name} {value}' for name, value in facts.items())}.*",
    ]
    return "\n".join(lines)


def by_theme(cases: tuple[Case, ...]):
    """How many bugs and right cases each theme has."""
    counted = table("theme", "planted bugs", "right cases")
    for theme in dict.fromkeys(case.theme for case in cases):
        of_theme = Counter(bool(case.causes) for case in cases if case.theme == theme)
        counted.add_row(theme, str(of_theme[True]), str(of_theme[False]))
    counted.add_section()
    total = Counter(bool(case.causes) for case in cases)
    counted.add_row("together", str(total[True]), str(total[False]))
    return counted


def verify_all(cases: tuple[Case, ...]) -> int:
    """Verify every case; the number of those that aren't what they say."""
    failures = []
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(cases))
        for case in cases:
            progress.update(task, description=case.name)
            try:
                verify(case)
            except AssertionError as broken:
                failures.append(str(broken))
            progress.advance(task)
    console.print(by_theme(cases))
    names = Counter(case.name for case in CASES)
    failures += [f"{name}: {count} cases of that name" for name, count in names.items() if count > 1]
    for failure in failures:
        console.print(failure, style="red", highlight=False, markup=False)
    console.print(f"{len(cases) - len(failures)} of {len(cases)} cases are what they say.", highlight=False)
    return len(failures)


def run(settings: DetectionSettings) -> int:
    """Ask, print and write; the number of failures where only the catalogue is verified."""
    if settings.optimizers:
        return optimizer_detection.run(settings.only, settings.out)
    # Where the parameters are float32 they stay so; without it nothing could be float64.
    jax.config.update("jax_enable_x64", True)
    console.rule("[bold]What gradient checkers find")
    if settings.verify:
        return verify_all(settings.chosen())
    if settings.readme:
        # Before the long run, not after it.
        SECTION.surroundings()
    facts = about()
    verdicts = ask_all(settings)
    rows = [row(name, dtype, of_round) for (name, dtype), of_round in verdicts.items()]
    shown = table(*COLUMNS)
    shown.columns[0].no_wrap = True
    for cells in rows:
        shown.add_row(*cells)
    console.print(shown)
    console.print(f"{COMMAND}; seconds: the median of each case's second call, without what JAX compiles once.")
    console.print("   ".join(f"[dim]{name}[/] {value}" for name, value in facts.items()), highlight=False)
    for name in sorted(ABSENT & set(settings.checkers)):
        console.print(f"{name}: skipped, torch isn't installed.", highlight=False)
    for (name, dtype), of_round in verdicts.items():
        show_failures(name, dtype, of_round)
    settings.out.mkdir(parents=True, exist_ok=True)
    path = settings.out / "detection.json"
    path.write_text(json.dumps(as_record(settings, facts, rows, verdicts), indent=1), encoding="utf-8")
    console.print(f"written: {path}", highlight=False)
    if settings.readme:
        SECTION.write(markdown(rows, facts))
    return 0


def as_record(settings, facts, rows, verdicts) -> dict:
    """Everything, for later questions."""
    return {
        "command": COMMAND,
        "only": settings.only,
        "about": facts,
        "table": [dict(zip(COLUMNS, cells, strict=True)) for cells in rows],
        "verdicts": [
            {
                "checker": name,
                "dtype": dtype,
                "case": verdict.case.name,
                "theme": verdict.case.theme,
                "causes": sorted(verdict.case.causes),
                "flagged": verdict.flagged,
                "right": verdict.right,
                "cause": verdict.cause,
                "seconds": verdict.seconds,
                "error": verdict.error,
            }
            for (name, dtype), of_round in verdicts.items()
            for verdict in of_round
        ],
    }


if __name__ == "__main__":
    sys.exit(min(1, run(tyro.cli(DetectionSettings, prog=COMMAND))))
