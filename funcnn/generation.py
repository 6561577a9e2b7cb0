"""Generation: sequences continued token by token, by a model of tokens.

The decoding model is the model with other leaf layers: the ``decoding`` of a layer's spec in the place of its forward,
and what it keeps of earlier positions (keys and values, a recurrent state) in the place of its state. The combinators
run these leaves as they run any layer.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, PRNGKeyArray

from funcnn._checks import (
    check_is_layer,
    check_key,
    check_real,
    describe,
    errors_of,
    numeric_array,
    positive_integer,
    wide_labels,
)
from funcnn._memoise import memoised
from funcnn.layers.mixed_precision import wide_dtype
from funcnn.layers.traversal import leaf_layers, map_layers, spec_of
from funcnn.training.input import check_fits, check_token_values
from funcnn.training.predict import predict
from funcnn.types import Decoding, Layer, Params, State


class DecodingState(NamedTuple):
    """A leaf layer's state in the model, and its cache: what it keeps of earlier positions."""

    state: State
    cache: Any


def generate(
    model: Layer,
    params: Params,
    state: State,
    prompt: ArrayLike,
    length: int,
    *,
    temperature: float = 1.0,
    key: PRNGKeyArray | None = None,
) -> Array:
    """Continue sequences of tokens, each new token drawn from the model's prediction for the next one.

    The model gives logits of the next token at every position. With z for those of the last position and T for the
    temperature, the next token is drawn from softmax(z / T); at T = 0 it is the one with the largest logit.

    Where every layer's spec has a ``decoding``, a token costs one position: attention keeps the keys and values of
    earlier positions, recurrent layers their state. Otherwise the model runs on the whole sequence for each token, and
    is compiled for each length. The tokens are the same up to rounding.

    Args:
        model: a layer from tokens ``(batch, time)`` to logits ``(batch, time, vocabulary_size)``, such as ``gpt``.
        params, state: its parameters and running statistics.
        prompt: the tokens to continue, integers ``(batch, time)``, at least one in each sequence.
        length: how many tokens are added to each sequence.
        temperature: T, at least 0.
        key: random key; ``None`` where the temperature is 0.

    Returns:
        The prompt and the new tokens, ``(batch, time + length)``, in the prompt's dtype or int32, whichever is wider.

    Raises:
        ValueError: a prompt of another shape, tokens outside the vocabulary, more positions than the model has, a
            temperature below 0, no key for a temperature above 0; a model that doesn't give logits at every position.
        TypeError: a prompt that isn't integers; parameters or a state of another model.

    Example:
        >>> from funcnn.models import gpt
        >>> model = gpt(65, 16, 8, 2, 2)
        >>> params, state = model.init(jax.random.key(0))
        >>> generate(model, params, state, jnp.array([[1, 2, 3]]), 5, temperature=0.8, key=jax.random.key(1)).shape
        (1, 8)

    Source:
        Radford et al., "Language models are unsupervised multitask learners", 2019; Pope et al., "Efficiently scaling
        transformer inference", 2022, for the cache of keys and values.
    """
    check_is_layer("generate(model)", model)
    check_fits(model, params, state, "generate")
    tokens = _checked_prompt(prompt)
    length = positive_integer("generate(length)", length)
    check_real("generate(temperature)", temperature)
    if temperature < 0:
        raise ValueError(
            f"generate(temperature): expected a number of at least 0, got {temperature}. Pass 0 for the most probable "
            "token, or 1.0 with a key to draw from the model's own probabilities."
        )
    if temperature > 0 and key is None:
        raise ValueError(
            "generate(key): expected a random key for a temperature above 0, got key=None. Pass "
            "key=jax.random.key(0), or temperature=0 for the most probable token."
        )
    if key is not None:
        check_key("generate(key)", key)
    settings: dict[str, Any] = {"model": model, "length": length, "is_greedy": temperature == 0}
    run = _with_caches if _has_caches(model) else _from_whole_sequences
    with errors_of("generate"):
        check_token_values(model, params, state, tokens)
        _check_logits(model, params, state, tokens)
        return run(params, state, tokens, temperature, key, **settings)


