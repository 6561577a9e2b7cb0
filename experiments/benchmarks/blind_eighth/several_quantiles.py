"""Several quantiles with a smoothed pinball; Triplets."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind_eighth.cross_attention import maker

# ---------------------------------------------------------------- several quantiles with a smoothed pinball

SMOOTH = 0.25


def quantile_loss(params, x, y, taus):
    h = jax.nn.softplus(x @ params["v"])
    resid = y[:, None] - (h @ params["w"] + params["b"])
    return jnp.mean(taus * resid + SMOOTH * jax.nn.softplus(-resid / SMOOTH))


def quantile_grad(params, x, y, taus, one_tau=False, limit=None):
    pre = x @ params["v"]
    h = jax.nn.softplus(pre)
    resid = y[:, None] - (h @ params["w"] + params["b"])
    level = taus[0] if one_tau else taus
    d_resid = (level - jax.nn.sigmoid(-resid / SMOOTH)) / resid.size
    d_pred = -d_resid
    d_pre = (d_pred @ params["w"].T) * jax.nn.sigmoid(pre)
    grads = {"v": x.T @ d_pre, "w": h.T @ d_pred, "b": d_pred.sum(axis=0)}
    if limit is not None:
        grads["v"] = jnp.clip(grads["v"], -limit, limit)
    return grads


def _build_quantile():
    r = np.random.default_rng(13)
    params = {"v": r.normal(size=(4, 5)) * 0.7, "w": r.normal(size=(5, 3)) * 0.6, "b": np.array([-0.5, 0.1, 0.6])}
    return params, (r.normal(size=(9, 4)), r.normal(size=9), np.array([0.1, 0.5, 0.85]))


make_quantile = maker(_build_quantile)


def beta_nll_loss(params, x, y):
    h = jnp.sin(x @ params["trunk"])
    mu = h @ params["mean"]
    log_var = h @ params["log_var"]
    weight = jax.lax.stop_gradient(jnp.exp(0.5 * log_var))
    nll = 0.5 * (log_var + (y - mu) ** 2 * jnp.exp(-log_var))
    return jnp.mean(weight * nll)


def beta_nll_grad(params, x, y, through_weight=False, max_norm=None):
    pre = x @ params["trunk"]
    h = jnp.sin(pre)
    mu, log_var = h @ params["mean"], h @ params["log_var"]
    err = mu - y
    prec = jnp.exp(-log_var)
    weight = jnp.exp(0.5 * log_var)
    n = y.shape[0]
    d_mu = weight * err * prec / n
    d_lv = weight * 0.5 * (1 - err**2 * prec) / n
    if through_weight:
        d_lv = d_lv + 0.5 * weight * 0.5 * (log_var + err**2 * prec) / n
    d_h = jnp.outer(d_mu, params["mean"]) + jnp.outer(d_lv, params["log_var"])
    grads = {"trunk": x.T @ (d_h * jnp.cos(pre)), "mean": h.T @ d_mu, "log_var": h.T @ d_lv}
    if max_norm is not None:
        norm = jnp.sqrt(sum(jnp.sum(g**2) for g in grads.values()))
        grads = {k: g * (max_norm / norm) for k, g in grads.items()}
    return grads


def _build_beta_nll():
    r = np.random.default_rng(14)
    params = {"trunk": r.normal(size=(3, 5)) * 0.8, "mean": r.normal(size=5), "log_var": r.normal(size=5) * 0.5}
    return params, (r.normal(size=(8, 3)), 1.5 * r.normal(size=8))


make_beta_nll = maker(_build_beta_nll)


def _mdn_parts(params, x, y):
    h = jnp.tanh(x @ params["w1"])
    log_pi = jax.nn.log_softmax(h @ params["w_pi"], axis=1)
    mu = h @ params["w_mu"]
    log_s = h @ params["w_s"]
    zed = (y[:, None] - mu) * jnp.exp(-log_s)
    log_n = -0.5 * zed**2 - log_s - 0.5 * float(np.log(2 * np.pi))
    return h, log_pi, log_s, zed, log_pi + log_n


def mdn_loss(params, x, y, velocity):
    return -jnp.mean(jax.scipy.special.logsumexp(_mdn_parts(params, x, y)[-1], axis=1))


def mdn_grad(params, x, y, velocity, momentum=0.0, prior_for_mean=False):
    h, log_pi, log_s, zed, joint = _mdn_parts(params, x, y)
    n = y.shape[0]
    pi = jnp.exp(log_pi)
    resp = jax.nn.softmax(joint, axis=1)
    d_pi = (pi - resp) / n
    d_mu = -(pi if prior_for_mean else resp) * zed * jnp.exp(-log_s) / n
    d_s = -resp * (zed**2 - 1) / n
    d_h = d_pi @ params["w_pi"].T + d_mu @ params["w_mu"].T + d_s @ params["w_s"].T
    grads = {"w1": x.T @ (d_h * (1 - h * h)), "w_pi": h.T @ d_pi, "w_mu": h.T @ d_mu, "w_s": h.T @ d_s}
    return {k: momentum * velocity[k] + g for k, g in grads.items()}


def _build_mdn():
    r = np.random.default_rng(15)
    shapes = {"w1": (3, 5), "w_pi": (5, 4), "w_mu": (5, 4), "w_s": (5, 4)}
    params = {k: r.normal(size=s) * 0.7 for k, s in shapes.items()}
    velocity = {k: r.normal(size=s) * 0.2 for k, s in shapes.items()}
    return params, (r.normal(size=(8, 3)), r.normal(size=8), velocity)


make_mdn = maker(_build_mdn)


def _gp_kernel(params, X):
    ls = jnp.exp(params["log_ls"])
    sq = (X[:, None, :] - X[None, :, :]) ** 2
    rbf = jnp.exp(2 * params["log_amp"] - 0.5 * jnp.sum(sq / ls**2, axis=-1))
    return ls, sq, rbf, rbf + jnp.exp(2 * params["log_noise"]) * jnp.eye(X.shape[0], dtype=X.dtype)


def gp_loss(params, X, y):
    K = _gp_kernel(params, X)[-1]
    L = jnp.linalg.cholesky(K)
    w = jax.scipy.linalg.solve_triangular(L, y, lower=True)
    return 0.5 * jnp.sum(w**2) + jnp.sum(jnp.log(jnp.diagonal(L))) + 0.5 * y.shape[0] * float(np.log(2 * np.pi))


def gp_grad(params, X, y, data_fit_only=False, wrt_ls=False):
    ls, sq, rbf, K = _gp_kernel(params, X)
    K_inv = jnp.linalg.inv(K)
    alpha = K_inv @ y
    dK = -0.5 * jnp.outer(alpha, alpha)
    if not data_fit_only:
        dK = dK + 0.5 * K_inv
    d_ls = jnp.einsum("ij,ij,ijd->d", dK, rbf, sq) / ls**3
    return {
        "log_ls": d_ls if wrt_ls else d_ls * ls,
        "log_amp": 2 * jnp.sum(dK * rbf),
        "log_noise": 2 * jnp.exp(2 * params["log_noise"]) * jnp.trace(dK),
    }


def _build_gp():
    r = np.random.default_rng(16)
    X = r.normal(size=(7, 3))
    y = np.sin(X[:, 0]) + 0.5 * X[:, 1] + 0.2 * r.normal(size=7)
    return {"log_ls": np.array([0.1, 0.5, -0.3]), "log_amp": np.array(0.2), "log_noise": np.array(-0.9)}, (X, y)


make_gp = maker(_build_gp)


def leaky_loss(params, controls, target):
    rate = jax.nn.sigmoid(params["leak"])

    def step(h, u):
        h = (1 - rate) * h + rate * jnp.tanh(u @ params["w_in"] + h @ params["w_rec"] + params["bias"])
        return h, h @ params["w_out"]

    h0 = jnp.zeros((controls.shape[1], rate.shape[0]), controls.dtype)
    _, out = jax.lax.scan(step, h0, controls)
    return 0.5 * jnp.mean((out - target) ** 2)


def leaky_grad(params, controls, target, keep_dims=False, rec_as_is=False):
    rate = jax.nn.sigmoid(params["leak"])
    w_rec = params["w_rec"]

    def forward(h, u):
        act = jnp.tanh(u @ params["w_in"] + h @ w_rec + params["bias"])
        new = (1 - rate) * h + rate * act
        return new, (h, act, new)

    h0 = jnp.zeros((controls.shape[1], rate.shape[0]), controls.dtype)
    _, (before, act, after) = jax.lax.scan(forward, h0, controls)
    d_out = (after @ params["w_out"] - target) / target.size

    def backward(d_next, inputs):
        h, a, d_o = inputs
        d_h = d_next + d_o @ params["w_out"].T
        d_rate = d_h * (a - h)
        d_pre = d_h * rate * (1 - a**2)
        d_prev = (1 - rate) * d_h + d_pre @ (w_rec if rec_as_is else w_rec.T)
        return d_prev, (d_pre, d_rate)

    _, (d_pre, d_rate) = jax.lax.scan(backward, h0, (before, act, d_out), reverse=True)
    d_bias = d_pre.sum(axis=0)
    return {
        "w_in": jnp.einsum("tbi,tbh->ih", controls, d_pre),
        "w_rec": jnp.einsum("tbg,tbh->gh", before, d_pre),
        "bias": jnp.sum(d_bias, axis=0, keepdims=keep_dims),
        "leak": jnp.sum(d_rate, (0, 1)) * rate * (1 - rate),
        "w_out": jnp.einsum("tbh,tbo->ho", after, d_out),
    }


def _build_leaky():
    r = np.random.default_rng(17)
    params = {
        "w_in": r.normal(size=(3, 5)),
        "w_rec": r.normal(size=(5, 5)) * 0.7,
        "bias": 0.3 * r.normal(size=5),
        "leak": r.normal(size=5),
        "w_out": r.normal(size=(5, 2)),
    }
    return params, (r.normal(size=(6, 4, 3)), r.normal(size=(6, 4, 2)))


make_leaky = maker(_build_leaky)


# ---------------------------------------------------------------- triplets

MARGIN = 0.4


def triplet_loss(params, anchor, positive, negative):
    def embed(x):
        return jnp.tanh(x @ params["proj"] + params["shift"])

    za, zp, zn = embed(anchor), embed(positive), embed(negative)
    gap = jnp.sum((za - zp) ** 2, -1) - jnp.sum((za - zn) ** 2, -1) + MARGIN
    return jnp.mean(jax.nn.relu(gap))


def triplet_grad(params, anchor, positive, negative, all_active=False, push_sign=1.0):
    xs = (anchor, positive, negative)
    za, zp, zn = (jnp.tanh(x @ params["proj"] + params["shift"]) for x in xs)
    gap = jnp.sum((za - zp) ** 2, -1) - jnp.sum((za - zn) ** 2, -1) + MARGIN
    active = jnp.ones_like(gap) if all_active else (gap > 0).astype(gap.dtype)
    g = 2 * active[:, None] / gap.shape[0]
    d_zp = -g * (za - zp)
    d_zn = push_sign * g * (za - zn)
    d_za = g * (zn - zp)
    grads = {"proj": 0.0, "shift": 0.0}
    for x, z, d in zip(xs, (za, zp, zn), (d_za, d_zp, d_zn), strict=False):
        d_pre = d * (1 - z * z)
        grads["proj"] = grads["proj"] + x.T @ d_pre
        grads["shift"] = grads["shift"] + d_pre.sum(0)
    return grads


def _build_triplet():
    r = np.random.default_rng(18)
    a = r.normal(size=(8, 4))
    return (
        {"proj": r.normal(size=(4, 3)) * 0.6, "shift": 0.2 * r.normal(size=3)},
        (a, a + 0.7 * r.normal(size=(8, 4)), r.normal(size=(8, 4))),
    )


make_triplet = maker(_build_triplet)


def cox_loss(params, X, event):
    eta = X @ params["beta"]
    log_risk = jnp.log(jnp.cumsum(jnp.exp(eta)))
    return -jnp.sum(event * (eta - log_risk)) / jnp.sum(event)


def cox_grad(params, X, event):
    hazard = jnp.exp(X @ params["beta"])
    at_risk = jnp.cumsum(hazard)
    # subject j is in the risk set of every later row
    share = jnp.cumsum((event / at_risk)[::-1])[::-1]
    d_eta = (hazard * share - event) / jnp.sum(event)
    return {"beta": X.T @ d_eta}


def _build_cox():
    r = np.random.default_rng(19)
    return {"beta": r.normal(size=4) * 0.6}, (r.normal(size=(9, 4)), np.array([0, 1, 1, 0, 1, 1, 0, 1, 1.0]))


make_cox = maker(_build_cox)


# ================================================================ the cases

F32 = ("float32",)
