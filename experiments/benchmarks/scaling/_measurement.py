"""What the studies of scaling share: interleaved timing, intervals, a step to train with, and the file of figures."""

import contextlib
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from typing import Any, TypeVar

import jax
import numpy as np
import optax
import tyro
from rich.progress import Progress

import funcnn as fnn
from experiments.benchmarks.speed.machine import processor
from experiments.harness.claims import format_number, interval
from experiments.harness.console import console, progress_bar
from experiments.harness.runner import environment
from experiments.shared.initialization import he_normal, init_ensemble

PACKAGE = "experiments.benchmarks.scaling"
VARIABLES = ("XLA_FLAGS", "JAX_PLATFORMS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""What in the environment changes how fast arithmetic is."""

Item = TypeVar("Item")
Measurement = dict[str, Any]
Estimate = dict[str, float | None]


def command(
    name: str,
    kind: type,
    measure: Callable[[Any, Progress], Measurement],
    show: Callable[[Measurement], None],
    arguments: Sequence[str] | None = None,
) -> Measurement:
    """What ``python -m experiments.benchmarks.scaling.NAME`` does: measure in float32, print, write all figures."""
    arguments = sys.argv[1:] if arguments is None else arguments
    program = f"python -m {PACKAGE}.{name}"
    settings = tyro.cli(kind, prog=program, args=arguments, config=(tyro.conf.FlagCreatePairsOff,))
    check(asdict(settings))
    console.rule(f"[bold]{(kind.__doc__ or name).splitlines()[0]}")
    started = time.monotonic()
    with single_precision(), measurement_bar() as bar:
        results = measure(settings, bar)
    about = {
        "command": shlex.join([*program.split(), *arguments]), "settings": asdict(settings),
        "seconds": time.monotonic() - started, "environment": environment_facts(),
    }  # fmt: skip
    show(results)
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    settings.out.write_text(json.dumps(about | results, indent=1, default=str), encoding="utf-8")
    console.print(f"written: {settings.out}", highlight=False, soft_wrap=True)
    return results


def check(settings: Mapping[str, Any]) -> None:
    """Refuse numbers that nothing can be measured with.

    Raises:
        SystemExit: a count below 1, a time below 0, fewer than two sizes, or sizes that don't rise.
    """
    for name, value in settings.items():
        option = f"--{name.replace('_', '-')}"
        least = 1 if isinstance(value, int) and name != "seed" else 0
        if isinstance(value, int | float) and value < least:
            raise SystemExit(f"{option}: expected {least} or more, got {value}.")
        is_sizes = isinstance(value, tuple) and value and all(isinstance(size, int) for size in value)
        if is_sizes and (len(value) < 2 or value[0] < 1 or list(value) != sorted(set(value))):
            given = ", ".join(map(str, value))
            raise SystemExit(f"{option}: expected two or more rising numbers from 1 on, got {given}.")


@contextlib.contextmanager
def single_precision() -> Iterator[None]:
    """Everything inside is float32, JAX's default, whatever it was set to."""
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def measurement_bar() -> contextlib.AbstractContextManager[Progress]:
    """The bar of a study, drawn only between its measurements."""
    return progress_bar("measurements", redraws=False)


def tracked(bar: Progress, items: Collection[Item], title: str) -> Iterator[Item]:
    """Yield what is measured, and count each once it is done."""
    if items:
        yield from bar.track(items, description=title)


def environment_facts() -> Measurement:
    """What the figures were measured on and with."""
    versions = {}
    for package in ("torch", "scipy", "mlxtend"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    facts = {"processor": processor(), "backend": jax.default_backend()}
    return environment() | versions | facts | {name: os.environ[name] for name in VARIABLES if name in os.environ}


def seconds_of(run: Callable[[], Any], at_least: float = 0.0) -> float:
    """Seconds that one call takes, from as many calls in a row as fill ``at_least`` seconds."""
    calls, started = 0, time.perf_counter()
    while True:
        jax.block_until_ready(run())
        calls, spent = calls + 1, time.perf_counter() - started
        if spent >= at_least:
            return spent / calls


def in_turn(items: Iterable[Item], repetitions: int) -> list[Item]:
    """All items once a repetition; the order turns with it."""
    items = list(items)
    firsts = (repetition % len(items) for repetition in range(repetitions))
    return [item for first in firsts for item in items[first:] + items[:first]]


def time_interleaved(
    runs: Mapping[Any, Callable[[], Any]], repetitions: int, at_least: float = 0.0, *, bar: Progress, title: str
) -> dict[Any, list[float]]:
    """Seconds a call of each, once a repetition; the order turns with it, so that drift hits all alike.

    Each is called once before, which compiles what there is to compile.
    """
    measured: dict[Any, list[float]] = {}
    for name in tracked(bar, [*runs, *in_turn(runs, repetitions)], title):
        if name in measured:
            measured[name].append(seconds_of(runs[name], at_least))
        else:
            measured[name] = []
            jax.block_until_ready(runs[name]())
    return measured


def estimate(values, statistic: str = "median") -> Estimate:
    """The median of what the repetitions gave, or the mean, with a 95% bootstrap interval; of a single one none."""
    values = np.asarray(values, float)
    low, high = interval(values, statistic) if len(values) > 1 else (None, None)
    return {"value": float(np.median(values) if statistic == "median" else values.mean()), "low": low, "high": high}


def select_names(known: Iterable[str], only: Sequence[str]) -> list[str]:
    """The names asked for, in their own order; all of them if none is."""
    known = list(known)
    if unknown := set(only) - set(known):
        raise SystemExit(f"--only: expected some of {', '.join(known)}; got {', '.join(sorted(unknown))}.")
    return [name for name in known if not only or name in only]


def ratio(above, below) -> Estimate:
    """The median over repetitions of the ratio within each, with its interval."""
    return estimate(np.asarray(above, float) / np.asarray(below, float))


def format_estimate(figure: Estimate, scale: float = 1.0) -> str:
    """A figure and its interval as text."""
    if figure["low"] is None:
        return format_number(figure["value"] * scale)
    value, low, high = (format_number(figure[part] * scale) for part in ("value", "low", "high"))
    return f"{value} [dim]({low} to {high})[/]"


def training_step(model: fnn.Layer, grad=fnn.manual_value_and_grad) -> Callable:
    """``(carry, batch) -> (carry, loss)``: one step of Adam on the softmax cross-entropy."""
    optimizer = fnn.adam(1e-3)
    value_and_grad = grad(model, fnn.softmax_cross_entropy)

    def step(carry, batch):
        params, state, opt_state = carry
        (loss, state), grads = value_and_grad(params, state, batch)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), state, opt_state), loss

    return step


