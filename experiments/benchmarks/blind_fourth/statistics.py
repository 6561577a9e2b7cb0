"""Mixtures, robust losses, radial functions and word vectors, with gradients by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind_fourth.networks import cast, sigmoid

# Gaussian mixtures


def make_mixture(dtype, seed=11):
    rng = np.random.default_rng(seed)
    params = {
        "mean": rng.normal(size=(3, 2)),
        "log_sigma": 0.3 * rng.normal(size=(3, 2)),
        "logits": 0.5 * rng.normal(size=3),
    }
    return cast(dtype, (params, (1.5 * rng.normal(size=(9, 2)),)))


def mixture_joint(params, x):
    """Log of the weight times the density, for each point and component."""
    u = (x[:, None, :] - params["mean"]) * jnp.exp(-params["log_sigma"])
    log_density = -0.5 * jnp.sum(u**2, axis=2) - jnp.sum(params["log_sigma"], axis=1)
    return jax.nn.log_softmax(params["logits"]) + log_density, u


def mixture_loss(params, x):
    """Negative log-likelihood of a mixture with diagonal covariances."""
    return -jnp.mean(jax.nn.logsumexp(mixture_joint(params, x)[0], axis=1))


def em_loss(params, x):
    """The M step's objective: responsibilities are held fixed."""
    joint, _ = mixture_joint(params, x)
    resp = jax.lax.stop_gradient(jax.nn.softmax(joint, axis=1))
    return -jnp.mean(jnp.sum(resp * joint, axis=1))


def mixture_back(params, u, d_joint, normalizer=True):
    """From the joint's gradient to the parameters."""
    d_logits = jnp.sum(d_joint, axis=0)
    if normalizer:
        d_logits = d_logits - jax.nn.softmax(params["logits"]) * jnp.sum(d_joint)
    return {
        "mean": jnp.sum(d_joint[:, :, None] * u, axis=0) * jnp.exp(-params["log_sigma"]),
        "log_sigma": jnp.sum(d_joint[:, :, None] * (u**2 - 1), axis=0),
        "logits": d_logits,
    }


def mixture_grad(params, x, normalizer=True):
    """Wrong variant: the logits are taken for log weights, without the softmax's normalizer."""
    joint, u = mixture_joint(params, x)
    return mixture_back(params, u, -jax.nn.softmax(joint, axis=1) / len(x), normalizer)


def em_grad(params, x, through_resp=False):
    """Wrong variant: the responsibilities are differentiated too."""
    joint, u = mixture_joint(params, x)
    resp = jax.nn.softmax(joint, axis=1)
    d_joint = -resp / len(x)
    if through_resp:
        d_joint = d_joint - resp * (joint - jnp.sum(resp * joint, axis=1, keepdims=True)) / len(x)
    return mixture_back(params, u, d_joint)


# Quantile and robust regression


def make_regression(dtype, seed=12, scale=False):
    rng = np.random.default_rng(seed)
    params = {"w": rng.normal(size=(4, 3)), "b": 0.3 * rng.normal(size=3)}
    x, y = rng.normal(size=(8, 4)), 2 * rng.normal(size=(8, 3))
    if scale:
        params["log_s"] = 0.4 * rng.normal(size=3)
        return cast(dtype, (params, (x, y)))
    return cast(dtype, (params, (x, y, np.array([0.1, 0.4, 0.8]))))


def quantile_loss(params, x, y, tau):
    """Pinball loss at three levels."""
    error = y - x @ params["w"] - params["b"]
    return jnp.mean(jnp.maximum(tau * error, (tau - 1) * error))


def quantile_grad(params, x, y, tau, other_side=False):
    """Wrong variant: tau weighs the side of 1 - tau."""
    error = y - x @ params["w"] - params["b"]
    level = 1 - tau if other_side else tau
    d_out = jnp.where(error > 0, -level, 1 - level) / y.size
    return {"w": x.T @ d_out, "b": jnp.sum(d_out, axis=0)}


def cauchy_loss(params, x, y):
    """Negative log-likelihood of Cauchy errors with a learned scale for each output."""
    u = (x @ params["w"] + params["b"] - y) * jnp.exp(-params["log_s"])
    return jnp.mean(jnp.log1p(u**2) + params["log_s"])


def cauchy_grad(params, x, y, scale_sign=1):
    inverse = jnp.exp(-params["log_s"])
    u = (x @ params["w"] + params["b"] - y) * inverse
    d_u = 2 * u / (1 + u**2) / y.size
    d_out = d_u * inverse
    d_log_s = jnp.sum(1 / y.size - d_u * u, axis=0)
    return {"w": x.T @ d_out, "b": jnp.sum(d_out, axis=0), "log_s": scale_sign * d_log_s}


# Radial basis network


