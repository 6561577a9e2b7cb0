"""Running experiments: what was measured before is taken from the store, the rest is shared among processes."""

import contextlib
import os
import platform
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import jax
import tyro
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from experiments.harness import store
from experiments.harness.claims import format_number
from experiments.harness.console import console
from experiments.harness.experiment import Experiment, Part, Settings, WrongGradientError, run_part
from experiments.harness.report import write_report
from experiments.harness.topics import load

VERDICT_STYLES = {"holds": "green", "fails": "red", "undecided": "yellow"}
COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("claims"),
           TimeElapsedColumn(), TextColumn("[dim]left"), TimeRemainingColumn())  # fmt: skip


class PartKey(NamedTuple):
    """Which part of which experiment."""

    name: str
    part: int


class RunResult(NamedTuple):
    """What a run leaves: a record of each experiment, what failed, and whether somebody stopped it."""

    records: list[store.Record]
    failures: dict[PartKey, str]
    interrupted: bool


def run_all(
    names: Sequence[str], settings: Settings, folder: Path, *, jobs: int, on_progress: Callable[[list], None]
) -> RunResult:
    """Measure what the store hasn't yet; ``on_progress`` gets all records whenever an experiment is done."""
    experiments = {name: load(name) for name in names}
    everything = [PartKey(name, part) for name in names for part in range(len(experiments[name].parts))]
    claims = {at: len(experiments[at.name].parts[at.part].claims) for at in everything}
    found = {at: store.read(store.record_path(folder, at.name, settings, at.part)) for at in everything}
    failures: dict[PartKey, str] = {}

    def records() -> list[store.Record]:
        return [
            store.experiment_record(
                experiment, settings, [found[at] for at in everything if at.name == name],
                {at.part: why for at, why in failures.items() if at.name == name},
            )
            for name, experiment in experiments.items()
        ]  # fmt: skip

    waiting = [at for at in everything if found[at] is None]
    with Progress(*COLUMNS, console=console, transient=True) as bar:
        known = sum(claims[at] for at in everything if found[at])
        task = bar.add_task("experiments", total=sum(claims.values()), completed=known)
        try:
            for at, record, failure in measure_in_processes(waiting, claims, settings, folder, jobs):
                found[at] = record
                if failure:
                    failures[at] = failure
                    console.print(f"[red]{at.name}, {experiments[at.name].parts[at.part].title}: stopped\n{failure}")
                bar.update(task, advance=claims[at], description=at.name)
                if at.part == len(experiments[at.name].parts) - 1:
                    on_progress(records())
        except KeyboardInterrupt:
            found |= {at: store.read(store.record_path(folder, at.name, settings, at.part)) for at in everything}
            return RunResult(records(), failures, interrupted=True)
    return RunResult(records(), failures, interrupted=False)


def measure_in_processes(
    places: Sequence[PartKey], claims: Mapping[PartKey, int], settings: Settings, folder: Path, jobs: int
) -> Iterator[tuple[PartKey, store.Record | None, str | None]]:
    """Measure experiments in processes of their own, those of many claims first, and give each when it is done.

    The parts of one experiment stay in one process: what it has compiled for one, the next need not compile again.
    """
    if not places:
        return
    experiments = {name: [at for at in places if at.name == name] for name in dict.fromkeys(at.name for at in places)}
    order = sorted(experiments.values(), key=lambda parts: -sum(claims[at] for at in parts))
    workers = ProcessPoolExecutor(
        min(jobs, len(order)), mp_context=get_context("spawn"), initializer=_initialize_worker, initargs=(folder,)
    )
    try:
        waiting = [workers.submit(measure_parts, parts, settings, folder) for parts in order]
        for done in as_completed(waiting):
            yield from done.result()
    except BaseException:
        for process in workers._processes.values():
            process.terminate()
        raise
    finally:
        workers.shutdown(cancel_futures=True)


def measure_parts(
    places: Sequence[PartKey], settings: Settings, folder: Path
) -> list[tuple[PartKey, store.Record | None, str | None]]:
    """Measure parts of an experiment and keep each at once; or the reason why one couldn't be."""
    return [(at, *measure_part(at, settings, folder)) for at in places]


def measure_part(at: PartKey, settings: Settings, folder: Path) -> tuple[store.Record | None, str | None]:
    experiment = load(at.name)
    try:
        record = run_and_record(experiment, experiment.parts[at.part], settings)
    except WrongGradientError as error:
        return None, str(error)
    except Exception:
        return None, traceback.format_exc()
    path = store.record_path(folder, at.name, settings, at.part)
    store.write(path, record)
    return store.read(path), None


def environment() -> dict[str, Any]:
    """What the figures were measured on."""
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
    """The process that waits for the others decides what an interruption means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    enable_compilation_cache(folder)


def enable_compilation_cache(folder: Path) -> None:
    """Have XLA keep what it compiles: compiling is most of a quick run, and the next one finds it done."""
    jax.config.update("jax_compilation_cache_dir", str(folder.resolve() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def run_command_line(experiment: Experiment, kind: type[Settings] = Settings) -> None:
    """What ``python -m experiments.NAME`` does: measure here and now, print the verdicts, write a page of its own."""
    settings = tyro.cli(
        kind, prog=f"python -m experiments.{experiment.name}", description=experiment.title,
        config=(tyro.conf.FlagCreatePairsOff,),
    )  # fmt: skip
    report = Path("report")
    enable_compilation_cache(report)
    parts = [run_and_record(experiment, part, settings) for part in experiment.parts]
    if jax.process_index() == 0:
        record = store.experiment_record(experiment, settings, parts, {})
        print_verdicts([record])
        page = write_report([record], report, experiment.name)
        console.print(f"figures: [bold]{page}", highlight=False, soft_wrap=True)


def run_and_record(experiment: Experiment, part: Part, settings: Settings) -> store.Record:
    """A part's record, with how long it took and where it was measured."""
    begun = time.monotonic()
    outcome = run_part(experiment, part, settings)
    return store.outcome_record(outcome) | {"seconds": time.monotonic() - begun, "environment": environment()}


def print_verdicts(records: Sequence[store.Record]) -> None:
    """Print the verdicts."""
    for record in records:
        shown = Table(title=record["title"], title_justify="left", header_style="bold", show_lines=True)
        for column in ("verdict", "claim", "measured", "allowed"):
            shown.add_column(column, ratio=5 if column == "claim" else None, no_wrap=column == "verdict")
        for result in (result for part in record["parts"] for result in part.get("findings", ())):
            low, high, seeds = format_number(result["low"]), format_number(result["high"]), result["seeds"]
            interval = "" if result["statistic"] == "exact" else f"\n[dim]{low} to {high}, {seeds} seeds"
            shown.add_row(
                f"[{VERDICT_STYLES[result['verdict']]}]{result['verdict']}", result["sentence"],
                f"{format_number(result['estimate'])}{interval}", result["threshold"],
            )  # fmt: skip
        console.print("", shown)
