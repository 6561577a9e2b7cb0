"""The CNN, the LSTM and the GPT of Equinox's own layers, each of a single sample, as Equinox's examples have them."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from experiments.benchmarks.speed import architectures
from experiments.benchmarks.speed.architectures import Architecture, Start

KEY = jax.random.key(0)


class CNN(eqx.Module):
    convolutions: list
    pool: eqx.nn.MaxPool2d
    output: eqx.nn.Linear

    def __init__(self, start: Start):
        self.convolutions = []
        for number, (before, width) in enumerate(((1, architectures.CHANNELS[0]), architectures.CHANNELS)):
            kernel, bias = (start[f"convolution{number}.{leaf}"] for leaf in ("kernel", "bias"))
            # Equinox keeps its kernels (out, in, height, width) and its biases (out, 1, 1).
            self.convolutions.append(
                given(
                    eqx.nn.Conv2d(before, width, 3, padding=1, key=KEY),
                    weight=kernel.transpose(3, 2, 0, 1), bias=bias[:, None, None],
                )
            )  # fmt: skip
        self.pool = eqx.nn.MaxPool2d(2, 2)
        self.output = linear(start, "output")

    def __call__(self, x, state):
        x = jnp.moveaxis(x, -1, 0)
        for convolution in self.convolutions:
            x = self.pool(jax.nn.relu(convolution(x)))
        return self.output(x.mean(axis=(1, 2))), state


class LSTM(eqx.Module):
    cell: eqx.nn.LSTMCell
    output: eqx.nn.Linear

    def __init__(self, start: Start):
        self.cell = given(
            eqx.nn.LSTMCell(architectures.IMAGE, architectures.HIDDEN, key=KEY), weight_ih=start["input.kernel"].T,
            weight_hh=start["hidden.kernel"].T, bias=start["bias"],
        )  # fmt: skip
        self.output = linear(start, "output")

    def __call__(self, x, state):
        hidden = (jnp.zeros(architectures.HIDDEN), jnp.zeros(architectures.HIDDEN))
        hidden, _ = lax.scan(lambda hidden, row: (self.cell(row, hidden), None), hidden, x)
        return self.output(hidden[0]), state


class Block(eqx.Module):
    norm1: eqx.nn.LayerNorm
    norm2: eqx.nn.LayerNorm
    attention: eqx.nn.MultiheadAttention
    wide: eqx.nn.Linear
    narrow: eqx.nn.Linear

    def __init__(self, start: Start, layer: int):
        self.norm1, self.norm2 = (norm(start, name, layer) for name in ("norm1", "norm2"))
        biases = {f"use_{name}_bias": True for name in ("query", "key", "value", "output")}
        attention = eqx.nn.MultiheadAttention(architectures.HEADS, architectures.FEATURES, **biases, key=KEY)
        projections = {f"{name}_proj": linear(start, name, layer) for name in ("query", "key", "value", "output")}
        self.attention = given(attention, **projections)
        self.wide, self.narrow = linear(start, "wide", layer), linear(start, "narrow", layer)

    def __call__(self, x, mask):
        z = jax.vmap(self.norm1)(x)
        x = x + self.attention(z, z, z, mask=mask)
        z = jax.nn.gelu(jax.vmap(self.wide)(jax.vmap(self.norm2)(x)))
        return x + jax.vmap(self.narrow)(z)


class GPT(eqx.Module):
    tokens: eqx.nn.Embedding
    positions: eqx.nn.Embedding
    blocks: list
    norm: eqx.nn.LayerNorm

    def __init__(self, start: Start):
        self.tokens = given(
            eqx.nn.Embedding(architectures.VOCABULARY, architectures.FEATURES, key=KEY), weight=start["tokens"]
        )
        self.positions = given(
            eqx.nn.Embedding(architectures.CONTEXT, architectures.FEATURES, key=KEY), weight=start["positions"]
        )
        self.blocks = [Block(start, layer) for layer in range(architectures.LAYERS)]
        self.norm = norm(start, "norm")

    def __call__(self, tokens, state):
        x = jax.vmap(self.tokens)(tokens) + jax.vmap(self.positions)(jnp.arange(architectures.CONTEXT))
        mask = jnp.tril(jnp.ones((architectures.CONTEXT, architectures.CONTEXT), bool))
        for block in self.blocks:
            x = block(x, mask)
        return jax.vmap(self.norm)(x) @ self.tokens.weight.T, state


def given(module, **leaves):
    """Return a module with other leaves."""
    arrays = [leaf if isinstance(leaf, eqx.Module) else jnp.array(leaf) for leaf in leaves.values()]
    return eqx.tree_at(lambda module: [getattr(module, name) for name in leaves], module, arrays)


def linear(start: Start, name: str, layer: int | None = None) -> eqx.nn.Linear:
    """Return a linear layer with our parameters; Equinox keeps its kernels ``(out, in)``."""
    kernel, bias = _of(start, f"{name}.kernel", layer), _of(start, f"{name}.bias", layer)
    return given(eqx.nn.Linear(*kernel.shape, key=KEY), weight=kernel.T, bias=bias)


def norm(start: Start, name: str, layer: int | None = None) -> eqx.nn.LayerNorm:
    scale, bias = _of(start, f"{name}.scale", layer), _of(start, f"{name}.bias", layer)
    return given(eqx.nn.LayerNorm(architectures.FEATURES), weight=scale, bias=bias)


def _of(start, name, layer):
    return start[name] if layer is None else start[name][layer]


def built(network: Architecture, start: Start) -> eqx.Module:
    return {"CNN": CNN, "LSTM": LSTM, "GPT": GPT}[network.name](start)
