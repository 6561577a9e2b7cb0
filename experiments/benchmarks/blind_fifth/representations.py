"""Triplets, focal and quantile losses, an autoencoder, denoising and a kernel."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind_fifth.attention_and_cells import cast

# Triplet loss

MARGIN = 0.5


def triplet_embed(params, x):
    return jnp.tanh(x @ params["w1"] + params["b1"]) @ params["w2"]


def triplet_loss(params, anchor, positive, negative):
    za, zp, zn = (triplet_embed(params, x) for x in (anchor, positive, negative))
    gap = jnp.sum((za - zp) ** 2, axis=1) - jnp.sum((za - zn) ** 2, axis=1)
    return jnp.mean(jnp.maximum(gap + MARGIN, 0))


def triplet_grad(params, anchor, positive, negative, hinge_open=False):
    inputs = (anchor, positive, negative)
    hiddens = [jnp.tanh(x @ params["w1"] + params["b1"]) for x in inputs]
    za, zp, zn = [h @ params["w2"] for h in hiddens]
    gap = jnp.sum((za - zp) ** 2, axis=1) - jnp.sum((za - zn) ** 2, axis=1) + MARGIN
    active = jnp.ones_like(gap) if hinge_open else (gap > 0).astype(gap.dtype)
    g = (active / gap.shape[0])[:, None]
    dza = 2 * g * (zn - zp)
    dzp = -2 * g * (za - zp)
    dzn = 2 * g * (za - zn)
    dw1, db1, dw2 = 0, 0, 0
    for x, h, dz in zip(inputs, hiddens, (dza, dzp, dzn), strict=False):
        dpre = (dz @ params["w2"].T) * (1 - h**2)
        dw2 = dw2 + h.T @ dz
        dw1 = dw1 + x.T @ dpre
        db1 = db1 + dpre.sum(axis=0)
    return {"w1": dw1, "b1": db1, "w2": dw2}


def triplet_make(dtype):
    rng = np.random.default_rng(204)
    params = {
        "w1": rng.normal(size=(4, 5)) * 0.6,
        "b1": rng.normal(size=5) * 0.3,
        "w2": rng.normal(size=(5, 2)) * 0.7,
    }
    args = tuple(rng.normal(size=(8, 4)) for _ in range(3))
    return cast(params, dtype), cast(args, dtype)


# Focal loss

FOCUS = 2.0
ALPHA = 0.3


def focal_loss(params, x, labels):
    z = jax.nn.softplus(x @ params["w1"] + params["b1"]) @ params["w2"]
    sign = 2 * labels - 1
    log_pt = jax.nn.log_sigmoid(sign * z)
    alpha_t = jnp.where(labels > 0, ALPHA, 1 - ALPHA)
    return -jnp.mean(alpha_t * (1 - jnp.exp(log_pt)) ** FOCUS * log_pt)


def focal_grad(params, x, labels, modulator_fixed=False):
    pre = x @ params["w1"] + params["b1"]
    h = jax.nn.softplus(pre)
    z = h @ params["w2"]
    sign = (2 * labels - 1).astype(z.dtype)
    pt = jax.nn.sigmoid(sign * z)
    alpha_t = jnp.where(labels > 0, ALPHA, 1 - ALPHA).astype(z.dtype)
    weight = alpha_t * (1 - pt) ** FOCUS
    dz = sign * weight * (pt - 1) if modulator_fixed else sign * weight * (FOCUS * pt * jnp.log(pt) + pt - 1)
    dz = dz / x.shape[0]
    dpre = jnp.outer(dz, params["w2"]) * jax.nn.sigmoid(pre)
    return {"w1": x.T @ dpre, "b1": dpre.sum(axis=0), "w2": h.T @ dz}


def focal_make(dtype):
    rng = np.random.default_rng(205)
    params = {
        "w1": rng.normal(size=(3, 6)) * 0.7,
        "b1": rng.normal(size=6) * 0.3,
        "w2": rng.normal(size=6) * 0.8,
    }
    args = (rng.normal(size=(10, 3)), rng.integers(0, 2, size=10))
    return cast(params, dtype), cast(args, dtype)


# Quantile regression, several levels at once


def quantile_loss(params, x, y, taus):
    pred = jnp.tanh(x @ params["w1"]) @ params["w2"] + params["b"]
    r = y[:, None] - pred
    return jnp.mean(jnp.maximum(taus * r, (taus - 1) * r))


def quantile_grad(params, x, y, taus, by_residual=False):
    h = jnp.tanh(x @ params["w1"])
    pred = h @ params["w2"] + params["b"]
    r = y[:, None] - pred
    slope = jnp.where(r > 0, taus, taus - 1) / r.size
    dpred = slope if by_residual else -slope
    dh = dpred @ params["w2"].T
    return {"w1": x.T @ (dh * (1 - h**2)), "w2": h.T @ dpred, "b": dpred.sum(axis=0)}


def quantile_make(dtype):
    rng = np.random.default_rng(206)
    params = {
        "w1": rng.normal(size=(4, 5)) * 0.6,
        "w2": rng.normal(size=(5, 3)) * 0.6,
        "b": np.array([-0.6, 0.1, 0.8]),
    }
    args = (rng.normal(size=(9, 4)), rng.normal(size=9), np.array([0.1, 0.5, 0.8]))
    return cast(params, dtype), cast(args, dtype)


# Variational autoencoder with a fixed noise


def vae_loss(params, x, noise):
    h = jnp.tanh(x @ params["enc"])
    mu, logvar = h @ params["to_mean"], h @ params["to_logvar"]
    z = mu + jnp.exp(0.5 * logvar) * noise
    recon = jnp.tanh(z @ params["dec1"]) @ params["dec2"]
    fit = 0.5 * jnp.sum((recon - x) ** 2, axis=1)
    kl = 0.5 * jnp.sum(jnp.exp(logvar) + mu**2 - 1 - logvar, axis=1)
    return jnp.mean(fit + kl)


def vae_grad(params, x, noise, half_forgotten=False):
    n = x.shape[0]
    h = jnp.tanh(x @ params["enc"])
    mu, logvar = h @ params["to_mean"], h @ params["to_logvar"]
    std = jnp.exp(0.5 * logvar)
    z = mu + std * noise
    g = jnp.tanh(z @ params["dec1"])
    drecon = (g @ params["dec2"] - x) / n
    ddec2 = g.T @ drecon
    dg_pre = (drecon @ params["dec2"].T) * (1 - g**2)
    ddec1 = z.T @ dg_pre
    dz = dg_pre @ params["dec1"].T
    dmu = dz + mu / n
    dlogvar = dz * noise * std
    if not half_forgotten:
        dlogvar = 0.5 * dlogvar
    dlogvar = dlogvar + 0.5 * (std**2 - 1) / n
    dh = dmu @ params["to_mean"].T + dlogvar @ params["to_logvar"].T
    return {
        "enc": x.T @ (dh * (1 - h**2)),
        "to_mean": h.T @ dmu,
        "to_logvar": h.T @ dlogvar,
        "dec1": ddec1,
        "dec2": ddec2,
    }


def vae_make(dtype):
    rng = np.random.default_rng(207)
    params = {
        "enc": rng.normal(size=(6, 5)) * 0.6,
        "to_mean": rng.normal(size=(5, 2)) * 0.6,
        "to_logvar": rng.normal(size=(5, 2)) * 0.6,
        "dec1": rng.normal(size=(2, 4)),
        "dec2": rng.normal(size=(4, 6)),
    }
    args = (rng.normal(size=(7, 6)), rng.normal(size=(7, 2)))
    return cast(params, dtype), cast(args, dtype)


# Total variation denoising, smoothed, with a gain

TV_WEIGHT = 0.4
TV_SMOOTH = 0.1


def tv_loss(params, noisy):
    u = params["image"]
    down, right = u[1:, :] - u[:-1, :], u[:, 1:] - u[:, :-1]
    tv = jnp.sum(jnp.sqrt(down**2 + TV_SMOOTH)) + jnp.sum(jnp.sqrt(right**2 + TV_SMOOTH))
    return 0.5 * jnp.sum((params["gain"] * u - noisy) ** 2) + TV_WEIGHT * tv


def tv_grad(params, noisy, last_row_forgotten=False):
    u, gain = params["image"], params["gain"]
    residual = gain * u - noisy
    down, right = u[1:, :] - u[:-1, :], u[:, 1:] - u[:, :-1]
    p = TV_WEIGHT * down / jnp.sqrt(down**2 + TV_SMOOTH)
    q = TV_WEIGHT * right / jnp.sqrt(right**2 + TV_SMOOTH)
    du = gain * residual
    du = du.at[:-1, :].add(-p)
    du = du.at[1:-1, :].add(p[:-1, :]) if last_row_forgotten else du.at[1:, :].add(p)
    du = du.at[:, :-1].add(-q)
    du = du.at[:, 1:].add(q)
    return {"image": du, "gain": jnp.sum(residual * u)}


def tv_make(dtype):
    rng = np.random.default_rng(208)
    params = {"image": rng.normal(size=(7, 5)), "gain": np.array(1.2)}
    return cast(params, dtype), cast((rng.normal(size=(7, 5)),), dtype)


# Logistic regression with class weights and a ridge penalty

RIDGE = 0.15


def weighted_logistic_loss(params, x, labels, class_weight):
    logp = jax.nn.log_softmax(x @ params["w"] + params["b"], axis=1)
    weight = class_weight[labels]
    picked = jnp.take_along_axis(logp, labels[:, None], axis=1)[:, 0]
    return -jnp.sum(weight * picked) / jnp.sum(weight) + 0.5 * RIDGE * jnp.sum(params["w"] ** 2)


def weighted_logistic_grad(params, x, labels, class_weight, no_ridge=False, bias_unsummed=False):
    probs = jax.nn.softmax(x @ params["w"] + params["b"], axis=1)
    weight = class_weight[labels]
    onehot = jax.nn.one_hot(labels, probs.shape[1], dtype=x.dtype)
    delta = (probs - onehot) * (weight / weight.sum())[:, None]
    dw = x.T @ delta
    if not no_ridge:
        dw = dw + RIDGE * params["w"]
    db = delta if bias_unsummed else delta.sum(axis=0)
    return {"w": dw, "b": db}


def weighted_logistic_make(dtype):
    rng = np.random.default_rng(209)
    params = {"w": rng.normal(size=(4, 3)), "b": rng.normal(size=3) * 0.4}
    args = (rng.normal(size=(10, 4)), rng.integers(0, 3, size=10), np.array([0.5, 1.0, 2.5]))
    return cast(params, dtype), cast(args, dtype)


# Kernel ridge objective, exponential kernel, a length for every dimension

KRR_PENALTY = 0.2


def kernel_ridge_loss(params, x, y):
    scaled = x * jnp.exp(-params["log_len"])
    sq = jnp.sum((scaled[:, None, :] - scaled[None, :, :]) ** 2, axis=-1)
    apart = sq > 0
    r = jnp.where(apart, jnp.sqrt(jnp.where(apart, sq, 1.0)), 0.0)
    kernel = jnp.exp(-r)
    fitted = kernel @ params["alpha"]
    return 0.5 * jnp.mean((fitted - y) ** 2) + 0.5 * KRR_PENALTY * params["alpha"] @ fitted


def kernel_ridge_grad(params, x, y, bare_root=False):
    alpha = params["alpha"]
    n = y.shape[0]
    diff = (x[:, None, :] - x[None, :, :]) * jnp.exp(-params["log_len"])
    r = jnp.sqrt(jnp.sum(diff**2, axis=-1))
    kernel = jnp.exp(-r)
    residual = (kernel @ alpha - y) / n
    dalpha = kernel @ residual + KRR_PENALTY * kernel @ alpha
    dkernel = jnp.outer(residual, alpha) + 0.5 * KRR_PENALTY * jnp.outer(alpha, alpha)
    dr = -kernel * dkernel
    dsq = dr / (2 * r) if bare_root else jnp.where(r > 0, dr / (2 * jnp.where(r > 0, r, 1.0)), 0.0)
    dlog_len = -2 * jnp.einsum("ij,ijd->d", dsq, diff**2)
    return {"alpha": dalpha, "log_len": dlog_len}


def kernel_ridge_make(dtype):
    rng = np.random.default_rng(210)
    params = {"alpha": rng.normal(size=7), "log_len": rng.normal(size=3) * 0.4}
    args = (rng.normal(size=(7, 3)), rng.normal(size=7))
    return cast(params, dtype), cast(args, dtype)
