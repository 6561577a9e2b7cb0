"""Bugs in the backward pass of attention with heads: grouped keys and values, masks, dropout, blocks of keys."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import logsumexp

from experiments.benchmarks.catalogue.case import Problem, normal, squared_error, squared_error_backward

THEME = "attention heads"
SAMPLES, TIME, HEADS, SHARED, WIDTH = 2, 4, 4, 2, 3
FEATURES, GROUP = HEADS * WIDTH, HEADS // SHARED
QUERY, KEY, VALUE, OUTPUT, BIAS = "['query']", "['key']", "['value']", "['output']", "['bias']"
CAUSAL = np.tri(TIME, dtype=bool)
RATE = 0.25


# Queries of four heads, two for each head of keys and values; a learned bias for each distance of key and query; and
# dropped weights, given as an argument.
def make(dtype):
    query, key, value, output, bias, x, y = normal(
        dtype, 331, (3, FEATURES), (3, SHARED * WIDTH), (3, SHARED * WIDTH), (FEATURES, FEATURES), (TIME,),
        (SAMPLES, TIME, 3), (SAMPLES, TIME, FEATURES),
    )  # fmt: skip
    kept = np.random.default_rng(332).random((SAMPLES, HEADS, TIME, TIME)) > RATE
    params = {"query": query, "key": key, "value": value, "output": output / 2, "bias": bias}
    return params, (jnp.asarray(kept / (1 - RATE), dtype), x, y)


def split(h):
    return h.reshape(SAMPLES, TIME, -1, WIDTH).swapaxes(1, 2)


def join(heads):
    return heads.swapaxes(1, 2).reshape(SAMPLES, TIME, -1)


def repeated(heads):
    return jnp.repeat(heads, GROUP, axis=1)


def distances():
    return np.maximum(np.arange(TIME)[:, None] - np.arange(TIME), 0)


def scores_of(q, k, bias):
    return q @ repeated(k).swapaxes(2, 3) * WIDTH**-0.5 + bias[distances()]


def weights_of(scores, visible=CAUSAL):
    return jax.nn.softmax(jnp.where(visible, scores, -jnp.inf))


def forward(params, multiplier, x):
    q, k, v = (split(x @ params[name]) for name in ("query", "key", "value"))
    scores = scores_of(q, k, params["bias"])
    p = weights_of(scores)
    attended = join((p * multiplier) @ repeated(v))
    return q, k, v, scores, p, attended, attended @ params["output"]


def loss_fn(params, multiplier, x, y):
    return squared_error(forward(params, multiplier, x)[-1], y)


def summed_over_the_group(heads):
    return heads.reshape(SAMPLES, SHARED, GROUP, TIME, WIDTH).sum(axis=2)


def softmax_backward(p, dp, multiplier, scores):
    return p * (dp - (dp * p).sum(axis=-1, keepdims=True))


def bias_gradient(ds):
    sums = ds.sum(axis=(0, 1))
    return jnp.stack([jnp.trace(sums, offset=-distance) for distance in range(TIME)])


def gradient(
    dattended=lambda dy, output: split(dy @ output.T),
    doutput=lambda attended, dy, v: jnp.einsum("ntf,ntg->fg", attended, dy),
    weights=lambda p, scores: p,
    dscores=softmax_backward,
    in_values=lambda p, multiplier, scores: p * multiplier,
    in_weights=lambda dp, multiplier: dp * multiplier,
    dbias=bias_gradient,
    scale=WIDTH**-0.5,
    dq=lambda ds, k: ds @ repeated(k),
    dk=lambda ds, q: summed_over_the_group(ds.swapaxes(2, 3) @ q),
    group=summed_over_the_group,
):
    def grad_fn(params, multiplier, x, y):
        q, k, v, scores, p, attended, y_hat = forward(params, multiplier, x)
        dy = squared_error_backward(y_hat, y)
        dheads, p = dattended(dy, params["output"]), weights(p, scores)
        dv = group(in_values(p, multiplier, scores).swapaxes(2, 3) @ dheads)
        dp = in_weights(dheads @ repeated(v).swapaxes(2, 3), multiplier)
        ds = dscores(p, dp, multiplier, scores)
        parts = {"query": dq(ds, k) * scale, "key": dk(ds, q) * scale, "value": dv}
        kernels = {name: jnp.einsum("ntf,ntg->fg", x, join(part)) for name, part in parts.items()}
        return kernels | {"output": doutput(attended, dy, repeated(v)), "bias": dbias(ds)}

    return grad_fn


attention = Problem(THEME, loss_fn, gradient, make)


def first_of_the_group(heads):
    return heads[:, ::GROUP]


def mean_over_the_group(heads):
    return summed_over_the_group(heads) / GROUP


def every_other_head(heads):
    """Heads that share keys, taken for those at a distance rather than for neighbours."""
    return heads.reshape(SAMPLES, GROUP, SHARED, TIME, WIDTH).sum(axis=1)


def tiled(heads):
    return jnp.tile(heads, (1, GROUP, 1, 1))


SHARING = (
    attention.bug(
        "kv_heads_first_of_the_group", {"lost_use", "lost_path"}, KEY,
        dk=lambda ds, q: first_of_the_group(ds.swapaxes(2, 3) @ q),
    ),
    attention.bug("kv_heads_first_of_the_group_for_values", {"lost_use", "lost_path"}, VALUE, group=first_of_the_group),
    attention.bug("kv_heads_mean_over_the_group", {"scaled"}, VALUE, group=mean_over_the_group),
    attention.bug("kv_heads_of_every_other_query_head", {"wrong_axis", "wrong_operand"}, VALUE, group=every_other_head),
    attention.bug("kv_heads_tiled_for_repeated", {"wrong_operand", "unit"}, QUERY, dq=lambda ds, k: ds @ tiled(k)),
    attention.bug(
        "heads_joined_without_exchange", {"transposed"}, VALUE,
        dattended=lambda dy, output: (dy @ output.T).reshape(SAMPLES, HEADS, TIME, WIDTH),
    ),
    attention.bug("heads_output_untransposed", {"transposed"}, VALUE, dattended=lambda dy, output: split(dy @ output)),
    attention.bug(
        "heads_output_by_the_values", {"wrong_operand"}, OUTPUT,
        doutput=lambda attended, dy, v: jnp.einsum("ntf,ntg->fg", join(v), dy),
    ),
    attention.bug("heads_scaled_by_all_features", {"scaled"}, QUERY, scale=FEATURES**-0.5),
    attention.bug("heads_scaled_twice", {"scaled"}, KEY, scale=1 / WIDTH),
    attention.bug(
        "heads_last_head_lost", {"lost_path", "unit"}, KEY,
        dk=lambda ds, q: summed_over_the_group((ds.swapaxes(2, 3) @ q).at[:, -1].set(0)),
    ),
)  # fmt: skip


MASKS = (
    attention.bug(
        "heads_causal_mask_missing", {"mask"}, QUERY, weights=lambda p, scores: weights_of(scores, np.True_)
    ),
    attention.bug(
        "heads_causal_mask_of_the_past_alone", {"mask"}, QUERY,
        # The first query sees itself, as it would otherwise see nothing.
        weights=lambda p, scores: weights_of(scores, np.tri(TIME, k=-1, dtype=bool) | (np.arange(TIME) == 0)),
    ),
    attention.bug(
        "heads_causal_mask_after_the_softmax", {"mask"}, VALUE,
        weights=lambda p, scores: jax.nn.softmax(scores) * CAUSAL,
    ),
    attention.bug("heads_dropout_forgotten_for_values", {"mask"}, VALUE, in_values=lambda p, multiplier, scores: p),
    attention.bug("heads_dropout_forgotten_for_weights", {"mask"}, QUERY, in_weights=lambda dp, multiplier: dp),
    attention.bug(
        "heads_dropout_not_rescaled", {"scaled"}, VALUE,
        in_values=lambda p, multiplier, scores: p * multiplier * (1 - RATE),
    ),
    attention.bug(
        "heads_dropout_of_another_sample", {"mask"}, VALUE, in_values=lambda p, multiplier, scores: p * multiplier[::-1]
    ),
    attention.bug(
        "heads_softmax_of_dropped_weights", {"mask", "wrong_operand"}, QUERY,
        dscores=lambda p, dp, multiplier, scores: softmax_backward(p * multiplier, dp, multiplier, scores),
    ),
    attention.bug(
        "heads_dropout_applied_twice", {"mask", "scaled"}, QUERY,
        in_weights=lambda dp, multiplier: dp * multiplier**2,
    ),
)  # fmt: skip


def blockwise_dscores(p, dp, multiplier, scores):
    """Blocks of two keys, each with the sum over its own keys alone."""
    inner = (dp * p).reshape(*p.shape[:-1], TIME // 2, 2).sum(axis=-1)
    return p * (dp - jnp.repeat(inner, 2, axis=-1))


def blockwise_weights(p, scores):
    """Blocks of two keys, each divided by the sum over its own keys alone."""
    visible = jnp.where(CAUSAL, scores, jnp.finfo(scores.dtype).min / 2)
    by_block = visible.reshape(*scores.shape[:-1], TIME // 2, 2)
    return jnp.where(CAUSAL, jnp.exp(by_block - logsumexp(by_block, axis=-1, keepdims=True)).reshape(p.shape), 0)


SOFTMAX = (
    attention.bug(
        "heads_softmax_of_the_diagonal", {"activation_derivative"}, QUERY,
        dscores=lambda p, dp, multiplier, scores: p * (1 - p) * dp,
    ),
    attention.bug(
        "heads_softmax_sum_over_heads", {"activation_derivative", "wrong_axis"}, QUERY,
        dscores=lambda p, dp, multiplier, scores: p * (dp - (dp * p).sum(axis=1, keepdims=True)),
    ),
    attention.bug(
        "heads_softmax_mean_for_weighted_sum", {"activation_derivative"}, QUERY,
        dscores=lambda p, dp, multiplier, scores: p * (dp - dp.mean(axis=-1, keepdims=True)),
    ),
    attention.bug(
        "blockwise_sum_of_each_block", {"activation_derivative", "wrong_axis"}, QUERY, dscores=blockwise_dscores
    ),
    attention.bug(
        "blockwise_softmax_of_each_block", {"activation_derivative", "wrong_axis"}, QUERY, weights=blockwise_weights
    ),
    attention.bug(
        "blockwise_last_block_left_out", {"lost_path"}, QUERY,
        dq=lambda ds, k: ds[..., :2] @ repeated(k)[:, :, :2],
    ),
    attention.bug(
        "heads_values_by_the_scores", {"wrong_operand", "activation_derivative"}, VALUE,
        in_values=lambda p, multiplier, scores: jnp.where(CAUSAL, scores, 0) * multiplier,
    ),
    attention.bug(
        "relative_bias_scaled_as_the_scores", {"scaled"}, BIAS, dbias=lambda ds: bias_gradient(ds) * WIDTH**-0.5
    ),
    attention.bug(
        "relative_bias_of_the_last_query", {"lost_use", "lost_path"}, BIAS,
        dbias=lambda ds: ds.sum(axis=(0, 1))[-1, ::-1],
    ),
    attention.bug(
        "relative_bias_by_key_for_distance", {"wrong_axis"}, BIAS, dbias=lambda ds: ds.sum(axis=(0, 1, 2))
    ),
    attention.bug(
        "relative_bias_in_reverse", {"kernel_flipped"}, BIAS, dbias=lambda ds: bias_gradient(ds)[::-1]
    ),
)  # fmt: skip

CASES = SHARING + MASKS + SOFTMAX
