"""What a step costs when processes share a batch: a model of it, and the step of two processes beside it.

``python -m experiments.benchmarks.scaling.processes`` starts two processes on this machine. With p processes, each of
which computes its part of the batch, and the gradients of P parameters summed among them in k messages::

    seconds a step = compute(batch / p) + k · latency + 4 P · seconds a byte

Latency and seconds a byte are fitted to sums of several sizes, compute is the step on a process's part of the batch
while the other does the same, neither telling the other anything; all of them in the same two processes.
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

import funcnn as fnn
from experiments.benchmarks.scaling._shared import (
    PACKAGE,
    Found,
    command,
    estimate,
    ratio,
    samples,
    shown,
    start,
    training_step as one_step,
)
from experiments.console import console, table

NETWORKS = {
    "64-128-64-10, batch 64": ((64, 128, 64, 10), 64),
    "784-512-512-10, batch 128": ((784, 512, 512, 10), 128),
    "784-512-512-10, batch 1,024": ((784, 512, 512, 10), 1024),
    "three layers of 1,024, batch 256": ((1024,) * 4, 256),
}
SUMS = (1_000, 10_000, 100_000, 1_000_000, 4_000_000)
"""Numbers in a sum whose seconds are measured."""
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


def measure(settings: ProcessesSettings) -> Found:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        words = [str(port), str(settings.repetitions), str(settings.at_least), str(out)]
        workers = [
            subprocess.Popen([sys.executable, "-m", f"{PACKAGE}.processes", "--worker", str(number), *words],
                             env=os.environ | {"JAX_ENABLE_X64": "0", "XLA_FLAGS": ""})
            for number in range(PROCESSES)
        ]  # fmt: skip
        try:
            codes = [worker.wait(PATIENCE) for worker in workers]
        finally:
            for worker in workers:
                worker.kill()
        if any(codes):
            raise RuntimeError(f"processes: expected both workers to end well, got exit codes {codes}.")
        return modelled(json.loads(out.read_text(encoding="utf-8")))


def modelled(told: Found) -> Found:
    """The fitted cost of a sum, and of every network what the model says beside what was measured."""
    sizes = np.array([int(size) for size in told["sums"]], float)
    medians = np.array([np.median(of) for of in told["sums"].values()])
    # Relative errors count, or the largest sum alone would decide.
    columns = np.stack([np.ones_like(sizes), 4 * sizes], axis=1) / medians[:, None]
    latency, a_byte = np.maximum(np.linalg.lstsq(columns, np.ones_like(sizes), rcond=None)[0], 0.0)
    found: Found = {"sums": told["sums"], "latency": latency, "seconds_a_byte": a_byte, "networks": {}}
    for name, of in told["networks"].items():
        exchanged = of["messages"] * latency + 4 * of["parameters"] * a_byte
        predicted = np.asarray(of["apart"]) + exchanged
        found["networks"][name] = of | {
            "apart_ms": estimate(np.asarray(of["apart"]) * 1e3),
            "exchange_ms": exchanged * 1e3,
            "together_ms": estimate(np.asarray(of["together"]) * 1e3),
            "model_over_measured": ratio(predicted, of["together"]),
        }
    return found


def show(found: Found) -> None:
    made = table("network", "apart, ms", "exchange", "together", "model over measured", "messages", "MB")
    for name, of in found["networks"].items():
        made.add_row(
            name, shown(of["apart_ms"]), f"{of['exchange_ms']:.3g}", shown(of["together_ms"]),
            shown(of["model_over_measured"]), str(of["messages"]), f"{4e-6 * of['parameters']:.3g}",
        )  # fmt: skip
    console.print(made)
    console.print(
        f"a message costs {found['latency'] * 1e6:.0f} microseconds, a byte {found['seconds_a_byte'] * 1e9:.2g} "
        f"nanoseconds ({1e-9 / max(found['seconds_a_byte'], 1e-15):.2g} GB/s)"
    )


def worker(number: str, port: str, repetitions: str, at_least: str, out: str) -> None:
    """One of the processes: all figures, written by the first."""
    jax.distributed.initialize(f"127.0.0.1:{port}", PROCESSES, int(number))
    mesh = Mesh(np.array(jax.devices()), ("data",))
    runs: dict[tuple[str, str], Callable[[int], object]] = {}
    facts: Found = {}
    for name, (sizes, batch_size) in NETWORKS.items():
        model, batch = fnn.mlp(sizes), samples(batch_size, sizes[0], sizes[-1])
        together, program = _trainer(model, batch, mesh)
        apart, _ = _trainer(model, jax.tree.map(lambda array: array[: len(array) // PROCESSES], batch), None)
        runs[name, "together"], runs[name, "apart"] = together, apart
        leaves = jax.tree.leaves(start(model)[0])
        facts[name] = {"messages": program.count(" all-reduce("), "parameters": sum(leaf.size for leaf in leaves)}
    for size in SUMS:
        runs["sum", str(size)] = _summing(size, mesh)
    counts = {what: _calls(run, float(at_least)) for what, run in runs.items()}
    seconds: dict[tuple[str, str], list[float]] = {what: [] for what in runs}
    for _ in range(int(repetitions)):
        for what, run in runs.items():
            _meet()
            begun = time.perf_counter()
            run(counts[what])
            seconds[what].append((time.perf_counter() - begun) / counts[what])
    if int(number) == 0:
        for name in NETWORKS:
            facts[name] |= {"together": seconds[name, "together"], "apart": seconds[name, "apart"]}
        sums = {str(size): seconds["sum", str(size)] for size in SUMS}
        Path(out).write_text(json.dumps({"networks": facts, "sums": sums}), encoding="utf-8")
    jax.distributed.shutdown()


def _trainer(model, batch, mesh) -> tuple[Callable[[int], object], str]:
    """``(steps) -> anything``, once all are done, and the compiled program's text; without a mesh in this process."""
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
    return lambda count: jax.block_until_ready(compiled(carry, batch, np.int32(count))), compiled.as_text()


def _summing(size, mesh) -> Callable[[int], object]:
    """``(count) -> anything`` once as many sums of an array over the processes are done, one after another."""
    split = NamedSharding(mesh, PartitionSpec("data"))
    halves = jax.make_array_from_process_local_data(split, np.ones((1, size), np.float32), (PROCESSES, size))

    @jax.jit
    def sums(halves, count):
        return lax.fori_loop(0, count, lambda _, halves: halves * 0.5 + 0.25 * halves.sum(axis=0)[None, :], halves)

    return lambda count: jax.block_until_ready(sums(halves, np.int32(count)))


def _calls(run, at_least) -> int:
    """Steps that take about so long; both processes have to take the same number."""
    run(2)
    begun = time.perf_counter()
    run(4)
    wanted = np.float32(4 * at_least / (time.perf_counter() - begun))
    agreed = multihost_utils.process_allgather(wanted).min()
    return max(int(agreed), 4)


def _meet() -> None:
    multihost_utils.sync_global_devices("turn")


if __name__ == "__main__":
    if "--worker" in sys.argv:
        worker(*sys.argv[sys.argv.index("--worker") + 1 :])
    else:
        command("processes", ProcessesSettings, measure, show)
