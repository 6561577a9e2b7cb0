"""Blocks with skip connections, a graph convolution, attention in bfloat16, and regressions."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import digamma, gammaln

from experiments.benchmarks.blind_fifth.attention_and_cells import cast

# Residual block with layer norm and layer scale

LN_EPS = 1e-5


def layerscale_loss(params, x, y):
    r = x @ params["w_in"]
    mean = r.mean(axis=-1, keepdims=True)
    var = jnp.mean((r - mean) ** 2, axis=-1, keepdims=True)
    n = (r - mean) / jnp.sqrt(var + LN_EPS) * params["ln_scale"] + params["ln_bias"]
    branch = jax.nn.softplus(n @ params["w1"]) @ params["w2"]
    out = r + params["layer_scale"] * branch
    return 0.5 * jnp.mean(jnp.sum((out - y) ** 2, axis=-1))


def layerscale_grad(params, x, y, no_mean_term=False, branch_unscaled=False):
    r = x @ params["w_in"]
    centred = r - r.mean(axis=-1, keepdims=True)
    inv = lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + LN_EPS)
    xhat = centred * inv
    normed = xhat * params["ln_scale"] + params["ln_bias"]
    pre = normed @ params["w1"]
    hidden = jax.nn.softplus(pre)
    branch = hidden @ params["w2"]
    out = r + params["layer_scale"] * branch
    dout = (out - y) / x.shape[0]
    dlayer_scale = jnp.sum(dout * branch, axis=0)
    dbranch = dout if branch_unscaled else dout * params["layer_scale"]
    dw2 = hidden.T @ dbranch
    dpre = (dbranch @ params["w2"].T) * jax.nn.sigmoid(pre)
    dw1 = normed.T @ dpre
    dnormed = dpre @ params["w1"].T
    dln_scale = jnp.sum(dnormed * xhat, axis=0)
    dln_bias = jnp.sum(dnormed, axis=0)
    dxhat = dnormed * params["ln_scale"]
    along = xhat * jnp.mean(dxhat * xhat, axis=-1, keepdims=True)
    dr = inv * (dxhat - along) if no_mean_term else inv * (dxhat - dxhat.mean(axis=-1, keepdims=True) - along)
    dr = dr + dout
    return {
        "w_in": x.T @ dr,
        "ln_scale": dln_scale,
        "ln_bias": dln_bias,
        "w1": dw1,
        "w2": dw2,
        "layer_scale": dlayer_scale,
    }


def layerscale_make(dtype):
    rng = np.random.default_rng(110)
    params = {
        "w_in": rng.normal(size=(3, 5)) * 0.7,
        "ln_scale": 1 + 0.3 * rng.normal(size=5),
        "ln_bias": 0.3 * rng.normal(size=5),
        "w1": rng.normal(size=(5, 7)) * 0.7,
        "w2": rng.normal(size=(7, 5)) * 0.7,
        "layer_scale": rng.uniform(0.3, 0.7, size=5),
    }
    args = (rng.normal(size=(6, 3)), rng.normal(size=(6, 5)))
    return cast(params, dtype), cast(args, dtype)


# Highway network, the layers stacked along the first axis


def highway_loss(params, x, y):
    def layer(h, weights):
        w, b, w_gate, b_gate = weights
        t = jax.nn.sigmoid(h @ w_gate + b_gate)
        return t * jnp.tanh(h @ w + b) + (1 - t) * h, None

    h, _ = lax.scan(layer, x, (params["w"], params["b"], params["w_gate"], params["b_gate"]))
    return jnp.mean(jnp.log(jnp.cosh(h @ params["readout"] - y)))


def highway_grad(params, x, y, gate_sees_preactivation=False):
    depth = params["w"].shape[0]
    h = x
    saved = []
    for i in range(depth):
        a = h @ params["w"][i] + params["b"][i]
        c = jnp.tanh(a)
        t = jax.nn.sigmoid(h @ params["w_gate"][i] + params["b_gate"][i])
        saved.append((h, a, c, t))
        h = t * c + (1 - t) * h
    derr = jnp.tanh(h @ params["readout"] - y) / y.shape[0]
    dreadout = h.T @ derr
    dh = derr[:, None] * params["readout"][None, :]
    dw, db, dw_gate, db_gate = [], [], [], []
    for h_in, a, c, t in reversed(saved):
        i = depth - 1 - len(dw)
        dc = dh * t
        dt = dh * (a - h_in) if gate_sees_preactivation else dh * (c - h_in)
        da = dc * (1 - c**2)
        dg = dt * t * (1 - t)
        dw.append(h_in.T @ da)
        db.append(da.sum(axis=0))
        dw_gate.append(h_in.T @ dg)
        db_gate.append(dg.sum(axis=0))
        dh = dh * (1 - t) + da @ params["w"][i].T + dg @ params["w_gate"][i].T
    return {
        "w": jnp.stack(dw[::-1]),
        "b": jnp.stack(db[::-1]),
        "w_gate": jnp.stack(dw_gate[::-1]),
        "b_gate": jnp.stack(db_gate[::-1]),
        "readout": dreadout,
    }


def highway_make(dtype):
    rng = np.random.default_rng(111)
    params = {
        "w": rng.normal(size=(2, 4, 4)) * 0.9,
        "b": rng.normal(size=(2, 4)) * 0.4,
        "w_gate": rng.normal(size=(2, 4, 4)) * 0.6,
        "b_gate": rng.normal(size=(2, 4)) * 0.4,
        "readout": rng.normal(size=4),
    }
    args = (rng.normal(size=(7, 4)), rng.normal(size=7))
    return cast(params, dtype), cast(args, dtype)


# Graph convolution on a directed graph, each node averaging over those that it points at


def gcn_loss(params, x, adjacency, labels, known):
    linked = adjacency + jnp.eye(adjacency.shape[0], dtype=adjacency.dtype)
    norm = linked / linked.sum(axis=1, keepdims=True)
    h = jax.nn.elu(norm @ (x @ params["w1"]) + params["b1"])
    logits = norm @ (h @ params["w2"]) + params["b2"]
    logp = jax.nn.log_softmax(logits, axis=1)
    picked = jnp.take_along_axis(logp, labels[:, None], axis=1)[:, 0]
    return -jnp.sum(picked * known) / known.sum()


def gcn_grad(params, x, adjacency, labels, known, forward_adjacency=False):
    linked = adjacency + jnp.eye(adjacency.shape[0], dtype=adjacency.dtype)
    norm = linked / linked.sum(axis=1, keepdims=True)
    spread = norm @ x
    pre = spread @ params["w1"] + params["b1"]
    h = jnp.where(pre > 0, pre, jnp.expm1(pre))
    hidden_spread = norm @ h
    logits = hidden_spread @ params["w2"] + params["b2"]
    probs = jax.nn.softmax(logits, axis=1)
    onehot = jax.nn.one_hot(labels, probs.shape[1], dtype=x.dtype)
    dlogits = (probs - onehot) * (known / known.sum())[:, None]
    dw2 = hidden_spread.T @ dlogits
    db2 = dlogits.sum(axis=0)
    dhidden_spread = dlogits @ params["w2"].T
    dh = norm @ dhidden_spread if forward_adjacency else norm.T @ dhidden_spread
    dpre = dh * jnp.where(pre > 0, 1.0, jnp.exp(pre)).astype(x.dtype)
    return {"w1": spread.T @ dpre, "b1": dpre.sum(axis=0), "w2": dw2, "b2": db2}


def gcn_make(dtype):
    rng = np.random.default_rng(112)
    params = {
        "w1": rng.normal(size=(3, 5)),
        "b1": rng.normal(size=5) * 0.3,
        "w2": rng.normal(size=(5, 4)),
        "b2": rng.normal(size=4) * 0.3,
    }
    adjacency = (rng.uniform(size=(8, 8)) < 0.3).astype(float)
    np.fill_diagonal(adjacency, 0)
    adjacency[:, 2] = 1.0
    adjacency[2, 2] = 0.0
    known = np.array([1, 0, 1, 1, 0, 1, 1, 0], float)
    args = (rng.normal(size=(8, 3)), adjacency, rng.integers(0, 4, size=8), known)
    return cast(params, dtype), cast(args, dtype)


# Attention whose scores are computed in bfloat16


def bf16_attention_loss(params, x, y):
    q = (x @ params["wq"]).astype(jnp.bfloat16)
    k = (x @ params["wk"]).astype(jnp.bfloat16)
    s = jnp.einsum("btk,bsk->bts", q, k).astype(jnp.float32) / np.float32(np.sqrt(q.shape[-1]))
    o = jax.nn.softmax(s, axis=-1) @ (x @ params["wv"])
    return jnp.mean((o - y) ** 2)


def bf16_attention_grad(params, x, y, stay_low=False):
    low = jnp.bfloat16
    q = (x @ params["wq"]).astype(low)
    k = (x @ params["wk"]).astype(low)
    v = x @ params["wv"]
    root = np.float32(np.sqrt(q.shape[-1]))
    p = jax.nn.softmax(jnp.einsum("btk,bsk->bts", q, k).astype(jnp.float32) / root, axis=-1)
    do = 2 * (p @ v - y) / y.size
    dv = jnp.einsum("bts,btv->bsv", p, do)
    dp = jnp.einsum("btv,bsv->bts", do, v)
    ds = (p * (dp - jnp.sum(p * dp, axis=-1, keepdims=True)) / root).astype(low)
    dq = jnp.einsum("bts,bsk->btk", ds, k)
    dk = jnp.einsum("bts,btk->bsk", ds, q)
    dwv = jnp.einsum("btd,btv->dv", x, dv)
    if stay_low:
        x = x.astype(low)
        dwq, dwk = jnp.zeros(params["wq"].shape, low), jnp.zeros(params["wk"].shape, low)
        for i in range(x.shape[0]):
            for t in range(x.shape[1]):
                dwq = dwq + x[i, t][:, None] * dq[i, t][None, :]
                dwk = dwk + x[i, t][:, None] * dk[i, t][None, :]
    else:
        dwq = jnp.einsum("btd,btk->dk", x, dq.astype(jnp.float32))
        dwk = jnp.einsum("btd,btk->dk", x, dk.astype(jnp.float32))
    return {"wq": dwq, "wk": dwk, "wv": dwv}


def bf16_attention_make(dtype):
    rng = np.random.default_rng(113)
    params = {
        "wq": rng.normal(size=(4, 5)) * 0.6,
        "wk": rng.normal(size=(4, 5)) * 0.6,
        "wv": rng.normal(size=(4, 3)),
    }
    args = (rng.normal(size=(8, 7, 4)), rng.normal(size=(8, 7, 3)))
    return cast(params, dtype), cast(args, dtype)


# Beta regression


def beta_loss(params, x, y):
    mu = jax.nn.sigmoid(x @ params["w"] + params["b"])
    phi = jnp.exp(params["log_phi"])
    a, b = mu * phi, (1 - mu) * phi
    logp = gammaln(phi) - gammaln(a) - gammaln(b) + (a - 1) * jnp.log(y) + (b - 1) * jnp.log1p(-y)
    return -jnp.mean(logp)


def beta_grad(params, x, y, no_precision=False):
    n = y.shape[0]
    mu = jax.nn.sigmoid(x @ params["w"] + params["b"])
    phi = jnp.exp(params["log_phi"])
    psi_a, psi_b = digamma(mu * phi), digamma((1 - mu) * phi)
    dmu = psi_a - psi_b - jnp.log(y / (1 - y))
    if not no_precision:
        dmu = dmu * phi
    deta = dmu * mu * (1 - mu) / n
    dphi = mu * psi_a + (1 - mu) * psi_b - digamma(phi) - mu * jnp.log(y) - (1 - mu) * jnp.log1p(-y)
    return {"w": x.T @ deta, "b": deta.sum(), "log_phi": phi * dphi.mean()}


def beta_make(dtype):
    rng = np.random.default_rng(201)
    params = {"w": rng.normal(size=3) * 0.6, "b": np.array(0.2), "log_phi": np.array(1.3)}
    args = (rng.normal(size=(9, 3)), rng.uniform(0.1, 0.9, size=9))
    return cast(params, dtype), cast(args, dtype)


# Gamma regression with a log link


def gamma_loss(params, x, y):
    eta = jnp.tanh(x @ params["w1"]) @ params["w2"] + params["b"]
    k = jnp.exp(params["log_shape"])
    logp = k * jnp.log(k) - k * eta - gammaln(k) + (k - 1) * jnp.log(y) - k * y * jnp.exp(-eta)
    return -jnp.mean(logp)


def gamma_grad(params, x, y, poisson_score=False):
    n = y.shape[0]
    h = jnp.tanh(x @ params["w1"])
    eta = h @ params["w2"] + params["b"]
    mu = jnp.exp(eta)
    k = jnp.exp(params["log_shape"])
    deta = k * (mu - y) / n if poisson_score else k * (1 - y / mu) / n
    dk = jnp.mean(-jnp.log(k) - 1 + eta + digamma(k) - jnp.log(y) + y / mu)
    dpre = deta[:, None] * params["w2"][None, :] * (1 - h**2)
    return {"w1": x.T @ dpre, "w2": h.T @ deta, "b": deta.sum(), "log_shape": k * dk}


def gamma_make(dtype):
    rng = np.random.default_rng(202)
    params = {
        "w1": rng.normal(size=(3, 5)) * 0.6,
        "w2": rng.normal(size=5) * 0.6,
        "b": np.array(0.4),
        "log_shape": np.array(0.5),
    }
    args = (rng.normal(size=(8, 3)), rng.gamma(2.0, 1.0, size=8) + 0.1)
    return cast(params, dtype), cast(args, dtype)


# Word vectors with negative sampling


def word2vec_loss(params, centre, positive, negative):
    v = params["centre"][centre]
    pos = jnp.sum(v * params["context"][positive], axis=-1)
    neg = jnp.einsum("nd,nkd->nk", v, params["context"][negative])
    return -jnp.mean(jax.nn.log_sigmoid(pos) + jnp.sum(jax.nn.log_sigmoid(-neg), axis=-1))


def word2vec_grad(params, centre, positive, negative, tables_exchanged=False):
    n = centre.shape[0]
    v = params["centre"][centre]
    u_pos = params["context"][positive]
    u_neg = params["context"][negative]
    g_pos = (jax.nn.sigmoid(jnp.sum(v * u_pos, axis=-1)) - 1) / n
    g_neg = jax.nn.sigmoid(jnp.einsum("nd,nkd->nk", v, u_neg)) / n
    dv = g_pos[:, None] * u_pos + jnp.einsum("nk,nkd->nd", g_neg, u_neg)
    dcentre = jnp.zeros_like(params["centre"]).at[centre].add(dv)
    dcontext = jnp.zeros_like(params["context"]).at[positive].add(g_pos[:, None] * v)
    dcontext = dcontext.at[negative].add(g_neg[:, :, None] * v[:, None, :])
    if tables_exchanged:
        return {"centre": dcontext, "context": dcentre}
    return {"centre": dcentre, "context": dcontext}


def word2vec_make(dtype):
    rng = np.random.default_rng(203)
    params = {"centre": rng.normal(size=(8, 3)), "context": rng.normal(size=(8, 3))}
    args = (rng.integers(0, 8, size=7), rng.integers(0, 8, size=7), rng.integers(0, 8, size=(7, 2)))
    return cast(params, dtype), cast(args, dtype)
