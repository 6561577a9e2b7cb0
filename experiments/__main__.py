"""Every claim put to the test: ``python -m experiments`` measures, and writes the report."""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments.harness.claims import Section
from experiments.harness.console import console, table
from experiments.harness.experiment import Settings
from experiments.harness.report import readme, write_report
from experiments.harness.runner import print_verdicts, run_all
from experiments.harness.topics import load, ordered_names, topic_names


@dataclass(frozen=True, kw_only=True)
class AllSettings(Settings):
    """Put the claims of a textbook chapter to the test, and write the report of it.

    A quick run of few seeds and steps, unless --full is given. What was measured before, with the same settings and the
    same code, is not measured again; a run that was cut short goes on where it stopped.
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Which experiments; none given, all of them."""
    quick: bool = False
    """Few seeds and steps: what is done anyway without --full."""
    list: bool = False
    """List the experiments and their claims, and measure nothing."""
    out: Path = Path("report")
    """The folder for index.html, results.json and what was measured."""
    jobs: int = min(2, os.cpu_count() or 1)
    """Processes that share the work."""
    readme: bool = False
    """Write the table of verdicts into README.md too."""

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


def main(given: AllSettings) -> int:
    names = given.names or ordered_names()
    if given.list:
        print_list(names)
        return 0
    if given.readme:
        readme.SECTION.around()
    begun = time.monotonic()
    settings = Settings(full=given.full, seeds=given.seeds, seed=given.seed, grad=given.grad)
    run = run_all(
        names, settings, given.out, jobs=given.jobs, on_progress=lambda records: write_report(records, given.out)
    )
    page = write_report(run.records, given.out)
    print_verdicts(run.records)
    if run.interrupted:
        console.print(f"Stopped. What was finished is in {page}; the same command goes on from there.", highlight=False)
        return 130
    if given.readme:
        readme.write(run.records)
    console.print(
        f"{sum(len(part.get('findings', ())) for record in run.records for part in record['parts'])} claims judged in "
        f"{time.monotonic() - begun:.0f} seconds: [bold]{page.resolve()}[/]", highlight=False, soft_wrap=True,
    )  # fmt: skip
    for at in run.failures:
        console.print(f"[red]stopped: {at.name}, part {at.part + 1}[/]; the reason stands above and in the report")
    return bool(run.failures)


def print_list(names: Sequence[str]) -> None:
    shown = table("experiment", "claims", "what is asked")
    for name in names:
        experiment = load(name)
        shown.add_row(name, str(len(experiment.claims)), experiment.title)
    console.print(shown)
    claimed = {claim.section for name in topic_names() for claim in load(name).claims}
    console.print(f"{len(claimed)} of the chapter's {len(Section)} sections have a claim.")


def parse_options(options: list[str] | None = None) -> AllSettings:
    """What the options say, or those of the command line."""
    return tyro.cli(AllSettings, args=options, prog="python -m experiments", config=(tyro.conf.FlagCreatePairsOff,))


if __name__ == "__main__":
    sys.exit(main(parse_options()))
