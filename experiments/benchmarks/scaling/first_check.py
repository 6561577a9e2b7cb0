"""Seconds of the first check of a gradient, in a fresh process each time.

``python -m experiments.benchmarks.scaling.first_check`` measures five checks: the README's example and ``check_model``
of the digits network, each after ``jax.grad``'s own first call, a rule over a ``while_loop`` with 24 entries, a rule of
a Pallas kernel in interpret mode with 32 entries, and a sweep of such a rule over twelve cases. The loop and the
first kernel have no derivative by autodiff: every entry is measured.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from experiments.benchmarks.scaling._measurement import Measurement, command, estimate, format_estimate, tracked
from experiments.harness.console import console, table

ROOT = Path(__file__).parents[3]
CHECKS = {
    "readme": "check_gradients of the README's example, after jax.grad's first call",
    "model": "check_model of the digits network 64-128-64-10, 64 samples, after jax.grad's first call",
    "while_loop": "check_custom_vjp of an implicit rule over a while_loop, 24 entries",
    "pallas": "check_custom_vjp of a Pallas kernel in interpret mode, 32 entries",
    "sweep": "gradcheck.rule of a Pallas RMS norm in interpret mode, the given arguments and a sweep of twelve cases",
}
LIMITS = {"readme": 1.0, "model": 2.0, "while_loop": 5.0, "pallas": 5.0, "sweep": 15.0}
"""The seconds of CPU that each may take on a machine with nothing else to do."""


@dataclass(frozen=True, kw_only=True)
class FirstCheckSettings:
    """How long the first check of a gradient takes."""

    repetitions: int = 5
    """Processes for each check, interleaved."""
    out: Path = Path("report/scaling/first_check.json")
    """The file for the figures."""


def run_process(check: str) -> Measurement:
    """Return what a fresh process measures of a check."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    done = subprocess.run(
        [sys.executable, "-P", str(Path(__file__).with_name("_fresh_check.py")), check],
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(settings: FirstCheckSettings, bar: Progress) -> Measurement:
    replies: dict[str, list[Measurement]] = {check: [] for check in CHECKS}
    for check in tracked(bar, [*CHECKS] * settings.repetitions, "processes"):
        replies[check].append(run_process(check))
    wrong = [check for check, of in replies.items() if not all(one["ok"] for one in of)]
    if wrong:
        raise RuntimeError(f"expected right gradients to pass, got another verdict of {', '.join(wrong)}.")
    return {
        "checks": {
            check: {
                "what": CHECKS[check],
                "limit": LIMITS[check],
                "cpu_seconds": estimate([one["cpu_seconds"] for one in of]),
                "seconds": estimate([one["seconds"] for one in of]),
                "each": of,
            }
            for check, of in replies.items()
        }
    }


def show(results: Measurement) -> None:
    made = table("check", "seconds of CPU", "seconds", "at most")
    for figures in results["checks"].values():
        cpu, wall = format_estimate(figures["cpu_seconds"]), format_estimate(figures["seconds"])
        made.add_row(figures["what"], cpu, wall, f"{figures['limit']:g}")
    console.print(made)
    console.print("The first check in a fresh process; imports and JAX's own start are not counted.")


if __name__ == "__main__":
    command("first_check", FirstCheckSettings, measure, show)
