"""Attention by hand: causal with several heads, rotary with shared keys and padding, and with relative positions."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind.model import Model, jax_normal

BATCH, TIME, WIDTH, HEADS = 2, 5, 8, 2
DEPTH = WIDTH // HEADS
FAR_BELOW = -1e9


def split(x):
    """Return ``(batch, time, width)`` as ``(batch, heads, time, depth)``."""
    return x.reshape(BATCH, TIME, HEADS, DEPTH).transpose(0, 2, 1, 3)


def merge(x):
    """Return ``(batch, heads, time, depth)`` as ``(batch, time, width)``."""
    return x.transpose(0, 2, 1, 3).reshape(BATCH, TIME, WIDTH)


def flat(x):
    """Return the rows of all samples and times."""
    return x.reshape(-1, x.shape[-1])


# A causal block: attention with several heads, a residual connection and a readout


def causal_loss(params, x, y):
    """Return the mean squared error of causal attention with several heads beside a residual connection."""
    q, k, v = (split(x @ params[name]) for name in ("wq", "wk", "wv"))
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(DEPTH)
    causal = jnp.tril(jnp.ones((TIME, TIME), bool))
    attention = jax.nn.softmax(jnp.where(causal, scores, FAR_BELOW), axis=-1)
    h = x @ params["we"] + merge(attention @ v) @ params["wo"] + params["bo"]
    return jnp.mean((jnp.tanh(h) - y) ** 2)


def causal_gradient(params, x, y):
    """Return the gradient of ``causal_loss``."""
    wq, wk, wv, wo, we = (params[name] for name in ("wq", "wk", "wv", "wo", "we"))
    q, k, v = split(x @ wq), split(x @ wk), split(x @ wv)
    causal = jnp.tril(jnp.ones((TIME, TIME), bool))
    scores = jnp.where(causal, q @ k.swapaxes(-1, -2) / math.sqrt(DEPTH), FAR_BELOW)
    attention = jax.nn.softmax(scores, axis=-1)
    context = merge(attention @ v)
    output = jnp.tanh(x @ we + context @ wo + params["bo"])
    dh = 2 * (output - y) / y.size * (1 - output**2)
    dwo = flat(context).T @ flat(dh)
    dbo = dh.sum((0, 1))
    dwe = flat(x).T @ flat(dh)
    dcontext = split(dh @ wo.T)
    dv = attention.swapaxes(-1, -2) @ dcontext
    dattention = dcontext @ v.swapaxes(-1, -2)
    dscores = attention * (dattention - (attention * dattention).sum(-1, keepdims=True))
    dq = dscores @ k / math.sqrt(DEPTH)
    dk = dscores.swapaxes(-1, -2) @ q / math.sqrt(DEPTH)
    dwq, dwk, dwv = (flat(x).T @ flat(merge(d)) for d in (dq, dk, dv))
    return {"wq": dwq, "wk": dwk, "wv": dwv, "wo": dwo, "we": dwe, "bo": dbo}


def make_causal(dtype):
    """Return the block's parameters, two sequences and their targets."""
    square = (WIDTH, WIDTH)
    *weights, bo, x, y = jax_normal(dtype, 21, *[square] * 5, (WIDTH,), *[(BATCH, TIME, WIDTH)] * 2)
    params = {name: w / 3 for name, w in zip(("wq", "wk", "wv", "wo", "we"), weights, strict=True)}
    return params | {"bo": bo / 3}, (x, y)


CAUSAL = Model("causal attention", causal_loss, causal_gradient, make_causal)


# Rotary attention where the heads share their keys and values, over padded sequences


