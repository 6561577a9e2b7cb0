"""The CNN, the LSTM and the GPT in plain JAX, from the parameters by name."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from experiments.benchmarks.speed import architectures

Arrays = dict[str, Array]


def cnn(params: Arrays, x: Array) -> Array:
    for layer in range(len(architectures.CHANNELS)):
        x = lax.conv_general_dilated(
            x, params[f"convolution{layer}.kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x + params[f"convolution{layer}.bias"])
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return x.mean(axis=(1, 2)) @ params["output.kernel"] + params["output.bias"]


def lstm(params: Arrays, x: Array) -> Array:
    def step(carry, given):
        h, c = carry
        i, f, g, o = jnp.split(given + h @ params["hidden.kernel"], 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

    zeros = jnp.zeros((len(x), architectures.HIDDEN))
    (h, _), _ = lax.scan(step, (zeros, zeros), (x @ params["input.kernel"] + params["bias"]).swapaxes(0, 1))
    return h @ params["output.kernel"] + params["output.bias"]


def gpt(params: Arrays, tokens: Array) -> Array:
    x = params["tokens"][tokens] + params["positions"]

    def normalized(name, x, layer=...):
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = (centred**2).mean(axis=-1, keepdims=True)
        return centred * lax.rsqrt(variance + 1e-5) * params[f"{name}.scale"][layer] + params[f"{name}.bias"][layer]

    def linear(name, x, layer):
        return x @ params[f"{name}.kernel"][layer] + params[f"{name}.bias"][layer]

    for layer in range(architectures.LAYERS):
        z = normalized("norm1", x, layer)
        q, k, v = (
            linear(name, z, layer).reshape(*z.shape[:2], architectures.HEADS, z.shape[2] // architectures.HEADS)
            for name in ("query", "key", "value")
        )
        z = jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(x.shape)
        x = x + linear("output", z, layer)
        z = jax.nn.gelu(linear("wide", normalized("norm2", x, layer), layer))
        x = x + linear("narrow", z, layer)
    return normalized("norm", x) @ params["tokens"].T


FORWARDS: dict[str, Callable[[Arrays, Array], Array]] = {"CNN": cnn, "LSTM": lstm, "GPT": gpt}
