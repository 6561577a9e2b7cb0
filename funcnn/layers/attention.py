"""Attention: means of values, weighted by the softmax of products of queries and keys.

Queries are ``(..., heads, queries, features)``, keys and values ``(..., key_value_heads, keys, features)``. Where there
are fewer heads of keys than of queries, as many neighbouring heads of queries share one (grouped queries).
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from funcnn._checks import describe, floating_array
from funcnn.layers.dropout import check_rate

Queries = Float[Array, "*batch heads queries features"]
Keys = Float[Array, "*batch key_value_heads keys features"]
Values = Float[Array, "*batch key_value_heads keys value_features"]
Outputs = Float[Array, "*batch heads queries value_features"]


class AttentionResiduals(NamedTuple):
    """What backward needs of the forward pass; G is the number of query heads that share a head of keys and values.

    Fields:
        queries, keys, values: the arguments, the queries as ``(..., key_value_heads, G, queries, features)``.
        weights: the softmax, ``(..., key_value_heads, G, queries, keys)``.
        multiplier: of the weights by dropout, 1/(1 − rate) or 0; ``None`` where nothing is dropped.
    """

    queries: Float[Array, "*batch key_value_heads group queries features"]
    keys: Keys
    values: Values
    weights: Float[Array, "*batch key_value_heads group queries keys"]
    multiplier: Float[Array, "*batch key_value_heads group queries keys"] | None


def attention_forward(
    q: Queries,
    k: Keys,
    v: Values,
    *,
    causal: bool = False,
    mask: Bool[Array | np.ndarray, "..."] | None = None,
    dropout: float = 0.0,
    key: PRNGKeyArray | None = None,
) -> tuple[Outputs, AttentionResiduals]:
    """Compute scaled dot-product attention, y = softmax(q kᵀ/√d) v, with d features of a query.

    Every query's output is the mean of the values, weighted by how well their keys fit the query. The softmax is over
    the keys; each row's largest score is subtracted first, so that no exponent is positive. A query without a visible
    key gets 0.

    Args:
        q: queries, ``(..., heads, queries, features)``.
        k: keys, ``(..., key_value_heads, keys, features)``; heads is a multiple of key_value_heads.
        v: values, ``(..., key_value_heads, keys, value_features)``.
        causal: whether query i sees the keys 0…i alone; there are then as many keys as queries.
        mask: where it is False, a query doesn't see a key; ``(queries, keys)``, or of the scores' shape,
            ``(..., heads, queries, keys)``, or with axes of length 1 in its place.
        dropout: the probability to drop a weight, in [0, 1); the others are divided by 1 − dropout.
        key: random key for dropout; ``None`` where nothing is dropped.

    Returns:
        y, ``(..., heads, queries, value_features)``, and the residuals, of the size of heads · queries · keys.

    Raises:
        ValueError: shapes that don't fit each other, dropout without a key, a rate outside [0, 1).
        TypeError: an argument isn't floating, or they have different dtypes; a mask that isn't boolean.

    Example:
        >>> q, k = jnp.array([[[0.0], [9.0]]]), jnp.array([[[-9.0], [9.0]]])
        >>> y, residuals = attention_forward(q, k, jnp.array([[[1.0], [3.0]]]))
        >>> print(y.ravel())
        [2. 3.]

    Source:
        Vaswani et al., "Attention is all you need", 2017, equation 1; Ainslie et al., "GQA: training generalized
        multi-query transformer models from multi-head checkpoints", 2023, for the shared keys and values.
    """
    q, k, v = checked_heads("attention", q, k, v, causal)
    grouped = group_queries(q, k)
    scores = _scale(q) * jnp.einsum("...hgqf,...hkf->...hgqk", grouped, k)
    weights = _masked_softmax(scores, _visible(scores, causal, mask))
    multiplier = dropout_multiplier(dropout, key, weights)
    residuals = AttentionResiduals(grouped, k, v, weights, multiplier)
    y = jnp.einsum("...hgqk,...hkf->...hgqf", _dropped(weights, multiplier), v)
    return y.reshape(*q.shape[:-1], v.shape[-1]), residuals


def attention_backward(residuals: AttentionResiduals, dy: Outputs) -> tuple[Queries, Keys, Values]:
    """Gradients of y = D v with D = W m, W = softmax(S), S = q kᵀ/√d, and m the multiplier of dropout.

    With i for queries, j for keys and d features of a query, and the products over features written out as matrices::

        dv = Dᵀ dy
        dW = (dy vᵀ) m
        dS[i,j] = W[i,j] (dW[i,j] − Σₖ dW[i,k] W[i,k])
        dq = dS k/√d
        dk = dSᵀ q/√d

    A value is in the output of every query that sees it, and a key in the scores of every query. The third line follows
    from ∂W[i,k]/∂S[i,j] = W[i,k] (1[j = k] − W[i,j]).

    Query heads that share keys and values add up in dk and dv. Scores that a mask hides have W = 0, and so dS = 0.

    Args:
        residuals: from ``attention_forward``.
        dy: cotangent of y, ``(..., heads, queries, value_features)``.

    Returns:
        The gradients ``dq``, ``dk`` and ``dv``, of the shapes of q, k and v.

    Example:
        >>> q, k = jnp.array([[[0.0], [9.0]]]), jnp.array([[[-9.0], [9.0]]])
        >>> _, residuals = attention_forward(q, k, jnp.array([[[1.0], [3.0]]]))
        >>> print(attention_backward(residuals, jnp.array([[[1.0], [0.0]]]))[2].ravel())
        [0.5 0.5]

    Source:
        Vaswani et al. 2017; Dao, Fu, Ermon, Rudra and Ré, "FlashAttention", 2022, appendix B.2.
    """
    queries, keys, values, weights, multiplier = residuals
    dy = group_queries(dy, values)
    dvalues = jnp.einsum("...hgqk,...hgqf->...hkf", _dropped(weights, multiplier), dy)
    dweights = _dropped(jnp.einsum("...hgqf,...hkf->...hgqk", dy, values), multiplier)
    dscores = weights * (dweights - (dweights * weights).sum(axis=-1, keepdims=True))
    dqueries = _scale(queries) * jnp.einsum("...hgqk,...hkf->...hgqf", dscores, keys)
    dkeys = _scale(queries) * jnp.einsum("...hgqk,...hgqf->...hkf", dscores, queries)
    return ungroup_queries(dqueries), dkeys, dvalues


def checked_heads(name: str, q: Any, k: Any, v: Any, causal: bool) -> tuple[Array, Array, Array]:
    """Return queries, keys and values as arrays; raise where they don't fit each other."""
    q, k, v = (floating_array(f"{name}({word})", array) for word, array in zip("qkv", (q, k, v), strict=True))
    for word, array in zip("qkv", (q, k, v), strict=True):
        if array.ndim < 3 or not array.size:
            raise ValueError(
                f"{name}({word}): expected shape (..., heads, time, features), no axis empty, got {array.shape}. "
                "For a single head, pass an axis of length 1."
            )
    if not q.dtype == k.dtype == v.dtype:
        raise TypeError(
            f"{name}: expected q, k and v of one dtype, got {q.dtype}, {k.dtype} and {v.dtype}. Cast them to one."
        )
    if k.shape[:-1] != v.shape[:-1] or q.shape[:-3] != k.shape[:-3] or q.shape[-1] != k.shape[-1]:
        raise ValueError(
            f"{name}: expected q (..., heads, queries, features), k (..., key_value_heads, keys, features) and "
            f"v (..., key_value_heads, keys, value_features), got {q.shape}, {k.shape} and {v.shape}. "
            "Axes of one name have one length."
        )
    if q.shape[-3] % k.shape[-3]:
        raise ValueError(
            f"{name}: expected a number of query heads that the {k.shape[-3]} heads of k and v divide, got "
            f"{q.shape[-3]}. Give q a multiple of them: as many query heads share each."
        )
    if causal and q.shape[-2] != k.shape[-2]:
        raise ValueError(
            f"{name}(causal): expected as many keys as queries, got {k.shape[-2]} keys and {q.shape[-2]} queries. "
            "Pass a mask that says which query sees which key."
        )
    return q, k, v


