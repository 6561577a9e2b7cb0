"""Grouped-query attention with rotary positions; and more."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np


def _cast(tree, dtype):
    def one(a):
        a = np.asarray(a)
        if np.issubdtype(a.dtype, np.floating):
            return jnp.asarray(a, dtype=dtype)
        if np.issubdtype(a.dtype, np.integer):
            return jnp.asarray(a, dtype="int32")
        return jnp.asarray(a)

    return jax.tree_util.tree_map(one, tree)


def maker(seed):
    def wrap(draw):
        def make(dtype):
            params, args = draw(np.random.default_rng(seed))
            return _cast(params, dtype), _cast(tuple(args), dtype)

        return make

    return wrap


# grouped-query attention with rotary positions


def _rotate(v, cos, sin):
    """v: (batch, time, heads, dim); the two halves of the last axis are the planes' coordinates."""
    a, b = jnp.split(v, 2, axis=-1)
    c, s = cos[None, :, None, :], sin[None, :, None, :]
    return jnp.concatenate([a * c - b * s, a * s + b * c], axis=-1)


def _rope_tables(length, dim, dtype):
    freq = 10.0 ** (-jnp.arange(dim // 2, dtype=dtype) / (dim // 2))
    angle = jnp.arange(length, dtype=dtype)[:, None] * freq[None, :]
    return jnp.cos(angle), jnp.sin(angle)


def gqa_loss(params, x, target):
    B, T, _ = x.shape
    n_kv, dim = params["wk"].shape[1:]
    cos, sin = _rope_tables(T, dim, x.dtype)
    q = _rotate(jnp.einsum("btd,dhe->bthe", x, params["wq"]), cos, sin)
    k = _rotate(jnp.einsum("btd,dhe->bthe", x, params["wk"]), cos, sin)
    v = jnp.einsum("btd,dhe->bthe", x, params["wv"])
    q = q.reshape(B, T, n_kv, -1, dim)
    scores = jnp.einsum("btgre,bsge->bgrts", q, k) / float(np.sqrt(dim))
    causal = jnp.tril(jnp.ones((T, T), bool))
    probs = jax.nn.softmax(jnp.where(causal, scores, -1e9), axis=-1)
    ctx = jnp.einsum("bgrts,bsge->btgre", probs, v).reshape(B, T, -1, dim)
    out = jnp.einsum("bthe,hed->btd", ctx, params["wo"])
    return 0.5 * jnp.mean(jnp.square(out - target))


def gqa_grad(params, x, target, same_rotation=False, average_groups=False):
    B, T, _ = x.shape
    wq, wk, wv, wo = params["wq"], params["wk"], params["wv"], params["wo"]
    n_heads = wq.shape[1]
    n_kv, dim = wk.shape[1:]
    rep = n_heads // n_kv
    cos, sin = _rope_tables(T, dim, x.dtype)

    # forward; keys and values are repeated so that every query head has its own
    q = _rotate(jnp.einsum("btd,dhe->bthe", x, wq), cos, sin)
    k = jnp.repeat(_rotate(jnp.einsum("btd,dhe->bthe", x, wk), cos, sin), rep, axis=2)
    v = jnp.repeat(jnp.einsum("btd,dhe->bthe", x, wv), rep, axis=2)
    scores = jnp.einsum("bthe,bshe->bhts", q, k) / float(np.sqrt(dim))
    scores = jnp.where(jnp.tril(jnp.ones((T, T), bool)), scores, -1e9)
    probs = jax.nn.softmax(scores, axis=-1)
    ctx = jnp.einsum("bhts,bshe->bthe", probs, v)
    out = jnp.einsum("bthe,hed->btd", ctx, wo)

    # backward
    d_out = (out - target) / out.size
    d_wo = jnp.einsum("bthe,btd->hed", ctx, d_out)
    d_ctx = jnp.einsum("btd,hed->bthe", d_out, wo)
    d_probs = jnp.einsum("bthe,bshe->bhts", d_ctx, v)
    d_v = jnp.einsum("bhts,bthe->bshe", probs, d_ctx)
    d_scores = probs * (d_probs - jnp.sum(d_probs * probs, axis=-1, keepdims=True)) / float(np.sqrt(dim))
    d_q = jnp.einsum("bhts,bshe->bthe", d_scores, k)
    d_k = jnp.einsum("bhts,bthe->bshe", d_scores, q)

    # back from the repeated heads to the shared ones
    reduce = jnp.mean if average_groups else jnp.sum
    d_k = reduce(d_k.reshape(B, T, n_kv, rep, dim), axis=3)
    d_v = reduce(d_v.reshape(B, T, n_kv, rep, dim), axis=3)

    back_sin = sin if same_rotation else -sin
    d_q = _rotate(d_q, cos, back_sin)
    d_k = _rotate(d_k, cos, back_sin)
    return {
        "wq": jnp.einsum("btd,bthe->dhe", x, d_q),
        "wk": jnp.einsum("btd,bthe->dhe", x, d_k),
        "wv": jnp.einsum("btd,bthe->dhe", x, d_v),
        "wo": d_wo,
    }


@maker(101)
def gqa_make(rng):
    params = {
        "wq": rng.normal(size=(7, 6, 8)) * 0.4,
        "wk": rng.normal(size=(7, 2, 8)) * 0.4,
        "wv": rng.normal(size=(7, 2, 8)) * 0.4,
        "wo": rng.normal(size=(6, 8, 7)) * 0.3,
    }
    return params, (rng.normal(size=(4, 5, 7)), rng.normal(size=(4, 5, 7)))


# attention with a table of relative-position biases and padded keys, pooled for classification


def _relative_buckets(T, n_buckets):
    limit = n_buckets // 2
    rel = np.arange(T)[None, :] - np.arange(T)[:, None]
    return np.clip(rel, -limit, limit) + limit


def relbias_loss(params, x, pad, label):
    T = x.shape[1]
    bucket = _relative_buckets(T, params["bias"].shape[0])
    q = jnp.einsum("btd,dhe->bhte", x, params["wq"])
    k = jnp.einsum("btd,dhe->bhte", x, params["wk"])
    v = jnp.einsum("btd,dhe->bhte", x, params["wv"])
    s = q @ jnp.swapaxes(k, -1, -2) / float(np.sqrt(q.shape[-1]))
    s = s + jnp.moveaxis(params["bias"][bucket], -1, 0)[None]
    s = jnp.where(pad[:, None, None, :], -1e9, s)
    ctx = jax.nn.softmax(s, axis=-1) @ v
    real = (~pad).astype(x.dtype)
    pooled = jnp.einsum("bhte,bt->bhe", ctx, real) / real.sum(1)[:, None, None]
    logits = jnp.einsum("bhe,hec->bc", pooled, params["head"])
    logp = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.take_along_axis(logp, label[:, None], axis=1))


def relbias_grad(params, x, pad, label, overwrite_rows=False):
    B, T, _ = x.shape
    bucket = _relative_buckets(T, params["bias"].shape[0])
    scale = 1.0 / float(np.sqrt(params["wq"].shape[-1]))
    q = jnp.einsum("btd,dhe->bhte", x, params["wq"])
    k = jnp.einsum("btd,dhe->bhte", x, params["wk"])
    v = jnp.einsum("btd,dhe->bhte", x, params["wv"])
    s = jnp.einsum("bhte,bhse->bhts", q, k) * scale
    s = s + jnp.transpose(params["bias"][bucket], (2, 0, 1))
    s = jnp.where(pad[:, None, None, :], -1e9, s)
    attn = jax.nn.softmax(s, axis=-1)
    ctx = jnp.einsum("bhts,bhse->bhte", attn, v)
    weight = (~pad).astype(x.dtype)
    weight = weight / weight.sum(axis=1, keepdims=True)
    pooled = jnp.einsum("bhte,bt->bhe", ctx, weight)
    logits = jnp.einsum("bhe,hec->bc", pooled, params["head"])

    g_logits = (jax.nn.softmax(logits) - jax.nn.one_hot(label, logits.shape[1], dtype=x.dtype)) / B
    g_head = jnp.einsum("bhe,bc->hec", pooled, g_logits)
    g_pooled = jnp.einsum("bc,hec->bhe", g_logits, params["head"])
    g_ctx = g_pooled[:, :, None, :] * weight[:, None, :, None]
    g_v = jnp.einsum("bhts,bhte->bhse", attn, g_ctx)
    g_attn = jnp.einsum("bhte,bhse->bhts", g_ctx, v)
    g_s = attn * (g_attn - (attn * g_attn).sum(-1, keepdims=True))

    per_pair = g_s.sum(axis=0)  # (heads, T, T)
    g_bias = jnp.zeros_like(params["bias"])
    for i in range(T):
        for j in range(T):
            if overwrite_rows:
                g_bias = g_bias.at[bucket[i, j]].set(per_pair[:, i, j])
            else:
                g_bias = g_bias.at[bucket[i, j]].add(per_pair[:, i, j])

    g_q = jnp.einsum("bhts,bhse->bhte", g_s, k) * scale
    g_k = jnp.einsum("bhts,bhte->bhse", g_s, q) * scale
    to_weight = partial(jnp.einsum, "btd,bhte->dhe", x)
    return {"wq": to_weight(g_q), "wk": to_weight(g_k), "wv": to_weight(g_v), "bias": g_bias, "head": g_head}


@maker(102)
def relbias_make(rng):
    params = {
        "wq": rng.normal(size=(8, 3, 2)) * 0.5,
        "wk": rng.normal(size=(8, 3, 2)) * 0.5,
        "wv": rng.normal(size=(8, 3, 2)) * 0.5,
        "bias": rng.normal(size=(7, 3)),
        "head": rng.normal(size=(3, 2, 5)),
    }
    pad = np.arange(6)[None, :] >= np.array([6, 4, 5, 3])[:, None]
    return params, (rng.normal(size=(4, 6, 8)), pad, rng.integers(0, 5, size=4))


# a GRU over sequences of different length


def gru_loss(params, x, lengths, y):
    T, B, _ = x.shape
    w, u, b = params["w"], params["u"], params["b"]

    def step(h, inp):
        x_t, alive = inp
        pre = jnp.einsum("bd,gdh->gbh", x_t, w) + b[:, None, :]
        z = jax.nn.sigmoid(pre[0] + h @ u[0])
        r = jax.nn.sigmoid(pre[1] + h @ u[1])
        n = jnp.tanh(pre[2] + r * (h @ u[2]))
        new = (1 - z) * n + z * h
        return jnp.where(alive[:, None], new, h), None

    alive = jnp.arange(T)[:, None] < lengths[None, :]
    h, _ = jax.lax.scan(step, jnp.zeros((B, u.shape[-1]), x.dtype), (x, alive))
    logits = h @ params["out"] + params["out_b"]
    return jnp.mean(jax.nn.softplus(logits) - y * logits)


def gru_grad(params, x, lengths, y, state_after_step=False):
    T, B, _ = x.shape
    w, u, b = params["w"], params["u"], params["b"]
    hidden = [jnp.zeros((B, u.shape[-1]), x.dtype)]
    tape = []
    for t in range(T):
        h = hidden[-1]
        pre = jnp.einsum("bd,gdh->gbh", x[t], w) + b[:, None, :]
        z = jax.nn.sigmoid(pre[0] + h @ u[0])
        r = jax.nn.sigmoid(pre[1] + h @ u[1])
        hu = h @ u[2]
        n = jnp.tanh(pre[2] + r * hu)
        m = (t < lengths)[:, None].astype(x.dtype)
        hidden.append(m * ((1 - z) * n + z * h) + (1 - m) * h)
        tape.append((z, r, hu, n, m))

    logits = hidden[-1] @ params["out"] + params["out_b"]
    dlogits = (jax.nn.sigmoid(logits) - y) / y.size
    grads = {
        "w": jnp.zeros_like(w),
        "u": jnp.zeros_like(u),
        "b": jnp.zeros_like(b),
        "out": hidden[-1].T @ dlogits,
        "out_b": dlogits.sum(0),
    }
    dh = dlogits @ params["out"].T
    for t in reversed(range(T)):
        z, r, hu, n, m = tape[t]
        prev = hidden[t]
        dnew = m * dh
        dz = dnew * (prev - n) * z * (1 - z)
        dn = dnew * (1 - z) * (1 - n * n)
        dr = dn * hu * r * (1 - r)
        dpre = jnp.stack([dz, dr, dn])  # for the input weights
        drec = jnp.stack([dz, dr, dn * r])  # for the recurrent ones
        saved = hidden[t + 1] if state_after_step else prev
        grads["w"] += jnp.einsum("bd,gbh->gdh", x[t], dpre)
        grads["b"] += dpre.sum(axis=1)
        grads["u"] += jnp.einsum("bk,gbh->gkh", saved, drec)
        dh = (1 - m) * dh + dnew * z + jnp.einsum("gbh,gkh->bk", drec, u)
    return grads


@maker(103)
def gru_make(rng):
    params = {
        "w": rng.normal(size=(3, 7, 4)) * 0.5,
        "u": rng.normal(size=(3, 4, 4)) * 0.7,
        "b": rng.normal(size=(3, 4)) * 0.2,
        "out": rng.normal(size=(4, 2)),
        "out_b": rng.normal(size=2),
    }
    return params, (rng.normal(size=(6, 5, 7)), np.array([6, 3, 5, 4, 6]), (rng.random((5, 2)) > 0.5).astype(float))


# causal dilated convolutions with a group normalization between them

DIMS = ("NWC", "WIO", "NWC")


def _causal_conv(x, kernel, dilation):
    left = (kernel.shape[0] - 1) * dilation
    return jax.lax.conv_general_dilated(x, kernel, (1,), [(left, 0)], rhs_dilation=(dilation,), dimension_numbers=DIMS)


def _causal_conv_grads(x, kernel, dilation, dout, unflipped=False):
    width, length = kernel.shape[0], x.shape[1]
    span = (width - 1) * dilation
    padded = jnp.pad(x, ((0, 0), (span, 0), (0, 0)))
    taps = [padded[:, j * dilation : j * dilation + length] for j in range(width)]
    dkernel = jnp.stack([jnp.einsum("bti,bto->io", tap, dout) for tap in taps])
    back = kernel if unflipped else kernel[::-1]
    dx = jax.lax.conv_general_dilated(
        dout, jnp.swapaxes(back, 1, 2), (1,), [(0, span)], rhs_dilation=(dilation,), dimension_numbers=DIMS
    )
    return dx, dkernel


GROUPS, GN_EPS = 2, 1e-5


def tcn_loss(params, x, target):
    h = _causal_conv(x, params["k1"], 2)
    B, L, C = h.shape
    g = h.reshape(B, L, GROUPS, C // GROUPS)
    mean = g.mean(axis=(1, 3), keepdims=True)
    var = g.var(axis=(1, 3), keepdims=True)
    g = ((g - mean) / jnp.sqrt(var + GN_EPS)).reshape(B, L, C)
    a = jax.nn.silu(g * params["gain"] + params["shift"])
    out = _causal_conv(a, params["k2"], 1)
    return jnp.mean(jnp.sum(jnp.square(out - target), axis=-1))


def tcn_grad(params, x, target, unflipped=False, no_variance_term=False):
    h = _causal_conv(x, params["k1"], 2)
    B, L, C = h.shape
    grouped = h.reshape(B, L, GROUPS, C // GROUPS)
    centered = grouped - grouped.mean(axis=(1, 3), keepdims=True)
    inv_std = 1.0 / jnp.sqrt(jnp.mean(centered**2, axis=(1, 3), keepdims=True) + GN_EPS)
    xhat = centered * inv_std
    pre = xhat.reshape(B, L, C) * params["gain"] + params["shift"]
    sig = jax.nn.sigmoid(pre)
    act = pre * sig
    out = _causal_conv(act, params["k2"], 1)

    dout = 2.0 * (out - target) / (B * L)
    dact, dk2 = _causal_conv_grads(act, params["k2"], 1, dout, unflipped)
    dpre = dact * (sig + pre * sig * (1.0 - sig))
    dgain = jnp.sum(dpre * xhat.reshape(B, L, C), axis=(0, 1))
    dshift = jnp.sum(dpre, axis=(0, 1))
    dxhat = (dpre * params["gain"]).reshape(grouped.shape)
    correction = dxhat.mean(axis=(1, 3), keepdims=True)
    if not no_variance_term:
        correction = correction + xhat * jnp.mean(dxhat * xhat, axis=(1, 3), keepdims=True)
    dh = (inv_std * (dxhat - correction)).reshape(B, L, C)
    _, dk1 = _causal_conv_grads(x, params["k1"], 2, dh)
    return {"k1": dk1, "gain": dgain, "shift": dshift, "k2": dk2}


@maker(104)
def tcn_make(rng):
    params = {
        "k1": rng.normal(size=(3, 2, 6)) * 0.6,
        "gain": 1 + 0.3 * rng.normal(size=6),
        "shift": 0.3 * rng.normal(size=6),
        "k2": rng.normal(size=(3, 6, 4)) * 0.4,
    }
    return params, (rng.normal(size=(5, 8, 2)), rng.normal(size=(5, 8, 4)))
