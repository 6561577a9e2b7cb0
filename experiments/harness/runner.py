"""The runner: stored parts are reused, the others are measured in several processes."""

import contextlib
import os
import platform
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import jax
import tyro
from rich.table import Table

from experiments.harness import store
from experiments.harness.claims import format_number
from experiments.harness.console import console, progress_bar
from experiments.harness.experiment import Experiment, Part, Settings, WrongGradientError, run_part
from experiments.harness.report import write_report
from experiments.harness.report.pictures import write_pictures
from experiments.harness.topics import load
from funcnn._closed_output import silent_where_closed

VERDICT_STYLES = {"holds": "green", "fails": "red", "undecided": "yellow"}


class PartKey(NamedTuple):
    """A part of an experiment, by name and index."""

    name: str
    part: int


class RunResult(NamedTuple):
    """The result of a run: a record of each experiment, the failures, and whether it was interrupted."""

    records: list[store.Record]
    failures: dict[PartKey, str]
    interrupted: bool


def run_all(
    names: Sequence[str], settings: Settings, folder: Path, *, jobs: int, on_progress: Callable[[list], None]
) -> RunResult:
    """Measure the parts that aren't stored; ``on_progress`` gets all records whenever an experiment is done."""
    experiments = {name: load(name) for name in names}
    keys = [PartKey(name, part) for name in names for part in range(len(experiments[name].parts))]
    claims = {key: len(experiments[key.name].parts[key.part].claims) for key in keys}
    stored = {key: store.read(store.record_path(folder, key.name, settings, key.part)) for key in keys}
    failures: dict[PartKey, str] = {}

    def records() -> list[store.Record]:
        return [
            store.experiment_record(
                experiment, settings, [stored[key] for key in keys if key.name == name],
                {key.part: reason for key, reason in failures.items() if key.name == name},
            )
            for name, experiment in experiments.items()
        ]  # fmt: skip

    missing = [key for key in keys if stored[key] is None]
    with progress_bar("claims judged") as bar:
        completed = sum(claims[key] for key in keys if stored[key])
        task = bar.add_task("", total=sum(claims.values()), completed=completed)
        try:
            for key, record, failure in measure_in_processes(missing, claims, settings, folder, jobs):
                stored[key] = record
                if failure:
                    failures[key] = failure
                    console.print(f"[red]{key.name}, {experiments[key.name].parts[key.part].title}: stopped\n{failure}")
                bar.update(task, advance=claims[key], description=key.name)
                if key.part == len(experiments[key.name].parts) - 1:
                    on_progress(records())
        except KeyboardInterrupt:
            stored |= {key: store.read(store.record_path(folder, key.name, settings, key.part)) for key in keys}
            return RunResult(records(), failures, interrupted=True)
    return RunResult(records(), failures, interrupted=False)


def measure_in_processes(
    keys: Sequence[PartKey], claims: Mapping[PartKey, int], settings: Settings, folder: Path, jobs: int
) -> Iterator[tuple[PartKey, store.Record | None, str | None]]:
    """Measure experiments in other processes, those with many claims first, and yield each when it is done.

    The parts of one experiment stay in one process, where they share compiled programs.
    """
    if not keys:
        return
    experiments = {name: [key for key in keys if key.name == name] for name in dict.fromkeys(key.name for key in keys)}
    order = sorted(experiments.values(), key=lambda parts: -sum(claims[key] for key in parts))
    workers = ProcessPoolExecutor(
        min(jobs, len(order)), mp_context=get_context("spawn"), initializer=_initialize_worker, initargs=(folder,)
    )
    try:
        futures = [workers.submit(measure_parts, parts, settings, folder) for parts in order]
        for future in as_completed(futures):
            yield from future.result()
    except BaseException:
        for process in workers._processes.values():
            process.terminate()
        raise
    finally:
        workers.shutdown(cancel_futures=True)


def measure_parts(
    keys: Sequence[PartKey], settings: Settings, folder: Path
) -> list[tuple[PartKey, store.Record | None, str | None]]:
    """Measure parts of an experiment and return a record or the reason of the failure for each."""
    return [(key, *measure_part(key, settings, folder)) for key in keys]


