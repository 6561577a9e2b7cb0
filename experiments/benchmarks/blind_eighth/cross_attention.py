"""Cross attention with a padding mask."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def _cast(value: Any, dtype):
    value = np.asarray(value)
    if np.issubdtype(value.dtype, np.floating):
        return jnp.asarray(value, dtype)
    if value.dtype == bool:
        return jnp.asarray(value)
    return jnp.asarray(value, jnp.int32)


def maker(build):
    def make(dtype):
        params, args = build()
        return jax.tree.map(lambda a: _cast(a, dtype), (params, args))

    return make


# ---------------------------------------------------------------- cross attention with a padding mask

HEADS = 2


def _split_heads(a):
    return a.reshape(a.shape[0], a.shape[1], HEADS, -1)


def xattn_forward(params, x, ctx, keep, masked=True):
    q = _split_heads(x @ params["wq"])
    k, v = jnp.split(ctx @ params["wkv"], 2, axis=-1)
    k, v = _split_heads(k), _split_heads(v)
    scores = jnp.einsum("bthd,bshd->bhts", q, k) / float(np.sqrt(q.shape[-1]))
    if masked:
        scores = jnp.where(keep[:, None, None, :], scores, -1e9)
    probs = jax.nn.softmax(scores, axis=-1)
    mixed = jnp.einsum("bhts,bshd->bthd", probs, v)
    return q, k, v, probs, mixed.reshape(x.shape[0], x.shape[1], -1)


def xattn_loss(params, x, ctx, keep, target):
    mixed = xattn_forward(params, x, ctx, keep)[-1]
    return 0.5 * jnp.mean((mixed @ params["wo"] - target) ** 2)


def xattn_grad(params, x, ctx, keep, target, forget_mask=False, kv_order=("k", "v")):
    q, k, v, probs, mixed = xattn_forward(params, x, ctx, keep)
    if forget_mask:  # the backward kernel recomputes the probabilities
        probs = xattn_forward(params, x, ctx, keep, masked=False)[3]
    out = mixed @ params["wo"]
    d_out = (out - target) / out.size
    d_wo = jnp.einsum("btm,bte->me", mixed, d_out)
    d_mixed = _split_heads(d_out @ params["wo"].T)
    d_v = jnp.einsum("bhts,bthd->bshd", probs, d_mixed)
    d_probs = jnp.einsum("bthd,bshd->bhts", d_mixed, v)
    d_scores = probs * (d_probs - jnp.sum(probs * d_probs, axis=-1, keepdims=True))
    d_scores = d_scores / float(np.sqrt(q.shape[-1]))
    d_q = jnp.einsum("bhts,bshd->bthd", d_scores, k)
    d_k = jnp.einsum("bhts,bthd->bshd", d_scores, q)
    parts = {"k": d_k, "v": d_v}
    b, s = ctx.shape[:2]
    d_kv = jnp.concatenate([parts[n].reshape(b, s, -1) for n in kv_order], axis=-1)
    return {
        "wq": jnp.einsum("bte,btm->em", x, d_q.reshape(x.shape[0], x.shape[1], -1)),
        "wkv": jnp.einsum("bse,bsm->em", ctx, d_kv),
        "wo": d_wo,
    }


def _build_xattn():
    r = np.random.default_rng(101)
    params = {"wq": r.normal(size=(6, 8)) * 0.6, "wkv": r.normal(size=(3, 16)) * 0.8, "wo": r.normal(size=(8, 6)) * 0.5}
    lengths = np.array([7, 4, 3, 5])
    keep = np.arange(7)[None, :] < lengths[:, None]
    return params, (r.normal(size=(4, 5, 6)), r.normal(size=(4, 7, 3)), keep, r.normal(size=(4, 5, 6)))


make_xattn = maker(_build_xattn)


def gru_cell(params, h, x_t):
    n = h.shape[-1]
    gx = x_t @ params["wx"] + params["b"]
    gh = h @ params["wh"]
    z = jax.nn.sigmoid(gx[:, :n] + gh[:, :n])
    r = jax.nn.sigmoid(gx[:, n : 2 * n] + gh[:, n : 2 * n])
    c = jnp.tanh(gx[:, 2 * n :] + r * gh[:, 2 * n :])
    return (1 - z) * c + z * h, (z, r, c, gh[:, 2 * n :])


def gru_loss(params, xs, y):
    h = jnp.zeros((xs.shape[1], params["wh"].shape[0]), xs.dtype)
    for t in range(xs.shape[0]):
        h, _ = gru_cell(params, h, xs[t])
    return jnp.mean((h @ params["w_out"] - y) ** 2)


def gru_grad(params, xs, y, skip_candidate_path=False, late_state=False):
    steps, batch = xs.shape[0], xs.shape[1]
    n = params["wh"].shape[0]
    hs = [jnp.zeros((batch, n), xs.dtype)]
    cache = []
    for t in range(steps):
        h, kept = gru_cell(params, hs[-1], xs[t])
        hs.append(h)
        cache.append(kept)
    pred = hs[-1] @ params["w_out"]
    d_pred = 2 * (pred - y) / batch
    grads = {k: jnp.zeros_like(v) for k, v in params.items()}
    grads["w_out"] = hs[-1].T @ d_pred
    dh = jnp.outer(d_pred, params["w_out"])
    for t in reversed(range(steps)):
        z, r, c, ghc = cache[t]
        dz = dh * (hs[t] - c) * z * (1 - z)
        dc = dh * (1 - z) * (1 - c**2)
        dr = dc * ghc * r * (1 - r)
        d_gx = jnp.concatenate([dz, dr, dc], axis=1)
        d_gh = jnp.concatenate([dz, dr, dc * r], axis=1)
        state = hs[t + 1] if late_state else hs[t]
        grads["wx"] += xs[t].T @ d_gx
        grads["b"] += d_gx.sum(0)
        grads["wh"] += state.T @ d_gh
        back = dh * z + dz @ params["wh"][:, :n].T + dr @ params["wh"][:, n : 2 * n].T
        if not skip_candidate_path:
            back = back + (dc * r) @ params["wh"][:, 2 * n :].T
        dh = back
    return grads


def _build_gru():
    r = np.random.default_rng(202)
    n = 4
    params = {
        "wx": r.normal(size=(3, 3 * n)) * 0.7,
        "wh": r.normal(size=(n, 3 * n)) * 0.7,
        "b": r.normal(size=3 * n) * 0.3,
        "w_out": r.normal(size=n),
    }
    return params, (r.normal(size=(5, 7, 3)), r.normal(size=7))


make_gru = maker(_build_gru)
