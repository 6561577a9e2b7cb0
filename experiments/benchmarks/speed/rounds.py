"""Rounds in which every contestant trains for a moment, in an order drawn anew, so that drift hits all alike."""

import contextlib
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from experiments.benchmarks.speed.networks import Network, samples, start

PACKAGE = "experiments.benchmarks.speed"
REFERENCE, FLOOR = "jax_scan", "floor"
NEEDS = {
    "funcnn_scan": ("jax", "optax"),
    "funcnn_autodiff": ("jax", "optax"),
    "funcnn_fit": ("jax", "optax"),
    "jax_scan": ("jax", "optax"),
    "jax_step": ("jax", "optax"),
    "equinox": ("equinox", "optax"),
    "flax_nnx": ("flax", "optax"),
    "keras_jax": ("keras", "jax"),
    "pytorch": ("torch",),
    "pytorch_compiled": ("torch",),
    "scikit_learn": ("sklearn",),
    "numpy_by_hand": ("numpy",),
}
"""Every contestant with the packages that it needs."""

ROUNDING, RULED = 1e-4, 0.05
"""How far, relatively, first losses may be apart, and how far rounding may lead for a step to be compared at all."""

Record = dict[str, Any]


class Worker(NamedTuple):
    process: subprocess.Popen
    connection: Connection


class Estimate(NamedTuple):
    """A median over rounds with its 95% interval; of a single round there is none."""

    median: float
    low: float | None
    high: float | None


def missing(name: str) -> str | None:
    """What to install for a contestant, or nothing."""
    absent = [package for package in NEEDS[name] if importlib.util.find_spec(package) is None]
    return f"{absent[0]} isn't installed: pip install --group bench" if absent else None


def launched(name: str, order: tuple) -> Worker:
    """A process for a contestant, which has been told what to train."""
    module = f"{PACKAGE}.{FLOOR}" if name == FLOOR else f"{PACKAGE}.contestants.{name}"
    # An old setting of OpenBLAS slows NumPy; on a GPU every JAX would take most of its memory for itself.
    kept = {key: value for key, value in os.environ.items() if key not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    environment = kept | {"KERAS_BACKEND": "jax", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    ours, theirs = Pipe()
    arguments = [f"{PACKAGE}.worker", str(theirs.fileno()), module, repr(time.monotonic())]
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], env=environment, pass_fds=[theirs.fileno()], stdout=subprocess.DEVNULL
    )
    theirs.close()
    # One that has failed by now has left a word, which is read in its place.
    with contextlib.suppress(OSError):
        ours.send(order)
    return Worker(process, ours)


def answer(worker: Worker) -> Record:
    """What a worker says next.

    Raises:
        RuntimeError: an error came in its place, or the process died.
    """
    try:
        said = worker.connection.recv()
    except (EOFError, OSError):
        raise RuntimeError(f"the process ended by itself, status {worker.process.wait()}") from None
    if "error" in said:
        raise RuntimeError(said["error"])
    return said


def ended(worker: Worker) -> None:
    worker.connection.close()
    worker.process.wait()


def deviation(facts: Record, reference: Record) -> tuple[float, float]:
    """The largest relative difference between a contestant's first losses and those expected, and what is allowed.

    A start moved by one rounding leads the reference's own losses apart: a unit near its kink falls to the other side,
    and a deep network makes much of it. Ten times as far as the farthest of a few such starts is allowed, and
    ``ROUNDING`` at least; steps behind which rounding rules are left out.
    """
    losses, mean_of = np.array(facts["losses"]), facts["averaged"]

    def averaged(of: Sequence[float]) -> np.ndarray:
        return np.array(of)[: len(losses) * mean_of].reshape(-1, mean_of).mean(axis=1)

    from_reference = reference["uncorrected_losses" if facts["uncorrected_epsilon"] else "losses"]
    expected, own = averaged(facts.get("expected", from_reference)), averaged(reference["losses"])
    if len(expected) != len(losses) or not np.isfinite(losses).all():
        return float("inf"), ROUNDING
    led_apart = np.max([np.abs(averaged(moved) - own) / own for moved in reference["moved_losses"]], axis=0)
    allowed = np.maximum(ROUNDING, 10 * np.maximum.accumulate(led_apart))
    compared = (allowed < RULED) | (np.arange(len(allowed)) == 0)
    apart = (np.abs(losses - expected) / np.abs(expected))[compared]
    worst = int(np.argmax(apart / allowed[compared]))
    return float(apart[worst]), float(allowed[compared][worst])


