"""Seconds of the first use: import, first and second ``fit``, a script's second run.

``python -m experiments.benchmarks.scaling.first_use`` starts fresh processes: one as it is, one with an empty
persistent compilation cache, and one more with what that one left in it.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from experiments.benchmarks.scaling._measurement import Measurement, command, estimate, format_estimate, ratio, tracked
from experiments.harness.console import console, table

ROOT = Path(__file__).parents[3]
PROCESSES = ("no cache", "empty cache", "filled cache")
FITS = ("first fit", "second fit")
CACHED = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
"""Every program is kept, however small and however quickly compiled."""
COUNTS = ("traces", "compilations", "cache_hits", "cache_misses")


@dataclass(frozen=True, kw_only=True)
class FirstUseSettings:
    """How long the first use takes."""

    repetitions: int = 7
    """Processes of each kind, interleaved."""
    out: Path = Path("report/scaling/first_use.json")
    """The file for the figures."""


def process(cache: Path | None) -> Measurement:
    """What a fresh process measures, and the seconds from its start to its end."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("JAX_COMPILATION_CACHE_DIR", *CACHED)
    }
    # What is set for the process that asks, in a test for one, isn't for those that it starts.
    environment["JAX_ENABLE_X64"] = "0"
    if cache is not None:
        environment |= {"JAX_COMPILATION_CACHE_DIR": str(cache), **CACHED}
    started = time.perf_counter()
    done = subprocess.run(
        # By its path: as a module of this package it would have no cache, which the package takes out of its studies.
        [sys.executable, "-P", str(Path(__file__).with_name("_fresh_process.py"))],
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1]) | {"process": time.perf_counter() - started}


def measure(settings: FirstUseSettings, bar: Progress) -> Measurement:
    replies: dict[str, list[Measurement]] = {name: [] for name in PROCESSES}
    for _ in tracked(bar, range(settings.repetitions), "a process of each kind"):
        with tempfile.TemporaryDirectory() as folder:
            for name in PROCESSES:
                replies[name].append(process(None if name == "no cache" else Path(folder)))
    seconds = {name: _seconds(of) for name, of in replies.items()}
    return {
        "processes": replies,
        "seconds": {name: {what: estimate(of) for what, of in parts.items()} for name, parts in seconds.items()},
        "second_run_over_first": {
            what: ratio(seconds["filled cache"][what], seconds["empty cache"][what])
            for what in ("first fit", "process")
        },
        "counts": {name: {fit: _counts(of, fit) for fit in FITS} for name, of in replies.items()},
    }  # fmt: skip


def _counts(replies: list[Measurement], fit: str) -> dict[str, list[int]]:
    return {count: [one[fit][count] for one in replies] for count in COUNTS}


def _seconds(replies: list[Measurement]) -> dict[str, list[float]]:
    """By what was timed: a figure of every process."""
    fits = {fit: [one[fit]["seconds"] for one in replies] for fit in FITS}
    return {what: [one[what] for one in replies] for what in ("import jax", "import funcnn")} | fits | {
        "process": [one["process"] for one in replies]
    }  # fmt: skip


def show(results: Measurement) -> None:
    made = table("seconds", *PROCESSES)
    for what in results["seconds"]["no cache"]:
        title = "import jax, part of import funcnn" if what == "import jax" else what
        made.add_row(title, *(format_estimate(results["seconds"][name][what]) for name in PROCESSES))
    for fit in FITS:
        for count in COUNTS:
            values = (sorted(set(results["counts"][name][fit][count])) for name in PROCESSES)
            made.add_row(f"{fit}: {count.replace('_', ' ')}", *(" or ".join(map(str, value)) for value in values))
    console.print(made)
    for what, figure in results["second_run_over_first"].items():
        console.print(f"a script's second run over its first, {what}: {format_estimate(figure)}")
    console.print("process: from its start to its end, two fits. What the filled cache gives counts as compiled.")


if __name__ == "__main__":
    command("first_use", FirstUseSettings, measure, show)
