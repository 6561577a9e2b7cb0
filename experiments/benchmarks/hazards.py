"""What may happen to a run beside a kill: threads, a second process, a full disk, a read-only folder, Ctrl-C.

``experiments.benchmarks.survival`` runs all of it and counts what held. ``python -m experiments.benchmarks.hazards
KIND FOLDER`` is one run in a process of its own, which prints how it ended.
"""

import contextlib
import hashlib
import os
import random
import re
import resource
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import jax
import numpy as np
from jaxtyping import PRNGKeyArray
from sklearn.datasets import load_digits

import funcnn as fnn
from experiments.harness.console import progress_bar

EPOCHS = 6
LONG = 10**6
MODEL = fnn.mlp((64, 32, 10), normalization=fnn.batch_norm, dropout=0.2)
SECONDS = 120
"""The longest time that a run of ``EPOCHS`` epochs may take, its compilation included."""


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels."""
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype(np.float32)[:900], y[:900]


@cache
def key() -> PRNGKeyArray:
    return jax.random.key(0)


def fit(epochs: int = EPOCHS, **settings) -> fnn.Trained:
    return fnn.fit(
        MODEL, fnn.softmax_cross_entropy, fnn.adam(1e-3), digits(), epochs=epochs, batch_size=64, key=key(), **settings
    )


def digest(trained: fnn.Trained) -> str:
    """Return a digest of the parameters."""
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(trained.params))).hexdigest()


def limit_files(after: int, size: Callable[[], int]) -> Callable[[fnn.Progress], None]:
    """Return a callback after which no file can be longer than ``size()`` bytes, as on a full disk."""

    def limit(progress):
        if progress.epoch == after:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size(), resource.RLIM_INFINITY))

    return limit


def one_run(kind: str, folder: Path) -> fnn.Trained:
    """Do the run of one kind in this process."""
    if kind == "full disk under the log":
        log = folder / "log.jsonl"
        return fit(callbacks=[fnn.JSONLines(log), limit_files(2, lambda: log.stat().st_size + 10)])
    if kind == "full disk under TensorBoard":
        return fit(callbacks=[fnn.TensorBoard(folder), limit_files(2, lambda: 100)])
    if kind == "full disk under saves":
        return fit(checkpoints=folder / "run", callbacks=[limit_files(2, lambda: 100)])
    if kind == "full disk for a while":
        callbacks = [limit_files(2, lambda: 100), limit_files(4, lambda: resource.RLIM_INFINITY)]
        return fit(checkpoints=folder / "run", callbacks=callbacks)
    if kind == "read-only folder":
        # An administrator can write everywhere but in the kernel's own file system.
        return fit(checkpoints=folder / "locked" if os.getuid() else Path("/proc/run"))
    epochs = EPOCHS if kind == "plain, short" else LONG
    return fit(epochs, **({} if kind.startswith("plain") else {"checkpoints": folder / "run"}))


def in_a_process(kind: str, folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "experiments.benchmarks.hazards", kind, os.fspath(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


@contextlib.contextmanager
def killed_after_a_while(process: subprocess.Popen) -> Iterator[None]:
    """Kill a process that takes longer than ``SECONDS`` for what is waited for inside the context."""
    limit = threading.Timer(SECONDS, process.kill)
    limit.start()
    try:
        yield
    finally:
        limit.cancel()


def last_line(process: subprocess.Popen) -> str:
    """Return the last line that a process prints.

    Not ``communicate``: it loses what ``readline`` has read ahead.
    """
    assert process.stdout is not None
    with killed_after_a_while(process):
        lines = process.stdout.read()
        process.wait()
    return lines.splitlines()[-1] if lines else ""


def threads(folder: Path, expected: str, count: int = 4) -> dict[str, int]:
    """Train in threads at once, each with a folder of its own."""
    found: dict[int, str] = {}

    def go(number):
        found[number] = digest(fit(checkpoints=folder / f"thread{number}"))

    running = [threading.Thread(target=go, args=(number,), daemon=True) for number in range(count)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(SECONDS)
    return {"runs": count, "held": sum(value == expected for value in found.values())}


def second_process(folder: Path, expected: str) -> dict[str, int]:
    """Begin a second run in the folder of a first one, then kill the first while it holds the lock."""
    first = in_a_process("checkpoints", folder)
    wait_for_a_checkpoint(folder / "run", first)
    try:
        fit(1, checkpoints=folder / "run")
        is_refused = False
    except fnn.CheckpointError as error:
        is_refused = f"process {first.pid} on host" in str(error)
    goes_on = first.poll() is None
    first.send_signal(signal.SIGKILL)
    first.wait()
    newest = max(int(path.name) for path in (folder / "run").iterdir() if path.name.isdecimal())
    epochs = newest // 15 + 2
    taken_over = fit(epochs, checkpoints=folder / "run")
    is_equal = digest(taken_over) == digest(fit(epochs))
    return {"runs": 3, "held": is_refused + goes_on + is_equal}


def wait_for_a_checkpoint(folder: Path, process: subprocess.Popen) -> None:
    until = time.monotonic() + SECONDS
    while not (folder.is_dir() and any(path.name.isdecimal() for path in folder.iterdir())):
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError("the run ended, or saved nothing in time")
        time.sleep(0.01)


OUTCOMES = {
    "full disk under the log": r"done {digest} 1 warning",
    "full disk under TensorBoard": r"done {digest} 1 warning",
    "full disk under saves": r"CheckpointError {digest} 1 warning",
    "full disk for a while": r"done {digest} 1 warning",
    "read-only folder": r"CheckpointError none 0 warning",
}


def disks(folder: Path, expected: str) -> dict[str, int]:
    """Fill the disk under each file of a run, and take the permission to write its folder."""
    held = 0
    for kind, outcome in OUTCOMES.items():
        place = folder / kind.replace(" ", "-")
        (place / "locked").mkdir(parents=True)
        (place / "locked").chmod(0o555)
        held += re.fullmatch(outcome.replace("{digest}", expected), last_line(in_a_process(kind, place))) is not None
    return {"runs": len(OUTCOMES), "held": held}


def interrupted(folder: Path, count: int, seed: int) -> dict[str, float]:
    """Send Ctrl-C to plain and to checkpointed runs at random moments of their first seconds.

    The time that counts is that until ``fit`` has raised. Where the signal came in the middle of a compilation, Python
    then waits for the thread of the compilation before the process exits.
    """
    moments, tally = random.Random(seed), Counter(runs=0, held=0)
    slowest = {"left": 0.0, "exited": 0.0}
    for number in range(count):
        process = in_a_process(("plain", "checkpoints")[number % 2], folder / f"interrupted{number}")
        assert process.stdout is not None
        process.stdout.readline()  # the run begins
        time.sleep(moments.uniform(0.0, 8.0))
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        with killed_after_a_while(process):
            process.stdout.readline()  # the error of the run
        seconds = time.monotonic() - start
        line = last_line(process)
        for name, passed in (("left", seconds), ("exited", time.monotonic() - start)):
            slowest[name] = max(slowest[name], passed)
        tally["runs"] += 1
        tally["held"] += seconds < 2 and process.returncode == 130 and line.startswith("KeyboardInterrupt ")
        tally["results carried"] += len(line.split()) > 1 and line.split()[1] != "none"
    return {
        **tally,
        "seconds until the slowest run had left": round(slowest["left"], 2),
        "seconds until the slowest process had exited": round(slowest["exited"], 2),
    }


def hazards(folder: Path, interruptions: int, seed: int) -> dict[str, dict[str, float]]:
    """Return the runs of every kind, and how many of them held."""
    expected = digest(fit())
    measurements = {
        "threads": partial(threads, expected=expected),
        "second process, and a kill that leaves its lock": partial(second_process, expected=expected),
        "full disk, read-only folder": partial(disks, expected=expected),
        "Ctrl-C": partial(interrupted, count=interruptions, seed=seed),
    }
    found = {}
    with progress_bar("hazards") as bar:
        task = bar.add_task("", total=len(measurements))
        for number, (name, measure) in enumerate(measurements.items()):
            bar.update(task, description=name, completed=number)
            place = folder / str(number)
            place.mkdir()
            found[name] = measure(place)
    return found


def main(kind: str, folder: Path) -> int:
    """Do a run, and print how it ended, the digest of its result and the number of warnings."""
    # A signal before ``fit`` is not its concern, and JAX loses some that come while it starts.
    digits(), key()
    print("begins", flush=True)
    trained, status, ended = None, 0, "done"
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            trained = one_run(kind, folder)
        except (fnn.RunError, KeyboardInterrupt) as error:
            print("left", flush=True)
            trained, ended = getattr(error, "trained", None), type(error).__name__
            status = 130 if isinstance(error, KeyboardInterrupt) else 1
    count = sum("fit" in str(each.message) for each in warned)
    print(ended, "none" if trained is None else digest(trained), count, "warning", flush=True)
    return status


if __name__ == "__main__":
    # A shell starts its background jobs, and what they start, with Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
