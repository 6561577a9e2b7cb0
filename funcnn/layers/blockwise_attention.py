"""Attention block by block: the same numbers as ``attention``, in memory proportional to the length of the sequence.

No array of all queries by all keys is ever formed. A scan over blocks of keys keeps for each query the largest score so
far, the sum of the exponentials and the weighted sum of the values (the online softmax). Backward computes the weights
of each block again.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from funcnn._checks import positive_integer
from funcnn._static import Static
from funcnn.layers.attention import (
    Keys,
    Outputs,
    Queries,
    Values,
    check_dropout,
    checked_heads,
    dropout_multiplier,
    group_queries,
    ungroup_queries,
)


class BlockwiseSettings(NamedTuple):
    """What is known while JAX traces: whether it is causal, the keys of a block, their number, the rate of dropout."""

    causal: bool
    block_size: int
    keys: int
    dropout: float


class BlockwiseAttentionResiduals(NamedTuple):
    """The arguments, the output, and one number for each query; nothing has queries times keys entries.

    Fields:
        queries, keys, values: the arguments, the queries as ``(..., key_value_heads, group, queries, features)``.
        y: the output, grouped like the queries.
        log_sum: log Σⱼ e^S[i,j] of each query's scores, ``(..., queries, 1)``.
        key: the random key of dropout.
        settings: static.
    """

    queries: Float[Array, "*batch key_value_heads group queries features"]
    keys: Keys
    values: Values
    y: Float[Array, "*batch key_value_heads group queries value_features"]
    log_sum: Float[Array, "*batch key_value_heads group queries 1"]
    key: PRNGKeyArray | None
    settings: Static


def blockwise_attention_forward(
    q: Queries,
    k: Keys,
    v: Values,
    *,
    causal: bool = False,
    block_size: int = 128,
    dropout: float = 0.0,
    key: PRNGKeyArray | None = None,
) -> tuple[Outputs, BlockwiseAttentionResiduals]:
    """Compute y = softmax(q kᵀ/√d) v, with d features of a query, by a scan over blocks of keys.

    With m for a query's largest score so far, l for Σⱼ e^(S[j] − m) and o for Σⱼ e^(S[j] − m) v[j], a block of scores S
    with values v changes them to::

        m′ = max(m, max S),    c = e^(m − m′),    l′ = c l + Σⱼ e^(S[j] − m′),    o′ = c o + Σⱼ e^(S[j] − m′) v[j]

    After the last block y = o / l and log Σⱼ e^S[j] = m + log l. Dropout with the same key drops other weights than in
    ``attention_forward``.

    Args:
        q, k, v, causal, dropout, key: as for ``attention_forward``.
        block_size: keys in a block. Memory is proportional to queries · block_size.

    Returns:
        y, ``(..., heads, queries, value_features)``, and the residuals, whose size is that of the arguments.

    Raises:
        ValueError, TypeError: as ``attention_forward``; block_size isn't a positive integer.

    Example:
        >>> q, k = jnp.array([[[0.0], [9.0]]]), jnp.array([[[-9.0], [9.0]]])
        >>> y, residuals = blockwise_attention_forward(q, k, jnp.array([[[1.0], [3.0]]]), block_size=1)
        >>> print(y.ravel())
        [2. 3.]

    Source:
        Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018; Rabe and Staats, "Self-attention does
        not need O(n²) memory", 2021; Dao et al., "FlashAttention", 2022, algorithm 1.
    """
    q, k, v = checked_heads("blockwise_attention", q, k, v, causal)
    size = min(positive_integer("blockwise_attention(block_size)", block_size), k.shape[-2])
    settings = BlockwiseSettings(causal, size, k.shape[-2], dropout)
    queries = group_queries(q, k)
    per_query = (*queries.shape[:-1], 1)
    check_dropout(dropout, key)

    def one_block(carry, block):
        largest, total, weighted = carry
        keys, values, number = block
        scores, visible = _scores(queries, keys, number, settings)
        highest = jnp.where(visible, scores, jnp.full_like(scores, -jnp.inf)).max(axis=-1, keepdims=True)
        new_largest = lax.stop_gradient(jnp.maximum(largest, highest))
        # The first block has a visible key for every query, so that new_largest is finite.
        correction = jnp.exp(largest - new_largest)
        exponentials = _exponentials(scores, new_largest, visible)
        kept = _dropped(exponentials, key, number, dropout)
        weighted = correction * weighted + jnp.einsum("...hgqk,...hkf->...hgqf", kept, values)
        return (new_largest, correction * total + exponentials.sum(axis=-1, keepdims=True), weighted), None

    start = (
        jnp.full(per_query, -jnp.inf, q.dtype),
        jnp.zeros(per_query, q.dtype),
        jnp.zeros((*queries.shape[:-1], v.shape[-1]), q.dtype),
    )
    (largest, total, weighted), _ = lax.scan(one_block, start, _blocks(k, v, settings))
    y = weighted / total
    residuals = BlockwiseAttentionResiduals(queries, k, v, y, largest + jnp.log(total), key, Static(settings))
    return y.reshape(*q.shape[:-1], v.shape[-1]), residuals


def blockwise_attention_backward(residuals: BlockwiseAttentionResiduals, dy: Outputs) -> tuple[Queries, Keys, Values]:
    """Gradients as for ``attention_backward``, with the weights of each block of keys computed again.

    W[i,j] = e^(S[i,j] − log_sum[i]), and the sum over all keys in dS needs no second pass over the blocks, because it
    is a product with the output::

        Σₖ dW[i,k] W[i,k] = Σₖ (dy[i]·v[k]) m[i,k] W[i,k] = dy[i]·y[i]

    Each block then gives its own dk and dv, and adds its part to dq::

        dS = W ((dy vᵀ) m − dy·y),    dv = (W m)ᵀ dy
        dq ← dq + dS k/√d,            dk = dSᵀ q/√d

    Args:
        residuals: from ``blockwise_attention_forward``.
        dy: cotangent of y, ``(..., heads, queries, value_features)``.

    Returns:
        The gradients ``dq``, ``dk`` and ``dv``, of the shapes of q, k and v.

    Example:
        >>> q, k = jnp.array([[[0.0], [9.0]]]), jnp.array([[[-9.0], [9.0]]])
        >>> _, residuals = blockwise_attention_forward(q, k, jnp.array([[[1.0], [3.0]]]), block_size=1)
        >>> print(blockwise_attention_backward(residuals, jnp.array([[[1.0], [0.0]]]))[2].ravel())
        [0.5 0.5]

    Source:
        Dao et al. 2022, algorithm 4 and appendix B.2.
    """
    queries, k, v, y, log_sum, key, static = residuals
    settings: BlockwiseSettings = static.value
    dy = group_queries(dy, v)
    mean = (dy * y).sum(axis=-1, keepdims=True)

    def one_block(dqueries, block):
        keys, values, number = block
        scores, visible = _scores(queries, keys, number, settings)
        weights = _exponentials(scores, log_sum, visible)
        dropped = partial(_dropped, key=key, number=number, rate=settings.dropout)
        dvalues = jnp.einsum("...hgqk,...hgqf->...hkf", dropped(weights), dy)
        dweights = dropped(jnp.einsum("...hgqf,...hkf->...hgqk", dy, values))
        dscores = _scale(queries) * weights * (dweights - mean)
        dkeys = jnp.einsum("...hgqk,...hgqf->...hkf", dscores, queries)
        return dqueries + jnp.einsum("...hgqk,...hkf->...hgqf", dscores, keys), (dkeys, dvalues)

    dqueries, (dkeys, dvalues) = lax.scan(one_block, jnp.zeros_like(queries), _blocks(k, v, settings))
    return ungroup_queries(dqueries), _joined(dkeys, k.shape), _joined(dvalues, v.shape)


def _scale(q):
    return 1 / math.sqrt(q.shape[-1])


def _scores(queries, keys, number, settings):
    """Return the scores of a block of keys, and which of them are visible."""
    scores = _scale(queries) * jnp.einsum("...hgqf,...hkf->...hgqk", queries, keys)
    shape = (1,) * (scores.ndim - 2)
    positions = (number * settings.block_size + jnp.arange(settings.block_size)).reshape(*shape, 1, -1)
    visible = positions < settings.keys
    if settings.causal:
        visible = visible & (positions <= jnp.arange(scores.shape[-2]).reshape(*shape, -1, 1))
    return scores, jnp.broadcast_to(visible, scores.shape)


def _exponentials(scores, subtracted, visible):
    shifted = jnp.where(visible, scores - subtracted, jnp.zeros_like(scores))
    return jnp.where(visible, jnp.exp(shifted), jnp.zeros_like(scores))


def _dropped(weights, key, number, rate):
    """Return the weights of a block after dropout. Each block has a key of its own, which backward makes again."""
    if rate == 0:
        return weights
    return weights * dropout_multiplier(rate, jax.random.fold_in(key, number), weights)


def _blocks(k, v, settings):
    """Return keys, values and numbers of the blocks, the blocks first; the last block is filled with zeros."""
    count = -(-settings.keys // settings.block_size)
    missing = count * settings.block_size - settings.keys

    def split(array):
        filled = jnp.pad(array, ((0, 0),) * (array.ndim - 2) + ((0, missing), (0, 0)))
        blocks = filled.reshape(*array.shape[:-2], count, settings.block_size, array.shape[-1])
        return jnp.moveaxis(blocks, -3, 0)

    return split(k), split(v), jnp.arange(count)


def _joined(blocks, shape):
    """Return blocks as one array of a shape, without what the last one was filled with."""
    joined = jnp.moveaxis(blocks, 0, -3).reshape(*shape[:-2], -1, shape[-1])
    return joined[..., : shape[-2], :]
