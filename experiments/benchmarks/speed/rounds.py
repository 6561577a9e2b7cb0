"""Rounds in which every contestant trains briefly, in a random order, so that machine drift affects all alike."""

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

from experiments.benchmarks.speed.architectures import CONTESTANTS, Architecture
from experiments.benchmarks.speed.networks import AnyNetwork, samples, start

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
"""The relative difference of first losses that is allowed, and the effect of rounding beyond which none is compared."""

Record = dict[str, Any]


class Worker(NamedTuple):
    process: subprocess.Popen
    connection: Connection


class Estimate(NamedTuple):
    """A median over rounds with its 95% interval; a single round has no interval."""

    median: float
    low: float | None
    high: float | None


def missing(name: str) -> str | None:
    """Return what has to be installed for a contestant; ``None`` if nothing is missing."""
    absent = [package for package in NEEDS[name] if importlib.util.find_spec(package) is None]
    return f"{absent[0]} isn't installed: pip install --group bench" if absent else None


def start_worker(name: str, order: tuple) -> Worker:
    """Start a process for a contestant and send it the order: network, data, initial parameters and seconds."""
    module = f"{PACKAGE}.{FLOOR}" if name == FLOOR else f"{PACKAGE}.contestants.{name}"
    # An old setting of OpenBLAS slows NumPy; on a GPU every JAX would take most of its memory for itself.
    inherited = {
        key: value for key, value in os.environ.items() if key not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
    }
    environment = inherited | {"KERAS_BACKEND": "jax", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    ours, theirs = Pipe()
    arguments = [f"{PACKAGE}.worker", str(theirs.fileno()), module, repr(time.monotonic())]
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], env=environment, pass_fds=[theirs.fileno()], stdout=subprocess.DEVNULL
    )
    theirs.close()
    # A process that has failed by now has sent its error, which receive raises.
    with contextlib.suppress(OSError):
        ours.send(order)
    return Worker(process, ours)


def receive(worker: Worker) -> Record:
    """Return the next message of a worker.

    Raises:
        RuntimeError: the worker sent an error, or its process ended.
    """
    try:
        message = worker.connection.recv()
    except (EOFError, OSError):
        raise RuntimeError(f"the process ended by itself, status {worker.process.wait()}") from None
    if "error" in message:
        raise RuntimeError(message["error"])
    return message


def close_worker(worker: Worker) -> None:
    """Close the connection of a worker and wait for the end of its process."""
    worker.connection.close()
    worker.process.wait()


def deviation(facts: Record, reference: Record) -> tuple[float, float]:
    """Return the largest relative difference of a contestant's first losses from the expected ones, and its limit.

    Initial parameters that differ by one rounding change the reference's own losses: a unit near its kink falls on the
    other side, and a deep network amplifies the difference. The limit is ten times the largest such change, and at
    least ``ROUNDING``. Steps whose losses are dominated by rounding are not compared.
    """
    losses, mean_of = np.array(facts["losses"]), facts["averaged"]

    def averaged(of: Sequence[float]) -> np.ndarray:
        return np.array(of)[: len(losses) * mean_of].reshape(-1, mean_of).mean(axis=1)

    from_reference = reference["uncorrected_losses" if facts["uncorrected_epsilon"] else "losses"]
    expected, own = averaged(facts.get("expected", from_reference)), averaged(reference["losses"])
    if len(expected) != len(losses) or not np.isfinite(losses).all():
        return float("inf"), ROUNDING
    separation = np.max([np.abs(averaged(moved) - own) / own for moved in reference["moved_losses"]], axis=0)
    allowed = np.maximum(ROUNDING, 10 * np.maximum.accumulate(separation))
    compared = (allowed < RULED) | (np.arange(len(allowed)) == 0)
    differences = (np.abs(losses - expected) / np.abs(expected))[compared]
    worst = int(np.argmax(differences / allowed[compared]))
    return float(differences[worst]), float(allowed[compared][worst])


def measure_network(
    network: AnyNetwork, names: Sequence[str], rounds: int, seconds: float, report: Callable[[str], None]
) -> Record:
    """Return the figures of every contestant and of the floor in every round, and who is left out and why."""
    order = (network, *samples(network), start(network), seconds)
    workers: dict[str, Worker] = {}
    record: Record = {"contestants": {}, "left_out": {}, "errors": {}, "floor": []}
    floor = (FLOOR,)
    if isinstance(network, Architecture):
        record["left_out"] = {name: "this network isn't written for it" for name in names if name not in CONTESTANTS}
        names, floor = [name for name in names if name in CONTESTANTS], ()
    try:
        for name in (REFERENCE, *(name for name in names if name != REFERENCE), *floor):
            report(f"{network.name}: {name} begins")
            _begin(record, workers, name, order)
        random = np.random.default_rng(0)
        for number in range(rounds):
            for name in random.permutation(list(workers)).tolist():
                report(f"{network.name}: round {number + 1}, {name}")
                _measure(record, workers, name)
    finally:
        for worker in workers.values():
            close_worker(worker)
    return record


def _begin(record: Record, workers: dict[str, Worker], name: str, order: tuple) -> None:
    """Start a contestant and check its first losses. The record has the reason if it can't take part."""
    reason = missing(name) if name in NEEDS else None
    if reason:
        record["left_out"][name] = reason
        return
    worker = start_worker(name, order)
    try:
        facts = receive(worker)
    except RuntimeError as error:
        record["errors"][name] = str(error)
        close_worker(worker)
        return
    if name == FLOOR:
        workers[name] = worker
        return
    if not facts["has_network"]:
        record["left_out"][name] = "it has no such network"
        close_worker(worker)
        return
    reference = facts if name == REFERENCE else record["contestants"][REFERENCE]
    facts["deviation"], allowed = deviation(facts, reference)
    if facts["deviation"] > allowed:
        record["errors"][name] = (
            f"its first losses differ by {facts['deviation']:.1e} from the reference's, rounding by {allowed:.1e} at "
            "most: not timed"
        )
        close_worker(worker)
        return
    workers[name] = worker
    record["contestants"][name] = facts | {"rounds": []}


def _measure(record: Record, workers: dict[str, Worker], name: str) -> None:
    """Run one round of one worker. A contestant whose process fails is removed."""
    try:
        with contextlib.suppress(OSError):
            workers[name].connection.send("round")
        times = receive(workers[name])
    except RuntimeError as error:
        if name == REFERENCE:
            raise
        record["errors"][name] = str(error)
        close_worker(workers.pop(name))
        record["floor"] = [] if name == FLOOR else record["floor"]
        record["contestants"].pop(name, None)
        return
    (record["floor"] if name == FLOOR else record["contestants"][name]["rounds"]).append(times)


def estimate(values: Sequence[float]) -> Estimate:
    """Return the median of a few rounds, and its bootstrap interval.

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
    """Return how many times as fast one contestant's steps are as another's, from the ratios within the rounds."""
    times = [[times["steps"] for times in record["contestants"][name]["rounds"]] for name in (one, other)]
    return estimate([slow / quick for quick, slow in zip(*times, strict=True)])


def floor_share(record: Record, name: str) -> Estimate:
    """Return the floor's seconds over a contestant's: 1 if products and Adam's bytes take all the time."""
    steps = [times["steps"] for times in record["contestants"][name]["rounds"]]
    return estimate([sum(floor.values()) / step for floor, step in zip(record["floor"], steps, strict=True)])
