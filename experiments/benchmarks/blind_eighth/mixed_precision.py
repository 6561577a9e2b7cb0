"""Mixed precision with a loss scale; Poisson regression with exposure and a ridge."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind_eighth.cross_attention import maker

# ---------------------------------------------------------------- mixed precision with a loss scale

LOSS_SCALE = 2.0**20


def amp_loss(params, x, labels):
    bf = jnp.bfloat16
    h = (x.astype(bf) @ params["w1"].astype(bf)).astype(jnp.float32) + params["b1"]
    a = (h * jax.nn.sigmoid(h)).astype(bf)
    logits = (a @ params["w2"].astype(bf)).astype(jnp.float32)
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1))


def amp_grad(params, x, labels, half=jnp.bfloat16, unscale=("w1", "b1", "w2")):
    bf = jnp.bfloat16
    xb, w1, w2 = x.astype(bf), params["w1"].astype(bf), params["w2"].astype(bf)
    h = (xb @ w1).astype(jnp.float32) + params["b1"]
    gate = jax.nn.sigmoid(h)
    a = (h * gate).astype(bf)
    logits = (a @ w2).astype(jnp.float32)
    d_logits = jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[1], dtype=jnp.float32)
    d_logits = (d_logits * (LOSS_SCALE / x.shape[0])).astype(half)
    d_w2 = (a.T.astype(half) @ d_logits).astype(jnp.float32)
    d_a = (d_logits @ w2.T.astype(half)).astype(jnp.float32)
    d_h = d_a * (gate + h * gate * (1 - gate))
    d_w1 = (xb.T.astype(half) @ d_h.astype(half)).astype(jnp.float32)
    scaled = {"w1": d_w1, "b1": d_h.sum(0), "w2": d_w2}
    return {k: g / LOSS_SCALE if k in unscale else g for k, g in scaled.items()}


def _build_amp():
    r = np.random.default_rng(909)
    params = {"w1": r.normal(size=(4, 7)) * 0.6, "b1": 0.2 * r.normal(size=7), "w2": r.normal(size=(7, 3)) * 0.7}
    return params, (r.normal(size=(8, 4)), r.integers(0, 3, size=8))


make_amp = maker(_build_amp)


def gcn_loss(params, adj, feats, labels, train):
    h = jax.nn.relu(adj @ feats @ params["w1"])
    logp = jax.nn.log_softmax(adj @ h @ params["w2"])
    nll = -logp[jnp.arange(labels.shape[0]), labels]
    return jnp.sum(jnp.where(train, nll, 0)) / jnp.sum(train)


def gcn_grad(params, adj, feats, labels, train, adj_as_is=False):
    neighbours = adj @ feats
    pre = neighbours @ params["w1"]
    h = jnp.where(pre > 0, pre, 0)
    pooled = adj @ h
    d_logits = jax.nn.softmax(pooled @ params["w2"]).at[jnp.arange(labels.shape[0]), labels].add(-1)
    d_logits = d_logits * train[:, None] / jnp.sum(train)
    d_w2 = pooled.T @ d_logits
    d_pooled = d_logits @ params["w2"].T
    d_h = (adj if adj_as_is else adj.T) @ d_pooled
    d_pre = jnp.where(pre > 0, d_h, 0)
    return {"w1": neighbours.T @ d_pre, "w2": d_w2}


def _build_gcn():
    r = np.random.default_rng(1010)
    adj = (r.uniform(size=(8, 8)) < 0.35).astype(float)
    np.fill_diagonal(adj, 1.0)
    adj = adj / adj.sum(1, keepdims=True)
    train = np.array([1, 0, 1, 1, 0, 1, 0, 1], bool)
    return (
        {"w1": r.normal(size=(4, 5)), "w2": r.normal(size=(5, 3))},
        (adj, r.normal(size=(8, 4)), r.integers(0, 3, size=8), train),
    )


make_gcn = maker(_build_gcn)


def mlp_loss(params, x, labels):
    a1 = jnp.tanh(x @ params["W1"] + params["b1"])
    logits = a1 @ params["W2"] + params["b2"]
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(x.shape[0]), labels])


def mlp_backprop(params, x, labels, lr=0.0, drop_last=False):
    W1, b1, W2, b2 = params["W1"], params["b1"], params["W2"], params["b2"]
    m = x.shape[0]
    chunk = 4
    dW1, db1 = jnp.zeros_like(W1), jnp.zeros_like(b1)
    dW2, db2 = jnp.zeros_like(W2), jnp.zeros_like(b2)
    stop = m - chunk if drop_last else m
    for i in range(0, stop, chunk):
        xb, tb = x[i : i + chunk], labels[i : i + chunk]
        a1 = jnp.tanh(xb @ W1 + b1)
        a2 = jax.nn.softmax(a1 @ W2 + b2)
        dz2 = (a2 - jax.nn.one_hot(tb, a2.shape[1], dtype=a2.dtype)) / m
        dW2 += a1.T @ dz2
        db2 += dz2.sum(0)
    W2 = W2 - lr * dW2  # lr = 0: only the gradients are wanted
    for i in range(0, stop, chunk):
        xb, tb = x[i : i + chunk], labels[i : i + chunk]
        a1 = jnp.tanh(xb @ W1 + b1)
        a2 = jax.nn.softmax(a1 @ params["W2"] + b2)
        dz2 = (a2 - jax.nn.one_hot(tb, a2.shape[1], dtype=a2.dtype)) / m
        dz1 = (dz2 @ W2.T) * (1 - a1**2)
        dW1 += xb.T @ dz1
        db1 += dz1.sum(0)
    return {"W1": dW1, "b1": db1, "W2": dW2, "b2": db2}


def _build_mlp():
    r = np.random.default_rng(11)
    params = {
        "W1": r.normal(size=(4, 6)) * 0.6,
        "b1": 0.1 * r.normal(size=6),
        "W2": r.normal(size=(6, 3)) * 0.6,
        "b2": 0.1 * r.normal(size=3),
    }
    return params, (r.normal(size=(10, 4)), r.integers(0, 3, size=10))


make_mlp = maker(_build_mlp)


# ---------------------------------------------------------------- Poisson regression with exposure and a ridge

RIDGE = 0.3


def poisson_loss(params, X, exposure, counts):
    eta = X @ params["beta"] + jnp.log(exposure)
    slopes = params["beta"][1:]
    return jnp.mean(jnp.exp(eta) - counts * eta) + 0.5 * RIDGE * jnp.sum(slopes**2)


def poisson_score(params, X, exposure, counts, use_exposure=True, shrink_intercept=False):
    beta = params["beta"]
    rate = jnp.exp(X @ beta)
    mu = exposure * rate if use_exposure else rate
    penalised = jnp.ones_like(beta)
    if not shrink_intercept:
        penalised = penalised.at[0].set(0.0)
    return {"beta": X.T @ (mu - counts) / X.shape[0] + RIDGE * penalised * beta}


def _build_poisson():
    r = np.random.default_rng(12)
    X = np.concatenate([np.ones((9, 1)), r.normal(size=(9, 4))], axis=1)
    beta = np.array([1.1, 0.4, -0.5, 0.3, 0.2])
    exposure = r.uniform(0.4, 2.5, size=9)
    return {"beta": beta}, (X, exposure, r.poisson(exposure * 3.0).astype(float))


make_poisson = maker(_build_poisson)
