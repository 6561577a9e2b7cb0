"""Running experiments from the command line."""

import tyro

from experiments.console import console, table
from experiments.experiment import Experiment, Result, Settings


def command_line(experiment: Experiment) -> None:
    """What ``python -m experiments.NAME`` does."""
    settings = tyro.cli(Settings, prog=f"python -m experiments.{experiment.name}", description=experiment.title)
    show(experiment.run(settings))


def show(result: Result) -> None:
    """Print the verdicts."""
    shown = table("claim", "estimate", "95% interval", "seeds", "verdict", title=result.experiment.title)
    for finding in result.findings:
        shown.add_row(finding.claim.sentence, f"{finding.estimate:.4g}", f"{finding.low:.4g} to {finding.high:.4g}",
                      str(finding.seeds), finding.verdict)  # fmt: skip
    console.print(shown)