def make_radial(dtype, seed=13):
    rng = np.random.default_rng(seed)
    params = {"center": rng.normal(size=(5, 2)), "log_gamma": 0.4 * rng.normal(size=5) - 0.5, "a": rng.normal(size=5)}
    return cast(dtype, (params, (1.2 * rng.normal(size=(9, 2)), rng.normal(size=9))))


def radial_loss(params, x, y):
    """Squared error of a sum of Gaussian bumps."""
    square = jnp.sum((x[:, None, :] - params["center"]) ** 2, axis=2)
    return jnp.mean((jnp.exp(-jnp.exp(params["log_gamma"]) * square) @ params["a"] - y) ** 2)


def radial_grad(params, x, y, distance_not_squared=False):
    diff = x[:, None, :] - params["center"]
    square = jnp.sum(diff**2, axis=2)
    gamma = jnp.exp(params["log_gamma"])
    phi = jnp.exp(-gamma * square)
    d_out = 2 * (phi @ params["a"] - y) / len(y)
    d_exponent = d_out[:, None] * params["a"] * phi
    reach = jnp.sqrt(square) if distance_not_squared else square
    return {
        "center": jnp.sum(d_exponent[:, :, None] * 2 * gamma[:, None] * diff, axis=0),
        "log_gamma": -gamma * jnp.sum(d_exponent * reach, axis=0),
        "a": phi.T @ d_out,
    }


# Group lasso with a ridge term


def make_lasso(dtype, seed=14):
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(5, 3))
    w[2] = 0.0
    return cast(dtype, ({"w": w, "b": rng.normal(size=3)}, (rng.normal(size=(8, 5)), rng.normal(size=(8, 3)))))


def lasso_loss(params, x, y, group=0.4, ridge=0.1):
    """Least squares with a penalty on the length of each row, one of which is zero."""
    square = jnp.sum(params["w"] ** 2, axis=1)
    length = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
    fit = 0.5 * jnp.sum((x @ params["w"] + params["b"] - y) ** 2) / len(x)
    return fit + group * jnp.sum(length) + 0.5 * ridge * jnp.sum(square)


def lasso_grad(params, x, y, group=0.4, ridge=0.1, guarded=True):
    """Wrong variant: a row of zeros is divided by its length."""
    error = (x @ params["w"] + params["b"] - y) / len(x)
    length = jnp.sqrt(jnp.sum(params["w"] ** 2, axis=1, keepdims=True))
    if guarded:
        length = jnp.where(length > 0, length, 1)
    d_w = x.T @ error + group * params["w"] / length + ridge * params["w"]
    return {"w": d_w, "b": jnp.sum(error, axis=0)}


# Word embeddings with negative sampling


def make_words(dtype, seed=15):
    rng = np.random.default_rng(seed)
    params = {"emb_in": rng.normal(size=(8, 3)), "emb_out": rng.normal(size=(8, 3))}
    context = rng.integers(0, 8, size=(6, 4)).astype(np.int32)
    target = rng.integers(0, 8, size=6).astype(np.int32)
    negative = rng.integers(0, 8, size=(6, 2)).astype(np.int32)
    return cast(dtype, (params, (context, target, negative)))


def words_loss(params, context, target, negative):
    """Continuous bag of words: the contexts' mean against a target and two negatives."""
    hidden = jnp.mean(params["emb_in"][context], axis=1)
    good = jnp.sum(hidden * params["emb_out"][target], axis=1)
    bad = jnp.einsum("nd,nkd->nk", hidden, params["emb_out"][negative])
    return jnp.mean(jax.nn.softplus(-good) + jnp.sum(jax.nn.softplus(bad), axis=1))


def words_grad(params, context, target, negative, share=True, exchange=False):
    """Wrong variants: each context word gets the mean's whole gradient; the two tables exchanged."""
    hidden = jnp.mean(params["emb_in"][context], axis=1)
    out_good, out_bad = params["emb_out"][target], params["emb_out"][negative]
    d_good = -sigmoid(-jnp.sum(hidden * out_good, axis=1)) / len(target)
    d_bad = sigmoid(jnp.einsum("nd,nkd->nk", hidden, out_bad)) / len(target)
    d_hidden = d_good[:, None] * out_good + jnp.einsum("nk,nkd->nd", d_bad, out_bad)
    d_word = d_hidden / context.shape[1] if share else d_hidden
    d_in = jnp.zeros_like(params["emb_in"]).at[context].add(d_word[:, None, :])
    d_out = jnp.zeros_like(params["emb_out"]).at[target].add(d_good[:, None] * hidden)
    d_out = d_out.at[negative].add(d_bad[:, :, None] * hidden[:, None, :])
    if exchange:
        d_in, d_out = d_out, d_in
    return {"emb_in": d_in, "emb_out": d_out}
