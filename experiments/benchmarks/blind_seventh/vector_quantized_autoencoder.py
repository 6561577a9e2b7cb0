"""A vector-quantized autoencoder; A ConvNeXt block: depthwise convolution; and more."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind_seventh.grouped_query_attention import maker

# a vector-quantized autoencoder

COMMIT = 0.5


def vq_loss(params, x):
    stop = jax.lax.stop_gradient
    z = jnp.tanh(x @ params["w_enc"] + params["b_enc"])
    dist = jnp.sum((z[:, None] - params["codes"][None]) ** 2, -1)
    q = params["codes"][jnp.argmin(dist, axis=1)]
    through = z + stop(q - z)
    recon = through @ params["w_dec"] + params["b_dec"]
    return (
        jnp.mean(jnp.square(recon - x)) + jnp.mean(jnp.square(stop(z) - q)) + COMMIT * jnp.mean(jnp.square(z - stop(q)))
    )


def vq_grad(params, x, both_terms_to_encoder=False):
    z = jnp.tanh(x @ params["w_enc"] + params["b_enc"])
    dist = jnp.sum((z[:, None] - params["codes"][None]) ** 2, -1)
    assign = jax.nn.one_hot(jnp.argmin(dist, axis=1), params["codes"].shape[0], dtype=x.dtype)
    q = assign @ params["codes"]
    recon = q @ params["w_dec"] + params["b_dec"]

    d_recon = 2 * (recon - x) / x.size
    d_gap = 2 * (z - q) / z.size  # of mean((z - q)^2) by z
    d_codes = assign.T @ (-d_gap)
    d_z = d_recon @ params["w_dec"].T + COMMIT * d_gap
    if both_terms_to_encoder:
        d_z = d_z + d_gap
    d_pre = d_z * (1 - z**2)
    return {
        "w_enc": x.T @ d_pre,
        "b_enc": d_pre.sum(0),
        "codes": d_codes,
        "w_dec": q.T @ d_recon,
        "b_dec": d_recon.sum(0),
    }


@maker(110)
def vq_make(rng):
    params = {
        "w_enc": rng.normal(size=(5, 3)) * 0.6,
        "b_enc": rng.normal(size=3) * 0.2,
        "codes": rng.normal(size=(6, 3)) * 0.7,
        "w_dec": rng.normal(size=(3, 5)) * 0.6,
        "b_dec": rng.normal(size=5) * 0.2,
    }
    return params, (rng.normal(size=(8, 5)),)


# a ConvNeXt block: depthwise convolution, layer normalization, two pointwise layers, layer scale, residual


def convnext_loss(params, x, target):
    C = x.shape[-1]
    h = (
        jax.lax.conv_general_dilated(
            x,
            params["dw"][:, :, None, :],
            (1, 1),
            "SAME",
            feature_group_count=C,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        + params["dw_b"]
    )
    mu = h.mean(-1, keepdims=True)
    h = (h - mu) * jax.lax.rsqrt(h.var(-1, keepdims=True) + 1e-5)
    h = jax.nn.gelu(h @ params["up"] + params["up_b"], approximate=True) @ params["down"]
    y = x + params["scale"] * h
    return jnp.mean(jnp.square(y - target)) + jnp.mean(jnp.square(y.mean(axis=(1, 2))))


def _gelu_and_slope(v):
    k = float(np.sqrt(2.0 / np.pi))
    th = jnp.tanh(k * (v + 0.044715 * v**3))
    slope = 0.5 * (1 + th) + 0.5 * v * (1 - th**2) * k * (1 + 3 * 0.044715 * v**2)
    return 0.5 * v * (1 + th), slope


def convnext_grad(params, x, target, spatial_means=False):
    _B, H, W, _C = x.shape
    kh, kw, _ = params["dw"].shape
    xp = jnp.pad(x, ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)))
    h = params["dw_b"]
    for i in range(kh):
        for j in range(kw):
            h = h + xp[:, i : i + H, j : j + W, :] * params["dw"][i, j]
    h = h - h.mean(-1, keepdims=True)
    rstd = 1 / jnp.sqrt((h * h).mean(-1, keepdims=True) + 1e-5)
    norm = h * rstd
    act, slope = _gelu_and_slope(norm @ params["up"] + params["up_b"])
    branch = act @ params["down"]
    y = x + params["scale"] * branch

    dy = 2 * (y - target) / y.size
    pooled = y.mean(axis=(1, 2))
    dy = dy + (2 * pooled / pooled.size)[:, None, None, :] / (H * W)
    dscale = (dy * branch).sum((0, 1, 2))
    dbranch = dy * params["scale"]
    ddown = jnp.einsum("bhwf,bhwc->fc", act, dbranch)
    dup_pre = (dbranch @ params["down"].T) * slope
    dup = jnp.einsum("bhwc,bhwf->cf", norm, dup_pre)
    dnorm = dup_pre @ params["up"].T
    axes = (1, 2) if spatial_means else (3,)
    m1 = dnorm.mean(axes, keepdims=True)
    m2 = (dnorm * norm).mean(axes, keepdims=True)
    dh = rstd * (dnorm - m1 - norm * m2)
    ddw = jnp.stack(
        [jnp.stack([(xp[:, i : i + H, j : j + W, :] * dh).sum((0, 1, 2)) for j in range(kw)]) for i in range(kh)]
    )
    return {
        "dw": ddw,
        "dw_b": dh.sum((0, 1, 2)),
        "up": dup,
        "up_b": dup_pre.sum((0, 1, 2)),
        "down": ddown,
        "scale": dscale,
    }


@maker(111)
def convnext_make(rng):
    params = {
        "dw": rng.normal(size=(3, 5, 7)) * 0.4,
        "dw_b": rng.normal(size=7) * 0.3,
        "up": rng.normal(size=(7, 8)) * 0.5,
        "up_b": rng.normal(size=8) * 0.3,
        "down": rng.normal(size=(8, 7)) * 0.5,
        "scale": 0.7 + 0.3 * rng.normal(size=7),
    }
    return params, (rng.normal(size=(4, 5, 6, 7)), rng.normal(size=(4, 5, 6, 7)))


# coursework: a two-layer network, dropout, Huber loss

KEEP, DELTA, LR = 0.75, 1.0, 0.2


def mlp_loss(params, x, y, keep_mask):
    h = jax.nn.elu(x @ params["w1"] + params["b1"])
    h = jnp.where(keep_mask, h / KEEP, 0.0)
    err = h @ params["w2"] + params["b2"] - y
    small = jnp.abs(err) <= DELTA
    huber = jnp.where(small, 0.5 * err**2, DELTA * (jnp.abs(err) - 0.5 * DELTA))
    return huber.sum(axis=1).mean()


def mlp_grad(params, x, y, keep_mask, step_first=False, bias_over_units=False):
    n = x.shape[0]
    w1, b1, w2, b2 = params["w1"], params["b1"], params["w2"], params["b2"]
    z1 = x @ w1 + b1
    a1 = jnp.where(z1 > 0, z1, jnp.expm1(jnp.minimum(z1, 0)))
    h1 = a1 * keep_mask / KEEP
    err = h1 @ w2 + b2 - y

    delta2 = jnp.clip(err, -DELTA, DELTA) / n
    dw2 = h1.T @ delta2
    db2 = delta2.sum(axis=0)
    if step_first:
        w2 = w2 - LR * dw2
    delta1 = (delta2 @ w2.T) * keep_mask / KEEP
    delta1 = delta1 * jnp.where(z1 > 0, 1.0, a1 + 1.0)
    dw1 = x.T @ delta1
    db1 = delta1.sum(axis=1 if bias_over_units else 0)
    return {"w1": dw1, "b1": db1, "w2": dw2, "b2": db2}


@maker(201)
def mlp_make(rng):
    params = {
        "w1": rng.normal(size=(5, 7)) * 0.6,
        "b1": rng.normal(size=7) * 0.3,
        "w2": rng.normal(size=(7, 3)) * 0.5,
        "b2": rng.normal(size=3) * 0.3,
    }
    return params, (rng.normal(size=(8, 5)), 1.5 * rng.normal(size=(8, 3)), rng.random((8, 7)) < KEEP)


# Poisson regression with exposures and an elastic net

L1, L2 = 0.15, 0.1


def poisson_loss(params, x, counts, exposure):
    log_rate = x @ params["w"] + params["b"] + jnp.log(exposure)
    nll = jnp.mean(jnp.exp(log_rate) - counts * log_rate)
    return nll + L1 * jnp.sum(jnp.abs(params["w"])) + 0.5 * L2 * jnp.sum(params["w"] ** 2)


def poisson_grad(params, x, counts, exposure, no_lasso=False, limit=None):
    w, b = params["w"], params["b"]
    rate = exposure * jnp.exp(x @ w + b)
    resid = (rate - counts) / counts.shape[0]
    g_w = x.T @ resid + L2 * w
    if not no_lasso:
        g_w = g_w + L1 * jnp.sign(w)
    g_b = jnp.sum(resid)
    if limit is not None:
        g_w = jnp.clip(g_w, -limit, limit)
    return {"w": g_w, "b": g_b}


@maker(202)
def poisson_make(rng):
    params = {"w": 0.5 * rng.normal(size=6), "b": np.float64(0.4)}
    x = rng.normal(size=(9, 6))
    exposure = rng.uniform(0.5, 2.0, size=9)
    counts = rng.poisson(2.0 * exposure).astype(float)
    return params, (x, counts, exposure)


# a mixture density network


def mdn_loss(params, x, y):
    h = jnp.tanh(x @ params["w1"] + params["b1"])
    logits, mu, log_sigma = jnp.split(h @ params["w_out"] + params["b_out"], 3, axis=1)
    z = (y[:, None] - mu) * jnp.exp(-log_sigma)
    comp = jax.nn.log_softmax(logits) - 0.5 * z**2 - log_sigma - 0.5 * float(np.log(2 * np.pi))
    return -jnp.mean(jax.scipy.special.logsumexp(comp, axis=1))


def mdn_grad(params, x, y, order_mixed_up=False):
    h = jnp.tanh(x @ params["w1"] + params["b1"])
    out = h @ params["w_out"] + params["b_out"]
    k = out.shape[1] // 3
    logits, mu, log_sigma = out[:, :k], out[:, k : 2 * k], out[:, 2 * k :]
    sigma = jnp.exp(log_sigma)
    z = (y[:, None] - mu) / sigma
    pi = jax.nn.softmax(logits, axis=1)
    resp = jax.nn.softmax(jnp.log(pi) - 0.5 * z**2 - log_sigma, axis=1)

    n = y.shape[0]
    d_logits = (pi - resp) / n
    d_mu = -resp * z / sigma / n
    d_log_sigma = resp * (1 - z**2) / n
    parts = [d_logits, d_log_sigma, d_mu] if order_mixed_up else [d_logits, d_mu, d_log_sigma]
    d_out = jnp.concatenate(parts, axis=1)
    d_h = (d_out @ params["w_out"].T) * (1 - h**2)
    return {"w1": x.T @ d_h, "b1": d_h.sum(0), "w_out": h.T @ d_out, "b_out": d_out.sum(0)}


@maker(203)
def mdn_make(rng):
    params = {
        "w1": rng.normal(size=(4, 7)) * 0.5,
        "b1": rng.normal(size=7) * 0.3,
        "w_out": rng.normal(size=(7, 6)) * 0.4,
        "b_out": rng.normal(size=6) * 0.3,
    }
    return params, (rng.normal(size=(8, 4)), rng.normal(size=8))


# several quantiles at once, with a penalty where they cross

TAUS = np.array([0.1, 0.5, 0.9])


CROSS = 0.8


def quantile_loss(params, x, y):
    q = x @ params["w"] + params["b"]
    taus = jnp.asarray(TAUS, x.dtype)
    u = y[:, None] - q
    pinball = jnp.maximum(taus * u, (taus - 1) * u).mean()
    crossing = jnp.square(jax.nn.relu(q[:, :-1] - q[:, 1:])).sum(1).mean()
    return pinball + CROSS * crossing


def quantile_grad(params, x, y, penalty_reversed=False):
    q = x @ params["w"] + params["b"]
    n, k = q.shape
    taus = jnp.asarray(TAUS, x.dtype)
    below = (y[:, None] < q).astype(x.dtype)
    dq = (below - taus) / (n * k)
    gap = jnp.maximum(q[:, :-1] - q[:, 1:], 0)
    dgap = 2 * CROSS * gap / n
    if penalty_reversed:
        dq = dq.at[:, :-1].add(-dgap).at[:, 1:].add(dgap)
    else:
        dq = dq.at[:, :-1].add(dgap).at[:, 1:].add(-dgap)
    return {"w": x.T @ dq, "b": dq.sum(axis=0)}


@maker(204)
def quantile_make(rng):
    params = {"w": 0.5 * rng.normal(size=(4, 3)), "b": np.array([-0.4, 0.0, 0.5])}
    return params, (rng.normal(size=(10, 4)), rng.normal(size=10))


# Gaussian process: marginal likelihood with a length scale for each input


def gp_loss(params, x, y):
    z = x / jnp.exp(params["log_ls"])
    sq = jnp.sum((z[:, None] - z[None]) ** 2, -1)
    n = x.shape[0]
    kernel = jnp.exp(2 * params["log_amp"]) * jnp.exp(-0.5 * sq)
    kernel = kernel + jnp.exp(2 * params["log_noise"]) * jnp.eye(n, dtype=x.dtype)
    chol = jnp.linalg.cholesky(kernel)
    white = jax.scipy.linalg.solve_triangular(chol, y, lower=True)
    return 0.5 * white @ white + jnp.sum(jnp.log(jnp.diag(chol))) + 0.5 * n * float(np.log(2 * np.pi))


def gp_grad(params, x, y, by_length_scale=False):
    n = x.shape[0]
    ls = jnp.exp(params["log_ls"])
    amp2, noise2 = jnp.exp(2 * params["log_amp"]), jnp.exp(2 * params["log_noise"])
    diff2 = (x[:, None, :] - x[None, :, :]) ** 2
    k_signal = amp2 * jnp.exp(-0.5 * jnp.sum(diff2 / ls**2, axis=-1))
    k_inv = jnp.linalg.inv(k_signal + noise2 * jnp.eye(n, dtype=x.dtype))
    alpha = k_inv @ y
    # dL/dK = (K^-1 - alpha alpha^T) / 2
    g = 0.5 * (k_inv - jnp.outer(alpha, alpha))
    d_ls = jnp.einsum("ij,ijd->d", g * k_signal, diff2) / ls**3
    return {
        "log_ls": d_ls if by_length_scale else d_ls * ls,
        "log_amp": 2 * jnp.sum(g * k_signal),
        "log_noise": 2 * noise2 * jnp.trace(g),
    }


@maker(205)
def gp_make(rng):
    params = {"log_ls": np.array([-0.4, 0.5, 0.2]), "log_amp": np.float64(0.3), "log_noise": np.float64(-0.6)}
    x = rng.normal(size=(7, 3))
    return params, (x, np.sin(2 * x[:, 0]) + 0.5 * x[:, 1] + 0.3 * rng.normal(size=7))


# contrastive loss between two views, in both directions


def clip_loss(params, xa, xb):
    a = xa @ params["wa"]
    b = xb @ params["wb"]
    a = a / jnp.linalg.norm(a, axis=1, keepdims=True)
    b = b / jnp.linalg.norm(b, axis=1, keepdims=True)
    sim = jnp.exp(params["log_scale"]) * a @ b.T
    rows = -jnp.mean(jnp.diag(jax.nn.log_softmax(sim, axis=1)))
    cols = -jnp.mean(jnp.diag(jax.nn.log_softmax(sim, axis=0)))
    return 0.5 * (rows + cols)


def clip_grad(params, xa, xb, untransposed=False):
    def embed(x, w):
        raw = x @ w
        length = jnp.sqrt(jnp.sum(raw**2, axis=1, keepdims=True))
        return raw / length, length

    def embed_back(x, unit, length, d_unit):
        d_raw = (d_unit - unit * jnp.sum(unit * d_unit, axis=1, keepdims=True)) / length
        return x.T @ d_raw

    a, a_len = embed(xa, params["wa"])
    b, b_len = embed(xb, params["wb"])
    scale = jnp.exp(params["log_scale"])
    sim = scale * a @ b.T
    n = sim.shape[0]
    d_sim = (jax.nn.softmax(sim, axis=1) + jax.nn.softmax(sim, axis=0) - 2 * jnp.eye(n, dtype=sim.dtype)) / (2 * n)
    d_a = scale * d_sim @ b
    d_b = scale * (d_sim if untransposed else d_sim.T) @ a
    return {"wa": embed_back(xa, a, a_len, d_a), "wb": embed_back(xb, b, b_len, d_b), "log_scale": jnp.sum(d_sim * sim)}


@maker(206)
def clip_make(rng):
    params = {"wa": rng.normal(size=(5, 3)), "wb": rng.normal(size=(4, 3)), "log_scale": np.float64(0.7)}
    return params, (rng.normal(size=(6, 5)), rng.normal(size=(6, 4)))
