"""The memory of a compiled training step, with gradients by hand and by autodiff.

``python -m experiments.benchmarks.scaling.memory`` compiles one step of Adam for each network, and attention with its
gradients for sequences of several lengths, and asks XLA for their bytes; nothing is run, so the figures are exact and
the same every time.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from rich.progress import Progress

import funcnn as fnn
from experiments.benchmarks.scaling._measurement import (
    Measurement,
    command,
    memory_of,
    select_names,
    shapes,
    tracked,
    training_step,
)
from experiments.harness.claims import format_number
from experiments.harness.console import console, table

GRADIENTS = {"manual": fnn.manual_value_and_grad, "autodiff": fnn.autodiff_value_and_grad}
ATTENTION = "attention"
HEAD, BLOCK = 64, 128
"""Features of a head, and the keys of a block in the blockwise form."""


class Network(NamedTuple):
    """A network by what makes it, and the samples of a step."""

    model: fnn.Layer
    features: int
    batch_size: int


def networks(layers: int = 100) -> dict[str, Network]:
    """The five of the speed benchmark, and a deep one whose layers are one scan."""
    block = fnn.serial(fnn.linear(64, 64), fnn.relu)
    return {
        "2-4-2": Network(fnn.mlp((2, 4, 2)), 2, 4),
        "64-128-64-10": Network(fnn.mlp((64, 128, 64, 10)), 64, 64),
        "784-512-512-10": Network(fnn.mlp((784, 512, 512, 10)), 784, 128),
        "fifty layers of 64": Network(fnn.mlp((64,) * 51 + (10,)), 64, 32),
        "four layers of 2,048": Network(fnn.mlp((2048,) * 5), 2048, 512),
        f"repeat of {layers} layers": Network(fnn.serial(fnn.repeat(block, layers), fnn.linear(64, 10)), 64, 32),
    }


@dataclass(frozen=True, kw_only=True)
class MemorySettings:
    """Memory of a compiled training step."""

    only: tuple[str, ...] = ()
    """The networks to ask about, and attention; all of them if none is named."""
    layers: int = 100
    """Layers of the deep network that is one scan."""
    lengths: tuple[int, ...] = (256, 1024, 4096, 16384)
    """Positions of the sequences of attention."""
    out: Path = Path("report/scaling/memory.json")
    """The file for the figures."""


def compiled_step(network: Network, grad):
    """The compiled step; what it starts from is donated, as a training loop's carry is."""
    given = shapes(network.model, network.batch_size, network.features)
    return jax.jit(training_step(network.model, grad), donate_argnums=0).lower(*given).compile()


def _plain(q, k, v, dy):
    y, residuals = fnn.attention_forward(q, k, v, causal=True)
    return y, fnn.attention_backward(residuals, dy)


def _blockwise(q, k, v, dy):
    y, residuals = fnn.blockwise_attention_forward(q, k, v, causal=True, block_size=BLOCK)
    return y, fnn.blockwise_attention_backward(residuals, dy)


def _by_jax_grad(q, k, v, dy):
    y, pullback = jax.vjp(lambda *of: fnn.attention_forward(*of, causal=True)[0], q, k, v)
    return y, pullback(dy)


FORMS = {"plain": _plain, "plain, jax.grad": _by_jax_grad, "blockwise": _blockwise}


def attention_bytes(length: int) -> dict[str, int]:
    """Return the working memory of the output and the gradients of one head, in each form."""
    given = [jax.ShapeDtypeStruct((1, 1, length, HEAD), jnp.float32)] * 4
    return {name: memory_of(jax.jit(form).lower(*given).compile())["temporary"] for name, form in FORMS.items()}


def measure(settings: MemorySettings, bar: Progress) -> Measurement:
    known = networks(settings.layers)
    chosen = select_names([*known, ATTENTION], settings.only)
    lengths = settings.lengths if ATTENTION in chosen else ()
    return {
        "bytes": {
            name: {by: memory_of(compiled_step(known[name], grad)) for by, grad in GRADIENTS.items()}
            for name in tracked(bar, [name for name in chosen if name != ATTENTION], "networks")
        },
        ATTENTION: {length: attention_bytes(length) for length in tracked(bar, lengths, "lengths of attention")},
    }


def show(results: Measurement) -> None:
    if results["bytes"]:
        _show_networks(results)
    if results[ATTENTION]:
        _show_attention(results[ATTENTION])


def _show_attention(of: dict[int, dict[str, int]]) -> None:
    made = table("MiB of causal attention", *(f"{length:,} positions" for length in of))
    for name in FORMS:
        made.add_row(name, *(format_number(round(bytes_of[name] / 2**20, 1)) for bytes_of in of.values()))
    console.print(made)
    console.print(
        f"Output and gradients of a head of {HEAD} features, beside arguments and results; blocks of {BLOCK} keys."
    )


def _show_networks(results: Measurement) -> None:
    shown_table = table(
        "KiB of a compiled step", "manual: working", "total", "autodiff: working", "total", "working, ratio"
    )
    for name, by in results["bytes"].items():
        figures = [by[grad][part] for grad in GRADIENTS for part in ("temporary", "total")]
        between = format_number(figures[0] / figures[2]) if figures[2] else "–"
        shown_table.add_row(name, *(format_number(round(figure / 1024, 1)) for figure in figures), between)
    console.print(shown_table)
    console.print("working: beside arguments and outputs; total: with them, the donated ones counted once.")


if __name__ == "__main__":
    command("memory", MemorySettings, measure, show)
