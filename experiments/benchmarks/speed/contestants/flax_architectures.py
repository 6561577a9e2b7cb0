"""The CNN, the LSTM and the GPT of Flax NNX's own layers."""

import jax.numpy as jnp
from flax import nnx

from experiments.benchmarks.speed import architectures
from experiments.benchmarks.speed.architectures import Architecture, Start


class CNN(nnx.Module):
    def __init__(self, start: Start, rngs: nnx.Rngs):
        first, second = architectures.CHANNELS
        self.first = given(nnx.Conv(1, first, (3, 3), rngs=rngs), start, "convolution0")
        self.second = given(nnx.Conv(first, second, (3, 3), rngs=rngs), start, "convolution1")
        self.output = given(nnx.Linear(second, architectures.CLASSES, rngs=rngs), start, "output")

    def __call__(self, x):
        for layer in (self.first, self.second):
            x = nnx.max_pool(nnx.relu(layer(x)), (2, 2), strides=(2, 2))
        return self.output(x.mean(axis=(1, 2)))


class LSTM(nnx.Module):
    def __init__(self, start: Start, rngs: nnx.Rngs):
        cell = nnx.OptimizedLSTMCell(architectures.IMAGE, architectures.HIDDEN, rngs=rngs)
        cell.dense_i.kernel[...] = jnp.array(start["input.kernel"])
        cell.dense_h.kernel[...], cell.dense_h.bias[...] = jnp.array(start["hidden.kernel"]), jnp.array(start["bias"])
        self.rnn = nnx.RNN(cell, rngs=rngs)
        self.output = given(nnx.Linear(architectures.HIDDEN, architectures.CLASSES, rngs=rngs), start, "output")

    def __call__(self, x):
        return self.output(self.rnn(x)[:, -1])


class Block(nnx.Module):
    def __init__(self, start: Start, layer: int, rngs: nnx.Rngs):
        self.norm1, self.norm2 = (
            given(nnx.LayerNorm(architectures.FEATURES, epsilon=1e-5, rngs=rngs), start, name, layer)
            for name in ("norm1", "norm2")
        )
        self.attention = nnx.MultiHeadAttention(architectures.HEADS, architectures.FEATURES, decode=False, rngs=rngs)
        for name, part in (("query", "query"), ("key", "key"), ("value", "value"), ("output", "out")):
            given(getattr(self.attention, part), start, name, layer)
        self.wide = given(
            nnx.Linear(architectures.FEATURES, 4 * architectures.FEATURES, rngs=rngs), start, "wide", layer
        )
        self.narrow = given(
            nnx.Linear(4 * architectures.FEATURES, architectures.FEATURES, rngs=rngs), start, "narrow", layer
        )

    def __call__(self, x, mask):
        x = x + self.attention(self.norm1(x), mask=mask)
        return x + self.narrow(nnx.gelu(self.wide(self.norm2(x))))


class GPT(nnx.Module):
    def __init__(self, start: Start, rngs: nnx.Rngs):
        self.tokens, self.positions = (
            nnx.Embed(architectures.VOCABULARY, architectures.FEATURES, rngs=rngs),
            nnx.Embed(architectures.CONTEXT, architectures.FEATURES, rngs=rngs),
        )
        self.tokens.embedding[...], self.positions.embedding[...] = map(
            jnp.array, (start["tokens"], start["positions"])
        )
        self.blocks = nnx.List([Block(start, layer, rngs) for layer in range(architectures.LAYERS)])
        self.norm = given(nnx.LayerNorm(architectures.FEATURES, epsilon=1e-5, rngs=rngs), start, "norm")

    def __call__(self, tokens):
        x = self.tokens(tokens) + self.positions(jnp.arange(architectures.CONTEXT))
        mask = nnx.make_causal_mask(tokens)
        for block in self.blocks:
            x = block(x, mask)
        return self.tokens.attend(self.norm(x))


def given(module, start: Start, name: str, layer: int | None = None):
    """Return a layer of Flax's with our parameters in its own shapes."""
    for leaf in ("kernel", "scale", "bias"):
        if f"{name}.{leaf}" in start:
            array = start[f"{name}.{leaf}"] if layer is None else start[f"{name}.{leaf}"][layer]
            parameter = getattr(module, leaf)
            parameter[...] = jnp.array(array).reshape(parameter.shape)
    return module


def built(network: Architecture, start: Start) -> nnx.Module:
    return {"CNN": CNN, "LSTM": LSTM, "GPT": GPT}[network.name](start, nnx.Rngs(0))
