"""Measure all claims and write the report: ``python -m experiments``."""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

try:
    import tyro
except ModuleNotFoundError as error:
    sys.exit(f"python -m experiments needs {error.name}. Install the extra: python -m pip install -e '.[experiments]'")

from experiments.harness.claims import Section
from experiments.harness.console import console, table
from experiments.harness.experiment import Settings
from experiments.harness.report import verdict_tables, write_report
from experiments.harness.runner import count_verdicts, print_verdicts, run_all
from experiments.harness.topics import load, ordered_names, topic_names
from funcnn._closed_output import silent_where_closed


@dataclass(frozen=True, kw_only=True)
class AllSettings(Settings):
    """Measure the claims of a textbook chapter and write the report.

    The run is quick, with few seeds and steps, unless --full is given. Parts measured before with the same settings and
    code are not measured again, so an interrupted run resumes where it stopped.
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """The experiments to run; by default all of them."""
    quick: bool = False
    """Few seeds and steps: the default."""
    list: bool = False
    """List the experiments and the number of their claims, and measure nothing."""
    out: Path = Path("report")
    """The folder for index.html, results.json and the stored measurements."""
    jobs: int = min(2, os.cpu_count() or 1)
    """Number of processes."""
    readme: bool = False
    """Write the verdicts into docs/results/claims.md and their counts into README.md as well."""

    def __post_init__(self):
        super().__post_init__()
        if self.quick and self.full:
            raise ValueError("--quick and --full: expected one of them, got both.")
        if self.jobs < 1:
            raise ValueError(f"--jobs: expected 1 or more, got {self.jobs}.")
        names = topic_names()
        unknown = [name for name in self.names if name not in names]
        if unknown:
            raise ValueError(f"names: expected some of {', '.join(names)}, got {', '.join(unknown)}.")


def main(options: AllSettings) -> int:
    """Run the experiments and return the exit status."""
    names = options.names or ordered_names()
    if options.list:
        print_list(names)
        return 0
    if options.readme:
        verdict_tables.check_markers()
    start = time.monotonic()
    settings = Settings(full=options.full, seeds=options.seeds, seed=options.seed, grad=options.grad)
    run = run_all(
        names, settings, options.out, jobs=options.jobs, on_progress=lambda records: write_report(records, options.out)
    )
    page = write_report(run.records, options.out)
    print_verdicts(run.records)
    if run.interrupted:
        console.print(
            f"Interrupted. The finished parts are in {page}; the same command resumes there.", highlight=False
        )
        return 130
    if options.readme:
        verdict_tables.write(run.records)
    console.print(
        f"{sum(len(part.get('findings', ())) for record in run.records for part in record['parts'])} claims judged in "
        f"{time.monotonic() - start:.0f} seconds, {count_verdicts(run.records)}: [bold]{page.resolve()}[/]",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    for key in run.failures:
        console.print(f"[red]stopped: {key.name}, part {key.part + 1}[/]; the reason is above and in the report")
    return bool(run.failures)


def print_list(names: Sequence[str]) -> None:
    """Print the experiments, the number of their claims, and their titles."""
    rows = table("experiment", "claims", "title")
    for name in names:
        experiment = load(name)
        rows.add_row(name, str(len(experiment.claims)), experiment.title)
    console.print(rows)
    sections = {claim.section for name in topic_names() for claim in load(name).claims}
    console.print(f"{len(sections)} of the chapter's {len(Section)} sections have a claim.")


def parse_options(arguments: list[str] | None = None) -> AllSettings:
    """Parse arguments, by default those of the command line."""
    return tyro.cli(AllSettings, args=arguments, prog="python -m experiments", config=(tyro.conf.FlagCreatePairsOff,))


if __name__ == "__main__":
    with silent_where_closed():
        sys.exit(main(parse_options()))
