"""The floor of a step: its matrix products, and the bytes that Adam must move, each measured by itself.

The products of a step run in one compiled loop, at their own shapes. Each hands one element to an operand of a later
one, where it is set in place: so XLA can neither hoist a product out of the loop, nor drop one, nor copy an operand.

Adam reads p, m, v, g and writes p, m, v. A loop that does so in place, leaf by leaf, with the least arithmetic says how
long these 7 × 4 bytes a parameter take at their size, in the caches or beyond them.
"""

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from experiments.benchmarks.speed.networks import Network

Arrays = list[Array]


def parts(network: Network) -> dict[str, Callable[[int], object]]:
    """``products`` and ``update``: each does the work of n steps.

    Raises:
        RuntimeError: XLA's program has other products than the step's, or copies an array.
    """
    programs = {"products": (products, operands(network)), "update": (update, leaves(network))}
    compiled = {
        name: jax.jit(loop, donate_argnums=1).lower(0, carry).compile() for name, (loop, carry) in programs.items()
    }
    check_programs(compiled["products"].as_text(), compiled["update"].as_text(), network)
    return {name: _keeping(program, programs[name][1]) for name, program in compiled.items()}


def _keeping(program: Callable, carry: Any) -> Callable[[int], object]:
    """The program on what it left the last time: its arrays are donated."""

    def run(number):
        nonlocal carry
        carry = jax.block_until_ready(program(number, carry))

    return run


def operands(network: Network) -> tuple[Arrays, Arrays, Arrays]:
    """The inputs of every layer, its kernel, and the cotangent of its output."""
    keys = map(jax.random.key, range(3 * len(network.sizes)))
    batch = network.batch_size
    inputs = [jax.random.normal(next(keys), (batch, wide)) for wide in network.sizes[:-1]]
    kernels = [jax.random.normal(next(keys), shape) / shape[0] for shape in pairwise(network.sizes)]
    cotangents = [jax.random.normal(next(keys), (batch, narrow)) for narrow in network.sizes[1:]]
    return inputs, kernels, cotangents


def products(number: Array, carry: tuple[Arrays, Arrays, Arrays]) -> tuple[Arrays, Arrays, Arrays]:
    """y = x K, dK = xᵀ dy and dx = dy Kᵀ of every layer, dx not of the first, over and over."""

    def step(_, carry):
        inputs, kernels, cotangents = map(list, carry)
        for layer, (x, kernel) in enumerate(zip(inputs, kernels, strict=True)):
            dy = cotangents[layer] = fed(cotangents[layer], x @ kernel)
            found = [x.T @ dy] + ([dy @ kernel.T] if layer else [])
            inputs[layer], kernels[layer] = fed(x, *found), fed(kernel, *found)
        return inputs, kernels, cotangents

    return lax.fori_loop(0, number, step, carry)


def fed(array: Array, *results: Array) -> Array:
    """An array with its first entry set by the first entries of products; none grows without bound."""
    return array.at[0, 0].set(jnp.tanh(sum(result[0, 0] for result in results)))


def leaves(network: Network) -> list[tuple[Array, Array, Array, Array]]:
    """p, m, v and g of every leaf that Adam has."""
    shapes = [shape for wide, narrow in pairwise(network.sizes) for shape in ((wide, narrow), (narrow,))]
    return [tuple(jnp.full(shape, value) for value in (0.0, 0.0, 0.0, 1.0)) for shape in shapes]


def update(number: Array, carry: list) -> list:
    """Four arrays read and three written, each in place: none of the three needs what another has to keep for it."""

    def step(_, carry):
        return [(0.5 * p + 0.5, 0.5 * m + 0.5 * g, 0.5 * v + 0.5, g) for p, m, v, g in carry]

    return lax.fori_loop(0, number, step, carry)


def check_programs(products: str, update: str, network: Network) -> None:
    """Refuse a program that lost or doubled a product, or copies an array."""
    wanted = 3 * (len(network.sizes) - 1) - 1
    found = len(re.findall(r" dot\(|custom_call_target=\"__(?:cublas|onednn)", products))
    copies = len(re.findall(r"f32\[\d+(?:,\d+)*\]\S* copy\(", products + update))
    if found != wanted or copies:
        raise RuntimeError(
            f"floor: expected programs of {wanted} products and no copy of an array, got {found} and {copies}. "
            "XLA compiles the loops otherwise than it did: write them anew."
        )
