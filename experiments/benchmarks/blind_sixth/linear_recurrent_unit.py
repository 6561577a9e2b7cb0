"""A linear recurrent unit: a diagonal complex state; Mixture of experts: two of four; and more."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.benchmarks.blind_sixth.sliding_window_causal_attention import cast

# A linear recurrent unit: a diagonal complex state, written with real parameters


def _lru_run(params, u):
    lam = jnp.exp(-jnp.exp(params["nu"]) + 1j * jnp.exp(params["theta"]))
    gamma = jnp.sqrt(1.0 - jnp.exp(-2.0 * jnp.exp(params["nu"])))
    b = params["b_re"] + 1j * params["b_im"]
    drive = jnp.einsum("ni,bti->tbn", b, u.astype(b.dtype))

    def step(state, d):
        state = lam * state + gamma * d
        return state, state

    start = jnp.zeros((u.shape[0], lam.shape[0]), lam.dtype)
    _, states = lax.scan(step, start, drive)
    c = params["c_re"] + 1j * params["c_im"]
    y = jnp.einsum("on,tbn->bto", c, states).real + u @ params["d"].T
    return y, states, drive, lam, gamma, c


def lru_loss(params, u, y):
    out = _lru_run(params, u)[0]
    return 0.5 * jnp.sum((out - y) ** 2) / u.shape[0]


def lru_grad(params, u, y, no_conj=False, current_state=False):
    out, states, drive, lam, gamma, c = _lru_run(params, u)
    dy = (out - y) / u.shape[0]
    # a cotangent g of a complex z means dL = Re(sum(conj(g) dz))
    from_out = jnp.einsum("on,bto->tbn", jnp.conj(c), dy.astype(c.dtype))
    decay = lam if no_conj else jnp.conj(lam)

    def back(g_next, g_out):
        g = g_out + decay * g_next
        return g, g

    _, g = lax.scan(back, jnp.zeros_like(from_out[0]), from_out, reverse=True)
    before = jnp.concatenate([jnp.zeros_like(states[:1]), states[:-1]], axis=0)
    if current_state:
        before = states
    g_lam = jnp.sum(g * jnp.conj(before), axis=(0, 1))
    g_gamma = jnp.sum(jnp.real(jnp.conj(g) * drive), axis=(0, 1))
    g_b = gamma[:, None] * jnp.einsum("tbn,bti->ni", g, u.astype(g.dtype))
    e_nu, e_th = jnp.exp(params["nu"]), jnp.exp(params["theta"])
    mod2 = jnp.abs(lam) ** 2
    return {
        "nu": -e_nu * jnp.real(jnp.conj(g_lam) * lam) + g_gamma * e_nu * mod2 / gamma,
        "theta": e_th * jnp.real(jnp.conj(g_lam) * lam * 1j),
        "b_re": g_b.real,
        "b_im": g_b.imag,
        "c_re": jnp.einsum("bto,tbn->on", dy, states.real),
        "c_im": -jnp.einsum("bto,tbn->on", dy, states.imag),
        "d": jnp.einsum("bto,bti->oi", dy, u),
    }


def make_lru(dtype):
    rng = np.random.default_rng(505)
    n, i, o = 4, 3, 2
    params = {
        "nu": np.log(rng.uniform(0.15, 0.6, size=n)),
        "theta": np.log(rng.uniform(0.4, 1.6, size=n)),
        "b_re": rng.normal(size=(n, i)) * 0.6,
        "b_im": rng.normal(size=(n, i)) * 0.6,
        "c_re": rng.normal(size=(o, n)) * 0.6,
        "c_im": rng.normal(size=(o, n)) * 0.6,
        "d": rng.normal(size=(o, i)) * 0.3,
    }
    u = rng.normal(size=(5, 8, i))
    y = rng.normal(size=(5, 8, o))
    return cast((params, (u, y)), dtype)


# Mixture of experts: two of four, gates normalized again, a balance loss with a stopped factor

TOP = 2


BALANCE = 0.8


def _route(params, x):
    probs = jax.nn.softmax(x @ params["router"], axis=-1)
    top_p, top_i = lax.top_k(probs, TOP)
    total = top_p.sum(-1, keepdims=True)
    gates = top_p / total
    rows = jnp.arange(x.shape[0])[:, None]
    combine = jnp.zeros_like(probs).at[rows, top_i].set(gates)
    return probs, top_i, total, gates, combine


def _experts(params, x):
    pre = jnp.einsum("nd,edh->neh", x, params["w1"]) + params["b1"]
    return pre, jnp.einsum("neh,eho->neo", jnp.tanh(pre), params["w2"])


def moe_loss(params, x, y):
    probs, _, _, _, combine = _route(params, x)
    _, outs = _experts(params, x)
    pred = jnp.einsum("ne,neo->no", combine, outs)
    importance = lax.stop_gradient(combine.mean(axis=0))
    balance = probs.shape[1] * jnp.sum(importance * probs.mean(axis=0))
    return jnp.mean(jnp.sum((pred - y) ** 2, axis=1)) + BALANCE * balance


def moe_grad(params, x, y, through_importance=False, reversed_pair=False):
    n, n_exp = x.shape[0], params["router"].shape[1]
    probs, top_i, total, gates, combine = _route(params, x)
    pre, outs = _experts(params, x)
    hidden = jnp.tanh(pre)
    pred = jnp.einsum("ne,neo->no", combine, outs)

    d_pred = 2.0 * (pred - y) / n
    d_outs = combine[:, :, None] * d_pred[:, None, :]
    d_w2 = jnp.einsum("neh,neo->eho", hidden, d_outs)
    d_pre = jnp.einsum("neo,eho->neh", d_outs, params["w2"]) * (1 - hidden**2)
    d_w1 = jnp.einsum("nd,neh->edh", x, d_pre)

    d_combine = jnp.einsum("no,neo->ne", d_pred, outs)
    if through_importance:
        d_combine = d_combine + BALANCE * n_exp * probs.mean(axis=0) / n
    pick = top_i[:, ::-1] if reversed_pair else top_i
    d_gates = jnp.take_along_axis(d_combine, pick, axis=1)
    d_top = (d_gates - jnp.sum(d_gates * gates, axis=1, keepdims=True)) / total
    d_probs = jnp.zeros_like(probs).at[jnp.arange(n)[:, None], top_i].add(d_top)
    d_probs = d_probs + BALANCE * n_exp * combine.mean(axis=0) / n
    d_router_logits = probs * (d_probs - jnp.sum(d_probs * probs, axis=1, keepdims=True))
    return {"router": x.T @ d_router_logits, "w1": d_w1, "b1": d_pre.sum(axis=0), "w2": d_w2}


def make_moe(dtype):
    rng = np.random.default_rng(606)
    n, d, e, h, o = 8, 5, 4, 6, 3
    params = {
        "router": rng.normal(size=(d, e)) * 0.6,
        "w1": rng.normal(size=(e, d, h)) * 0.6,
        "b1": rng.normal(size=(e, h)) * 0.3,
        "w2": rng.normal(size=(e, h, o)) * 0.6,
    }
    x = rng.normal(size=(n, d))
    y = rng.normal(size=(n, o)) * 0.7
    return cast((params, (x, y)), dtype)


# A gated feed-forward block behind a layer norm, then an RMS norm and a classifier

EPS = 1e-5


def gated_block_loss(params, x, labels):
    x0 = x @ params["proj"]
    mu = x0.mean(-1, keepdims=True)
    var = ((x0 - mu) ** 2).mean(-1, keepdims=True)
    n = (x0 - mu) / jnp.sqrt(var + EPS) * params["gamma"] + params["beta"]
    h = x0 + (jax.nn.silu(n @ params["w_gate"]) * (n @ params["w_up"])) @ params["w_down"]
    rms = jnp.sqrt((h * h).mean(-1, keepdims=True) + EPS)
    logits = (h / rms * params["gain"]) @ params["cls"]
    logp = jax.nn.log_softmax(logits)
    return -logp[jnp.arange(x.shape[0]), labels].mean()


def gated_block_grad(params, x, labels, no_variance_term=False, gate_of_output=False):
    B = x.shape[0]
    # forward
    x0 = x @ params["proj"]
    mu = x0.mean(-1, keepdims=True)
    var = ((x0 - mu) ** 2).mean(-1, keepdims=True)
    inv = 1.0 / jnp.sqrt(var + EPS)
    xhat = (x0 - mu) * inv
    n = xhat * params["gamma"] + params["beta"]
    a = n @ params["w_gate"]
    s = jax.nn.sigmoid(a)
    act = a * s
    up = n @ params["w_up"]
    h = x0 + (act * up) @ params["w_down"]
    rms = jnp.sqrt((h * h).mean(-1, keepdims=True) + EPS)
    hhat = h / rms
    logits = (hhat * params["gain"]) @ params["cls"]
    # backward
    dlogits = jax.nn.softmax(logits).at[jnp.arange(B), labels].add(-1.0) / B
    dcls = (hhat * params["gain"]).T @ dlogits
    dscaled = dlogits @ params["cls"].T
    dgain = (dscaled * hhat).sum(0)
    dhhat = dscaled * params["gain"]
    dh = (dhhat - hhat * (dhhat * hhat).mean(-1, keepdims=True)) / rms
    dw_down = (act * up).T @ dh
    dprod = dh @ params["w_down"].T
    dup = dprod * act
    if gate_of_output:
        s2 = jax.nn.sigmoid(act)
        da = dprod * up * (s2 + act * s2 * (1 - s2))
    else:
        da = dprod * up * (s + a * s * (1 - s))
    dn = da @ params["w_gate"].T + dup @ params["w_up"].T
    dxhat = dn * params["gamma"]
    inner = dxhat - dxhat.mean(-1, keepdims=True)
    if not no_variance_term:
        inner = inner - xhat * (dxhat * xhat).mean(-1, keepdims=True)
    dx0 = dh + inv * inner
    return {
        "proj": x.T @ dx0,
        "gamma": (dn * xhat).sum(0),
        "beta": dn.sum(0),
        "w_gate": n.T @ da,
        "w_up": n.T @ dup,
        "w_down": dw_down,
        "gain": dgain,
        "cls": dcls,
    }


def make_gated_block(dtype):
    rng = np.random.default_rng(707)
    f, d, h, c = 3, 5, 7, 4
    params = {
        "proj": rng.normal(size=(f, d)) * 0.7,
        "gamma": 1.0 + 0.3 * rng.normal(size=d),
        "beta": 0.3 * rng.normal(size=d),
        "w_gate": rng.normal(size=(d, h)) * 0.6,
        "w_up": rng.normal(size=(d, h)) * 0.6,
        "w_down": rng.normal(size=(h, d)) * 0.6,
        "gain": 1.0 + 0.2 * rng.normal(size=d),
        "cls": rng.normal(size=(d, c)) * 0.8,
    }
    x = rng.normal(size=(10, f))
    labels = rng.integers(0, c, size=10)
    return cast((params, (x, labels)), dtype)


# A neural n-gram model, with one table for the input words and for the output


def ngram_loss(params, context, nxt):
    table = params["table"]
    root = float(np.sqrt(table.shape[1]))
    e = table[context] * root + params["pos"]
    h = jnp.tanh(jnp.einsum("btd,tdk->bk", e, params["mix"]) + params["bh"])
    logits = h @ table.T + params["bo"]
    picked = jnp.take_along_axis(logits, nxt[:, None], axis=1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - picked)


def ngram_grad(params, context, nxt, output_only=False, overwrite=False):
    table = params["table"]
    vocab, dim = table.shape
    root = float(np.sqrt(dim))
    e = table[context] * root + params["pos"]
    h = jnp.tanh(jnp.einsum("btd,tdk->bk", e, params["mix"]) + params["bh"])
    logits = h @ table.T + params["bo"]

    delta = (jax.nn.softmax(logits, axis=1) - jax.nn.one_hot(nxt, vocab, dtype=h.dtype)) / nxt.shape[0]
    d_table = delta.T @ h
    d_pre = (delta @ table) * (1.0 - h * h)
    d_mix = jnp.einsum("btd,bk->tdk", e, d_pre)
    d_e = jnp.einsum("bk,tdk->btd", d_pre, params["mix"])
    if not output_only:
        flat = context.reshape(-1)
        rows = (d_e * root).reshape(-1, dim)
        scattered = jnp.zeros_like(table)
        scattered = scattered.at[flat].set(rows) if overwrite else scattered.at[flat].add(rows)
        d_table = d_table + scattered
    return {"table": d_table, "pos": d_e.sum(axis=0), "mix": d_mix, "bh": d_pre.sum(0), "bo": delta.sum(0)}


def make_ngram(dtype):
    rng = np.random.default_rng(808)
    vocab, dim, ctx = 8, 5, 3
    params = {
        "table": rng.normal(size=(vocab, dim)) * 0.5,
        "pos": rng.normal(size=(ctx, dim)) * 0.3,
        "mix": rng.normal(size=(ctx, dim, dim)) * 0.3,
        "bh": rng.normal(size=dim) * 0.2,
        "bo": rng.normal(size=vocab) * 0.2,
    }
    context = np.array([[0, 1, 2], [3, 1, 4], [5, 6, 1], [7, 3, 0], [2, 4, 3], [6, 5, 7]])
    nxt = np.array([3, 5, 0, 1, 6, 2])
    return cast((params, (context, nxt)), dtype)


# Mixed precision: products in bfloat16, everything else in float32

LOSS_SCALE = 64.0


def _bf(v):
    return v.astype(jnp.bfloat16)


def mixed_loss(params, x, labels):
    a = (_bf(x) @ _bf(params["w1"])).astype(jnp.float32) + params["b1"]
    h = jnp.tanh(a) * params["gain"]
    logits = (_bf(h) @ _bf(params["w2"])).astype(jnp.float32) + params["b2"]
    logp = jax.nn.log_softmax(logits, axis=-1)
    return -jnp.mean(jnp.take_along_axis(logp, labels[:, None], axis=1))


def mixed_grad(params, x, labels, unscale=("w1", "b1", "gain", "w2", "b2")):
    f32 = jnp.float32
    xb, w1b, w2b = _bf(x), _bf(params["w1"]), _bf(params["w2"])
    t = jnp.tanh((xb @ w1b).astype(f32) + params["b1"])
    hb = _bf(t * params["gain"])
    logits = (hb @ w2b).astype(f32) + params["b2"]

    target = jax.nn.one_hot(labels, logits.shape[-1], dtype=f32)
    dlogits = LOSS_SCALE * (jax.nn.softmax(logits, axis=-1) - target) / labels.shape[0]
    dlb = _bf(dlogits)
    grads = {"b2": dlogits.sum(0), "w2": (hb.T @ dlb).astype(f32)}
    dh = (dlb @ w2b.T).astype(f32)
    grads["gain"] = (dh * t).sum(0)
    da = dh * params["gain"] * (1 - t * t)
    grads["b1"] = da.sum(0)
    grads["w1"] = (xb.T @ _bf(da)).astype(f32)
    return {k: (g / LOSS_SCALE if k in unscale else g) for k, g in grads.items()}


def make_mixed(dtype):
    rng = np.random.default_rng(909)
    params = {
        "w1": rng.normal(size=(5, 7)) * 0.5,
        "b1": rng.normal(size=7) * 0.2,
        "gain": 1.0 + 0.3 * rng.normal(size=7),
        "w2": rng.normal(size=(7, 3)) * 0.7,
        "b2": rng.normal(size=3) * 0.2,
    }
    x = rng.normal(size=(8, 5))
    labels = rng.integers(0, 3, size=8)
    return cast((params, (x, labels)), dtype)