def measure_part(key: PartKey, settings: Settings, folder: Path) -> tuple[store.Record | None, str | None]:
    """Measure a part and store its record; return the record or the reason of the failure."""
    experiment = load(key.name)
    try:
        record = run_and_record(experiment, experiment.parts[key.part], settings)
    except WrongGradientError as error:
        return None, str(error)
    except Exception:
        return None, traceback.format_exc()
    path = store.record_path(folder, key.name, settings, key.part)
    store.write(path, record)
    return store.read(path), None


def environment() -> dict[str, Any]:
    """Return the device, the system and the versions of the packages."""
    packages = ("funcnn", "jax", "jaxlib", "optax", "numpy", "scikit-learn")
    versions = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    device = jax.devices()[0]
    return {
        "device": f"{device.platform} ({device.device_kind})", "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}", "python": platform.python_version(), **versions,
    }  # fmt: skip


def _initialize_worker(folder: Path) -> None:
    """Leave interruptions to the parent process, and share its compilation cache."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    enable_compilation_cache(folder)


def enable_compilation_cache(folder: Path) -> None:
    """Keep XLA's compiled programs in ``folder``: compiling is most of a quick run."""
    jax.config.update("jax_compilation_cache_dir", str(folder.resolve() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@silent_where_closed()
def run_command_line(experiment: Experiment, kind: type[Settings] = Settings) -> None:
    """Run ``python -m experiments.NAME``: measure in this process, print the verdicts, write a page."""
    settings = tyro.cli(
        kind, prog=f"python -m experiments.{experiment.name}", description=experiment.title,
        config=(tyro.conf.FlagCreatePairsOff,),
    )  # fmt: skip
    report = Path("report")
    enable_compilation_cache(report)
    parts = measure_here(experiment, settings)
    if jax.process_index() == 0:
        record = store.experiment_record(experiment, settings, parts, {})
        print_verdicts([record])
        page = write_report([record], report, experiment.name)
        files = write_pictures([record], report / experiment.name)
        console.print(f"figures: [bold]{page}", highlight=False, soft_wrap=True)
        if files:
            console.print(f"and {len(files)} pictures in {report / experiment.name}", highlight=False, soft_wrap=True)
        console.print(f"{len(experiment.claims)} claims judged, {count_verdicts([record])}", highlight=False)


def measure_here(experiment: Experiment, settings: Settings) -> list[store.Record]:
    """Measure the parts of an experiment in this process and return their records."""
    records = []
    with progress_bar("claims judged") as bar:
        task = bar.add_task("", total=len(experiment.claims))
        for part in experiment.parts:
            bar.update(task, description=part.title)
            records.append(run_and_record(experiment, part, settings))
            bar.advance(task, len(part.claims))
    return records


def run_and_record(experiment: Experiment, part: Part, settings: Settings) -> store.Record:
    """Run a part and return its record, with the seconds it took and the environment."""
    start = time.monotonic()
    outcome = run_part(experiment, part, settings)
    return store.outcome_record(outcome) | {"seconds": time.monotonic() - start, "environment": environment()}


def count_verdicts(records: Sequence[store.Record]) -> str:
    """Return how many claims hold, fail and are undecided, in words."""
    findings = [result for record in records for part in record["parts"] for result in part.get("findings", ())]
    counts = Counter(result["verdict"] for result in findings)
    return f"{counts['holds']} hold, {counts['fails']} fail, {counts['undecided']} undecided"


def print_verdicts(records: Sequence[store.Record]) -> None:
    """Print the verdicts."""
    for record in records:
        table = Table(title=record["title"], title_justify="left", header_style="bold", show_lines=True)
        for column in ("verdict", "claim", "measured", "allowed"):
            table.add_column(column, ratio=5 if column == "claim" else None, no_wrap=column == "verdict")
        for result in (result for part in record["parts"] for result in part.get("findings", ())):
            low, high, seeds = format_number(result["low"]), format_number(result["high"]), result["seeds"]
            interval = "" if result["statistic"] == "exact" else f"\n[dim]{low} to {high}, {seeds} seeds"
            table.add_row(
                f"[{VERDICT_STYLES[result['verdict']]}]{result['verdict']}", result["sentence"],
                f"{format_number(result['estimate'])}{interval}", result["threshold"],
            )  # fmt: skip
        console.print("", table)