ANGLES = np.arange(TIME)[:, None] * 100.0 ** (-np.arange(DEPTH // 2) / (DEPTH // 2))


def rotate(x, direction=1, start=0):
    """Return the pairs of the last axis rotated by the angles of their positions."""
    angles = jnp.asarray(direction * (ANGLES + start), x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    return jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(x.shape)


def rotary_loss(params, x, y, lengths):
    """Return the squared error of the mean, over each sequence's own length, of rotary attention with shared keys."""
    q = rotate(split(x @ params["wq"]))
    k, v = rotate((x @ params["wk"])[:, None]), (x @ params["wv"])[:, None]
    valid = jnp.arange(TIME) < lengths[:, None]
    scores = jnp.where(valid[:, None, None, :], q @ k.swapaxes(-1, -2) / math.sqrt(DEPTH), FAR_BELOW)
    context = merge(jax.nn.softmax(scores, axis=-1) @ v)
    pooled = (context * valid[..., None]).sum(1) / lengths[:, None].astype(x.dtype)
    return 0.5 * jnp.sum((pooled @ params["wo"] + params["bo"] - y) ** 2) / len(y)


def rotary_gradient(params, x, y, lengths):
    """Return the gradient of ``rotary_loss``."""
    wq, wk, wv, wo = (params[name] for name in ("wq", "wk", "wv", "wo"))
    q, k, v = rotate(split(x @ wq)), rotate((x @ wk)[:, None]), (x @ wv)[:, None]
    valid = jnp.arange(TIME) < lengths[:, None]
    counts = lengths[:, None].astype(x.dtype)
    scores = jnp.where(valid[:, None, None, :], q @ k.swapaxes(-1, -2) / math.sqrt(DEPTH), FAR_BELOW)
    attention = jax.nn.softmax(scores, axis=-1)
    context = merge(attention @ v)
    pooled = (context * valid[..., None]).sum(1) / counts
    derror = (pooled @ wo + params["bo"] - y) / len(y)
    dwo, dbo = pooled.T @ derror, derror.sum(0)
    dpooled = derror @ wo.T / counts
    dcontext = split(dpooled[:, None] * valid[..., None])
    dv = (attention.swapaxes(-1, -2) @ dcontext).sum(1)
    dattention = dcontext @ v.swapaxes(-1, -2)
    dscores = attention * (dattention - (attention * dattention).sum(-1, keepdims=True)) / math.sqrt(DEPTH)
    dq = rotate(dscores @ k, -1)
    dk = (dscores.swapaxes(-1, -2) @ q).sum(1)
    dk = rotate(dk, -1)
    dwq = flat(x).T @ flat(merge(dq))
    return {"wq": dwq, "wk": flat(x).T @ flat(dk), "wv": flat(x).T @ flat(dv), "wo": dwo, "bo": dbo}


def make_rotary(dtype):
    """Return the parameters, two sequences of other lengths, and their targets."""
    wq, wk, wv, wo, bo, x, y = jax_normal(
        dtype, 22, (WIDTH, WIDTH), *[(WIDTH, DEPTH)] * 2, (WIDTH, 3), (3,), (BATCH, TIME, WIDTH), (BATCH, 3)
    )
    return {"wq": wq / 3, "wk": wk / 3, "wv": wv / 3, "wo": wo / 3, "bo": bo}, (x, y, jnp.array([5, 3]))


ROTARY = Model("rotary attention", rotary_loss, rotary_gradient, make_rotary)


# Cross-attention with a bias for each distance


DISTANCES = np.arange(TIME)[:, None] - np.arange(TIME) + TIME - 1


def relative_loss(params, x, memory, y):
    """Return the cross-entropy of labels from cross-attention with a bias for each head and distance."""
    (wq, wkv), bias, (w, b) = params["projections"], params["bias"], params["head"]
    k, v = jnp.split(memory @ wkv, 2, axis=-1)
    scores = split(x @ wq) @ split(k).swapaxes(-1, -2) + bias[:, DISTANCES]
    context = merge(jax.nn.softmax(scores, axis=-1) @ split(v))
    logits = jnp.maximum(context, 0) @ w + b
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[..., None], axis=-1).mean()


def relative_gradient(params, x, memory, y):
    """Return the gradient of ``relative_loss``."""
    (wq, wkv), bias, (w, b) = params["projections"], params["bias"], params["head"]
    k, v = jnp.split(memory @ wkv, 2, axis=-1)
    q, k, v = split(x @ wq), split(k), split(v)
    attention = jax.nn.softmax(q @ k.swapaxes(-1, -2) + bias[:, DISTANCES], axis=-1)
    context = merge(attention @ v)
    hidden = jnp.maximum(context, 0)
    dlogits = (jax.nn.softmax(hidden @ w + b) - jax.nn.one_hot(y, len(b), dtype=x.dtype)) / y.size
    dw, db = flat(hidden).T @ flat(dlogits), dlogits.sum((0, 1))
    dcontext = split(dlogits @ w.T * (context > 0))
    dattention = dcontext @ v.swapaxes(-1, -2)
    dscores = attention * (dattention - (attention * dattention).sum(-1, keepdims=True))
    dbias = jnp.zeros_like(bias).at[:, DISTANCES].add(dscores.sum(0))
    dq, dk = dscores @ k, dscores.swapaxes(-1, -2) @ q
    dv = attention.swapaxes(-1, -2) @ dcontext
    dkv = jnp.concatenate([merge(dk), merge(dv)], axis=-1)
    dwq, dwkv = flat(x).T @ flat(merge(dq)), flat(memory).T @ flat(dkv)
    return {"projections": (dwq, dwkv), "bias": dbias, "head": (dw, db)}


def make_relative(dtype):
    """Return the parameters in nested containers, two sequences with memories, and labels."""
    wq, wkv, bias, w, b, x, memory = jax_normal(
        dtype,
        23,
        (WIDTH, WIDTH),
        (WIDTH, 2 * WIDTH),
        (HEADS, 2 * TIME - 1),
        (WIDTH, 4),
        (4,),
        *[(BATCH, TIME, WIDTH)] * 2,
    )
    y = jnp.array([[0, 3, 1, 2, 2], [1, 1, 0, 3, 2]])
    return {"projections": (wq / 3, wkv / 3), "bias": bias, "head": (w / 2, b / 2)}, (x, memory, y)


RELATIVE = Model("cross-attention", relative_loss, relative_gradient, make_relative)


BUGS = (
    CAUSAL.bug(
        "attention_queries_unscaled",
        "scaled scaled_path",
        "['wq']",
        "dq = dscores @ k / math.sqrt(DEPTH)",
        "dq = dscores @ k",
    ),
    CAUSAL.bug(
        "attention_softmax_over_the_other_axis",
        "activation_derivative",
        "['wk']",
        "(attention * dattention).sum(-1, keepdims=True)",
        "(attention * dattention).sum(-2, keepdims=True)",
    ),
    CAUSAL.bug(
        "attention_keys_from_keys",
        "wrong_operand",
        "['wk']",
        "dk = dscores.swapaxes(-1, -2) @ q",
        "dk = dscores.swapaxes(-1, -2) @ k",
    ),
    CAUSAL.bug(
        "attention_mask_one_further",
        "mask shifted",
        None,
        "causal = jnp.tril(jnp.ones((TIME, TIME), bool))",
        "causal = jnp.tril(jnp.ones((TIME, TIME), bool), 1)",
    ),
    CAUSAL.bug(
        "attention_output_weights_transposed",
        "transposed",
        "['wo']",
        "dwo = flat(context).T @ flat(dh)",
        "dwo = flat(dh).T @ flat(context)",
    ),
    CAUSAL.bug(
        "attention_values_without_a_transpose",
        "transposed wrong_operand",
        "['wv']",
        "dv = attention.swapaxes(-1, -2) @ dcontext",
        "dv = attention @ dcontext",
    ),
    CAUSAL.bug(
        "attention_heads_split_by_reshape",
        "transposed swapped",
        "['wv']",
        "dcontext = split(dh @ wo.T)",
        "dcontext = (dh @ wo.T).reshape(BATCH, HEADS, TIME, DEPTH)",
    ),
    CAUSAL.bug(
        "attention_queries_and_keys_exchanged",
        "swapped",
        "['wq']",
        "for d in (dq, dk, dv))",
        "for d in (dk, dq, dv))",
    ),
    ROTARY.bug(
        "rotary_queries_rotated_on",
        "transposed sign conjugate scaled_path",
        "['wq']",
        "dq = rotate(dscores @ k, -1)",
        "dq = rotate(dscores @ k)",
    ),
    ROTARY.bug(
        "rotary_keys_from_position_one",
        "shifted",
        "['wk']",
        "dk = rotate(dk, -1)",
        "dk = rotate(dk, -1, start=1)",
    ),
    ROTARY.bug(
        "rotary_shared_keys_of_the_first_head",
        "lost_use",
        "['wk']",
        "dk = (dscores.swapaxes(-1, -2) @ q).sum(1)",
        "dk = (dscores.swapaxes(-1, -2) @ q)[:, 0]",
    ),
    ROTARY.bug(
        "rotary_shared_values_averaged",
        "scaled",
        "['wv']",
        "dv = (attention.swapaxes(-1, -2) @ dcontext).sum(1)",
        "dv = (attention.swapaxes(-1, -2) @ dcontext).mean(1)",
    ),
    ROTARY.bug(
        "rotary_pooled_over_the_padding",
        "mask",
        "['wv']",
        "dcontext = split(dpooled[:, None] * valid[..., None])",
        "dcontext = split(jnp.repeat(dpooled[:, None], TIME, axis=1))",
    ),
    ROTARY.bug(
        "rotary_mean_over_the_padded_length",
        "scaled_path subset_of_batch mask",
        "['wv']",
        "dpooled = derror @ wo.T / counts",
        "dpooled = derror @ wo.T / TIME",
    ),
    RELATIVE.bug(
        "relative_distances_reversed",
        "kernel_flipped transposed",
        "['bias']",
        "dbias = jnp.zeros_like(bias).at[:, DISTANCES].add(dscores.sum(0))",
        "dbias = jnp.zeros_like(bias).at[:, DISTANCES.T].add(dscores.sum(0))",
    ),
    RELATIVE.bug(
        "relative_keys_and_values_joined_in_other_order",
        "swapped shifted",
        "['projections'][1]",
        "dkv = jnp.concatenate([merge(dk), merge(dv)], axis=-1)",
        "dkv = jnp.concatenate([merge(dv), merge(dk)], axis=-1)",
    ),
    RELATIVE.bug(
        "relative_softmax_without_its_row_term",
        "activation_derivative",
        "['bias']",
        "dscores = attention * (dattention - (attention * dattention).sum(-1, keepdims=True))",
        "dscores = attention * dattention",
    ),
    RELATIVE.bug(
        "relative_keys_against_the_input",
        "wrong_operand",
        "['projections'][1]",
        "flat(memory).T @ flat(dkv)",
        "flat(x).T @ flat(dkv)",
    ),
)
RIGHT = (CAUSAL.right("attention"), ROTARY.right("rotary"), RELATIVE.right("relative"))