def measured(
    network: Network, names: Sequence[str], rounds: int, seconds: float, tell: Callable[[str], None]
) -> Record:
    """Every contestant's figures of every round, the floor's, and who is left out and why."""
    order = (network, *samples(network), start(network), seconds)
    workers: dict[str, Worker] = {}
    record: Record = {"contestants": {}, "left_out": {}, "errors": {}, "floor": []}
    try:
        for name in (REFERENCE, *(name for name in names if name != REFERENCE), FLOOR):
            tell(f"{network.name}: {name} begins")
            _begin(record, workers, name, order)
        random = np.random.default_rng(0)
        for number in range(rounds):
            for name in random.permutation(list(workers)).tolist():
                tell(f"{network.name}: round {number + 1}, {name}")
                _measure(record, workers, name)
    finally:
        for worker in workers.values():
            ended(worker)
    return record


def _begin(record: Record, workers: dict[str, Worker], name: str, order: tuple) -> None:
    """Launch a contestant and check its first losses; one that can't take part leaves a word in the record."""
    reason = missing(name) if name in NEEDS else None
    if reason:
        record["left_out"][name] = reason
        return
    worker = launched(name, order)
    try:
        facts = answer(worker)
    except RuntimeError as error:
        record["errors"][name] = str(error)
        ended(worker)
        return
    if name == FLOOR:
        workers[name] = worker
        return
    if not facts["has_network"]:
        record["left_out"][name] = "it has no such network"
        ended(worker)
        return
    reference = facts if name == REFERENCE else record["contestants"][REFERENCE]
    facts["deviation"], allowed = deviation(facts, reference)
    if facts["deviation"] > allowed:
        record["errors"][name] = (
            f"its first losses differ by {facts['deviation']:.1e} from the reference's, rounding by {allowed:.1e} at "
            "most: not timed"
        )
        ended(worker)
        return
    workers[name] = worker
    record["contestants"][name] = facts | {"rounds": []}


def _measure(record: Record, workers: dict[str, Worker], name: str) -> None:
    """One round of one worker; a contestant whose process fails is taken out."""
    try:
        with contextlib.suppress(OSError):
            workers[name].connection.send("round")
        times = answer(workers[name])
    except RuntimeError as error:
        if name == REFERENCE:
            raise
        record["errors"][name] = str(error)
        ended(workers.pop(name))
        record["floor"] = [] if name == FLOOR else record["floor"]
        record["contestants"].pop(name, None)
        return
    (record["floor"] if name == FLOOR else record["contestants"][name]["rounds"]).append(times)


def estimate(values: Sequence[float]) -> Estimate:
    """The median of a few rounds, and its interval by the bootstrap over them.

    Example:
        >>> estimate([2.0, 2.0, 2.0])
        Estimate(median=2.0, low=2.0, high=2.0)
    """
    median = float(np.median(values))
    if len(values) < 2:
        return Estimate(median, None, None)
    found = stats.bootstrap((values,), np.median, method="percentile", rng=np.random.default_rng(0))
    return Estimate(median, *map(float, found.confidence_interval))


def ratio(record: Record, one: str, other: str) -> Estimate:
    """How many times as fast one contestant's steps are as another's: the ratios within the rounds."""
    times = [[times["steps"] for times in record["contestants"][name]["rounds"]] for name in (one, other)]
    return estimate([slow / quick for quick, slow in zip(*times, strict=True)])


def floor_share(record: Record, name: str) -> Estimate:
    """The floor's seconds over a contestant's: 1 where nothing but products and Adam's bytes takes time."""
    steps = [times["steps"] for times in record["contestants"][name]["rounds"]]
    return estimate([sum(floor.values()) / step for floor, step in zip(record["floor"], steps, strict=True)])
