"""Memory and files of a process that trains for long: many runs one after another, and one run of many steps.

``python -m experiments.benchmarks.endurance`` calls ``fit`` 200 times in one process, in five ways in turn: plain, with
validation and early stopping, with checkpoints and a log, with the monitor, and from a list of batches. In another
process it then does a run of 100,000 steps with monitor and log. The resident memory of each is read from ``/proc``.
"""

import json
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from sklearn.datasets import load_digits

import funcnn as fnn
from experiments.harness.console import console, progress_bar, table

COMMAND = "python -m experiments.benchmarks.endurance"
BATCH = 64
SAMPLES = 960
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class EnduranceSettings:
    """The number of runs and of steps."""

    runs: int = 200
    """Calls of ``fit`` in one process."""
    steps: int = 100_000
    """Steps of the long run."""
    out: Path = Path("report")
    """The folder for endurance.json."""


def memory() -> float:
    """Return the resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / MIB


def fit(epochs: int, key: int = 0, **settings: Any) -> fnn.Trained:
    """Train a small network on digits, with dropout and batch normalization."""
    x, y = load_digits(return_X_y=True)
    data = ((x / 16).astype(np.float32)[:SAMPLES], y[:SAMPLES])
    model = fnn.mlp((64, 32, 10), normalization=fnn.batch_norm, dropout=0.2)
    settings = {"data": data, "batch_size": BATCH} | settings
    return fnn.fit(model, fnn.softmax_cross_entropy, fnn.adam(1e-3), epochs=epochs, key=jax.random.key(key), **settings)


def many_runs(count: int) -> dict[str, float]:
    """Return the memory after a fifth of the runs, after all, and its growth a run between, by least squares."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    held_out = (x[SAMPLES:], y[SAMPLES:])
    batches = [(x[i : i + BATCH], y[i : i + BATCH]) for i in range(0, SAMPLES, BATCH)]
    found = []
    with tempfile.TemporaryDirectory() as folder, progress_bar("runs") as bar:
        place = Path(folder)
        for number in bar.track(range(count), description="many runs"):
            kinds: list[dict[str, Any]] = [
                {},
                {"validation": held_out, "early_stopping": fnn.EarlyStopping(2)},
                {
                    "checkpoints": place / f"run{number}",
                    "callbacks": [fnn.JSONLines(place / f"log{number}.jsonl")],
                },
                {"monitor": True},
                {"data": batches, "batch_size": None},
            ]
            fit(3, number, **kinds[number % len(kinds)])
            found.append(memory())
    fifth = count // 5
    later = np.array(found[fifth:])
    slope = float(np.polyfit(np.arange(len(later)), later, 1)[0])
    return {
        "runs": count,
        f"MiB after run {fifth}": round(found[fifth - 1], 1),
        f"MiB after run {count}": round(found[-1], 1),
        "KiB more a run": round(1024 * slope, 1),
    }


def long_run(steps: int) -> dict[str, float]:
    """Return the memory after a tenth of a run with monitor and log and after all of it, and the size of its log."""
    epochs, found = -(-steps // (SAMPLES // BATCH)), []
    with tempfile.TemporaryDirectory() as folder, progress_bar("epochs") as bar:
        task = bar.add_task("a long run", total=epochs)
        log, start = Path(folder, "log.jsonl"), time.monotonic()

        def note(progress):
            found.append(memory())
            bar.update(task, completed=progress.epoch)

        trained = fit(epochs, monitor=True, callbacks=[fnn.JSONLines(log), note])
        seconds, size = time.monotonic() - start, log.stat().st_size
    kept = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(trained.history[:4]))
    return {
        "steps": epochs * (SAMPLES // BATCH),
        "seconds": round(seconds, 1),
        "MiB after a tenth": round(found[len(found) // 10], 1),
        "MiB after the last epoch": round(found[-1], 1),
        "MiB with the result and its report": round(memory(), 1),
        "MiB of the history": round(kept / MIB, 2),
        "MiB of the log": round(size / MIB, 4),
    }


def run(settings: EnduranceSettings) -> dict[str, dict[str, float]]:
    console.rule("[bold]Endurance of training")
    found, shown = {}, table("", "figure")
    for title, part, count in (("many runs", many_runs, settings.runs), ("a long run", long_run, settings.steps)):
        # Each in a process of its own, so that the memory of one is not that of the other.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            found[title] = pool.submit(part, count).result()
        for name, figure in found[title].items():
            shown.add_row(f"{title}: {name}", f"{figure:,}")
    console.print(shown)
    settings.out.mkdir(parents=True, exist_ok=True)
    path = settings.out / "endurance.json"
    about = {"command": COMMAND, "jax": jax.__version__, "settings": asdict(settings) | {"out": str(settings.out)}}
    path.write_text(json.dumps(about | found, indent=1), encoding="utf-8")
    console.print(f"written: {path}", highlight=False)
    return found


if __name__ == "__main__":
    run(tyro.cli(EnduranceSettings, prog=COMMAND))
