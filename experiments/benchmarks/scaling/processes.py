"""A training step whose batch processes share, measured and by a model.

``python -m experiments.benchmarks.scaling.processes`` starts two processes on this machine. With p processes, each of
which computes its part of the batch, and the gradients of P parameters in k arrays summed among them at its end::

    seconds a step = compute(batch / p) + start + k · latency + 4 P · seconds a byte

XLA sums all gradients in one operation, but array by array. What an operation, an array and a byte cost is fitted to
sums of few and many arrays, small and large; compute is the step on a process's part of the batch while the other does
the same, neither telling the other anything; all of them in the same two processes.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rich.progress import Progress
from scipy.optimize import nnls

import funcnn as fnn
from experiments.benchmarks.scaling._measurement import (
    PACKAGE,
    Measurement,
    command,
    estimate,
    format_estimate,
    measurement_bar,
    ratio,
    samples,
    start,
    tracked,
    training_step as one_step,
)
from experiments.harness.console import console, table

NETWORKS = {
    "64-128-64-10, batch 64": ((64, 128, 64, 10), 64),
    "784-512-512-10, batch 128": ((784, 512, 512, 10), 128),
    "784-512-512-10, batch 1,024": ((784, 512, 512, 10), 1024),
    "three layers of 1,024, batch 256": ((1024,) * 4, 256),
}
SUMS = ((1, 1_000), (1, 100_000), (1, 1_000_000), (1, 4_000_000), (4, 1_000), (4, 250_000), (12, 1_000), (12, 80_000))
"""Arrays that are summed at once, and the numbers in each, whose seconds are measured."""
PROCESSES, PATIENCE = 2, 900


@dataclass(frozen=True, kw_only=True)
class ProcessesSettings:
    """What a step costs when processes share a batch."""

    repetitions: int = 9
    """Turns of each measurement, interleaved."""
    at_least: float = 0.3
    """Seconds that a turn is to take."""
    out: Path = Path("report/scaling/processes.json")
    """The file for the figures."""


def measure(settings: ProcessesSettings, _: Progress) -> Measurement:
    # The first worker has a bar of its own.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        words = [str(port), str(settings.repetitions), str(settings.at_least), str(out)]
        workers = [launch(number, words) for number in range(PROCESSES)]
        try:
            codes = [worker.wait(PATIENCE) for worker in workers]
        finally:
            for worker in workers:
                worker.kill()
        if any(codes):
            raise RuntimeError(f"processes: expected both workers to end well, got exit codes {codes}.")
        return fit_model(json.loads(out.read_text(encoding="utf-8")))


def launch(number: int, words: list[str]) -> subprocess.Popen:
    """A process with a share of the cores to itself, as if it were a machine of its own."""
    arguments = [sys.executable, "-m", f"{PACKAGE}.processes", "--worker", str(number), *words]
    environment = os.environ | {"JAX_ENABLE_X64": "0", "XLA_FLAGS": ""}
    if not hasattr(os, "sched_setaffinity"):
        return subprocess.Popen(arguments, env=environment)
    cores = os.sched_getaffinity(0)
    share = sorted(cores)[number::PROCESSES] or cores
    os.sched_setaffinity(0, share)
    try:
        return subprocess.Popen(arguments, env=environment)
    finally:
        os.sched_setaffinity(0, cores)


def fit_model(replies: Measurement) -> Measurement:
    """The fitted cost of a sum, and of every network what the model says beside what was measured."""
    sums = np.array([[of["arrays"], 4 * of["arrays"] * of["numbers"]] for of in replies["sums"]], float)
    medians = np.array([np.median(of["seconds"]) for of in replies["sums"]])
    # Relative errors count, or the largest sum alone would decide; no cost is negative.
    columns = np.column_stack([np.ones(len(sums)), sums]) / medians[:, None]
    start, latency, a_byte = nnls(columns, np.ones(len(sums)))[0].tolist()
    results: Measurement = {
        "sums": replies["sums"], "start": start, "latency": latency, "seconds_a_byte": a_byte,
        "sums_model_over_measured": (columns @ [start, latency, a_byte]).tolist(), "networks": {},
    }  # fmt: skip
    for name, of in replies["networks"].items():
        exchanged = start + of["arrays"] * latency + 4 * of["parameters"] * a_byte
        predicted = np.asarray(of["apart"]) + exchanged
        results["networks"][name] = of | {
            "apart_ms": estimate(np.asarray(of["apart"]) * 1e3),
            "exchange_ms": exchanged * 1e3,
            "together_ms": estimate(np.asarray(of["together"]) * 1e3),
            "model_over_measured": ratio(predicted, of["together"]),
        }
    return results


def show(results: Measurement) -> None:
    made = table("network", "apart, ms", "exchange", "together", "model over measured", "arrays", "MB")
    for name, of in results["networks"].items():
        made.add_row(
            name, format_estimate(of["apart_ms"]), f"{of['exchange_ms']:.3g}", format_estimate(of["together_ms"]),
            format_estimate(of["model_over_measured"]), str(of["arrays"]), f"{4e-6 * of['parameters']:.3g}",
        )  # fmt: skip
    console.print(made)
    console.print(
        f"a sum costs {results['start'] * 1e6:.0f} microseconds, an array in it {results['latency'] * 1e6:.0f}, a byte "
        f"{results['seconds_a_byte'] * 1e9:.2g} nanoseconds ({1e-9 / max(results['seconds_a_byte'], 1e-15):.2g} GB/s)"
    )


def worker(number: str, port: str, repetitions: str, at_least: str, out: str) -> None:
    """One of the processes: all figures, written by the first."""
    jax.distributed.initialize(f"127.0.0.1:{port}", PROCESSES, int(number))
    with measurement_bar() if int(number) == 0 else Progress(disable=True) as bar:
        facts, sums = measure_together(int(repetitions), float(at_least), bar)
    if int(number) == 0:
        Path(out).write_text(json.dumps({"networks": facts, "sums": sums}), encoding="utf-8")
    jax.distributed.shutdown()


def measure_together(repetitions: int, at_least: float, bar: Progress) -> tuple[Measurement, list[Measurement]]:
    """The figures of every network and of every sum, in step with the other process."""
    mesh = Mesh(np.array(jax.devices()), ("data",))
    runs: dict[tuple[str, str], Callable[[int], object]] = {}
    facts: Measurement = {}
    for name in tracked(bar, NETWORKS, "networks compiled"):
        sizes, batch_size = NETWORKS[name]
        model, batch = fnn.mlp(sizes), samples(batch_size, sizes[0], sizes[-1])
        together = _trainer(model, batch, mesh)
        apart = _trainer(model, jax.tree.map(lambda array: array[: len(array) // PROCESSES], batch), None)
        runs[name, "together"], runs[name, "apart"] = together, apart
        leaves = jax.tree.leaves(start(model)[0])
        facts[name] = {"arrays": len(leaves), "parameters": sum(leaf.size for leaf in leaves)}
    for arrays, numbers in SUMS:
        runs["sum", f"{arrays} of {numbers}"] = _summing(arrays, numbers, mesh)
    counts = {what: _calls(runs[what], at_least) for what in tracked(bar, runs, "first calls")}
    seconds: dict[tuple[str, str], list[float]] = {what: [] for what in runs}
    for what in tracked(bar, [*runs] * repetitions, "networks and sums in turn"):
        _meet()
        started = time.perf_counter()
        runs[what](counts[what])
        seconds[what].append((time.perf_counter() - started) / counts[what])
    for name in NETWORKS:
        facts[name] |= {"together": seconds[name, "together"], "apart": seconds[name, "apart"]}
    sums = [
        {"arrays": arrays, "numbers": numbers, "seconds": seconds["sum", f"{arrays} of {numbers}"]}
        for arrays, numbers in SUMS
    ]
    return facts, sums


def _trainer(model, batch, mesh) -> Callable[[int], object]:
    """``(steps) -> anything``, once all are done; without a mesh in this process."""
    params, state = start(model)
    carry = (params, state, fnn.adam(1e-3).init(params))
    if mesh is not None:
        everywhere, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
        carry = jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(everywhere, np.asarray(leaf)), carry)
        part = len(batch.x) // PROCESSES
        mine = slice(jax.process_index() * part, (jax.process_index() + 1) * part)
        batch = jax.tree.map(
            lambda leaf: jax.make_array_from_process_local_data(split, np.asarray(leaf)[mine]), batch
        )  # fmt: skip
    step = one_step(model)

    def steps(carry, batch, count):
        return lax.fori_loop(0, count, lambda _, carry: step(carry, batch)[0], carry)

    compiled = jax.jit(steps).lower(carry, batch, jnp.int32(1)).compile()
    return lambda count: jax.block_until_ready(compiled(carry, batch, np.int32(count)))


def _summing(arrays, numbers, mesh) -> Callable[[int], object]:
    """``(count) -> anything`` once the arrays have been summed over the processes ``count`` times."""
    split = NamedSharding(mesh, PartitionSpec("data"))
    shape = (PROCESSES, numbers)
    halves = [jax.make_array_from_process_local_data(split, np.ones((1, numbers), np.float32), shape)] * arrays

    def once(_, halves):
        return [0.5 * of + 0.25 * of.sum(axis=0)[None, :] for of in halves]

    summed = jax.jit(lambda halves, count: lax.fori_loop(0, count, once, halves))
    return lambda count: jax.block_until_ready(summed(halves, np.int32(count)))


def _calls(run, at_least) -> int:
    """Steps that take about so long; both processes have to take the same number."""
    run(2)
    started = time.perf_counter()
    run(4)
    wanted = np.float32(4 * at_least / (time.perf_counter() - started))
    agreed = multihost_utils.process_allgather(wanted).min()
    return max(int(agreed), 4)


def _meet() -> None:
    multihost_utils.sync_global_devices("turn")


if __name__ == "__main__":
    if "--worker" in sys.argv:
        worker(*sys.argv[sys.argv.index("--worker") + 1 :])
    else:
        command("processes", ProcessesSettings, measure, show)
