"""Accuracy and speed of bfloat16 beside float32.

``python -m experiments.benchmarks.scaling.precision`` trains the digits network and a network on MNIST from ten seeds
each, in float32 and with ``mlp(..., compute_dtype=jnp.bfloat16)``: the same starts and the same shuffles, parameters
and optimizer in float32, products in bfloat16. On a GPU it also times a large layer beside the plain product.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import Progress

import funcnn as fnn
from experiments.benchmarks.scaling._measurement import (
    Measurement,
    command,
    estimate,
    format_estimate,
    ratio,
    select_names,
    start,
    time_interleaved,
    tracked,
)
from experiments.harness.console import console, table
from experiments.shared import data

DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}
"""The dtype of the products, as ``mlp`` takes it."""
BATCH_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class PrecisionSettings:
    """bfloat16 beside float32."""

    seeds: int = 10
    """Networks of each, in pairs that begin alike."""
    only: tuple[str, ...] = ()
    """The networks to train; all of them if none is named."""
    digits_epochs: int = 30
    """Epochs of the digits networks."""
    mnist_epochs: int = 5
    """Epochs of the networks on MNIST."""
    repetitions: int = 7
    """Measurements of the speed, interleaved."""
    size: int = 8192
    """Rows and columns of the large product on a GPU."""
    out: Path = Path("report/scaling/precision.json")
    """The file for the figures."""


def accuracies(model: fnn.Layer, pictures: data.DataSet, epochs: int, seeds: int) -> np.ndarray:
    """The test accuracy of every seed's network."""
    trained = fnn.train_ensemble(
        seeds, model, fnn.softmax_cross_entropy, fnn.adam(1e-3), pictures.training, epochs=epochs,
        batch_size=BATCH_SIZE, key=jax.random.key(0),
    )  # fmt: skip
    logits = fnn.predict_ensemble(model, trained.params, trained.state, pictures.test.x, average=jnp.asarray)
    return np.asarray((logits.argmax(axis=-1) == pictures.test.y[None, :]).mean(axis=1))


def networks_trained(
    name: str, pictures: data.DataSet, sizes: tuple[int, ...], epochs: int, settings: PrecisionSettings, bar: Progress
) -> Measurement:
    """Accuracy and speed of one network in both precisions."""
    models = {dtype: fnn.mlp(sizes, compute_dtype=compute) for dtype, compute in DTYPES.items()}
    right = {
        dtype: accuracies(models[dtype], pictures, epochs, settings.seeds)
        for dtype in tracked(bar, models, f"{name}, accuracy")
    }
    calls = {dtype: _one_epoch(model, pictures.training) for dtype, model in models.items()}
    steps = -(-len(pictures.training.x) // BATCH_SIZE)
    seconds = time_interleaved(calls, settings.repetitions, bar=bar, title=name)
    return {
        "accuracies": {dtype: of.tolist() for dtype, of in right.items()},
        "accuracy": {dtype: estimate(of, "mean") for dtype, of in right.items()},
        "bfloat16_minus_float32": estimate(right["bfloat16"] - right["float32"], "mean"),
        "seconds_an_epoch": seconds,
        "steps_a_second": {dtype: estimate([steps / spent for spent in of]) for dtype, of in seconds.items()},
        "speed_over_float32": ratio(seconds["float32"], seconds["bfloat16"]),
    }


def _one_epoch(model: fnn.Layer, training: fnn.Batch):
    """A call that trains one network for an epoch."""
    key = jax.random.key(0)

    def run(params, state, training, key):
        return fnn.train(
            model, fnn.softmax_cross_entropy, fnn.adam(1e-3), training, epochs=1, batch_size=BATCH_SIZE, key=key,
            params=params, state=state,
        )  # fmt: skip

    return partial(jax.jit(run), *start(model), training, key)


def large_layer(size: int, repetitions: int, bar: Progress) -> Measurement:
    """The three products of a large layer's forward and backward beside ``jnp.dot`` alone, operations a second."""
    plain = fnn.linear(size, size)
    layers = {"float32": plain, "bfloat16": fnn.mixed_precision(plain, compute_dtype=jnp.bfloat16)}
    params, state = plain.init(jax.random.key(0))
    x, dy = jax.random.normal(jax.random.key(1), (2, size, size))

    @partial(jax.jit, static_argnames="layer")
    def both_ways(params, x, dy, *, layer):
        y, _, residuals = layer.forward(params, state, x, train=True)
        return y, layer.backward(residuals, dy)

    dot = jax.jit(jnp.dot)
    calls, products = {}, {}
    for dtype, layer in layers.items():
        operands = (x.astype(dtype), params.kernel.astype(dtype))
        calls[dtype, "jnp.dot"], products[dtype, "jnp.dot"] = partial(dot, *operands), 1
        calls[dtype, "layer"], products[dtype, "layer"] = partial(both_ways, params, x, dy, layer=layer), 3
    seconds = time_interleaved(calls, repetitions, 0.1, bar=bar, title="a large layer")
    rates = {call: [products[call] * 2 * size**3 / spent for spent in of] for call, of in seconds.items()}
    return {
        dtype: {
            "seconds": {what: seconds[dtype, what] for what in ("jnp.dot", "layer")},
            "operations_a_second": {what: estimate(rates[dtype, what]) for what in ("jnp.dot", "layer")},
            "share_of_peak": ratio(rates[dtype, "layer"], rates[dtype, "jnp.dot"]),
        }
        for dtype in layers
    }


def measure(settings: PrecisionSettings, bar: Progress) -> Measurement:
    known = {
        "digits 64-128-64-10": ((64, 128, 64, 10), data.digits, settings.digits_epochs),
        "MNIST 784-300-100-10": ((784, 300, 100, 10), data.mnist, settings.mnist_epochs),
    }
    results: Measurement = {"networks": {}, "large_layer": None}
    for name in select_names(known, settings.only):
        sizes, load, epochs = known[name]
        results["networks"][name] = networks_trained(name, load(), sizes, epochs, settings, bar)
    if jax.default_backend() == "gpu":
        results["large_layer"] = large_layer(settings.size, settings.repetitions, bar)
    return results


def show(results: Measurement) -> None:
    made = table("", "float32", "bfloat16", "bfloat16 beside float32")
    for name, figures in results["networks"].items():
        right, rate = figures["accuracy"], figures["steps_a_second"]
        made.add_row(
            f"{name}: test accuracy, %", *(format_estimate(right[dtype], 100) for dtype in DTYPES),
            f"difference {format_estimate(figures['bfloat16_minus_float32'], 100)}",
        )  # fmt: skip
        made.add_row(
            f"{name}: steps a second", *(format_estimate(rate[dtype]) for dtype in DTYPES),
            f"ratio {format_estimate(figures['speed_over_float32'])}",
        )  # fmt: skip
    console.print(made)
    if results["large_layer"] is None:
        console.print("no GPU here: the large product isn't measured.")
        return
    large = table("a large layer, forward and backward", "teraflop/s", "jnp.dot alone", "share of it")
    for dtype, figures in results["large_layer"].items():
        rates = figures["operations_a_second"]
        large.add_row(
            dtype,
            *(format_estimate(rates[what], 1e-12) for what in ("layer", "jnp.dot")),
            format_estimate(figures["share_of_peak"]),
        )
    console.print(large)


if __name__ == "__main__":
    command("precision", PrecisionSettings, measure, show)
