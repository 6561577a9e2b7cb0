"""Self-attention: every position of a sequence attends to the positions of the same sequence."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from funcnn._checks import check_callable, checked_bool, positive_integer
from funcnn._memoise import memoised
from funcnn.layers._sequences import sequence_array
from funcnn.layers.attention import AttentionResiduals, attention_backward, attention_forward
from funcnn.layers.blockwise_attention import (
    BlockwiseAttentionResiduals,
    blockwise_attention_backward,
    blockwise_attention_forward,
)
from funcnn.layers.dropout import check_rate
from funcnn.layers.initializers import xavier
from funcnn.layers.linear import LinearParams, LinearResiduals, linear_backward, linear_forward, linear_init
from funcnn.layers.positions import RotaryResiduals, rotary_backward, rotary_forward
from funcnn.types import Decoding, KernelInit, Layer, LayerSpec

Sequences = Float[Array, "*batch time features"]


class AttentionParams(NamedTuple):
    """The linear maps to queries, keys and values, and the one of the heads' outputs. Also the type of their gradients.

    ``query`` and ``output`` have kernels ``(features, features)``, ``key`` and ``value`` ``(features, key_value_heads ·
    features/heads)``. The columns of a head are neighbours.
    """

    query: LinearParams
    key: LinearParams
    value: LinearParams
    output: LinearParams


class SelfAttentionResiduals(NamedTuple):
    """The residuals of each part; ``rotations`` is ``None`` without rotary positions."""

    query: LinearResiduals
    key: LinearResiduals
    value: LinearResiduals
    rotations: RotaryResiduals | None
    attention: AttentionResiduals | BlockwiseAttentionResiduals
    output: LinearResiduals


class KeyValueCache(NamedTuple):
    """Keys and values, ``(batch, key_value_heads, length, features)``, and how many positions of them are filled."""

    keys: Float[Array, "batch key_value_heads length features"]
    values: Float[Array, "batch key_value_heads length features"]
    filled: Array


def self_attention_forward(
    params: AttentionParams,
    x: Sequences,
    *,
    heads: int,
    causal: bool = False,
    dropout: float = 0.0,
    key: PRNGKeyArray | None = None,
    rotary: bool = False,
    block_size: int | None = None,
) -> tuple[Sequences, SelfAttentionResiduals]:
    """Compute y = concat(headₕ) K_o + b_o with headₕ = softmax(qₕ kₕᵀ/√d) vₕ, where q, k and v are linear in x.

    Each head has d = features/heads features.

    Args:
        params: the four linear maps.
        x: ``(batch, ..., time, features)``, in the parameters' dtype.
        heads: heads of the queries; those of keys and values follow from the kernels.
        causal, dropout, key: as for ``attention_forward``.
        rotary: whether queries and keys are rotated by their positions.
        block_size: keys in a block of ``blockwise_attention_forward``, ``None`` for ``attention_forward``.

    Returns:
        y, of x's shape, and the residuals.

    Raises:
        ValueError, TypeError: x or the parameters don't fit each other or the heads; dropout without a key.

    Example:
        >>> layer = self_attention(4, 2)
        >>> params, _ = layer.init(jax.random.key(0))
        >>> self_attention_forward(params, jnp.ones((3, 5, 4)), heads=2)[0].shape
        (3, 5, 4)

    Source:
        Vaswani et al. 2017, section 3.2.2; Ainslie et al. 2023; Su et al. 2021.
    """
    features, dtype = params.query.kernel.shape[0], params.query.kernel.dtype
    x = sequence_array(f"self_attention({features}, {heads})", x, features, dtype)
    (q, k, v), (query, key_map, value) = _project(params, x, heads)
    rotations = None
    if rotary:
        (q, rotations), (k, _) = rotary_forward(q), rotary_forward(k)
    attention: AttentionResiduals | BlockwiseAttentionResiduals
    if block_size is None:
        attended, attention = attention_forward(q, k, v, causal=causal, dropout=dropout, key=key)
    else:
        attended, attention = blockwise_attention_forward(
            q, k, v, causal=causal, block_size=block_size, dropout=dropout, key=key
        )
    y, output = linear_forward(params.output, _joined_heads(attended))
    return y, SelfAttentionResiduals(query, key_map, value, rotations, attention, output)


def self_attention_backward(residuals: SelfAttentionResiduals, dy: Sequences) -> tuple[AttentionParams, Sequences]:
    """Gradients by the chain rule: through the output map, the attention, the rotations, and the three maps of x.

    x is used three times, so its gradients add up::

        dx = dq K_qᵀ + dk K_kᵀ + dv K_vᵀ

    Args:
        residuals: from ``self_attention_forward``.
        dy: cotangent of y, ``(batch, ..., time, features)``.

    Returns:
        The gradients of the parameters, and ``dx``.

    Example:
        >>> layer = self_attention(4, 2)
        >>> params, _ = layer.init(jax.random.key(0))
        >>> y, residuals = self_attention_forward(params, jnp.ones((3, 5, 4)), heads=2)
        >>> self_attention_backward(residuals, y)[1].shape
        (3, 5, 4)

    Source:
        Vaswani et al. 2017.
    """
    attention = residuals.attention
    doutput, dattended = linear_backward(residuals.output, dy)
    heads = attention.queries.shape[-4] * attention.queries.shape[-3]
    if isinstance(attention, AttentionResiduals):
        dq, dk, dv = attention_backward(attention, _split_heads(dattended, heads))
    else:
        dq, dk, dv = blockwise_attention_backward(attention, _split_heads(dattended, heads))
    if residuals.rotations is not None:
        dq, dk = rotary_backward(residuals.rotations, dq), rotary_backward(residuals.rotations, dk)
    dquery, dx_query = linear_backward(residuals.query, _joined_heads(dq))
    dkey, dx_key = linear_backward(residuals.key, _joined_heads(dk))
    dvalue, dx_value = linear_backward(residuals.value, _joined_heads(dv))
    return AttentionParams(dquery, dkey, dvalue, doutput), dx_query + dx_key + dx_value


def _project(params, x, heads):
    """Return queries, keys and values, ``(..., heads, time, features of a head)``, and the residuals of their maps."""
    width = params.query.kernel.shape[1] // heads
    projected = [linear_forward(part, x) for part in (params.query, params.key, params.value)]
    heads_of = tuple(_split_heads(y, y.shape[-1] // width) for y, _ in projected)
    return heads_of, tuple(residuals for _, residuals in projected)


def _split_heads(array, heads):
    """Return ``(..., time, heads · width)`` as ``(..., heads, time, width)``."""
    return array.reshape(*array.shape[:-1], heads, array.shape[-1] // heads).swapaxes(-2, -3)


def _joined_heads(array):
    """Return ``(..., heads, time, width)`` as ``(..., time, heads · width)``."""
    by_time = array.swapaxes(-2, -3)
    return by_time.reshape(*by_time.shape[:-2], by_time.shape[-2] * by_time.shape[-1])


def _attention_init(key, *, features, heads, key_value_heads, kernel_init, output_init):
    narrow = key_value_heads * (features // heads)
    parts = ((features, kernel_init), (narrow, kernel_init), (narrow, kernel_init), (features, output_init))
    maps = [
        linear_init(part_key, in_features=features, out_features=width, kernel_init=init)[0]
        for part_key, (width, init) in zip(jax.random.split(key, 4), parts, strict=True)
    ]
    return AttentionParams(*maps), ()


def _layer_forward(params, state, x, *, train, key=None, dropout, **settings):
    if not checked_bool("self_attention: train", train):
        dropout = 0.0
    if dropout and key is None:
        raise ValueError(
            f"self_attention(dropout={dropout}): expected a random key while training, got key=None. Pass one with the "
            "call: forward(params, state, x, train=True, key=jax.random.key(0)), and a new one at every step."
        )
    y, residuals = self_attention_forward(params, x, dropout=dropout, key=key, **settings)
    return y, state, residuals


def _attention_weights(residuals):
    return residuals.attention.weights


def _start_cache(heads, key_value_heads, params, samples, length):
    kernel = params.query.kernel
    empty = jnp.zeros((samples, key_value_heads, length, kernel.shape[1] // heads), kernel.dtype)
    return KeyValueCache(empty, empty, jnp.zeros((), jnp.int32))


def _advance(heads, rotary, params, cache, x):
    """Return the output at the next positions, from their queries and the keys and values of all positions so far."""
    (q, k, v), _ = _project(params, x, heads)
    if rotary:
        (q, _), (k, _) = rotary_forward(q, first=cache.filled), rotary_forward(k, first=cache.filled)
    keys = lax.dynamic_update_slice_in_dim(cache.keys, k, cache.filled, axis=-2)
    values = lax.dynamic_update_slice_in_dim(cache.values, v, cache.filled, axis=-2)
    queries, length = x.shape[-2], keys.shape[-2]
    positions = cache.filled + jnp.arange(queries, dtype=jnp.int32)
    is_visible = jnp.arange(length, dtype=jnp.int32)[None, :] <= positions[:, None]
    attended, _ = attention_forward(q, keys, values, mask=is_visible)
    y, _ = linear_forward(params.output, _joined_heads(attended))
    return y, KeyValueCache(keys, values, cache.filled + queries)


@memoised
def self_attention(
    features: int,
    heads: int,
    *,
    causal: bool = False,
    dropout: float = 0.0,
    key_value_heads: int | None = None,
    rotary: bool = False,
    block_size: int | None = None,
    kernel_init: KernelInit = xavier,
    output_init: KernelInit | None = None,
) -> Layer:
    """Multi-head self-attention, y = concat(headₕ) K_o + b_o with headₕ = softmax(qₕ kₕᵀ/√d) vₕ.

    Each head has d = features/heads features; q, k and v are linear in x.

    Args:
        features: features of x and y.
        heads: heads of the queries, a divisor of features.
        causal: whether a position attends to itself and to earlier positions alone.
        dropout: the probability to drop an attention weight in training, in [0, 1).
        key_value_heads: heads of keys and values, a divisor of heads: as many neighbouring query heads share each;
            ``None`` for as many as heads, 1 for multi-query attention.
        rotary: whether queries and keys are rotated by their positions (``rotary_forward``).
        block_size: keys in a block of the blockwise form, whose memory grows with the length of the sequence and not
            with its square; ``None`` for the plain form.
        kernel_init: ``(key, shape) -> kernel`` of the maps to queries, keys and values.
        output_init: that of the output map; ``None`` for kernel_init.

    Returns:
        The layer, from ``(batch, time, features)`` to the same shape. Its parameters are
        ``AttentionParams(query, key, value, output)``, each ``LinearParams(kernel, bias)``; it has no state. With
        dropout its forward needs a key in training.

    Raises:
        ValueError, TypeError: heads that don't divide the features, key_value_heads that don't divide the heads, an odd
            number of features of a head with rotary, a rate outside [0, 1), other settings of another kind.

    Example:
        >>> layer = self_attention(8, 4, causal=True, key_value_heads=2, rotary=True)
        >>> params, state = layer.init(jax.random.key(0))
        >>> params.key.kernel.shape, layer.forward(params, state, jnp.ones((2, 5, 8)), train=False)[0].shape
        ((8, 4), (2, 5, 8))

    Source:
        Vaswani et al. 2017, section 3.2.2; Shazeer, "Fast transformer decoding: one write-head is all you need", 2019;
        Ainslie et al. 2023; Su et al. 2021; Dao et al. 2022.
    """
    features = positive_integer("self_attention(features)", features)
    heads = _checked_divisor("heads", heads, "features", features)
    shared = _checked_divisor("key_value_heads", heads if key_value_heads is None else key_value_heads, "heads", heads)
    causal = checked_bool("self_attention(causal)", causal)
    rotary = checked_bool("self_attention(rotary)", rotary)
    check_rate("self_attention(dropout)", dropout)
    if rotary and features // heads % 2:
        raise ValueError(
            f"self_attention(rotary): expected an even number of features in each head, got {features} features in "
            f"{heads} heads. Choose heads so that features / heads is even."
        )
    if block_size is not None:
        block_size = positive_integer("self_attention(block_size)", block_size)
    output_init = kernel_init if output_init is None else output_init
    for name, init in (("kernel_init", kernel_init), ("output_init", output_init)):
        check_callable(f"self_attention({name})", init, "Pass one of jax.nn.initializers: he_normal(), zeros.")
    settings: dict[str, Any] = {
        "features": features, "heads": heads, "causal": causal, "dropout": dropout, "key_value_heads": shared,
        "rotary": rotary, "block_size": block_size, "kernel_init": kernel_init, "output_init": output_init,
    }  # fmt: skip
    decoding = Decoding(partial(_start_cache, heads, shared), partial(_advance, heads, rotary))
    return Layer(
        partial(
            _attention_init, features=features, heads=heads, key_value_heads=shared, kernel_init=kernel_init,
            output_init=output_init,
        ),
        partial(
            _layer_forward, heads=heads, causal=causal, dropout=dropout, rotary=rotary, block_size=block_size
        ),
        self_attention_backward,
        LayerSpec(
            "self_attention",
            settings=tuple(settings.items()),
            drop_rate=dropout,
            decoding=decoding if causal else None,
            attention_weights=_attention_weights if block_size is None else None,
        ),
    )  # fmt: skip


def _checked_divisor(word: str, count: Any, of_word: str, of: int) -> int:
    count = positive_integer(f"self_attention({word})", count)
    if of % count:
        divisors = ", ".join(str(number) for number in range(1, of + 1) if of % number == 0)
        raise ValueError(
            f"self_attention({word}): expected a divisor of the {of} {of_word}, got {count}. Choose one of {divisors}."
        )
    return count