def _checked_prompt(prompt: Any) -> Array:
    tokens = numeric_array("generate(prompt)", prompt)
    if not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise TypeError(
            f"generate(prompt): expected tokens of an integer dtype, got {describe(tokens)}. Encode text first."
        )
    if tokens.ndim != 2 or not tokens.size:
        raise ValueError(
            f"generate(prompt): expected tokens of shape (batch, time), at least one in each sequence, got shape "
            f"{tokens.shape}. For a single sequence, pass prompt[None, :]."
        )
    return wide_labels(tokens)


def _check_logits(model, params, state, tokens) -> None:
    y = jax.eval_shape(partial(model.forward, train=False), params, state, tokens)[0]
    if y.ndim != 3 or y.shape[:2] != tokens.shape:
        raise ValueError(
            f"expected a model that gives logits (batch, time, vocabulary_size) for tokens {tokens.shape}, got "
            f"{y.shape}. Leave out the layers that drop positions."
        )


def _has_caches(model: Layer) -> bool:
    """Whether every leaf layer continues sequences without the earlier positions."""
    return all(spec_of(leaf.layer).decoding is not None for leaf in leaf_layers(model))


@partial(jax.jit, static_argnames=("model", "length", "is_greedy"))
def _with_caches(params, state, tokens, temperature, key, *, model, length, is_greedy):
    decoder = _decoding_model(model, len(tokens), tokens.shape[1] + length - 1)  # Nothing follows the last token.
    start = _start(decoder, params, state, tokens)

    def choose(logits, number):
        return _next_tokens(logits[:, -1], temperature, key, number, is_greedy).astype(tokens.dtype)

    def advance(decoding, x):
        y, decoding, _ = decoder.forward(params, decoding, x, train=False)
        return y, decoding

    def one_token(carry, number):
        decoding, newest = carry
        y, decoding = advance(decoding, newest[:, None])
        chosen = choose(y, number)
        return (decoding, chosen), chosen

    y, decoding = advance(start, tokens)
    first = choose(y, 0)
    _, others = lax.scan(one_token, (decoding, first), jnp.arange(1, length))
    return jnp.concatenate([tokens, first[:, None], others.T], axis=1)


def _from_whole_sequences(params, state, tokens, temperature, key, *, model, length, is_greedy):
    for number in range(length):
        logits = predict(model, params, state, tokens)[:, -1]
        chosen = _next_tokens(logits, temperature, key, number, is_greedy).astype(tokens.dtype)
        tokens = jnp.concatenate([tokens, chosen[:, None]], axis=1)
    return tokens


def _next_tokens(logits, temperature, key, number, is_greedy):
    """Return the tokens at place ``number``, drawn with a key of that place."""
    if is_greedy:
        return logits.argmax(axis=-1)
    return jax.random.categorical(jax.random.fold_in(key, number), logits / jnp.asarray(temperature, logits.dtype))


def _start(decoder, params, state, tokens):
    """Return the state of the decoding model before the first position: empty caches beside the model's state."""
    shapes = jax.eval_shape(decoder.init, jax.random.key(0))[1]
    dtype = wide_dtype(params, tokens)

    def empty(leaf):
        return jnp.zeros(leaf.shape, dtype if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.dtype)

    def beside(drawn, own):
        return DecodingState(own, jax.tree.map(empty, drawn.cache))

    return jax.tree.map(beside, shapes, state, is_leaf=lambda tree: isinstance(tree, DecodingState))


@memoised
def _decoding_model(model: Layer, samples: int, length: int) -> Layer:
    """Return the model that takes the next positions alone, with caches for sequences of at most ``length`` of them."""

    def init(layer, key):
        params, state = layer.init(key)
        decoding = spec_of(layer).decoding
        cache = decoding.start(params, samples, length) if isinstance(decoding, Decoding) else ()
        return params, DecodingState(state, cache)

    def forward(layer, params, state, x, *, train, key=None):
        decoding = spec_of(layer).decoding
        if isinstance(decoding, Decoding):
            y, cache = decoding.advance(params, state.cache, x)
            return y, DecodingState(state.state, cache), ()
        y, new_state, _ = layer.forward(params, state.state, x, train=False)
        return y, DecodingState(new_state, ()), ()

    def decode(layer):
        return Layer(partial(init, layer), partial(forward, layer), layer.backward, spec_of(layer))

    return map_layers(decode, model)
