"""Checks that the layers of sequences and of tokens share."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from funcnn._checks import (
    check_features,
    describe,
    feature_array,
    is_concrete,
    numeric_array,
    refuse_where,
    wide_labels,
)


def sequence_array(name: str, x: Any, features: int | None = None, dtype: Any = None) -> Array:
    """Return ``x`` as a floating array ``(batch, ..., time, features)``.

    Args:
        name: of the layer, for errors.
        x: its input.
        features, dtype: what the layer takes, where its parameters say it.
    """
    x = feature_array(name, x) if features is None else check_features(name, x, features, dtype)
    if x.ndim < 3:
        raise ValueError(
            f"{name}: expected sequences of shape (batch, time, features), got {x.shape}. "
            "For a single sequence, pass x[None]; for one step of each sample, x[:, None, :]."
        )
    return x


def token_array(name: str, x: Any, vocabulary_size: int) -> Array:
    """Return tokens ``(batch, ...)`` as integers of at least 32 bits; concrete ones are in the vocabulary."""
    tokens = numeric_array(name, x)
    if not jnp.issubdtype(tokens.dtype, jnp.integer):
        advice = "Convert them, for example with x.astype(int)."
        if jnp.issubdtype(tokens.dtype, jnp.floating):
            advice = f"Tokens are numbers from 0 to {vocabulary_size - 1}: x.astype(int). Features need no embedding."
        raise TypeError(f"{name}: expected tokens of an integer dtype, got {describe(tokens)}. {advice}")
    if not tokens.ndim or not tokens.size:
        raise ValueError(
            f"{name}: expected at least one token, with the batch as the first axis, (batch, time), got shape "
            f"{tokens.shape}. For a single sequence, pass x[None]."
        )
    if is_concrete(tokens):
        refuse_where(
            lambda values: (values < 0) | (values >= vocabulary_size),
            tokens,
            f"{name}: expected tokens from 0 to {vocabulary_size - 1}",
            "Renumber the tokens, or build the model with a larger vocabulary_size.",
        )
    return wide_labels(tokens)


def check_length(name: str, time: int, length: int) -> None:
    """Raise where a sequence has more positions than there are."""
    if time > length:
        raise ValueError(
            f"{name}: expected sequences of at most {length} positions, got {time}. "
            f"Cut them, x[:, -{length}:], or build the model for longer ones."
        )
