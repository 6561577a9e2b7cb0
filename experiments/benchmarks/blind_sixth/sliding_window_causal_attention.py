"""Sliding-window causal attention; Cross attention with shared key heads; and more."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def cast(tree, dtype):
    def one(v):
        v = np.asarray(v)
        if np.issubdtype(v.dtype, np.floating):
            return jnp.asarray(v, dtype=dtype)
        if v.dtype == np.bool_:
            return jnp.asarray(v)
        return jnp.asarray(v, dtype=jnp.int32)

    return jax.tree_util.tree_map(one, tree)


# Sliding-window causal attention, with a learned distance penalty for each head

WINDOW = 3


def _window_scores(params, x, window):
    q = jnp.einsum("btd,dhk->bhtk", x, params["wq"])
    k = jnp.einsum("btd,dhk->bhtk", x, params["wk"])
    v = jnp.einsum("btd,dhk->bhtk", x, params["wv"])
    steps = jnp.arange(x.shape[1])
    dist = steps[:, None] - steps[None, :]
    allowed = (dist >= 0) & (dist < window)
    s = jnp.einsum("bhik,bhjk->bhij", q, k) / np.sqrt(q.shape[-1]).item()
    s = s - params["slope"][None, :, None, None] * dist
    s = jnp.where(allowed, s, -1e30)
    return q, k, v, dist.astype(x.dtype), jax.nn.softmax(s, axis=-1)


def window_attention_loss(params, x, y):
    _, _, v, _, p = _window_scores(params, x, WINDOW)
    ctx = jnp.einsum("bhij,bhjk->bhik", p, v)
    out = jnp.einsum("bhik,hkd->bid", ctx, params["wo"])
    return jnp.mean((out - y) ** 2)


def window_attention_grad(params, x, y, window=WINDOW, no_row_sum=False):
    # forward, for the values at the right window
    q, k, v, dist, p = _window_scores(params, x, WINDOW)
    ctx = jnp.einsum("bhij,bhjk->bhik", p, v)
    out = jnp.einsum("bhik,hkd->bid", ctx, params["wo"])
    d_out = 2.0 * (out - y) / y.size
    d_wo = jnp.einsum("bhik,bid->hkd", ctx, d_out)

    # backward recomputes the probabilities, as one does to save memory
    q, k, v, dist, p = _window_scores(params, x, window)
    d_ctx = jnp.einsum("bid,hkd->bhik", d_out, params["wo"])
    d_v = jnp.einsum("bhij,bhik->bhjk", p, d_ctx)
    d_p = jnp.einsum("bhik,bhjk->bhij", d_ctx, v)
    d_s = p * d_p if no_row_sum else p * (d_p - jnp.sum(p * d_p, axis=-1, keepdims=True))
    scale = 1.0 / np.sqrt(q.shape[-1]).item()
    d_q = jnp.einsum("bhij,bhjk->bhik", d_s, k) * scale
    d_k = jnp.einsum("bhij,bhik->bhjk", d_s, q) * scale
    return {
        "wq": jnp.einsum("btd,bhtk->dhk", x, d_q),
        "wk": jnp.einsum("btd,bhtk->dhk", x, d_k),
        "wv": jnp.einsum("btd,bhtk->dhk", x, d_v),
        "wo": d_wo,
        "slope": -jnp.sum(d_s * dist, axis=(0, 2, 3)),
    }


def make_window_attention(dtype):
    rng = np.random.default_rng(101)
    d, h, dh = 5, 2, 3
    params = {
        "wq": 0.7 * rng.normal(size=(d, h, dh)),
        "wk": 0.7 * rng.normal(size=(d, h, dh)),
        "wv": 0.6 * rng.normal(size=(d, h, dh)),
        "wo": 0.6 * rng.normal(size=(h, dh, d)),
        "slope": np.array([0.25, 0.6]),
    }
    x = rng.normal(size=(4, 7, d))
    y = rng.normal(size=(4, 7, d))
    return cast((params, (x, y)), dtype)


# Cross attention with shared key heads, queries and keys of unit length, a temperature for each head


def _unit(v, eps=1e-6):
    n = jnp.sqrt(jnp.sum(v * v, axis=-1, keepdims=True) + eps)
    return v / n, n


def _cross_forward(params, x, mem, mem_len):
    q = jnp.einsum("btd,dhk->bhtk", x, params["wq"])
    k = jnp.einsum("bse,egk->bgsk", mem, params["wk"])
    v = jnp.einsum("bse,egk->bgsk", mem, params["wv"])
    qn, q_len = _unit(q)
    kn, k_len = _unit(k)
    group = q.shape[1] // k.shape[1]
    kr = jnp.repeat(kn, group, axis=1)
    vr = jnp.repeat(v, group, axis=1)
    cos = jnp.einsum("bhtk,bhsk->bhts", qn, kr)
    tau = jnp.exp(params["log_tau"])[None, :, None, None]
    valid = jnp.arange(mem.shape[1])[None, :] < mem_len[:, None]
    logits = jnp.where(valid[:, None, None, :], cos * tau, -1e30)
    p = jax.nn.softmax(logits, axis=-1)
    ctx = jnp.einsum("bhts,bhsk->bhtk", p, vr)
    out = x + jnp.einsum("bhtk,hkd->btd", ctx, params["wo"])
    return out, (qn, q_len, kn, k_len, kr, vr, cos, tau, p, ctx, group)


def cross_attention_loss(params, x, mem, mem_len, target):
    out, _ = _cross_forward(params, x, mem, mem_len)
    e = out - target
    return jnp.mean(jnp.logaddexp(e, -e) - np.log(2.0).item())


def cross_attention_grad(params, x, mem, mem_len, target, first_of_group=False, no_projection=False):
    out, res = _cross_forward(params, x, mem, mem_len)
    qn, q_len, kn, k_len, kr, vr, cos, tau, p, ctx, group = res

    def unit_vjp(d_unit, unit, length):
        if no_projection:
            return d_unit / length
        return (d_unit - unit * jnp.sum(d_unit * unit, axis=-1, keepdims=True)) / length

    def ungroup(d_rep):
        b, h, s, kk = d_rep.shape
        split = d_rep.reshape(b, h // group, group, s, kk)
        return split[:, :, 0] if first_of_group else split.sum(axis=2)

    d_out = jnp.tanh(out - target) / out.size
    d_wo = jnp.einsum("bhtk,btd->hkd", ctx, d_out)
    d_ctx = jnp.einsum("btd,hkd->bhtk", d_out, params["wo"])
    d_p = jnp.einsum("bhtk,bhsk->bhts", d_ctx, vr)
    d_v = ungroup(jnp.einsum("bhts,bhtk->bhsk", p, d_ctx))
    d_logits = p * (d_p - (p * d_p).sum(-1, keepdims=True))
    d_log_tau = jnp.sum(d_logits * cos * tau, axis=(0, 2, 3))
    d_cos = d_logits * tau
    d_q = unit_vjp(jnp.einsum("bhts,bhsk->bhtk", d_cos, kr), qn, q_len)
    d_k = unit_vjp(ungroup(jnp.einsum("bhts,bhtk->bhsk", d_cos, qn)), kn, k_len)
    return {
        "wq": jnp.einsum("btd,bhtk->dhk", x, d_q),
        "wk": jnp.einsum("bse,bgsk->egk", mem, d_k),
        "wv": jnp.einsum("bse,bgsk->egk", mem, d_v),
        "wo": d_wo,
        "log_tau": d_log_tau,
    }


def make_cross_attention(dtype):
    rng = np.random.default_rng(202)
    d, e, heads, kv, dh = 6, 8, 4, 2, 3
    params = {
        "wq": rng.normal(size=(d, heads, dh)) * 0.5,
        "wk": rng.normal(size=(e, kv, dh)) * 0.4,
        "wv": rng.normal(size=(e, kv, dh)) * 0.4,
        "wo": rng.normal(size=(heads, dh, d)) * 0.5,
        "log_tau": np.array([0.3, 0.9, 1.2, 0.5]),
    }
    x = rng.normal(size=(5, 3, d))
    mem = rng.normal(size=(5, 7, e))
    mem_len = np.array([7, 5, 6, 3, 4])
    target = rng.normal(size=(5, 3, d))
    return cast((params, (x, mem, mem_len, target)), dtype)


# A GRU over sequences of several lengths, classified by the last state


def _gru_step(params, h, x_t):
    n_h = h.shape[-1]
    gx = x_t @ params["w"] + params["b"]
    gh = h @ params["u_zr"]
    z = jax.nn.sigmoid(gx[:, :n_h] + gh[:, :n_h])
    r = jax.nn.sigmoid(gx[:, n_h : 2 * n_h] + gh[:, n_h:])
    cand = jnp.tanh(gx[:, 2 * n_h :] + (r * h) @ params["u_n"])
    return z * h + (1 - z) * cand, (z, r, cand)


def gru_loss(params, x, lengths, labels):
    n_h = params["u_n"].shape[0]
    h = jnp.zeros((x.shape[0], n_h), x.dtype)
    for t in range(x.shape[1]):
        new, _ = _gru_step(params, h, x[:, t])
        h = jnp.where((t < lengths)[:, None], new, h)
    logp = jax.nn.log_softmax(h @ params["v"], axis=-1)
    return -jnp.mean(jnp.take_along_axis(logp, labels[:, None], axis=1))


def gru_grad(params, x, lengths, labels, drop_carry=False, ungated_state=False):
    batch, steps, _ = x.shape
    n_h = params["u_n"].shape[0]
    h = jnp.zeros((batch, n_h), x.dtype)
    tape = []
    for t in range(steps):
        new, gates = _gru_step(params, h, x[:, t])
        alive = (t < lengths)[:, None].astype(x.dtype)
        tape.append((h, gates, alive))
        h = alive * new + (1 - alive) * h
    probs = jax.nn.softmax(h @ params["v"], axis=-1)
    d_logits = (probs - jax.nn.one_hot(labels, probs.shape[1], dtype=x.dtype)) / batch
    grads = {name: jnp.zeros_like(p) for name, p in params.items()}
    grads["v"] = h.T @ d_logits
    dh = d_logits @ params["v"].T
    for t in reversed(range(steps)):
        h_prev, (z, r, cand), alive = tape[t]
        d_new = dh * alive
        d_skip = dh * (1 - alive)
        d_cand = d_new * (1 - z) * (1 - cand**2)
        d_z = d_new * (h_prev - cand) * z * (1 - z)
        d_rh = d_cand @ params["u_n"].T
        d_r = d_rh * h_prev * r * (1 - r)
        d_zr = jnp.concatenate([d_z, d_r], axis=1)
        d_gx = jnp.concatenate([d_zr, d_cand], axis=1)
        grads["w"] = grads["w"] + x[:, t].T @ d_gx
        grads["b"] = grads["b"] + d_gx.sum(0)
        grads["u_zr"] = grads["u_zr"] + h_prev.T @ d_zr
        state = h_prev if ungated_state else r * h_prev
        grads["u_n"] = grads["u_n"] + state.T @ d_cand
        dh = d_skip + d_zr @ params["u_zr"].T + d_rh * r
        if not drop_carry:
            dh = dh + d_new * z
    return grads


def make_gru(dtype):
    rng = np.random.default_rng(303)
    n_in, n_h, n_out = 3, 5, 4
    params = {
        "w": rng.normal(size=(n_in, 3 * n_h)) * 0.8,
        "u_zr": rng.normal(size=(n_h, 2 * n_h)) * 0.6,
        "u_n": rng.normal(size=(n_h, n_h)) * 0.6,
        "b": rng.normal(size=(3 * n_h,)) * 0.2,
        "v": rng.normal(size=(n_h, n_out)),
    }
    x = rng.normal(size=(8, 6, n_in))
    lengths = np.array([6, 4, 5, 6, 3, 2, 6, 5])
    labels = rng.integers(0, n_out, size=8)
    return cast((params, (x, lengths, labels)), dtype)


# A small convolutional network by lax, with softplus and average pooling

DIMS = ("NHWC", "HWIO", "NHWC")


def _conv(x, k, padding="VALID"):
    return lax.conv_general_dilated(x, k, (1, 1), padding, dimension_numbers=DIMS)


def conv_loss(params, images, labels):
    h1 = jax.nn.softplus(_conv(images, params["k1"]) + params["c1"])
    h2 = jax.nn.softplus(_conv(h1, params["k2"]) + params["c2"])
    score = h2.mean(axis=(1, 2)) @ params["head"] + params["bias"]
    signs = 2.0 * labels.astype(images.dtype) - 1.0
    return jnp.mean(jax.nn.softplus(-signs * score))


def conv_grad(params, images, labels, keep_kernel=False):
    a1 = _conv(images, params["k1"]) + params["c1"]
    h1 = jax.nn.softplus(a1)
    a2 = _conv(h1, params["k2"]) + params["c2"]
    h2 = jax.nn.softplus(a2)
    pooled = h2.mean(axis=(1, 2))
    score = pooled @ params["head"] + params["bias"]
    signs = 2.0 * labels.astype(images.dtype) - 1.0

    def kernel_grad(inp, d_act, kh, kw):
        oh, ow = d_act.shape[1:3]
        rows = []
        for i in range(kh):
            row = [jnp.einsum("bhwc,bhwo->co", inp[:, i : i + oh, j : j + ow], d_act) for j in range(kw)]
            rows.append(jnp.stack(row))
        return jnp.stack(rows)

    d_score = -signs * jax.nn.sigmoid(-signs * score) / labels.shape[0]
    g = {"head": pooled.T @ d_score, "bias": d_score.sum()}
    d_h2 = (d_score[:, None] * params["head"])[:, None, None, :] / (h2.shape[1] * h2.shape[2])
    d_a2 = d_h2 * jax.nn.sigmoid(a2)
    kh, kw = params["k2"].shape[:2]
    g["k2"] = kernel_grad(h1, d_a2, kh, kw)
    g["c2"] = d_a2.sum(axis=(0, 1, 2))
    # full correlation with the turned kernel, channels exchanged
    back = jnp.swapaxes(params["k2"], 2, 3)
    if not keep_kernel:
        back = back[::-1, ::-1]
    d_h1 = _conv(d_a2, back, [(kh - 1, kh - 1), (kw - 1, kw - 1)])
    d_a1 = d_h1 * jax.nn.sigmoid(a1)
    g["k1"] = kernel_grad(images, d_a1, *params["k1"].shape[:2])
    g["c1"] = d_a1.sum(axis=(0, 1, 2))
    return g


def make_conv(dtype):
    rng = np.random.default_rng(404)
    params = {
        "k1": rng.normal(size=(3, 2, 2, 5)) * 0.5,
        "c1": rng.normal(size=(5,)) * 0.3,
        "k2": rng.normal(size=(2, 3, 5, 4)) * 0.5,
        "c2": rng.normal(size=(4,)) * 0.3,
        "head": rng.normal(size=(4,)),
        "bias": np.array(0.2),
    }
    images = rng.normal(size=(6, 6, 7, 2))
    labels = np.array([0, 1, 1, 0, 1, 0])
    return cast((params, (images, labels)), dtype)
