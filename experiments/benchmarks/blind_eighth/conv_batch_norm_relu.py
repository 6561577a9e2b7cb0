"""Convolution, batch normalization and ReLU; Two-tower retrieval with in-batch negatives."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind_eighth.cross_attention import maker

# ---------------------------------------------------------------- conv -> batch norm -> relu -> conv

EPS = 1e-5


def conv1d(x, w, pad=0):
    return jax.lax.conv_general_dilated(x, w, (1,), [(pad, pad)], dimension_numbers=("NWC", "WIO", "NWC"))


def convnet_loss(params, x, y):
    c = conv1d(x, params["k1"])
    mean = c.mean((0, 1))
    var = ((c - mean) ** 2).mean((0, 1))
    a = params["gamma"] * (c - mean) / jnp.sqrt(var + EPS) + params["beta"]
    out = conv1d(jax.nn.relu(a), params["k2"])
    return jnp.mean(jnp.sum((out - y) ** 2, axis=-1))


def _kernel_grad(x, d_out, width):
    n = d_out.shape[1]
    return jnp.stack([jnp.einsum("blc,blo->co", x[:, i : i + n], d_out) for i in range(width)])


def convnet_grad(params, x, y, flip=True, mean_term=True):
    k1, k2 = params["k1"], params["k2"]
    # forward
    c = conv1d(x, k1)
    mu = jnp.mean(c, axis=(0, 1))
    inv = 1.0 / jnp.sqrt(jnp.mean((c - mu) ** 2, axis=(0, 1)) + EPS)
    c_hat = (c - mu) * inv
    a = params["gamma"] * c_hat + params["beta"]
    h = jnp.maximum(a, 0)
    out = conv1d(h, k2)
    # backward
    d_out = 2 * (out - y) / (out.shape[0] * out.shape[1])
    kernel = jnp.transpose(k2, (0, 2, 1))
    if flip:
        kernel = kernel[::-1]
    d_h = conv1d(d_out, kernel, pad=k2.shape[0] - 1)
    d_a = d_h * (a > 0)
    d_hat = d_a * params["gamma"]
    d_c = d_hat - c_hat * jnp.mean(d_hat * c_hat, axis=(0, 1))
    if mean_term:
        d_c = d_c - jnp.mean(d_hat, axis=(0, 1))
    d_c = d_c * inv
    return {
        "k1": _kernel_grad(x, d_c, k1.shape[0]),
        "gamma": jnp.sum(d_a * c_hat, (0, 1)),
        "beta": jnp.sum(d_a, (0, 1)),
        "k2": _kernel_grad(h, d_out, k2.shape[0]),
    }


def _build_convnet():
    r = np.random.default_rng(303)
    params = {
        "k1": r.normal(size=(2, 2, 5)) * 0.6,
        "gamma": 1 + 0.3 * r.normal(size=5),
        "beta": 0.4 * r.normal(size=5) + 0.3,
        "k2": r.normal(size=(4, 5, 3)) * 0.4,
    }
    return params, (r.normal(size=(6, 8, 2)) + 0.8, r.normal(size=(6, 4, 3)))


make_convnet = maker(_build_convnet)


def ssm_discretize(params):
    lam = -jnp.exp(params["log_decay"]) + 1j * params["freq"]
    dt = jnp.exp(params["log_dt"])
    a_bar = jnp.exp(lam * dt)
    return lam, dt, a_bar, (a_bar - 1) / lam


def ssm_states(a_bar, b_bar, u):
    def step(x, u_t):
        x = a_bar * x + b_bar * u_t[:, None]
        return x, x

    x0 = jnp.zeros((u.shape[0], a_bar.shape[0]), a_bar.dtype)
    return jax.lax.scan(step, x0, u.T)[1]  # time, batch, state


def ssm_loss(params, u, target):
    _, _, a_bar, b_bar = ssm_discretize(params)
    xs = ssm_states(a_bar, b_bar, u)
    c = params["c_re"] + 1j * params["c_im"]
    y = 2 * jnp.real(xs @ c).T + params["skip"][0] * u
    return jnp.mean((y - target) ** 2)


def ssm_grad(params, u, target, conj_state=True, dt_through_input=True):
    lam, dt, a_bar, b_bar = ssm_discretize(params)
    xs = ssm_states(a_bar, b_bar, u)
    c = params["c_re"] + 1j * params["c_im"]
    y = 2 * jnp.real(xs @ c).T + params["skip"][0] * u
    g_y = (2 * (y - target) / y.size).T  # time, batch
    # cotangents of complex z are dL/dRe z + i dL/dIm z
    g_c = 2 * jnp.einsum("tb,tbn->n", g_y, xs.conj() if conj_state else xs)

    def back(g_next, gy_t):
        g = 2 * gy_t[:, None] * c.conj() + a_bar.conj() * g_next
        return g, g

    _, g_x = jax.lax.scan(back, jnp.zeros_like(xs[0]), g_y, reverse=True)
    before = jnp.concatenate([jnp.zeros_like(xs[:1]), xs[:-1]])
    g_a_scan = jnp.sum(g_x * before.conj(), (0, 1))
    g_b = jnp.einsum("tbn,tb->n", g_x, u.T.astype(g_x.dtype))
    g_a = g_a_scan + g_b / lam.conj()
    g_exponent = a_bar.conj() * g_a
    g_lam = dt * g_exponent - g_b * ((a_bar - 1) / lam**2).conj()
    g_dt = jnp.real(lam.conj() * (g_exponent if dt_through_input else a_bar.conj() * g_a_scan))
    return {
        "log_decay": -jnp.exp(params["log_decay"]) * g_lam.real,
        "freq": g_lam.imag,
        "log_dt": g_dt * dt,
        "c_re": g_c.real,
        "c_im": g_c.imag,
        "skip": jnp.sum(g_y.T * u)[None],
    }


def _build_ssm():
    r = np.random.default_rng(404)
    params = {
        "log_decay": r.normal(size=3) * 0.3 - 0.5,
        "freq": np.array([0.8, 1.9, 3.1]),
        "log_dt": r.normal(size=3) * 0.2 - 0.7,
        "c_re": r.normal(size=3),
        "c_im": r.normal(size=3),
        "skip": np.array([0.4]),
    }
    return params, (r.normal(size=(5, 7)), r.normal(size=(5, 7)))


make_ssm = maker(_build_ssm)


def moe_route(wg, x):
    logits = x @ wg
    _, top = jax.lax.top_k(logits, 2)
    chosen = jnp.sum(jax.nn.one_hot(top, wg.shape[1], dtype=x.dtype), axis=1)
    gates = jax.nn.softmax(jnp.where(chosen > 0, logits, -jnp.inf), axis=-1)
    return chosen, gates


def moe_loss(params, x, y):
    _, gates = moe_route(params["wg"], x)
    hidden = jnp.tanh(jnp.einsum("bd,edh->ebh", x, params["w1"]))
    outs = jnp.einsum("ebh,eho->ebo", hidden, params["w2"])
    return jnp.mean((jnp.einsum("be,ebo->bo", gates, outs) - y) ** 2)


def moe_grad(params, x, y, constant_gates=False, experts_ungated=False):
    chosen, gates = moe_route(params["wg"], x)
    hidden = jnp.tanh(jnp.einsum("bd,edh->ebh", x, params["w1"]))
    outs = jnp.einsum("ebh,eho->ebo", hidden, params["w2"])
    combined = jnp.einsum("be,ebo->bo", gates, outs)
    d_comb = 2.0 * (combined - y) / y.size
    weight = chosen if experts_ungated else gates
    d_outs = jnp.einsum("be,bo->ebo", weight, d_comb)
    d_w2 = jnp.einsum("ebh,ebo->eho", hidden, d_outs)
    d_pre = jnp.einsum("ebo,eho->ebh", d_outs, params["w2"]) * (1 - hidden**2)
    d_w1 = jnp.einsum("bd,ebh->edh", x, d_pre)
    if constant_gates:
        d_wg = jnp.zeros_like(params["wg"])
    else:
        d_gates = jnp.einsum("ebo,bo->be", outs, d_comb)
        d_logits = gates * (d_gates - jnp.sum(gates * d_gates, axis=-1, keepdims=True))
        d_wg = x.T @ d_logits
    return {"wg": d_wg, "w1": d_w1, "w2": d_w2}


def _build_moe():
    r = np.random.default_rng(505)
    params = {"wg": r.normal(size=(5, 4)), "w1": r.normal(size=(4, 5, 6)) * 0.5, "w2": r.normal(size=(4, 6, 3)) * 0.6}
    return params, (r.normal(size=(8, 5)), r.normal(size=(8, 3)))


make_moe = maker(_build_moe)


def _gauss(u):
    cdf = 0.5 * (1 + jax.scipy.special.erf(u / float(np.sqrt(2.0))))
    pdf = jnp.exp(-0.5 * u**2) / float(np.sqrt(2 * np.pi))
    return cdf, pdf


def block_loss(p, x, labels):
    s = x @ p["w_in"]
    m = s.mean(-1, keepdims=True)
    v = s.var(-1, keepdims=True)
    n = (s - m) / jnp.sqrt(v + EPS) * p["ln_scale"] + p["ln_bias"]
    u = n @ p["w_up"]
    res = s + (u * _gauss(u)[0]) @ p["w_down"]
    logits = res @ p["head"]
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(labels.shape[0]), labels])


def block_grad(p, x, labels, gelu_gate_only=False):
    s = x @ p["w_in"]
    rstd = jax.lax.rsqrt(s.var(-1, keepdims=True) + EPS)
    s_hat = (s - s.mean(-1, keepdims=True)) * rstd
    n = s_hat * p["ln_scale"] + p["ln_bias"]
    u = n @ p["w_up"]
    cdf, pdf = _gauss(u)
    g = u * cdf
    res = s + g @ p["w_down"]
    prob = jax.nn.softmax(res @ p["head"])
    d_logits = (prob - jax.nn.one_hot(labels, prob.shape[1], dtype=prob.dtype)) / labels.shape[0]
    d_res = d_logits @ p["head"].T
    d_g = d_res @ p["w_down"].T
    d_u = d_g * (cdf if gelu_gate_only else cdf + u * pdf)
    d_n = d_u @ p["w_up"].T
    d_hat = d_n * p["ln_scale"]
    d_s = rstd * (d_hat - d_hat.mean(-1, keepdims=True) - s_hat * (d_hat * s_hat).mean(-1, keepdims=True))
    d_s = d_s + d_res
    return {
        "w_in": x.T @ d_s,
        "ln_scale": (d_n * s_hat).sum(0),
        "ln_bias": d_n.sum(0),
        "w_up": n.T @ d_u,
        "w_down": g.T @ d_res,
        "head": res.T @ d_logits,
    }


def _build_block():
    r = np.random.default_rng(606)
    p = {
        "w_in": r.normal(size=(4, 5)),
        "ln_scale": 1 + 0.2 * r.normal(size=5),
        "ln_bias": 0.2 * r.normal(size=5),
        "w_up": r.normal(size=(5, 7)) * 0.7,
        "w_down": r.normal(size=(7, 5)) * 0.6,
        "head": r.normal(size=(5, 3)),
    }
    return p, (r.normal(size=(8, 4)), r.integers(0, 3, size=8))


make_block = maker(_build_block)


def tied_loss(params, tokens, nxt):
    emb = params["emb"]
    h = jnp.tanh(jnp.sum(emb[tokens] * params["pos"], axis=1))
    logits = h @ emb.T + params["bias"]
    logz = jax.scipy.special.logsumexp(logits, axis=-1)
    return jnp.mean(logz - logits[jnp.arange(nxt.shape[0]), nxt])


def tied_grad(params, tokens, nxt, overwrite=False):
    emb, pos = params["emb"], params["pos"]
    looked_up = emb[tokens]
    h = jnp.tanh(jnp.sum(looked_up * pos, axis=1))
    delta = jax.nn.softmax(h @ emb.T + params["bias"], axis=-1)
    delta = delta.at[jnp.arange(nxt.shape[0]), nxt].add(-1.0) / nxt.shape[0]
    d_pre = (delta @ emb) * (1 - h**2)
    d_rows = d_pre[:, None, :] * pos
    table = jnp.zeros_like(emb)
    if overwrite:
        for b in range(tokens.shape[0]):
            for t in range(tokens.shape[1]):
                table = table.at[tokens[b, t]].set(d_rows[b, t])
    else:
        table = table.at[tokens].add(d_rows)
    return {"emb": table + delta.T @ h, "pos": jnp.sum(looked_up * d_pre[:, None, :], axis=0), "bias": delta.sum(0)}


def _build_tied():
    r = np.random.default_rng(707)
    params = {
        "emb": r.normal(size=(8, 5)) * 0.7,
        "pos": 1 + 0.4 * r.normal(size=(3, 5)),
        "bias": 0.2 * r.normal(size=8),
    }
    tokens = np.array([[0, 1, 1], [2, 5, 0], [6, 1, 3], [2, 4, 2], [7, 0, 5], [3, 6, 1]])
    return params, (tokens, np.array([3, 1, 0, 7, 2, 4]))


make_tied = maker(_build_tied)


# ---------------------------------------------------------------- two-tower retrieval with in-batch negatives

TEMP = 0.4


def unit_rows(a):
    length = jnp.sqrt(jnp.sum(a * a, axis=1, keepdims=True) + 1e-12)
    return a / length, length


def towers_loss(params, user_x, item_x, log_q):
    u, _ = unit_rows(user_x @ params["user"])
    v, _ = unit_rows(item_x @ params["item"])
    sim = u @ v.T / TEMP - log_q[None, :]
    return -jnp.mean(jnp.diagonal(jax.nn.log_softmax(sim, axis=1)))


def towers_grad(params, user_x, item_x, log_q, softmax_axis=1):
    batch = user_x.shape[0]
    u, u_len = unit_rows(user_x @ params["user"])
    v, v_len = unit_rows(item_x @ params["item"])
    sim = u @ v.T / TEMP - log_q[None, :]
    p = jax.nn.softmax(sim, axis=softmax_axis)
    d_sim = (p - jnp.eye(batch, dtype=p.dtype)) / batch / TEMP
    d_u, d_v = d_sim @ v, d_sim.T @ u
    d_u = (d_u - u * jnp.sum(u * d_u, axis=1, keepdims=True)) / u_len
    d_v = (d_v - v * jnp.sum(v * d_v, axis=1, keepdims=True)) / v_len
    return {"user": user_x.T @ d_u, "item": item_x.T @ d_v}


def _build_towers():
    r = np.random.default_rng(808)
    params = {"user": r.normal(size=(4, 3)), "item": r.normal(size=(5, 3))}
    return params, (r.normal(size=(6, 4)), r.normal(size=(6, 5)), np.log(r.uniform(0.05, 0.6, size=6)))


make_towers = maker(_build_towers)
