"""Attention with position biases and over a memory, and gated recurrent cells."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def cast(tree: Any, dtype: str) -> Any:
    """Floating arrays to dtype, integers to int32."""

    def one(a):
        a = np.asarray(a)
        return jnp.asarray(a, dtype if np.issubdtype(a.dtype, np.floating) else "int32")

    return jax.tree_util.tree_map(one, tree)


def normals(seed):
    rng = np.random.default_rng(seed)
    return rng, (lambda *shape, scale=1.0: scale * rng.standard_normal(shape))


# Self-attention with relative position bias

HEADS = 2


def split_heads(a):
    b, t, _ = a.shape
    return a.reshape(b, t, HEADS, -1).transpose(0, 2, 1, 3)


def merge_heads(a):
    b, h, t, k = a.shape
    return a.transpose(0, 2, 1, 3).reshape(b, t, h * k)


def relative_index(length):
    pos = jnp.arange(length)
    return pos[None, :] - pos[:, None] + length - 1  # [i, j] -> j - i + T - 1


def relative_attention_loss(params, x, target):
    q, k, v = (split_heads(x @ params[n]) for n in ("wq", "wk", "wv"))
    logits = jnp.einsum("bhik,bhjk->bhij", q, k) / q.shape[-1] ** 0.5
    logits = logits + params["rel"][:, relative_index(x.shape[1])]
    attn = jax.nn.softmax(logits, axis=-1)
    out = merge_heads(jnp.einsum("bhij,bhjk->bhik", attn, v)) @ params["wo"]
    return jnp.mean((out - target) ** 2)


def relative_attention_grad(params, x, target, elementwise_softmax=False, reversed_offsets=False):
    q, k, v = (split_heads(x @ params[n]) for n in ("wq", "wk", "wv"))
    scale = 1.0 / q.shape[-1] ** 0.5
    index = relative_index(x.shape[1])
    logits = scale * jnp.einsum("bhik,bhjk->bhij", q, k) + params["rel"][:, index]
    attn = jax.nn.softmax(logits, axis=-1)
    mixed = merge_heads(jnp.einsum("bhij,bhjk->bhik", attn, v))
    out = mixed @ params["wo"]

    dout = 2.0 * (out - target) / out.size
    dwo = jnp.einsum("btm,bto->mo", mixed, dout)
    dmixed = split_heads(dout @ params["wo"].T)
    dv = jnp.einsum("bhij,bhik->bhjk", attn, dmixed)
    dattn = jnp.einsum("bhik,bhjk->bhij", dmixed, v)
    if elementwise_softmax:
        dlogits = dattn * attn * (1.0 - attn)
    else:
        dlogits = attn * (dattn - jnp.sum(dattn * attn, axis=-1, keepdims=True))
    if reversed_offsets:
        index = index.T
    drel = jnp.zeros_like(params["rel"]).at[:, index].add(dlogits.sum(axis=0))
    dq = scale * jnp.einsum("bhij,bhjk->bhik", dlogits, k)
    dk = scale * jnp.einsum("bhij,bhik->bhjk", dlogits, q)

    def into(d):
        return jnp.einsum("btd,btm->dm", x, merge_heads(d))

    return {"wq": into(dq), "wk": into(dk), "wv": into(dv), "wo": dwo, "rel": drel}


def relative_attention_make(dtype):
    _, n = normals(101)
    d, hk, o, t, b = 7, 6, 3, 5, 4
    params = {
        "wq": n(d, hk, scale=0.5),
        "wk": n(d, hk, scale=0.5),
        "wv": n(d, hk, scale=0.5),
        "wo": n(hk, o, scale=0.6),
        "rel": n(HEADS, 2 * t - 1),
    }
    return cast((params, (n(b, t, d), n(b, t, o))), dtype)


# Cross-attention over a padded memory


def cross_attention_loss(params, x, memory, valid, target):
    q = x @ params["wq"]
    k = memory @ params["wk"]
    v = memory @ params["wv"]
    logits = jnp.einsum("btk,bsk->bts", q, k) / q.shape[-1] ** 0.5
    logits = jnp.where(valid[:, None, :] > 0, logits, -1e9)
    attn = jax.nn.softmax(logits, axis=-1)
    out = (attn @ v) @ params["wo"] + params["bo"]
    return 0.5 * jnp.mean(jnp.sum((out - target) ** 2, axis=-1))


def cross_attention_grad(params, x, memory, valid, target, query_unscaled=False, keys_values_exchanged=False):
    wq, wk, wv, wo = (params[n] for n in ("wq", "wk", "wv", "wo"))
    q, k, v = x @ wq, memory @ wk, memory @ wv
    scale = q.shape[-1] ** -0.5
    keep = valid[:, None, :] > 0
    attn = jax.nn.softmax(jnp.where(keep, scale * (q @ k.transpose(0, 2, 1)), -1e9), axis=-1)
    context = attn @ v
    out = context @ wo + params["bo"]

    dout = (out - target) / (out.shape[0] * out.shape[1])
    dcontext = dout @ wo.T
    dattn = dcontext @ v.transpose(0, 2, 1)
    dlogits = attn * (dattn - jnp.sum(dattn * attn, axis=-1, keepdims=True))
    dscores = jnp.where(keep, dlogits, 0.0)
    dq = dscores @ k
    if not query_unscaled:
        dq = dq * scale
    dk = scale * (dscores.transpose(0, 2, 1) @ q)
    dv = attn.transpose(0, 2, 1) @ dcontext
    grads = {
        "wq": jnp.tensordot(x, dq, axes=((0, 1), (0, 1))),
        "wk": jnp.tensordot(memory, dk, axes=((0, 1), (0, 1))),
        "wv": jnp.tensordot(memory, dv, axes=((0, 1), (0, 1))),
        "wo": jnp.tensordot(context, dout, axes=((0, 1), (0, 1))),
        "bo": dout.sum(axis=(0, 1)),
    }
    if keys_values_exchanged:
        grads["wk"], grads["wv"] = grads["wv"], grads["wk"]
    return grads


def cross_attention_make(dtype):
    _, n = normals(102)
    b, t, s, d, m, k, o = 4, 5, 6, 7, 8, 3, 2
    params = {
        "wq": n(d, k, scale=0.6),
        "wk": n(m, k, scale=0.5),
        "wv": n(m, k, scale=0.5),
        "wo": n(k, o),
        "bo": n(o, scale=0.3),
    }
    valid = np.arange(s)[None, :] < np.array([6, 4, 5, 3])[:, None]
    return cast((params, (n(b, t, d), n(b, s, m), valid.astype(np.int32), n(b, t, o))), dtype)


# Gated recurrent unit by scan


def gru_step(params, h, x):
    z = jax.nn.sigmoid(x @ params["wz"] + h @ params["uz"] + params["bz"])
    r = jax.nn.sigmoid(x @ params["wr"] + h @ params["ur"] + params["br"])
    cand = jnp.tanh(x @ params["wn"] + (r * h) @ params["un"] + params["bn"])
    return (1.0 - z) * cand + z * h, (z, r, cand)


def gru_loss(params, xs, ys):
    def body(h, x):
        h, _ = gru_step(params, h, x)
        return h, h

    h0 = jnp.zeros((xs.shape[1], params["uz"].shape[0]), xs.dtype)
    _, hs = lax.scan(body, h0, xs)
    return jnp.mean((hs @ params["wo"] - ys) ** 2)


def gru_grad(params, xs, ys, reset_path_lost=False, candidate_from_plain_state=False):
    def forward(h, x):
        new, gates = gru_step(params, h, x)
        return new, (h, new, *gates)

    h0 = jnp.zeros((xs.shape[1], params["uz"].shape[0]), xs.dtype)
    _, (before, after, zs, rs, cands) = lax.scan(forward, h0, xs)
    out = after @ params["wo"]
    dout = 2.0 * (out - ys) / out.size
    dwo = jnp.einsum("tbh,tbo->ho", after, dout)
    dafter = dout @ params["wo"].T

    def backward(carry, step):
        dh, acc = carry
        x, h, z, r, cand, dlocal = step
        dh = dh + dlocal
        daz = dh * (h - cand) * z * (1.0 - z)
        dan = dh * (1.0 - z) * (1.0 - cand**2)
        dreset = dan @ params["un"].T
        dar = dreset * h * r * (1.0 - r)
        dprev = dh * z + dreset * r + daz @ params["uz"].T
        if not reset_path_lost:
            dprev = dprev + dar @ params["ur"].T
        gated = h if candidate_from_plain_state else r * h
        new = {
            "wz": x.T @ daz,
            "uz": h.T @ daz,
            "bz": daz.sum(0),
            "wr": x.T @ dar,
            "ur": h.T @ dar,
            "br": dar.sum(0),
            "wn": x.T @ dan,
            "un": gated.T @ dan,
            "bn": dan.sum(0),
        }
        acc = {name: acc[name] + new[name] for name in acc}
        return (dprev, acc), None

    start = {name: jnp.zeros_like(p) for name, p in params.items() if name != "wo"}
    (_, grads), _ = lax.scan(backward, (jnp.zeros_like(h0), start), (xs, before, zs, rs, cands, dafter), reverse=True)
    return {**grads, "wo": dwo}


def gru_make(dtype):
    _, n = normals(103)
    t, b, d, h, o = 6, 5, 3, 4, 2
    params = {}
    for gate in "zrn":
        params["w" + gate] = n(d, h, scale=0.8)
        params["u" + gate] = n(h, h, scale=0.9)
        params["b" + gate] = n(h, scale=0.3)
    params["wo"] = n(h, o)
    return cast((params, (n(t, b, d), n(t, b, o))), dtype)


# Long short-term memory with peepholes


def peephole_step(params, h, c, x):
    pre = x @ params["w"] + h @ params["u"] + params["b"]
    ai, af, ag, ao = jnp.split(pre, 4, axis=-1)
    i = jax.nn.sigmoid(ai + params["p_in"] * c)
    f = jax.nn.sigmoid(af + params["p_forget"] * c)
    g = jnp.tanh(ag)
    new_c = f * c + i * g
    o = jax.nn.sigmoid(ao + params["p_out"] * new_c)
    return o * jnp.tanh(new_c), new_c, (i, f, g, o)


def peephole_loss(params, xs, y):
    def body(carry, x):
        h, c, _ = peephole_step(params, *carry, x)
        return (h, c), None

    zero = jnp.zeros((xs.shape[1], params["p_in"].shape[0]), xs.dtype)
    (h, _), _ = lax.scan(body, (zero, zero), xs)
    return 0.5 * jnp.mean(jnp.sum((h @ params["wy"] - y) ** 2, axis=-1))


def peephole_grad(params, xs, y, output_peephole_on_old_cell=False):
    steps, batch = xs.shape[:2]
    h = c = jnp.zeros((batch, params["p_in"].shape[0]), xs.dtype)
    tape = []
    for t in range(steps):
        new_h, new_c, gates = peephole_step(params, h, c, xs[t])
        tape.append((xs[t], h, c, new_c, gates))
        h, c = new_h, new_c

    dy = (h @ params["wy"] - y) / batch
    grads = {name: jnp.zeros_like(p) for name, p in params.items()}
    grads["wy"] = h.T @ dy
    dh, dc = dy @ params["wy"].T, jnp.zeros_like(c)
    for x, h_old, c_old, c_new, (i, f, g, o) in reversed(tape):
        squashed = jnp.tanh(c_new)
        dao = dh * squashed * o * (1 - o)
        dc = dc + dh * o * (1 - squashed**2) + dao * params["p_out"]
        dai = dc * g * i * (1 - i)
        daf = dc * c_old * f * (1 - f)
        dag = dc * i * (1 - g**2)
        seen_by_output = c_old if output_peephole_on_old_cell else c_new
        grads["p_in"] += jnp.sum(dai * c_old, axis=0)
        grads["p_forget"] += jnp.sum(daf * c_old, axis=0)
        grads["p_out"] += jnp.sum(dao * seen_by_output, axis=0)
        dpre = jnp.concatenate([dai, daf, dag, dao], axis=-1)
        grads["w"] += x.T @ dpre
        grads["u"] += h_old.T @ dpre
        grads["b"] += dpre.sum(axis=0)
        dh = dpre @ params["u"].T
        dc = dc * f + dai * params["p_in"] + daf * params["p_forget"]
    return grads


def peephole_make(dtype):
    _, n = normals(104)
    t, b, d, h, o = 6, 5, 3, 4, 2
    params = {
        "w": n(d, 4 * h, scale=0.8),
        "u": n(h, 4 * h, scale=0.7),
        "b": n(4 * h, scale=0.3),
        "p_in": n(h, scale=0.7),
        "p_forget": n(h, scale=0.7),
        "p_out": n(h, scale=0.7),
        "wy": n(h, o),
    }
    return cast((params, (n(t, b, d), n(b, o))), dtype)
