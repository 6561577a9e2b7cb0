"""Embeddings: a row of a table for each token, and the logits of all tokens by products with the same rows."""

from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, PRNGKeyArray

from funcnn._checks import check_callable, check_features, check_key, positive_integer
from funcnn._memoise import memoised
from funcnn._static import Static
from funcnn.layers._sequences import token_array
from funcnn.layers.initializers import unit_rows
from funcnn.types import KernelInit, Layer, LayerSpec


class EmbeddingParams(NamedTuple):
    """``table``: ``(vocabulary_size, features)``, a row for each token. Also the type of its gradient."""

    table: Float[Array, "tokens features"]


class EmbeddingResiduals(NamedTuple):
    """The tokens, and how many there are in the vocabulary."""

    tokens: Integer[Array, "*batch"]
    vocabulary_size: Static


class UnembeddingResiduals(NamedTuple):
    """The input and the table: each is in the other's gradient."""

    x: Float[Array, "*batch features"]
    table: Float[Array, "tokens features"]


def embedding_init(
    key: PRNGKeyArray, *, vocabulary_size: int, features: int, table_init: KernelInit
) -> tuple[EmbeddingParams, tuple[()]]:
    """Draw a table, ``(vocabulary_size, features)``, with ``table_init``.

    Example:
        >>> import jax
        >>> embedding_init(jax.random.key(0), vocabulary_size=5, features=2, table_init=unit_rows)[0].table.shape
        (5, 2)
    """
    check_key("embedding: init(key)", key)
    table = table_init(key, (vocabulary_size, features))
    if getattr(table, "shape", None) != (vocabulary_size, features):
        raise ValueError(
            f"embedding(table_init): expected a function that draws a table of shape {(vocabulary_size, features)}, "
            f"got {table!r}. Initializers are made by a call: jax.nn.initializers.normal(0.02)."
        )
    return EmbeddingParams(jnp.asarray(table)), ()


def embedding_forward(
    params: EmbeddingParams, x: Integer[Array, "*batch"]
) -> tuple[Float[Array, "*batch features"], EmbeddingResiduals]:
    """Look up the row of every token, y[n] = T[x[n]].

    It is the product of T with one-hot rows, computed without them.

    Args:
        params: the table T, ``(vocabulary_size, features)``.
        x: tokens from 0 to vocabulary_size − 1, integers ``(batch, ...)``; usually ``(batch, time)``.

    Returns:
        y, ``(batch, ..., features)``, and the residuals. Under ``jit``, the row of a token outside the vocabulary is
        NaN and adds nothing to the gradient.

    Raises:
        TypeError: tokens that aren't integers.
        ValueError: no token, no batch axis, or (on concrete arrays) a token outside the vocabulary.

    Example:
        >>> params = EmbeddingParams(jnp.array([[1.0, 2.0], [3.0, 4.0]]))
        >>> print(embedding_forward(params, jnp.array([[1, 0, 1]]))[0])
        [[[3. 4.]
          [1. 2.]
          [3. 4.]]]

    Source:
        Bengio, Ducharme, Vincent and Jauvin, "A neural probabilistic language model", 2003, section 2.
    """
    vocabulary_size, features = params.table.shape
    tokens = token_array(f"embedding({vocabulary_size}, {features})", x, vocabulary_size)
    # JAX takes negative indices from the end, and clips large ones.
    beyond = jnp.where(tokens < 0, jnp.full_like(tokens, vocabulary_size), tokens)
    y = params.table.at[beyond].get(mode="fill", fill_value=jnp.nan)
    return y, EmbeddingResiduals(beyond, Static(vocabulary_size))


def embedding_backward(residuals: EmbeddingResiduals, dy: Float[Array, "*batch features"]) -> EmbeddingParams:
    """Gradient of y[n] = T[x[n]], where n counts samples and positions.

    Every occurrence of a token adds the same row, so its gradients add up::

        ∂L/∂T[t] = Σₙ 1[x[n] = t] dy[n]

    Tokens are data: they have no gradient.

    Args:
        residuals: from ``embedding_forward``.
        dy: cotangent of y, ``(batch, ..., features)``.

    Returns:
        The gradient of the table, 0 in the rows of tokens that don't occur.

    Example:
        >>> _, residuals = embedding_forward(EmbeddingParams(jnp.zeros((3, 1))), jnp.array([[1, 0, 1]]))
        >>> print(embedding_backward(residuals, jnp.array([[[1.0], [10.0], [100.0]]])).table.ravel())
        [ 10. 101.   0.]

    Source:
        Bengio et al. 2003.
    """
    tokens, features = residuals.tokens.ravel(), dy.shape[-1]
    table = jnp.zeros((residuals.vocabulary_size.value, features), dy.dtype)
    return EmbeddingParams(table.at[tokens].add(dy.reshape(tokens.size, features), mode="drop"))


