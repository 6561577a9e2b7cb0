"""Multi-query and rotary attention, and two recurrent cells."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def cast(tree, dtype):
    def one(a):
        a = np.asarray(a)
        if np.iscomplexobj(a):
            return jnp.asarray(a, "complex128" if dtype == "float64" else "complex64")
        if np.issubdtype(a.dtype, np.floating):
            return jnp.asarray(a, dtype)
        if a.dtype == bool:
            return jnp.asarray(a)
        return jnp.asarray(a, "int32")

    return jax.tree_util.tree_map(one, tree)


# Multi-query attention: heads share one key and one value projection; causal


def mqa_loss(params, x, y):
    q = jnp.einsum("btd,dhk->bhtk", x, params["wq"])
    k = x @ params["wk"]
    v = x @ params["wv"]
    s = jnp.einsum("bhtk,bsk->bhts", q, k) / float(np.sqrt(k.shape[-1]))
    t = x.shape[1]
    s = jnp.where(jnp.tril(jnp.ones((t, t), bool)), s, -jnp.inf)
    o = jnp.einsum("bhts,bsv->bthv", jax.nn.softmax(s, axis=-1), v)
    out = jnp.einsum("bthv,hvm->btm", o, params["wo"])
    return 0.5 * jnp.mean((out - y) ** 2)


def mqa_grad(params, x, y, mask_offset=0, overwrite_heads=False):
    wq, wk, wv, wo = params["wq"], params["wk"], params["wv"], params["wo"]
    t = x.shape[1]
    n_heads = wq.shape[1]
    scale = float(1.0 / np.sqrt(wk.shape[-1]))
    # forward, keeping only the logsumexp and the output
    q = jnp.einsum("btd,dhk->bhtk", x, wq)
    k = x @ wk
    v = x @ wv
    scores = jnp.einsum("bhtk,bsk->bhts", q, k) * scale
    allowed = jnp.tril(jnp.ones((t, t), bool))
    lse = jax.nn.logsumexp(jnp.where(allowed, scores, -jnp.inf), axis=-1, keepdims=True)
    o = jnp.einsum("bhts,bsv->bthv", jnp.where(allowed, jnp.exp(scores - lse), 0), v)
    out = jnp.einsum("bthv,hvm->btm", o, wo)
    # backward: the probabilities again from the logsumexp
    visible = jnp.tril(jnp.ones((t, t), bool), mask_offset)
    p = jnp.where(visible, jnp.exp(scores - lse), 0)
    dout = (out - y) / y.size
    dwo = jnp.einsum("bthv,btm->hvm", o, dout)
    do = jnp.einsum("btm,hvm->bthv", dout, wo)
    dp = jnp.einsum("bthv,bsv->bhts", do, v)
    dv = jnp.einsum("bhts,bthv->bsv", p, do)
    delta = jnp.einsum("bthv,bthv->bht", do, o)[..., None]
    ds = p * (dp - delta) * scale
    dq = jnp.einsum("bhts,bsk->bhtk", ds, k)
    dk = jnp.zeros_like(k)
    for h in range(n_heads):
        dk_h = jnp.einsum("bts,btk->bsk", ds[:, h], q[:, h])
        dk = dk_h if overwrite_heads else dk + dk_h
    return {
        "wq": jnp.einsum("btd,bhtk->dhk", x, dq),
        "wk": jnp.einsum("btd,btk->dk", x, dk),
        "wv": jnp.einsum("btd,btv->dv", x, dv),
        "wo": dwo,
    }


def mqa_make(dtype):
    rng = np.random.default_rng(101)
    params = {
        "wq": rng.normal(size=(6, 3, 5)) * 0.35,
        "wk": rng.normal(size=(6, 5)) * 0.35,
        "wv": rng.normal(size=(6, 2)) * 0.7,
        "wo": rng.normal(size=(3, 2, 8)) * 0.7,
    }
    args = (rng.normal(size=(4, 7, 6)), rng.normal(size=(4, 7, 8)))
    return cast(params, dtype), cast(args, dtype)


# Rotary attention, pooled, with a classifier


def rotary_tables(t, half, dtype):
    freq = 1.0 / (30.0 ** (jnp.arange(half) / half))
    angle = jnp.arange(t)[:, None] * freq[None, :]
    return jnp.cos(angle).astype(dtype), jnp.sin(angle).astype(dtype)


def rotate(z, cos, sin):
    a, b = jnp.split(z, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def unrotate(z, cos, sin):
    a, b = jnp.split(z, 2, axis=-1)
    return jnp.concatenate([a * cos + b * sin, b * cos - a * sin], axis=-1)


def rotary_loss(params, x, labels):
    half = params["wq"].shape[1] // 2
    cos, sin = rotary_tables(x.shape[1], half, x.dtype)
    q = rotate(x @ params["wq"], cos, sin)
    k = rotate(x @ params["wk"], cos, sin)
    p = jax.nn.softmax(q @ jnp.swapaxes(k, 1, 2) / float(np.sqrt(2.0 * half)), axis=-1)
    pooled = jnp.mean(jnp.tanh(p @ (x @ params["wv"])), axis=1)
    logp = jax.nn.log_softmax(pooled @ params["head"])
    return -jnp.mean(jnp.take_along_axis(logp, labels[:, None], axis=1))


def rotary_grad(params, x, labels, rotate_again=False):
    n, t, _ = x.shape
    half = params["wq"].shape[1] // 2
    cos, sin = rotary_tables(t, half, x.dtype)
    scale = float(1.0 / np.sqrt(2.0 * half))
    q = rotate(x @ params["wq"], cos, sin)
    k = rotate(x @ params["wk"], cos, sin)
    v = x @ params["wv"]
    p = jax.nn.softmax(jnp.einsum("btk,bsk->bts", q, k) * scale, axis=-1)
    act = jnp.tanh(p @ v)
    pooled = act.mean(axis=1)
    probs = jax.nn.softmax(pooled @ params["head"])
    dlogits = (probs - jax.nn.one_hot(labels, probs.shape[1], dtype=x.dtype)) / n
    dhead = pooled.T @ dlogits
    dact = jnp.broadcast_to((dlogits @ params["head"].T)[:, None, :] / t, act.shape)
    do = dact * (1 - act**2)
    dv = jnp.einsum("bts,btv->bsv", p, do)
    dp = jnp.einsum("btv,bsv->bts", do, v)
    ds = p * (dp - jnp.sum(p * dp, axis=-1, keepdims=True)) * scale
    back = rotate if rotate_again else unrotate
    dq = back(jnp.einsum("bts,bsk->btk", ds, k), cos, sin)
    dk = back(jnp.einsum("bts,btk->bsk", ds, q), cos, sin)
    return {
        "wq": jnp.einsum("btd,btk->dk", x, dq),
        "wk": jnp.einsum("btd,btk->dk", x, dk),
        "wv": jnp.einsum("btd,btv->dv", x, dv),
        "head": dhead,
    }


def rotary_make(dtype):
    rng = np.random.default_rng(102)
    params = {
        "wq": rng.normal(size=(3, 6)),
        "wk": rng.normal(size=(3, 6)),
        "wv": rng.normal(size=(3, 2)),
        "head": rng.normal(size=(2, 7)),
    }
    args = (rng.normal(size=(4, 5, 3)), rng.integers(0, 7, size=4))
    return cast(params, dtype), cast(args, dtype)


# Vanilla RNN, each step added to the state


def res_rnn_loss(params, x, y):
    def step(h, x_t):
        return h + jnp.tanh(x_t @ params["w_in"] + h @ params["w_rec"] + params["b"]), None

    h0 = jnp.zeros((x.shape[1], params["b"].shape[0]), x.dtype)
    h, _ = lax.scan(step, h0, x)
    return jnp.mean((h @ params["w_out"] - y) ** 2)


def res_rnn_grad(params, x, y, no_skip=False, step_first=False, lr=0.4):
    w_in, w_rec, b, w_out = params["w_in"], params["w_rec"], params["b"], params["w_out"]
    h = jnp.zeros((x.shape[1], b.shape[0]), x.dtype)
    tape = []
    for x_t in x:
        u = jnp.tanh(x_t @ w_in + h @ w_rec + b)
        tape.append((x_t, h, u))
        h = h + u
    dpred = 2 * (h @ w_out - y) / y.size
    dw_out = h.T @ dpred
    if step_first:
        w_out = w_out - lr * dw_out
    dh = dpred @ w_out.T
    dw_in, dw_rec, db = jnp.zeros_like(w_in), jnp.zeros_like(w_rec), jnp.zeros_like(b)
    for x_t, h_prev, u in reversed(tape):
        da = dh * (1 - u**2)
        dw_in = dw_in + x_t.T @ da
        dw_rec = dw_rec + h_prev.T @ da
        db = db + da.sum(axis=0)
        dh = da @ w_rec.T if no_skip else dh + da @ w_rec.T
    return {"w_in": dw_in, "w_rec": dw_rec, "b": db, "w_out": dw_out}


def res_rnn_make(dtype):
    rng = np.random.default_rng(103)
    params = {
        "w_in": rng.normal(size=(3, 5)) * 0.5,
        "w_rec": rng.normal(size=(5, 5)) * 0.3,
        "b": rng.normal(size=5) * 0.2,
        "w_out": rng.normal(size=(5, 2)) * 0.6,
    }
    args = (rng.normal(size=(6, 8, 3)), rng.normal(size=(8, 2)))
    return cast(params, dtype), cast(args, dtype)


# Minimal gated unit: one gate f, used for the candidate and for the update


def mgu_loss(params, x, y):
    def step(h, inputs):
        x_t, y_t = inputs
        f = jax.nn.sigmoid(x_t @ params["wf"] + h @ params["uf"] + params["bf"])
        c = jnp.tanh(x_t @ params["wc"] + (f * h) @ params["uc"] + params["bc"])
        h = (1 - f) * h + f * c
        return h, jnp.sum((h - y_t) ** 2)

    h0 = jnp.zeros((x.shape[1], params["bf"].shape[0]), x.dtype)
    _, losses = lax.scan(step, h0, (x, y))
    return 0.5 * jnp.sum(losses) / x.shape[1]


def mgu_grad(params, x, y, tanh_of_tanh=False):
    n = x.shape[1]

    def forward(h, x_t):
        f = jax.nn.sigmoid(x_t @ params["wf"] + h @ params["uf"] + params["bf"])
        c = jnp.tanh(x_t @ params["wc"] + (f * h) @ params["uc"] + params["bc"])
        new = (1 - f) * h + f * c
        return new, (h, f, c, new)

    def backward(carry, saved):
        dh, grads = carry
        x_t, y_t, h, f, c, new = saved
        dh = dh + (new - y_t) / n
        dc = dh * f
        df = dh * (c - h)
        dh_prev = dh * (1 - f)
        dac = dc * (1 - jnp.tanh(c) ** 2) if tanh_of_tanh else dc * (1 - c**2)
        dfh = dac @ params["uc"].T
        df = df + dfh * h
        dh_prev = dh_prev + dfh * f
        daf = df * f * (1 - f)
        dh_prev = dh_prev + daf @ params["uf"].T
        here = {
            "wf": x_t.T @ daf,
            "uf": h.T @ daf,
            "bf": daf.sum(0),
            "wc": x_t.T @ dac,
            "uc": (f * h).T @ dac,
            "bc": dac.sum(0),
        }
        return (dh_prev, {name: grads[name] + here[name] for name in grads}), None

    h0 = jnp.zeros((n, params["bf"].shape[0]), x.dtype)
    _, (hs, fs, cs, news) = lax.scan(forward, h0, x)
    zeros = {name: jnp.zeros_like(value) for name, value in params.items()}
    (_, grads), _ = lax.scan(backward, (jnp.zeros_like(h0), zeros), (x, y, hs, fs, cs, news), reverse=True)
    return grads


def mgu_make(dtype):
    rng = np.random.default_rng(104)
    params = {
        "wf": rng.normal(size=(3, 4)) * 0.7,
        "uf": rng.normal(size=(4, 4)) * 0.6,
        "bf": rng.normal(size=4) * 0.3,
        "wc": rng.normal(size=(3, 4)) * 0.9,
        "uc": rng.normal(size=(4, 4)) * 0.7,
        "bc": rng.normal(size=4) * 0.3,
    }
    args = (rng.normal(size=(5, 6, 3)), rng.normal(size=(5, 6, 4)))
    return cast(params, dtype), cast(args, dtype)
