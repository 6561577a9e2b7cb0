"""A dense classifier with smoothed labels and weight decay; and more."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind_sixth.sliding_window_causal_attention import cast

# A dense classifier with smoothed labels and weight decay

SMOOTH = 0.25


DECAY = 0.02


def _elu(v):
    return jnp.where(v > 0, v, jnp.expm1(jnp.minimum(v, 0.0)))


def dense_loss(params, x, labels):
    h1 = jnp.tanh(x @ params["w1"] + params["b1"])
    h2 = _elu(h1 @ params["w2"] + params["b2"])
    logits = h2 @ params["w3"] + params["b3"]
    k = logits.shape[1]
    target = (1 - SMOOTH) * jax.nn.one_hot(labels, k, dtype=x.dtype) + SMOOTH / k
    ce = -jnp.mean(jnp.sum(target * jax.nn.log_softmax(logits), axis=1))
    return ce + 0.5 * DECAY * sum(jnp.sum(params[w] ** 2) for w in ("w1", "w2", "w3"))


def dense_grad(params, x, labels, hard_labels=False, step_at_once=0.0):
    w1, w2, w3 = params["w1"], params["w2"], params["w3"]
    h1 = jnp.tanh(x @ w1 + params["b1"])
    a2 = h1 @ w2 + params["b2"]
    h2 = _elu(a2)
    logits = h2 @ w3 + params["b3"]
    n, k = logits.shape
    target = jax.nn.one_hot(labels, k, dtype=x.dtype)
    if not hard_labels:
        target = (1 - SMOOTH) * target + SMOOTH / k

    d3 = (jax.nn.softmax(logits) - target) / n
    gw3 = h2.T @ d3 + DECAY * w3
    w3 = w3 - step_at_once * gw3
    d2 = (d3 @ w3.T) * jnp.where(a2 > 0, 1.0, jnp.exp(jnp.minimum(a2, 0.0)))
    gw2 = h1.T @ d2 + DECAY * w2
    w2 = w2 - step_at_once * gw2
    d1 = (d2 @ w2.T) * (1 - h1**2)
    gw1 = x.T @ d1 + DECAY * w1
    return {"w1": gw1, "b1": d1.sum(0), "w2": gw2, "b2": d2.sum(0), "w3": gw3, "b3": d3.sum(0)}


def make_dense(dtype):
    rng = np.random.default_rng(111)
    sizes = (5, 7, 4, 3)
    params = {}
    for i, (m, n) in enumerate(itertools.pairwise(sizes), start=1):
        params[f"w{i}"] = rng.normal(size=(m, n)) / np.sqrt(m)
        params[f"b{i}"] = 0.2 * rng.normal(size=n)
    x = rng.normal(size=(9, 5))
    labels = rng.integers(0, 3, size=9)
    return cast((params, (x, labels)), dtype)


# Negative binomial regression of several counts, with exposure


def negbin_loss(params, x, exposure, counts):
    y = counts.astype(x.dtype)
    mu = exposure[:, None] * jnp.exp(x @ params["coef"] + params["intercept"])
    r = jnp.exp(params["log_r"])
    lg = jax.scipy.special.gammaln
    ll = lg(y + r) - lg(r) - lg(y + 1.0) + r * jnp.log(r) + y * jnp.log(mu) - (r + y) * jnp.log(r + mu)
    return -jnp.sum(ll) / x.shape[0]


def _negbin_part(params, x, exposure, counts, keep_rows):
    y = counts.astype(x.dtype)
    psi = jax.scipy.special.digamma
    mu = exposure[:, None] * jnp.exp(x @ params["coef"] + params["intercept"])
    r = jnp.exp(params["log_r"])
    d_eta = (r + y) * mu / (r + mu) - y
    d_r = -(psi(y + r) - psi(r) + jnp.log(r) + 1.0 - jnp.log(r + mu) - (r + y) / (r + mu))
    return {
        "coef": x.T @ d_eta,
        "intercept": d_eta if keep_rows else d_eta.sum(axis=0),
        "log_r": r * d_r.sum(axis=0),
    }


def negbin_grad(params, x, exposure, counts, keep_rows=False):
    part = _negbin_part(params, x, exposure, counts, keep_rows)
    return {k: v / x.shape[0] for k, v in part.items()}


def negbin_chunked_grad(params, x, exposure, counts, chunk=4, drop_rest=False):
    n = x.shape[0]
    total = {k: jnp.zeros_like(v) for k, v in params.items()}
    stop = (n // chunk) * chunk if drop_rest else n
    for lo in range(0, stop, chunk):
        hi = min(lo + chunk, n)
        part = _negbin_part(params, x[lo:hi], exposure[lo:hi], counts[lo:hi], False)
        total = {k: total[k] + part[k] for k in total}
    return {k: v / n for k, v in total.items()}


def make_negbin(dtype):
    rng = np.random.default_rng(222)
    n, p, m = 10, 4, 3
    params = {
        "coef": 0.4 * rng.normal(size=(p, m)),
        "intercept": 0.3 * rng.normal(size=m),
        "log_r": np.array([0.2, 0.7, -0.3]),
    }
    x = rng.normal(size=(n, p))
    exposure = rng.uniform(0.5, 2.5, size=n)
    counts = rng.poisson(2.0, size=(n, m))
    return cast((params, (x, exposure, counts)), dtype)


# A mixture density network for one output


def _mdn_heads(params, x):
    h = jnp.tanh(x @ params["w"] + params["b"])
    log_pi = jax.nn.log_softmax(h @ params["w_pi"], axis=1)
    mu = h @ params["w_mu"] + params["b_mu"]
    log_s = h @ params["w_s"] + params["b_s"]
    return h, log_pi, mu, log_s


def mdn_loss(params, x, y):
    _, log_pi, mu, log_s = _mdn_heads(params, x)
    z = (y[:, None] - mu) * jnp.exp(-log_s)
    joint = log_pi - 0.5 * z * z - log_s - 0.5 * float(np.log(2 * np.pi))
    return -jnp.mean(jax.nn.logsumexp(joint, axis=1))


def mdn_grad(params, x, y, resp_axis=1):
    h, log_pi, mu, log_s = _mdn_heads(params, x)
    n = x.shape[0]
    z = (y[:, None] - mu) * jnp.exp(-log_s)
    joint = log_pi - 0.5 * z * z - log_s
    resp = jax.nn.softmax(joint, axis=resp_axis)
    d_pi = (jnp.exp(log_pi) - resp) / n
    d_mu = -resp * z * jnp.exp(-log_s) / n
    d_s = resp * (1.0 - z * z) / n
    d_h = d_pi @ params["w_pi"].T + d_mu @ params["w_mu"].T + d_s @ params["w_s"].T
    d_a = d_h * (1.0 - h * h)
    return {
        "w": x.T @ d_a,
        "b": d_a.sum(0),
        "w_pi": h.T @ d_pi,
        "w_mu": h.T @ d_mu,
        "b_mu": d_mu.sum(0),
        "w_s": h.T @ d_s,
        "b_s": d_s.sum(0),
    }


def make_mdn(dtype):
    rng = np.random.default_rng(333)
    i, h, k = 2, 6, 3
    params = {
        "w": rng.normal(size=(i, h)),
        "b": 0.3 * rng.normal(size=h),
        "w_pi": 0.6 * rng.normal(size=(h, k)),
        "w_mu": 0.6 * rng.normal(size=(h, k)),
        "b_mu": rng.normal(size=k),
        "w_s": 0.3 * rng.normal(size=(h, k)),
        "b_s": 0.2 * rng.normal(size=k),
    }
    x = rng.normal(size=(9, i))
    y = rng.normal(size=9)
    return cast((params, (x, y)), dtype)


# The marginal likelihood of a Gaussian process, with a linear mean


def _gp_pieces(params, x, y):
    diff = x[:, None, :] - x[None, :, :]
    sq = diff**2 * jnp.exp(-2.0 * params["log_ell"])
    k_f = jnp.exp(2.0 * params["log_amp"] - 0.5 * sq.sum(-1))
    noise = jnp.exp(2.0 * params["log_noise"])
    k = k_f + noise * jnp.eye(x.shape[0], dtype=x.dtype)
    basis = jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=1)
    return sq, k_f, noise, k, basis, y - basis @ params["beta"]


def gp_loss(params, x, y):
    _, _, _, k, _, r = _gp_pieces(params, x, y)
    chol = jnp.linalg.cholesky(k)
    white = jax.scipy.linalg.solve_triangular(chol, r, lower=True)
    return 0.5 * white @ white + jnp.sum(jnp.log(jnp.diagonal(chol)))


def gp_grad(params, x, y, residual_sign=-1.0):
    sq, k_f, noise, k, basis, r = _gp_pieces(params, x, y)
    k_inv = jnp.linalg.inv(k)
    alpha = k_inv @ r
    outer = 0.5 * (k_inv - jnp.outer(alpha, alpha))
    weighted = outer * k_f
    return {
        "log_ell": jnp.einsum("ij,ijd->d", weighted, sq),
        "log_amp": 2.0 * weighted.sum(),
        "log_noise": 2.0 * noise * jnp.trace(outer),
        "beta": residual_sign * (basis.T @ alpha),
    }


def make_gp(dtype):
    rng = np.random.default_rng(444)
    params = {
        "log_ell": np.array([0.1, -0.3, 0.4]),
        "log_amp": np.array(0.2),
        "log_noise": np.array(-0.7),
        "beta": np.array([0.5, -0.2, 0.3, 0.1]),
    }
    x = rng.normal(size=(7, 3))
    y = rng.normal(size=7) + x[:, 0]
    return cast((params, (x, y)), dtype)


# The partial likelihood of survival times


def cox_loss(params, clinical, genes, times, event):
    risk = clinical @ params["w_clin"] + genes @ params["w_gene"]
    at_risk = times[None, :] >= times[:, None]
    log_den = jax.nn.logsumexp(jnp.where(at_risk, risk[None, :], -jnp.inf), axis=1)
    d = event.astype(risk.dtype)
    ridge = 0.05 * jnp.sum(params["w_gene"] ** 2)
    return -jnp.sum(d * (risk - log_den)) / jnp.sum(d) + ridge


def cox_grad(params, clinical, genes, times, event, unit_length=False):
    risk = clinical @ params["w_clin"] + genes @ params["w_gene"]
    d = event.astype(risk.dtype)
    expo = jnp.exp(risk - risk.max())
    # from the longest time to the shortest, the denominators are running sums (no ties here)
    order = jnp.argsort(-times)
    den = jnp.cumsum(expo[order])
    hazard = jnp.cumsum((d[order] / den)[::-1])[::-1]
    martingale = jnp.zeros_like(risk).at[order].set(d[order] - expo[order] * hazard)
    d_risk = -martingale / d.sum()
    grads = {"w_clin": clinical.T @ d_risk, "w_gene": genes.T @ d_risk + 0.1 * params["w_gene"]}
    if unit_length:
        norm = jnp.sqrt(sum(jnp.sum(g**2) for g in grads.values()))
        grads = {k: g / norm for k, g in grads.items()}
    return grads


def make_cox(dtype):
    rng = np.random.default_rng(555)
    params = {"w_clin": 0.5 * rng.normal(size=2), "w_gene": 0.5 * rng.normal(size=5)}
    clinical = rng.normal(size=(8, 2))
    genes = rng.normal(size=(8, 5))
    times = np.array([2.5, 7.1, 1.3, 4.4, 9.0, 3.2, 5.6, 0.8])
    event = np.array([1, 0, 1, 1, 0, 1, 1, 1])
    return cast((params, (clinical, genes, times, event)), dtype)


# Two encoders matched by a symmetric contrastive loss


def clip_loss(params, img, txt):
    u = img @ params["w_img"] + params["b_img"]
    v = txt @ params["w_txt"]
    u = u / jnp.linalg.norm(u, axis=1, keepdims=True)
    v = v / jnp.linalg.norm(v, axis=1, keepdims=True)
    s = jnp.exp(params["log_scale"]) * (u @ v.T)
    diag = jnp.diagonal(s)
    rows = jax.nn.logsumexp(s, axis=1) - diag
    cols = jax.nn.logsumexp(s, axis=0) - diag
    return 0.5 * (rows.mean() + cols.mean())


def clip_grad(params, img, txt, columns_as_rows=False, scale_left_out=False):
    u_raw = img @ params["w_img"] + params["b_img"]
    v_raw = txt @ params["w_txt"]
    nu = jnp.linalg.norm(u_raw, axis=1, keepdims=True)
    nv = jnp.linalg.norm(v_raw, axis=1, keepdims=True)
    u, v = u_raw / nu, v_raw / nv
    scale = jnp.exp(params["log_scale"])
    sim = u @ v.T
    n = img.shape[0]
    eye = jnp.eye(n, dtype=img.dtype)

    img_to_txt = jax.nn.softmax(scale * sim, axis=1) - eye
    txt_to_img = jax.nn.softmax(scale * sim.T, axis=1) - eye
    d_s = (img_to_txt + (txt_to_img if columns_as_rows else txt_to_img.T)) / (2 * n)

    d_log_scale = scale * jnp.sum(d_s * sim)
    d_sim = d_s if scale_left_out else d_s * scale
    d_u = d_sim @ v
    d_v = d_sim.T @ u
    d_u_raw = (d_u - u * jnp.sum(u * d_u, axis=1, keepdims=True)) / nu
    d_v_raw = (d_v - v * jnp.sum(v * d_v, axis=1, keepdims=True)) / nv
    return {
        "w_img": img.T @ d_u_raw,
        "b_img": d_u_raw.sum(axis=0),
        "w_txt": txt.T @ d_v_raw,
        "log_scale": d_log_scale,
    }


def make_clip(dtype):
    rng = np.random.default_rng(666)
    params = {
        "w_img": rng.normal(size=(5, 3)),
        "b_img": 0.3 * rng.normal(size=3),
        "w_txt": rng.normal(size=(4, 3)),
        "log_scale": np.array(0.8),
    }
    img = rng.normal(size=(7, 5))
    txt = rng.normal(size=(7, 4))
    return cast((params, (img, txt)), dtype)