def unembedding_forward(
    params: EmbeddingParams, x: Float[Array, "*batch features"]
) -> tuple[Float[Array, "*batch tokens"], UnembeddingResiduals]:
    """Compute the logit of every token, y = x Tᵀ: the products of the features with the tokens' rows.

    Args:
        params: the table T, ``(vocabulary_size, features)``.
        x: features, ``(batch, ..., features)``, in the table's dtype.

    Returns:
        y, ``(batch, ..., vocabulary_size)``, and the residuals.

    Raises:
        ValueError, TypeError: x doesn't fit the table.

    Example:
        >>> params = EmbeddingParams(jnp.array([[1.0, 2.0], [3.0, 4.0]]))
        >>> print(unembedding_forward(params, jnp.array([[1.0, 10.0]]))[0])
        [[21. 43.]]

    Source:
        Press and Wolf, "Using the output embedding to improve language models", 2017.
    """
    vocabulary_size, features = params.table.shape
    x = check_features(f"unembedding({vocabulary_size}, {features})", x, features, params.table.dtype)
    return x @ params.table.T, UnembeddingResiduals(x, params.table)


def unembedding_backward(
    residuals: UnembeddingResiduals, dy: Float[Array, "*batch tokens"]
) -> tuple[EmbeddingParams, Float[Array, "*batch features"]]:
    """Gradients of y[n] = T x[n], summed over samples and positions n::

        ∂L/∂T[t] = Σₙ dy[n,t] x[n],    dx = dy T

    Args:
        residuals: from ``unembedding_forward``.
        dy: cotangent of y, ``(batch, ..., vocabulary_size)``.

    Returns:
        The gradient of the table, and ``dx``, ``(batch, ..., features)``.

    Example:
        >>> params = EmbeddingParams(jnp.array([[1.0, 2.0], [3.0, 4.0]]))
        >>> _, residuals = unembedding_forward(params, jnp.array([[1.0, 10.0]]))
        >>> dparams, dx = unembedding_backward(residuals, jnp.array([[0.0, 1.0]]))
        >>> print(dparams.table, dx)
        [[ 0.  0.]
         [ 1. 10.]] [[3. 4.]]

    Source:
        Press and Wolf 2017.
    """
    x, table = residuals
    rows = x.size // x.shape[-1]
    dtable = dy.reshape(rows, dy.shape[-1]).T @ x.reshape(rows, x.shape[-1])
    return EmbeddingParams(dtable), dy @ table


def _embedding_layer_forward(params, state, x, *, train, key=None):
    y, residuals = embedding_forward(params, x)
    return y, state, residuals


def _embedding_layer_backward(residuals, dy):
    return embedding_backward(residuals, dy), None


def _unembedding_layer_forward(params, state, x, *, train, key=None):
    y, residuals = unembedding_forward(params, x)
    return y, state, residuals


@memoised
def embedding(vocabulary_size: int, features: int, table_init: KernelInit = unit_rows) -> Layer:
    """An embedding of tokens, y[n] = T[x[n]], the row of a learned table T at the token x[n].

    Args:
        vocabulary_size: how many tokens there are; they are the integers from 0 to vocabulary_size − 1.
        features: features of a row.
        table_init: ``(key, shape) -> table``; by default rows have norms of about 1.

    Returns:
        The layer, from integers ``(batch, ...)`` to ``(batch, ..., features)``. Its parameters are
        ``EmbeddingParams(table)``; it has no state.

    Raises:
        ValueError, TypeError: a size isn't a positive integer; table_init isn't a function, or (in init) doesn't draw a
            table of the right shape.

    Example:
        >>> import jax
        >>> layer = embedding(65, 16)
        >>> params, state = layer.init(jax.random.key(0))
        >>> layer.forward(params, state, jnp.zeros((2, 8), int), train=True)[0].shape
        (2, 8, 16)

    Source:
        Bengio et al. 2003.
    """
    settings = _settings("embedding", vocabulary_size, features, table_init)
    spec = LayerSpec("embedding", settings=tuple(settings.items()), decoding="alone")
    return Layer(partial(embedding_init, **settings), _embedding_layer_forward, _embedding_layer_backward, spec)


@memoised
def unembedding(vocabulary_size: int, features: int, table_init: KernelInit = unit_rows) -> Layer:
    """The logits of all tokens, y = x Tᵀ, without a bias: an output layer that can share the table of an embedding.

    ``tied(embedding(v, f), …, unembedding(v, f))`` is a language model with one table for both.

    Args:
        vocabulary_size: how many tokens there are.
        features: features of x.
        table_init: ``(key, shape) -> table``.

    Returns:
        The layer, from ``(batch, ..., features)`` to ``(batch, ..., vocabulary_size)``. Its parameters are
        ``EmbeddingParams(table)``; it has no state.

    Raises:
        ValueError, TypeError: as ``embedding``.

    Example:
        >>> import jax
        >>> layer = unembedding(65, 16)
        >>> params, state = layer.init(jax.random.key(0))
        >>> layer.forward(params, state, jnp.ones((2, 8, 16)), train=True)[0].shape
        (2, 8, 65)

    Source:
        Press and Wolf 2017.
    """
    settings = _settings("unembedding", vocabulary_size, features, table_init)
    spec = LayerSpec("unembedding", settings=tuple(settings.items()), decoding="alone")
    return Layer(partial(embedding_init, **settings), _unembedding_layer_forward, unembedding_backward, spec)


def _settings(name, vocabulary_size, features, table_init) -> dict[str, Any]:
    check_callable(f"{name}(table_init)", table_init, "Pass one of jax.nn.initializers: normal(0.02).")
    return {
        "vocabulary_size": positive_integer(f"{name}(vocabulary_size)", vocabulary_size),
        "features": positive_integer(f"{name}(features)", features),
        "table_init": table_init,
    }
