"""Attention, a transformer block, an LSTM and a GRU, with gradients by hand."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def draw(rng, dtype, size, **shapes):
    """A dict of normal draws of the given shapes."""
    return {name: jnp.asarray(size * rng.normal(size=shape), dtype) for name, shape in shapes.items()}


def softmax_back(p, dp, axis=-1):
    """Gradient by the logits, from the probabilities and the gradient by them."""
    return p * (dp - (p * dp).sum(axis, keepdims=True))


# Attention: causal, grouped heads, rotary positions

HEADS, GROUPS, WIDTH = 4, 2, 2


def rotate(x, sign):
    """Rotary positions for heads of width two; x is (batch, time, head, 2)."""
    angle = (0.7 * jnp.arange(x.shape[1], dtype=x.dtype))[:, None]
    c, s = jnp.cos(angle), sign * jnp.sin(angle)
    return jnp.stack([x[..., 0] * c - x[..., 1] * s, x[..., 0] * s + x[..., 1] * c], -1)


def attention_forward(params, x):
    b, t, _ = x.shape
    q = rotate((x @ params["wq"]).reshape(b, t, HEADS, WIDTH), 1)
    k = rotate((x @ params["wk"]).reshape(b, t, GROUPS, WIDTH), 1)
    v = (x @ params["wv"]).reshape(b, t, GROUPS, WIDTH)
    k, v = jnp.repeat(k, HEADS // GROUPS, 2), jnp.repeat(v, HEADS // GROUPS, 2)
    scores = jnp.einsum("bihd,bjhd->bhij", q, k) / WIDTH**0.5
    p = jax.nn.softmax(jnp.where(jnp.tril(jnp.ones((t, t), bool)), scores, -1e9), -1)
    o = jnp.einsum("bhij,bjhd->bihd", p, v).reshape(b, t, HEADS * WIDTH)
    return q, k, v, p, o, o @ params["wo"]


def attention_loss(params, x, target):
    """Causal attention with grouped heads and rotary positions, squared error."""
    return 0.5 * jnp.mean((attention_forward(params, x)[-1] - target) ** 2)


def attention_grad(params, x, target, bug=None):
    b, t, _ = x.shape
    rep = HEADS // GROUPS
    q, k, v, p, o, y = attention_forward(params, x)
    dy = (y - target) / y.size
    do = (dy @ params["wo"].T).reshape(b, t, HEADS, WIDTH)
    dp = jnp.einsum("bihd,bjhd->bhij", do, v)
    dv = jnp.einsum("bhij,bihd->bjhd", p, do)
    ds = softmax_back(p, dp) / WIDTH**0.5
    dq = jnp.einsum("bhij,bjhd->bihd", ds, k)
    dk = jnp.einsum("bhij,bihd->bjhd", ds, q)
    if bug == "first_of_group":
        dk = dk.reshape(b, t, GROUPS, rep, WIDTH)[:, :, :, 0]
    else:
        dk = dk.reshape(b, t, GROUPS, rep, WIDTH).sum(3)
    if bug == "group_order":
        dv = dv.reshape(b, t, rep, GROUPS, WIDTH).sum(2)
    else:
        dv = dv.reshape(b, t, GROUPS, rep, WIDTH).sum(3)
    dq = rotate(dq, 1 if bug == "rotary_forward" else -1).reshape(b, t, -1)
    dk = rotate(dk, -1).reshape(b, t, -1)
    return {
        "wq": jnp.einsum("btd,bte->de", x, dq),
        "wk": jnp.einsum("btd,bte->de", x, dk),
        "wv": jnp.einsum("btd,bte->de", x, dv.reshape(b, t, -1)),
        "wo": jnp.einsum("bte,bto->eo", o, dy),
    }


def attention_make(dtype):
    rng = np.random.default_rng(101)
    params = draw(rng, dtype, 0.6, wq=(5, 8), wk=(5, 4), wv=(5, 4), wo=(8, 3))
    args = draw(rng, dtype, 1.0, x=(2, 6, 5), target=(2, 6, 3))
    return params, (args["x"], args["target"])


# Attention with a learned bias by relative position


def relative_forward(params, x):
    t = x.shape[1]
    rel = jnp.arange(t)[:, None] - jnp.arange(t)[None, :] + t - 1
    q, k = x @ params["wq"], x @ params["wk"]
    p = jax.nn.softmax(jnp.einsum("bid,bjd->bij", q, k) + params["bias"][rel], -1)
    return rel, q, k, p, p @ x


def relative_loss(params, x, target):
    """One head with a bias for each distance i - j, squared error."""
    return 0.5 * jnp.mean((relative_forward(params, x)[-1] - target) ** 2)


def relative_grad(params, x, target, bug=None):
    rel, q, k, p, y = relative_forward(params, x)
    dy = (y - target) / y.size
    ds = softmax_back(p, jnp.einsum("bid,bjd->bij", dy, x))
    index = rel.T if bug == "distance_sign" else rel
    return {
        "wq": jnp.einsum("bic,bij,bjd->cd", x, ds, k),
        "wk": jnp.einsum("bjc,bij,bid->cd", x, ds, q),
        "bias": jnp.zeros_like(params["bias"]).at[index].add(ds.sum(0)),
    }


def relative_make(dtype):
    rng = np.random.default_rng(102)
    params = draw(rng, dtype, 0.6, wq=(4, 3), wk=(4, 3), bias=(9,))
    args = draw(rng, dtype, 1.0, x=(2, 5, 4), target=(2, 5, 4))
    return params, (args["x"], args["target"])


# A small transformer block

NORM_EPS, GELU_C = 1e-5, (2 / np.pi) ** 0.5


def layer_norm(h):
    inv = lax.rsqrt(h.var(-1, keepdims=True) + NORM_EPS)
    return (h - h.mean(-1, keepdims=True)) * inv, inv


def layer_norm_back(n, inv, dn, bug=None):
    dh = dn - dn.mean(-1, keepdims=True)
    if bug != "no_variance_term":
        dh = dh - n * (dn * n).mean(-1, keepdims=True)
    return inv * dh


def gelu_parts(x):
    th = jnp.tanh(float(GELU_C) * (x + 0.044715 * x**3))
    return 0.5 * x * (1 + th), th


def block_forward(params, x):
    h = x @ params["we"]
    n, inv = layer_norm(h)
    m = n * params["gamma"]
    t = x.shape[1]
    q = m @ params["wq"]
    s = jnp.where(jnp.tril(jnp.ones((t, t), bool)), jnp.einsum("bid,bjd->bij", q, m) / m.shape[-1] ** 0.5, -1e9)
    p = jax.nn.softmax(s, -1)
    h2 = h + p @ m
    n2, inv2 = layer_norm(h2)
    u = n2 @ params["w1"]
    g, th = gelu_parts(u)
    return n, inv, m, q, p, n2, inv2, u, g, th, h2 + g @ params["w2"]


def block_loss(params, x, target):
    """Norm, causal attention, residual, norm, two layers with GELU, residual; squared error."""
    return 0.5 * jnp.mean((block_forward(params, x)[-1] - target) ** 2)


def block_grad(params, x, target, bug=None):
    n, inv, m, q, p, n2, inv2, u, g, th, y = block_forward(params, x)
    root = m.shape[-1] ** 0.5
    dy = (y - target) / y.size
    dw2 = jnp.einsum("btf,btd->fd", g, dy)
    w2 = params["w2"] - 1.5 * dw2 if bug == "updated_w2" else params["w2"]
    dg = dy @ w2.T
    inner = float(GELU_C) * (1 + 3 * 0.044715 * u**2)
    slope = 0.5 * (1 + th) + 0.5 * u * (1 - th**2) * inner
    if bug == "gelu_gate_only":
        slope = 0.5 * (1 + th)
    du = dg * slope
    dw1 = jnp.einsum("btd,btf->df", n2, du)
    dh2 = layer_norm_back(n2, inv2, du @ params["w1"].T)
    if bug != "residual_lost":
        dh2 = dh2 + dy
    ds = softmax_back(p, jnp.einsum("bid,bjd->bij", dh2, m)) / root
    dq = jnp.einsum("bij,bjd->bid", ds, m)
    dm = jnp.einsum("bij,bid->bjd", p, dh2) + jnp.einsum("bij,bid->bjd", ds, q) + dq @ params["wq"].T
    dh = dh2 + layer_norm_back(n, inv, dm * params["gamma"], bug)
    return {
        "we": jnp.einsum("bti,btd->id", x, dh),
        "gamma": (dm * n).sum((0, 1)),
        "wq": jnp.einsum("btc,btd->cd", m, dq),
        "w1": dw1,
        "w2": dw2,
    }


def block_make(dtype):
    rng = np.random.default_rng(103)
    params = draw(rng, dtype, 0.6, we=(3, 4), gamma=(4,), wq=(4, 4), w1=(4, 6), w2=(6, 4))
    args = draw(rng, dtype, 1.0, x=(2, 5, 3), target=(2, 5, 4))
    return params, (args["x"], args["target"])


# LSTM by a Python loop


def lstm_forward(params, x):
    b, t, _ = x.shape
    size = params["wh"].shape[0]
    h = c = jnp.zeros((b, size), x.dtype)
    steps = []
    for s in range(t):
        z = x[:, s] @ params["wx"] + h @ params["wh"] + params["b"]
        zi, zf, zg, zo = jnp.split(z, 4, -1)
        i, f, g, o = jax.nn.sigmoid(zi), jax.nn.sigmoid(zf), jnp.tanh(zg), jax.nn.sigmoid(zo)
        c_new = f * c + i * g
        h_new = o * jnp.tanh(c_new)
        steps.append((h, c, i, f, g, o, c_new))
        h, c = h_new, c_new
    return steps, h, h @ params["wo"]


def lstm_loss(params, x, target):
    """LSTM whose last state gives the output, squared error."""
    return 0.5 * jnp.mean((lstm_forward(params, x)[-1] - target) ** 2)


def lstm_grad(params, x, target, bug=None):
    steps, last, y = lstm_forward(params, x)
    dy = (y - target) / y.size
    dh = dy @ params["wo"].T
    dc = jnp.zeros_like(dh)
    dwx, dwh, db = (jnp.zeros_like(params[k]) for k in ("wx", "wh", "b"))
    for s in reversed(range(len(steps))):
        h, c, i, f, g, o, c_new = steps[s]
        tc = jnp.tanh(c_new)
        do = dh * tc * o * (1 - o)
        dc = dc + dh * o * (1 - tc**2)
        di = dc * g * i * (1 - i)
        df = dc * c * f * (1 - f)
        dg = dc * i * (1 - g**2)
        gates = [di, df, do, dg] if bug == "gate_order" else [di, df, dg, do]
        dz = jnp.concatenate(gates, -1)
        dwx, dwh, db = dwx + x[:, s].T @ dz, dwh + h.T @ dz, db + dz.sum(0)
        dh = dz @ params["wh"].T
        dc = jnp.zeros_like(dc) if bug == "cell_carry_lost" else dc * f
    return {"wx": dwx, "wh": dwh, "b": db, "wo": last.T @ dy}


def lstm_make(dtype):
    rng = np.random.default_rng(104)
    params = draw(rng, dtype, 0.7, wx=(2, 12), wh=(3, 12), b=(12,), wo=(3, 4))
    args = draw(rng, dtype, 1.0, x=(5, 6, 2), target=(5, 4))
    return params, (args["x"], args["target"])


# GRU by lax.scan


def gru_forward(params, x):
    def step(h, xt):
        ar, az, an = jnp.split(xt @ params["wx"], 3, -1)
        hr, hz, hn = jnp.split(h @ params["wh"], 3, -1)
        r, z = jax.nn.sigmoid(ar + hr), jax.nn.sigmoid(az + hz)
        n = jnp.tanh(an + r * hn)
        return (1 - z) * n + z * h, (h, hn, r, z, n, xt)

    start = jnp.zeros((x.shape[0], params["wh"].shape[0]), x.dtype)
    last, saved = lax.scan(step, start, x.swapaxes(0, 1))
    return saved, last, last @ params["wo"]


def gru_loss(params, x, target):
    """GRU with the reset after the product, squared error from the last state."""
    return 0.5 * jnp.mean((gru_forward(params, x)[-1] - target) ** 2)


def gru_grad(params, x, target, bug=None):
    saved, last, y = gru_forward(params, x)
    dy = (y - target) / y.size

    def step(carry, kept):
        dh, dwx, dwh = carry
        h, hn, r, z, n, xt = kept
        dn = dh * (1 - z) * (1 - n**2)
        dz = dh * (h - n) * z * (1 - z)
        dr = dn * hn * r * (1 - r)
        dhn = dn if bug == "reset_left_out" else dn * r
        da = jnp.concatenate([dr, dz, dn], -1)
        db = jnp.concatenate([dr, dz, dhn], -1)
        return (dh * z + db @ params["wh"].T, dwx + xt.T @ da, dwh + h.T @ db), None

    start = (dy @ params["wo"].T, jnp.zeros_like(params["wx"]), jnp.zeros_like(params["wh"]))
    (_, dwx, dwh), _ = lax.scan(step, start, saved, reverse=True)
    return {"wx": dwx, "wh": dwh, "wo": last.T @ dy}


def gru_make(dtype):
    rng = np.random.default_rng(105)
    params = draw(rng, dtype, 0.7, wx=(2, 12), wh=(4, 12), wo=(4, 3))
    args = draw(rng, dtype, 1.0, x=(5, 4, 2), target=(5, 3))
    return params, (args["x"], args["target"])
