"""How fast a convolutional network, an LSTM and a GPT train by hand-written backward passes, beside jax.grad.

``python -m experiments.benchmarks.scaling.architectures`` trains each by Adam in a scan over batches, once with the
backward passes written here and once with ``jax.grad`` over the same forward, in turns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import funcnn as fnn
from experiments.benchmarks.scaling._measurement import (
    Measurement,
    command,
    estimate,
    format_estimate,
    ratio,
    select_names,
    time_interleaved,
    training_step,
)
from experiments.harness.console import console, table

GRADIENTS = {"by hand": fnn.manual_value_and_grad, "jax.grad": fnn.autodiff_value_and_grad}
VOCABULARY = 65
"""Characters of nanoGPT's Shakespeare."""


@dataclass(frozen=True, kw_only=True)
class ArchitecturesSettings:
    """Hand-written backward passes beside jax.grad, by architecture."""

    steps: int = 20
    """Steps in one scan."""
    only: tuple[str, ...] = ()
    """The networks to train; all of them if none is named."""
    repetitions: int = 15
    """Measurements of each, interleaved."""
    seed: int = 0
    """The seed of the parameters and the samples."""
    out: Path = Path("report/scaling/architectures.json")
    """The file for the figures."""


class Case(NamedTuple):
    """A network and its batches, with the steps as their first axis."""

    model: fnn.Layer
    batches: fnn.Batch


def cases(steps: int, seed: int) -> dict[str, Callable[[], Case]]:
    """Return a function for each network that makes it and draws its batches."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal((steps, *shape)), jnp.float32)

    def labels(count: int, *shape: int) -> jax.Array:
        return jnp.asarray(rng.integers(count, size=(steps, *shape)), jnp.int32)

    def lstm() -> fnn.Layer:
        return fnn.serial(fnn.lstm(32, 128), fnn.last_step, fnn.linear(128, 10))

    return {
        "CNN": lambda: Case(fnn.cnn(1, (16, 32), 10), fnn.Batch(normal(64, 28, 28, 1), labels(10, 64))),
        "LSTM": lambda: Case(lstm(), fnn.Batch(normal(32, 64, 32), labels(10, 32))),
        "GPT": lambda: Case(
            fnn.gpt(VOCABULARY, 64, 128, 4, 4), fnn.Batch(labels(VOCABULARY, 12, 64), labels(VOCABULARY, 12, 64))
        ),
    }


def scanned(case: Case, grad, seed: int) -> Callable[[], jax.Array]:
    """Return a function that trains from the same start at every call, and returns the loss of every step."""
    params, state = case.model.init(jax.random.key(seed))
    carry = (params, state, fnn.adam(1e-3).init(params))
    step = training_step(case.model, grad)
    return partial(jax.jit(lambda carry, batches: lax.scan(step, carry, batches)[1]), carry, case.batches)


def measure(settings: ArchitecturesSettings) -> Measurement:
    known = cases(settings.steps, settings.seed)
    results: Measurement = {"networks": {}}
    for name in select_names(known, settings.only):
        case = known[name]()
        runs = {words: scanned(case, grad, settings.seed) for words, grad in GRADIENTS.items()}
        by_hand, by_autodiff = (np.asarray(run()) for run in runs.values())
        seconds = time_interleaved(runs, settings.repetitions)
        results["networks"][name] = {
            "model": str(case.model), "batch": list(case.batches.x.shape[1:]), "seconds": seconds,
            "seconds_a_step": {key: estimate(np.array(of) / settings.steps) for key, of in seconds.items()},
            "speed_over_jax_grad": ratio(seconds["jax.grad"], seconds["by hand"]),
            "difference_of_losses": float(np.max(np.abs(by_hand - by_autodiff) / np.abs(by_autodiff))),
        }  # fmt: skip
    return results


def show(results: Measurement) -> None:
    made = table("network", "batch", "by hand, ms a step", "jax.grad, ms a step", "speed over it", "losses differ by")
    for name, figures in results["networks"].items():
        spent = figures["seconds_a_step"]
        made.add_row(
            name, " × ".join(map(str, figures["batch"])), *(format_estimate(spent[key], 1e3) for key in GRADIENTS),
            format_estimate(figures["speed_over_jax_grad"]), f"{figures['difference_of_losses']:.0e}",
        )  # fmt: skip
    console.print(made)
    console.print("The losses are those of the steps timed, relative to those by jax.grad.")


if __name__ == "__main__":
    command("architectures", ArchitecturesSettings, measure, show)
