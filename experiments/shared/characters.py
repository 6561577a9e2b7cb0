"""Networks that predict the next character of Python's own documentation, and the text in windows."""

from functools import cache, partial
from pydoc_data import topics
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import funcnn as fnn


class Size(NamedTuple):
    """The sizes of a run: of the networks, the batches, the training and the test.

    Fields:
        memory: features of the LSTM.
        windows: how many windows of the test text are predicted.
    """

    context: int
    features: int
    heads: int
    layers: int
    memory: int
    batch: int
    steps: int
    rate: float
    windows: int


SMALL = Size(32, 32, 4, 2, 64, 32, 400, 3e-3, 200)
NANO = Size(64, 128, 4, 4, 256, 12, 1500, 1e-3, 700)
"""nanoGPT's shape for a CPU: 4 layers of 128 features, windows of 64 characters, batches of 12."""


class Text(NamedTuple):
    """The characters of the text, and its tokens: nine tenths for training and the last tenth for the test."""

    characters: str
    training: np.ndarray
    test: np.ndarray

    def encode(self, text: str) -> np.ndarray:
        return np.array([self.characters.index(character) for character in text], np.int32)

    def decode(self, tokens) -> str:
        return "".join(self.characters[token] for token in np.asarray(tokens).tolist())


@cache
def python_topics() -> Text:
    """Return the help texts of Python's topics, in alphabetical order."""
    text = "\n\n".join(topics.topics[name] for name in sorted(topics.topics))
    characters = "".join(sorted(set(text)))
    number = {character: token for token, character in enumerate(characters)}
    tokens = np.array([number[character] for character in text], np.int32)
    end = len(tokens) * 9 // 10
    return Text(characters, tokens[:end], tokens[end:])


@cache
def window_drawer(batch: int, context: int):
    """Return a function that draws windows of a text, and the characters that follow each of theirs."""

    def draw(key: jax.Array, text: jax.Array) -> fnn.Batch:
        starts = jax.random.randint(key, (batch, 1), 0, len(text) - context)
        windows = text[starts + jnp.arange(context + 1)[None]]
        return fnn.Batch(windows[:, :-1], windows[:, 1:])

    return draw


def cut_windows(text: np.ndarray, context: int, count: int) -> np.ndarray:
    """Return ``(count, context + 1)`` tokens: windows that don't overlap, evenly spread over the text."""
    starts = np.linspace(0, len(text) - context - 1, count).astype(int)
    return text[starts[:, None] + np.arange(context + 1)]


def gpt_of(size: Size, characters: int) -> fnn.Layer:
    return fnn.gpt(characters, size.context, size.features, size.heads, size.layers)


def lstm_of(size: Size, characters: int) -> fnn.Layer:
    return fnn.serial(
        fnn.embedding(characters, size.features), fnn.lstm(size.features, size.memory),
        fnn.linear(size.memory, characters),
    )  # fmt: skip


@partial(jax.jit, static_argnames="model")
def window_losses(params, state, windows: jax.Array, *, model: fnn.Layer) -> jax.Array:
    """Return the cross-entropy of every character, ``(seeds, windows, context)``."""

    def one(params, state):
        logs = jax.nn.log_softmax(fnn.predict(model, params, state, windows[:, :-1]))
        return -jnp.take_along_axis(logs, windows[:, 1:, None], axis=-1)[..., 0]

    return jax.vmap(one)(params, state)