def start(model: fnn.Layer):
    """Parameters and state to begin with."""
    return jax.tree.map(lambda leaf: leaf[0], init_ensemble(model, 1, he_normal))


def shapes(model: fnn.Layer, batch_size: int, features: int):
    """What ``training_step`` takes, without its values."""
    params, state = jax.eval_shape(model.init, jax.random.key(0))
    x, y = jax.ShapeDtypeStruct((batch_size, features), np.float32), jax.ShapeDtypeStruct((batch_size,), np.int32)
    return (params, state, jax.eval_shape(fnn.adam(1e-3).init, params)), fnn.Batch(x, y)


def samples(count: int, features: int, classes: int, seed: int = 0) -> fnn.Batch:
    """Normal features, and labels drawn among the classes."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, features)).astype(np.float32)
    return fnn.Batch(jax.numpy.asarray(x), jax.numpy.asarray(rng.integers(classes, size=count).astype(np.int32)))


def memory_of(compiled) -> dict[str, int]:
    """Bytes of a compiled program: what it works with beside what goes in and out; donated arguments count once."""
    figures = compiled.memory_analysis()
    parts = {
        "temporary": figures.temp_size_in_bytes, "arguments": figures.argument_size_in_bytes,
        "outputs": figures.output_size_in_bytes, "shared": figures.alias_size_in_bytes,
    }  # fmt: skip
    return parts | {"total": parts["temporary"] + parts["arguments"] + parts["outputs"] - parts["shared"]}