def group_queries(q: Array, k: Array) -> Array:
    """Return ``(..., heads, queries, features)`` as ``(..., key_value_heads, group, queries, features)``."""
    return q.reshape(*k.shape[:-2], q.shape[-3] // k.shape[-3], *q.shape[-2:])


def ungroup_queries(q: Array) -> Array:
    """Return ``(..., key_value_heads, group, queries, features)`` as ``(..., heads, queries, features)``."""
    return q.reshape(*q.shape[:-4], q.shape[-4] * q.shape[-3], *q.shape[-2:])


def dropout_multiplier(rate: float, key: PRNGKeyArray | None, like: Array) -> Array | None:
    """Return 1/(1 − rate) where a weight is kept and 0 where it is dropped; ``None`` for a rate of 0."""
    check_dropout(rate, key)
    if rate == 0 or key is None:
        return None
    kept = jax.random.bernoulli(key, 1 - rate, like.shape)
    return jnp.where(kept, jnp.full_like(like, 1 / (1 - rate)), jnp.zeros_like(like))


def check_dropout(rate: float, key: PRNGKeyArray | None) -> None:
    """Raise where a rate isn't in [0, 1), or has no random key."""
    check_rate("attention(dropout)", rate)
    if rate != 0 and key is None:
        raise ValueError(
            "attention(dropout): expected a random key for dropout, got key=None. Pass key=jax.random.key(0), and a "
            "new one at every step; in prediction leave dropout out."
        )


def attention_entropy(weights: Float[Array, "*rows keys"]) -> Float[Array, "*rows"]:
    """Return the entropy of each query's weights in nats: 0 for a single key, log n for n equal weights.

    Example:
        >>> bool(jnp.allclose(attention_entropy(jnp.array([[0.5, 0.5], [1.0, 0.0]])), jnp.array([jnp.log(2.0), 0.0])))
        True
    """
    is_positive = weights > 0
    return -(weights * jnp.log(jnp.where(is_positive, weights, jnp.ones_like(weights)))).sum(axis=-1)


def _scale(q):
    return 1 / math.sqrt(q.shape[-1])


def _dropped(weights, multiplier):
    return weights if multiplier is None else weights * multiplier


def _visible(scores, causal, mask):
    """Return which scores are visible, of a shape that broadcasts with them; ``None`` for all."""
    *_, heads, group, queries, keys = scores.shape
    visible = None
    if causal:
        visible = jnp.asarray(np.tri(queries, keys, dtype=bool)).reshape((1,) * (scores.ndim - 2) + (queries, keys))
    if mask is None:
        return visible
    mask = jnp.asarray(mask)
    if mask.dtype != jnp.bool_:
        raise TypeError(
            f"attention(mask): expected a boolean mask, True where a query sees a key, got {describe(mask)}. "
            "Compare: mask > 0."
        )
    full, given = (*scores.shape[:-4], heads * group, queries, keys), mask.shape
    if mask.ndim == 2:
        mask = mask.reshape((1,) * (len(full) - 2) + mask.shape)
    if len(mask.shape) != len(full) or any(a not in (1, b) for a, b in zip(mask.shape, full, strict=True)):
        raise ValueError(
            f"attention(mask): expected shape {(queries, keys)} or {full}, where any axis may have length 1, "
            f"got {given}. {_mask_advice(given, full)}"
        )
    split = (1, 1) if mask.shape[-3] == 1 else (heads, group)
    mask = mask.reshape(*mask.shape[:-3], *split, *mask.shape[-2:])
    return mask if visible is None else visible & mask


def _mask_advice(shape, full):
    """Return how to bring a mask to the shape of the scores."""
    *batch, _, queries, keys = full
    if len(batch) == 1 and shape == (*batch, keys):
        return "Reshape the mask of each sample's keys: mask[:, None, None, :]."
    if len(batch) == 1 and shape == (*batch, queries, keys):
        return "Reshape the mask, with an axis for the heads: mask[:, None]."
    return f"Reshape the mask, or make it for {queries} queries and {keys} keys."


def _masked_softmax(scores, visible):
    """Return the softmax over the visible keys, 0 elsewhere; rows without a visible key are 0."""
    if visible is None:
        exponentials = jnp.exp(scores - lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
        return exponentials / exponentials.sum(axis=-1, keepdims=True)
    lowest = jnp.full_like(scores, jnp.finfo(scores.dtype).min)
    largest = lax.stop_gradient(jnp.where(visible, scores, lowest).max(axis=-1, keepdims=True))
    # Hidden scores are kept out of exp, where they could overflow.
    shifted = jnp.where(visible, scores - largest, jnp.zeros_like(scores))
    exponentials = jnp.where(visible, jnp.exp(shifted), jnp.zeros_like(scores))
    sums = exponentials.sum(axis=-1, keepdims=True)
    return exponentials / jnp.where(sums > 0, sums, jnp.ones_like(sums))
