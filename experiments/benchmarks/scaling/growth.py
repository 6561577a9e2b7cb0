"""The cost of training by batch size, width, depth, samples and seeds.

``python -m experiments.benchmarks.scaling.growth`` times ``train`` at several sizes of each and fits the exponent of
a power law to the larger half, where what doesn't grow weighs little. In theory the products of a step cost
batch · width² · depth and Adam width² · depth; an epoch grows with the samples, many networks with their seeds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np
from rich.progress import Progress

import funcnn as fnn
from experiments.benchmarks.scaling._measurement import (
    Measurement,
    command,
    estimate,
    format_estimate,
    samples,
    select_names,
    start,
    time_interleaved,
)
from experiments.harness.claims import format_number
from experiments.harness.console import console, table
from experiments.shared.initialization import he_normal, init_ensemble

CLASSES = 10
THEORY = {
    "batch size": ("a step", "1, or less: the products grow with it, Adam doesn't"),
    "width": ("a step", "2: the products as batch · width², Adam as width²"),
    "depth": ("a step", "1"),
    "samples": ("an epoch", "1: as many steps as batches"),
    "seeds": ("a step of all", "1, or less: what a step costs whatever its size is shared"),
}
"""By axis: what is timed, and the exponent that theory says."""


@dataclass(frozen=True, kw_only=True)
class GrowthSettings:
    """How the cost of training grows."""

    batch_sizes: tuple[int, ...] = (32, 64, 128, 256, 512, 1024)
    """Samples a step, of a network of four layers of 256."""
    widths: tuple[int, ...] = (32, 64, 128, 256, 512, 1024)
    """Units of each of four layers, 128 samples a step."""
    depths: tuple[int, ...] = (4, 8, 16, 32, 64, 128)
    """Layers of 128, 32 samples a step."""
    samples: tuple[int, ...] = (512, 1024, 2048, 4096, 8192, 16384)
    """Samples of an epoch in batches of 64, of 64-128-64-10."""
    seeds: tuple[int, ...] = (4, 8, 16, 32, 64, 128)
    """Networks 64-128-64-10 trained at once, 64 samples a step."""
    only: tuple[str, ...] = ()
    """The axes to measure: batch size, width, depth, samples, seeds; all of them if none is named."""
    steps: int = 10
    """Steps of one call, except for the samples' whole epoch."""
    repetitions: int = 7
    """Measurements at each size, interleaved."""
    seconds: float = 0.1
    """At least so long a call is made over and over for one measurement."""
    out: Path = Path("report/scaling/growth.json")
    """The file for the figures."""


def deep(width: int, depth: int) -> fnn.Layer:
    """Equal layers, as one scan, and an output layer."""
    block = fnn.serial(fnn.linear(width, width), fnn.relu)
    return fnn.serial(fnn.repeat(block, depth), fnn.linear(width, CLASSES))


def training(model: fnn.Layer, features: int, count: int, epochs: int, batch_size=None, seeds: int = 1) -> Callable:
    """A call that trains from one and the same start; for several seeds all at once."""
    batch = samples(count, features, CLASSES)
    key = jax.random.key(0)

    def run(params, state, batch, key):
        return fnn.train(
            model, fnn.softmax_cross_entropy, fnn.adam(1e-3), batch, epochs=epochs, batch_size=batch_size,
            key=key, params=params, state=state,
        )  # fmt: skip

    if seeds == 1:
        return partial(jax.jit(run), *start(model), batch, key)
    keys = jax.random.split(key, seeds)
    return partial(
        jax.jit(jax.vmap(run, in_axes=(0, 0, None, 0))), *init_ensemble(model, seeds, he_normal), batch, keys
    )


def axes(settings: GrowthSettings) -> dict[str, tuple[Sequence[int], Callable[[int], Callable], int]]:
    """By axis: the sizes, what makes the call for a size, and how many of what is timed a call does."""
    digits, steps = fnn.mlp((64, 128, 64, CLASSES)), settings.steps
    return {
        "batch size": (settings.batch_sizes, lambda size: training(deep(256, 4), 256, size, steps), steps),
        "width": (settings.widths, lambda width: training(deep(width, 4), width, 128, steps), steps),
        "depth": (settings.depths, lambda depth: training(deep(128, depth), 128, 32, steps), steps),
        "samples": (settings.samples, lambda count: training(digits, 64, count, 1, 64), 1),
        "seeds": (settings.seeds, lambda seeds: training(digits, 64, 64, steps, seeds=seeds), steps),
    }


def exponents(sizes: Sequence[int], seconds: np.ndarray) -> np.ndarray:
    """The slope of log seconds by log size over the larger half of the sizes, least squares, for every repetition.

    Args:
        sizes: rising, at least two.
        seconds: ``(sizes, repetitions)``.
    """
    half = min(len(sizes) // 2, len(sizes) - 2)
    logs = np.log(np.asarray(sizes[half:], float))
    return np.polyfit(logs, np.log(seconds[half:]), 1)[0]


def measure(settings: GrowthSettings, bar: Progress) -> Measurement:
    results: Measurement = {"axes": {}}
    known = axes(settings)
    for axis in select_names(known, settings.only):
        sizes, call, done = known[axis]
        measured = time_interleaved(
            {size: call(size) for size in sizes}, settings.repetitions, settings.seconds, bar=bar, title=axis
        )
        seconds = {size: [spent / done for spent in of] for size, of in measured.items()}
        fitted = exponents(list(seconds), np.array(list(seconds.values())))
        results["axes"][axis] = {
            "of": THEORY[axis][0], "seconds": seconds, "exponents": fitted.tolist(), "exponent": estimate(fitted),
            "theory": THEORY[axis][1], "median_seconds": {size: float(np.median(of)) for size, of in seconds.items()},
        }  # fmt: skip
    return results


def show(results: Measurement) -> None:
    for axis, figures in results["axes"].items():
        made = table(axis, *(f"{size:,}" for size in figures["median_seconds"]), "exponent")
        times = (format_number(round(seconds * 1000, 3)) for seconds in figures["median_seconds"].values())
        made.add_row(f"ms {figures['of']}", *times, format_estimate(figures["exponent"]))
        console.print(made)
        console.print(f"in theory {figures['theory']}")


if __name__ == "__main__":
    command("growth", GrowthSettings, measure, show)
