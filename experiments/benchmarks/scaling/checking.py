"""Seconds of checking a network's gradient, for each checker of the detection benchmark.

``python -m experiments.benchmarks.scaling.checking`` shows every checker the hand-written gradients of three networks,
which are right, in float64: a first call, which compiles what there is to compile, and later ones. Beside them stands
the gradient itself. PyTorch's thorough mode evaluates the loss twice for every parameter: not for the large network.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import Progress

import funcnn as fnn
from experiments.benchmarks.checkers import ABSENT, CHECKERS
from experiments.benchmarks.scaling._measurement import (
    Measurement,
    command,
    estimate,
    format_estimate,
    samples,
    select_names,
    start,
    time_interleaved,
    tracked,
)
from experiments.benchmarks.speed.networks import FIVE, Network
from experiments.harness.console import console, table
from funcnn._numerics.precision import enable_x64

NETWORKS = {network.name: network for network in FIVE[:3]}
"""The smaller ones of the speed benchmark."""
EACH_PARAMETER, MOST = "gradcheck", 20_000
"""The checker that nudges every parameter, and how many it is given at most."""


@dataclass(frozen=True, kw_only=True)
class CheckingSettings:
    """How long checking a gradient takes."""

    only: tuple[str, ...] = ()
    """The networks; all of them if none is named."""
    checkers: tuple[str, ...] = tuple(CHECKERS)
    """Whom to ask."""
    repetitions: int = 5
    """Measurements of each, interleaved."""
    out: Path = Path("report/scaling/checking.json")
    """The file for the figures."""


class Question(NamedTuple):
    """What a checker is asked: a loss and a gradient of it by its first argument, as a case of the catalogue."""

    loss_fn: Callable
    grad_fn: Callable
    leaf: str | None = None
    causes: tuple[str, ...] = ()


def question(network: Network) -> tuple[Question, Any, tuple]:
    """A network's question, its parameters and its batch, in float64."""
    model = fnn.mlp(network.sizes)
    params, state = start(model)
    batch = samples(network.batch_size, network.sizes[0], network.sizes[-1])
    by_hand = fnn.manual_value_and_grad(model, fnn.softmax_cross_entropy)

    def loss(params, x, y):
        prediction = model.forward(params, state, x, train=True)[0]
        return fnn.softmax_cross_entropy.forward(prediction, y)[0]

    @jax.jit
    def gradient(params, x, y):
        return by_hand(params, state, fnn.Batch(x, y))[1]

    params, x = jax.tree.map(lambda array: array.astype(jnp.float64), (params, batch.x))
    return Question(loss, gradient), params, (x, batch.y)


def checked(network: Network, settings: CheckingSettings, bar: Progress) -> Measurement:
    """Every checker's seconds on one network, and whether it let the gradient pass."""
    asked, params, args = question(network)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    calls: dict[str, Callable[[], Any]] = {"the gradient itself": partial(asked.grad_fn, params, *args)}
    for name in select_names(CHECKERS, settings.checkers):
        if name not in ABSENT and (name != EACH_PARAMETER or parameters <= MOST):
            calls[name] = partial(CHECKERS[name], asked, params, args)
    first, flagged = {}, {}
    for name in tracked(bar, calls, f"{network.name}, first calls"):
        jax.clear_caches()
        started = time.perf_counter()
        results = jax.block_until_ready(calls[name]())
        first[name] = time.perf_counter() - started
        flagged[name] = results[0] if name in CHECKERS else None
    seconds = time_interleaved(calls, settings.repetitions, bar=bar, title=network.name)
    return {
        "parameters": parameters, "first_seconds": first, "flagged": flagged, "seconds": seconds,
        "later_ms": {name: estimate(np.asarray(of) * 1e3) for name, of in seconds.items()},
    }  # fmt: skip


def measure(settings: CheckingSettings, bar: Progress) -> Measurement:
    with enable_x64(True):
        networks = {name: checked(NETWORKS[name], settings, bar) for name in select_names(NETWORKS, settings.only)}
    return {"networks": networks, "absent": sorted(ABSENT)}


def show(results: Measurement) -> None:
    for name, of in results["networks"].items():
        made = table("checker", "first call, s", "later, ms", "says", title=f"{name}, {of['parameters']:,} parameters")
        for checker, first in of["first_seconds"].items():
            says = {None: "–", True: "wrong", False: "right"}[of["flagged"][checker]]
            made.add_row(checker, f"{first:.2f}", format_estimate(of["later_ms"][checker]), says)
        console.print(made)
    for checker in results["absent"]:
        console.print(f"{checker}: PyTorch isn't installed: left out.")


if __name__ == "__main__":
    command("checking", CheckingSettings, measure, show)
