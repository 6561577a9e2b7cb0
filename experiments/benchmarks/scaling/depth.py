"""The cost of depth: tracing, compiling, memory and seconds of a training step of ``repeat``.

``python -m experiments.benchmarks.scaling.depth`` compiles one step of Adam for ten, a hundred and a thousand layers of
64, with gradients by hand and by autodiff, each without and with recomputation: the backward pass runs every layer's
forward again from its input (``funcnn.recompute``; for autodiff ``jax.checkpoint``) instead of keeping its residuals.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
from rich.progress import Progress

import funcnn as fnn
from experiments.benchmarks.scaling._measurement import (
    Measurement,
    command,
    estimate,
    format_estimate,
    in_turn,
    memory_of,
    ratio,
    samples,
    shapes,
    start,
    time_interleaved,
    tracked,
    training_step,
)
from experiments.harness.claims import format_number
from experiments.harness.console import console, table

COMPILING = ("trace and lower", "compile")


@dataclass(frozen=True, kw_only=True)
class DepthSettings:
    """Depth: compiling, memory and time of a step."""

    depths: tuple[int, ...] = (10, 100, 1000)
    """Numbers of layers, the smallest first."""
    width: int = 64
    """Units of every layer."""
    batch_size: int = 32
    """Samples a step."""
    repetitions: int = 7
    """Compilations of each step, and measurements of its time, interleaved."""
    seconds: float = 0.2
    """At least so long a step is run over and over for one measurement."""
    out: Path = Path("report/scaling/depth.json")
    """The file for the figures."""


def checkpointed(layer: fnn.Layer) -> fnn.Layer:
    """The layer for autodiff alone, by ``jax.checkpoint``: what ``recompute`` is for gradients by hand."""

    def forward(params, state, x, *, train, key=None):
        @jax.checkpoint
        def without_residuals(params, state, x, key):
            return layer.forward(params, state, x, train=train, key=key)[:2]

        return *without_residuals(params, state, x, key), ()

    return layer._replace(forward=forward)


WAYS = {
    "manual": (fnn.manual_value_and_grad, lambda layer: layer),
    "manual, recomputed": (fnn.manual_value_and_grad, lambda layer: fnn.recompute(layer)),
    "autodiff": (fnn.autodiff_value_and_grad, lambda layer: layer),
    "autodiff, checkpointed": (fnn.autodiff_value_and_grad, checkpointed),
}
"""By name: the gradient, and what is done to the layer that is repeated."""


def network(way: str, depth: int, width: int) -> fnn.Layer:
    block = WAYS[way][1](fnn.serial(fnn.linear(width, width), fnn.relu))
    return fnn.serial(fnn.repeat(block, depth), fnn.linear(width, 10))


def compiled_step(way: str, depth: int, settings: DepthSettings) -> tuple[jax.stages.Compiled, tuple[float, float]]:
    """The step, compiled anew, and the seconds that tracing and lowering it took, and compiling."""
    model = network(way, depth, settings.width)
    given = shapes(model, settings.batch_size, settings.width)
    jax.clear_caches()
    started = time.perf_counter()
    lowered = jax.jit(training_step(model, WAYS[way][0]), donate_argnums=0).lower(*given)
    between = time.perf_counter()
    compiled = lowered.compile()
    return compiled, (between - started, time.perf_counter() - between)


def stepping(way: str, depth: int, compiled, settings: DepthSettings) -> Callable:
    """A function that takes one more step each time it is called."""
    params, state = start(network(way, depth, settings.width))
    carry = (params, state, fnn.adam(1e-3).init(params))
    batch = samples(settings.batch_size, settings.width, 10)

    def step():
        nonlocal carry
        carry, loss = compiled(carry, batch)
        return loss

    return step


def measure(settings: DepthSettings, bar: Progress) -> Measurement:
    cells = [(way, depth) for depth in settings.depths for way in WAYS]
    kept, spent = {}, {cell: ([], []) for cell in cells}
    compiled_step(*cells[0], settings)  # the first of all loads what JAX loads once
    for cell in tracked(bar, in_turn(cells, settings.repetitions), "compilations"):
        kept[cell], seconds = compiled_step(*cell, settings)
        for part, value in zip(spent[cell], seconds, strict=True):
            part.append(value)
    stepped = time_interleaved(
        {cell: stepping(*cell, kept[cell], settings) for cell in cells}, settings.repetitions, settings.seconds,
        bar=bar, title="steps",
    )  # fmt: skip
    smallest, largest = settings.depths[0], settings.depths[-1]
    results: Measurement = {"ways": {way: {} for way in WAYS}, "largest_over_smallest": {}}
    for way, depth in cells:
        raw = dict(zip(COMPILING, spent[way, depth], strict=True)) | {"step": stepped[way, depth]}
        results["ways"][way][str(depth)] = {
            "seconds": raw, "median_seconds": {part: estimate(of) for part, of in raw.items()},
            "bytes": memory_of(kept[way, depth]),
        }  # fmt: skip
    for way in WAYS:
        results["largest_over_smallest"][way] = {
            part: ratio(spent[way, largest][index], spent[way, smallest][index]) for index, part in enumerate(COMPILING)
        }
    results["depths"] = [smallest, largest]
    return results


def show(results: Measurement) -> None:
    made = table("gradient", "layers", *COMPILING, "step", "working", "total")
    for way, by_depth in results["ways"].items():
        for depth, figures in by_depth.items():
            seconds = (f"{format_number(round(of['value'] * 1000, 2))} ms" for of in figures["median_seconds"].values())
            memory = (
                f"{format_number(round(figures['bytes'][part] / 1024, 1))} KiB" for part in ("temporary", "total")
            )
            made.add_row(way, f"{int(depth):,}", *seconds, *memory)
    console.print(made)
    smallest, largest = results["depths"]
    ratios = table(f"{largest:,} layers over {smallest:,}", *COMPILING)
    for way, parts in results["largest_over_smallest"].items():
        ratios.add_row(way, *(format_estimate(parts[part]) for part in COMPILING))
    console.print(ratios)
    console.print("working: bytes beside arguments and outputs; total: with them, the donated ones counted once.")


if __name__ == "__main__":
    command("depth", DepthSettings, measure, show)
