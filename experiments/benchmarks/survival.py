"""Survival of training: kills at random moments, damaged checkpoints, and what else may happen to a run.

``python -m experiments.benchmarks.survival`` trains one network without interruption. It then trains the network again,
kills the process with SIGKILL at random moments, restarts it until the run is complete, and compares the results bit by
bit. Finally it changes or removes one byte in copies of a checkpoint and counts the outcomes of resuming: refused,
without effect, or wrong. The other hazards are those of ``experiments.benchmarks.hazards``: threads, a second process
in the same folder, a full disk, a read-only folder, and Ctrl-C at random moments.
"""

import contextlib
import io
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import tyro
from sklearn.datasets import load_digits

import funcnn as fnn
from experiments.benchmarks.hazards import hazards
from experiments.harness.console import console, progress_bar, table

COMMAND = "python -m experiments.benchmarks.survival"


@dataclass(frozen=True, kw_only=True)
class SurvivalSettings:
    """The number of kills and of damaged bytes."""

    kills: int = 50
    """Kills of the process, over as many runs as necessary."""
    bytes: int = 200
    """Checkpoint files with a changed or missing byte."""
    interruptions: int = 50
    """Runs that get Ctrl-C at a random moment."""
    epochs: int = 400
    """Passes over the data in each run."""
    seed: int = 0
    """The seed of the random moments and places."""
    out: Path = Path("report")
    """The folder for survival.json."""


def train(folder: Path, epochs: int, **settings) -> fnn.Trained:
    """Train with dropout, batch normalization, Adam, a shorter last batch and early stopping."""
    x, y = load_digits(return_X_y=True)
    x, y = (x / 16).astype(np.float32)[:1000], y[:1000]
    model = fnn.mlp((64, 32, 10), normalization=fnn.batch_norm, dropout=0.2)
    return fnn.fit(
        model, fnn.softmax_cross_entropy, fnn.adam(1e-3), (x[:900], y[:900]), epochs=epochs, batch_size=64,
        key=jax.random.key(0), validation=fnn.Validation((x[900:], y[900:]), every=2),
        early_stopping=fnn.EarlyStopping(10**6), checkpoints=fnn.Checkpoints(folder, every=37, **settings),
    )  # fmt: skip


def fingerprint(trained: fnn.Trained) -> list[bytes]:
    """Return the bytes of the result of a run, including the history."""
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(trained)]


def in_a_process(folder: Path, epochs: int) -> subprocess.Popen:
    code = f"from experiments.benchmarks.survival import train; train({os.fspath(folder)!r}, {epochs})"
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def killed(settings: SurvivalSettings, folder: Path) -> dict[str, int]:
    """Kill runs at random moments. Return the runs, the kills, and the runs that are equal bit by bit."""
    moments = random.Random(settings.seed)
    expected = fingerprint(train(folder / "undisturbed", settings.epochs))
    start = time.monotonic()
    process = in_a_process(folder / "timed", settings.epochs)
    process.wait()
    whole = time.monotonic() - start
    tally = Counter(runs=0, kills=0, equal=0)
    with progress_bar("kills") as bar:
        task = bar.add_task("", total=settings.kills)
        while tally["kills"] < settings.kills:
            tally["runs"] += 1
            place = folder / f"run{tally['runs']}"
            while True:
                process = in_a_process(place, settings.epochs)
                try:
                    process.wait(moments.uniform(0.0, 1.0) * whole)
                    break
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    tally["kills"] += 1
                    # The last run is killed until it ends by itself.
                    bar.update(task, advance=1, total=max(settings.kills, tally["kills"]))
            if process.returncode:
                raise RuntimeError(f"the run ended by itself with status {process.returncode}")
            tally["equal"] += fingerprint(train(place, settings.epochs)) == expected
            shutil.rmtree(place)
    return dict(tally)


def broken(settings: SurvivalSettings, folder: Path) -> dict[str, int]:
    """Damage one byte of a file of the newest checkpoint. Return the outcomes of resuming from it."""
    places = random.Random(settings.seed)
    whole = folder / "whole"
    expected = fingerprint(train(whole, 3))
    newest = max(path for path in whole.iterdir() if path.name.isdecimal())
    files = [path.relative_to(whole) for path in sorted(newest.rglob("*")) if path.is_file() and path.stat().st_size]
    tally = Counter(refused=0, harmless=0, silently_wrong=0)
    # Orbax logs every file that it cannot read. Here only the number of refusals matters.
    quiet = contextlib.redirect_stderr(io.StringIO())
    with progress_bar("broken bytes") as bar, warnings.catch_warnings(), quiet:
        warnings.simplefilter("ignore")
        for name in ("absl", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        for number in bar.track(range(settings.bytes), description=""):
            copy = folder / f"broken{number}"
            shutil.copytree(whole, copy)
            break_a_byte(copy / places.choice(files), places)
            tally[outcome(lambda copy=copy: fingerprint(train(copy, 3)) == expected)] += 1
            shutil.rmtree(copy)
    return dict(tally)


def break_a_byte(file: Path, places: random.Random) -> None:
    """Change a bit of one byte, or remove the byte."""
    content = bytearray(file.read_bytes())
    place = places.randrange(len(content))
    if places.random() < 0.5:
        content[place] ^= 1 << places.randrange(8)
    else:
        del content[place]
    file.write_bytes(content)


def outcome(is_right) -> str:
    """Return whether resuming is refused, right, or wrong."""
    try:
        return "harmless" if is_right() else "silently_wrong"
    except fnn.CheckpointError:
        return "refused"


def run(settings: SurvivalSettings) -> dict[str, dict]:
    console.rule("[bold]Survival of training")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        found: dict[str, dict] = hazards(place, settings.interruptions, settings.seed)
        found |= {"broken bytes": broken(settings, place), "kills": killed(settings, place)}
    shown = table("", "figure")
    for title, tally in found.items():
        for name, count in tally.items():
            shown.add_row(f"{title}: {name.replace('_', ' ')}", str(count))
    console.print(shown)
    settings.out.mkdir(parents=True, exist_ok=True)
    path = settings.out / "survival.json"
    path.write_text(json.dumps({"command": COMMAND, "jax": jax.__version__} | found, indent=1), encoding="utf-8")
    console.print(f"written: {path}", highlight=False)
    return found


if __name__ == "__main__":
    tally = run(tyro.cli(SurvivalSettings, prog=COMMAND))
    is_wrong = bool(tally["broken bytes"]["silently_wrong"]) or tally["kills"]["equal"] != tally["kills"]["runs"]
    sys.exit(is_wrong or any(each.get("held", 0) != each["runs"] for each in tally.values() if "held" in each))
