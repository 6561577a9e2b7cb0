"""Gaussian likelihood with a Cholesky factor whose diagonal is kept as logarithms; and more."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import digamma, gammaln

from experiments.benchmarks.blind_seventh.graph_attention import cast

# Gaussian likelihood with a Cholesky factor whose diagonal is kept as logarithms


def factor(raw):
    return jnp.tril(raw, -1) + jnp.diag(jnp.exp(jnp.diag(raw)))


def mvn_loss(params, x):
    chol = factor(params["chol"])
    white = jax.scipy.linalg.solve_triangular(chol, (x - params["mean"]).T, lower=True)
    return 0.5 * jnp.sum(white**2) / x.shape[0] + jnp.sum(jnp.diag(params["chol"]))


def mvn_grad(params, x, plain_diagonal=False):
    n, _dim = x.shape
    chol = factor(params["chol"])
    white = jax.scipy.linalg.solve_triangular(chol, (x - params["mean"]).T, lower=True)
    back = jax.scipy.linalg.solve_triangular(chol.T, white, lower=False) / n
    dchol = -back @ white.T
    diag = jnp.diag(dchol)
    if not plain_diagonal:
        diag = diag * jnp.diag(chol)
    return {"mean": -back.sum(1), "chol": jnp.tril(dchol, -1) + jnp.diag(diag + 1.0)}


def mvn_make(dtype):
    r = np.random.default_rng(210)
    raw = np.tril(r.normal(size=(4, 4)) * 0.5)
    raw[np.arange(4), np.arange(4)] = [0.5, -0.4, 0.7, -0.6]
    return cast({"mean": r.normal(size=4), "chol": raw}, dtype), cast((r.normal(size=(8, 4)),), dtype)


# parametric multidimensional scaling


def mds_embed(params, x):
    h = jnp.tanh(x @ params["w1"])
    z = h @ params["w2"]
    diff = z[:, None] - z[None]
    return h, diff, jnp.sum(diff**2, axis=-1)


def mds_loss(params, x, target):
    sq = mds_embed(params, x)[2]
    own = jnp.eye(x.shape[0], dtype=bool)
    dist = jnp.where(own, 0.0, jnp.sqrt(jnp.where(own, 1.0, sq)))
    return 0.5 * jnp.sum((dist - target) ** 2) / jnp.sum(target**2)


def mds_grad(params, x, target, bare_division=False):
    h, diff, sq = mds_embed(params, x)
    dist = jnp.sqrt(sq)
    stress = (dist - target) / jnp.sum(target**2)
    below = dist if bare_division else jnp.where(dist > 0, dist, 1.0)
    pull = (stress / below)[..., None] * diff
    dz = 2.0 * pull.sum(1)
    dh = dz @ params["w2"].T
    return {"w1": x.T @ (dh * (1.0 - h * h)), "w2": h.T @ dz}


def mds_make(dtype):
    r = np.random.default_rng(211)
    params = {"w1": r.normal(size=(5, 4)) * 0.7, "w2": r.normal(size=(4, 2))}
    x = r.normal(size=(7, 5))
    target = np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1))
    return cast(params, dtype), cast((x, target), dtype)


# ordinal regression with increasing thresholds


def ordinal_forward(params, x):
    h = jnp.tanh(x @ params["w1"] + params["b1"])
    score = h @ params["w2"]
    gap = jnp.exp(params["cut"][1:])
    cut = jnp.cumsum(jnp.concatenate([params["cut"][:1], gap]))
    return h, gap, cut - score[:, None]


def ordinal_loss(params, x, above):
    # above[n, k] = 1 when the grade lies above threshold k
    z = ordinal_forward(params, x)[2]
    return jnp.mean(jnp.sum(above * jax.nn.softplus(z) + (1.0 - above) * jax.nn.softplus(-z), axis=1))


def ordinal_grad(params, x, above, bias_over_units=False):
    h, gap, z = ordinal_forward(params, x)
    dz = (jax.nn.sigmoid(z) - (1.0 - above)) / x.shape[0]
    dscore = -dz.sum(1)
    dlevel = jnp.cumsum(dz.sum(0)[::-1])[::-1]
    dcut = jnp.concatenate([dlevel[:1], dlevel[1:] * gap])
    dpre = dscore[:, None] * params["w2"] * (1.0 - h * h)
    return {"w1": x.T @ dpre, "b1": dpre.sum(axis=1 if bias_over_units else 0), "w2": h.T @ dscore, "cut": dcut}


def ordinal_make(dtype):
    r = np.random.default_rng(212)
    params = {
        "w1": r.normal(size=(5, 4)) * 0.7,
        "b1": r.normal(size=4) * 0.3,
        "w2": r.normal(size=4),
        "cut": np.array([-1.0, 0.2, -0.3]),
    }
    grade = r.integers(0, 4, size=8)
    above = (grade[:, None] > np.arange(3)).astype(float)
    return cast(params, dtype), cast((r.normal(size=(8, 5)), above), dtype)


# trading rule that maximizes the Sharpe ratio, less the cost of turnover

TURNOVER = 0.05


def sharpe_forward(params, x, ret):
    pos = jnp.tanh(x @ params["w"] + params["b"])
    pnl = jnp.sum(pos * ret, axis=1)
    return pos, pnl, pnl.mean(), jnp.sqrt(jnp.mean((pnl - pnl.mean()) ** 2) + 1e-4)


def sharpe_loss(params, x, ret):
    pos, _, mean, std = sharpe_forward(params, x, ret)
    return -mean / std + TURNOVER * jnp.sum((pos[1:] - pos[:-1]) ** 2)


def sharpe_grad(params, x, ret, constant_risk=False):
    pos, pnl, mean, std = sharpe_forward(params, x, ret)
    n = x.shape[0]
    dpnl = -jnp.ones_like(pnl) / (n * std)
    if not constant_risk:
        dpnl = dpnl + mean * (pnl - mean) / (n * std**3)
    dpos = dpnl[:, None] * ret
    trade = 2.0 * TURNOVER * (pos[1:] - pos[:-1])
    dpos = dpos.at[1:].add(trade).at[:-1].add(-trade)
    dz = dpos * (1.0 - pos * pos)
    return {"w": x.T @ dz, "b": dz.sum(0)}


def sharpe_make(dtype):
    r = np.random.default_rng(213)
    x, ret = r.normal(size=(8, 5)), r.normal(size=(8, 3)) + 0.3
    return cast({"w": r.normal(size=(5, 3)) * 0.5, "b": r.normal(size=3) * 0.5 + 0.4}, dtype), cast((x, ret), dtype)


# negative binomial regression of read counts, in two chunks of cells


def counts_parts(params, x, size):
    mu = jnp.exp(x @ params["w"] + size[:, None])
    return mu, jnp.exp(params["log_r"])


def counts_loss(params, x, size, reads):
    mu, r = counts_parts(params, x, size)
    ll = gammaln(reads + r) - gammaln(r) - gammaln(reads + 1.0)
    ll = ll + r * jnp.log(r / (r + mu)) + reads * jnp.log(mu / (r + mu))
    return -jnp.sum(ll) / x.shape[0]


def counts_chunk(params, x, size, reads):
    mu, r = counts_parts(params, x, size)
    deta = -(reads - mu) * r / (r + mu)
    dr = digamma(reads + r) - digamma(r) + jnp.log(r / (r + mu)) + 1.0 - (r + reads) / (r + mu)
    return {"w": x.T @ deta, "log_r": -jnp.sum(dr, axis=0) * r}


def counts_grad(params, x, size, reads, keep_buffer=False):
    n = x.shape[0]
    total = {name: jnp.zeros_like(p) for name, p in params.items()}
    buffer = {name: jnp.zeros_like(p) for name, p in params.items()}
    for start in range(0, n, n // 2):
        rows = slice(start, start + n // 2)
        if not keep_buffer:
            buffer = {name: jnp.zeros_like(p) for name, p in params.items()}
        part = counts_chunk(params, x[rows], size[rows], reads[rows])
        buffer = {name: buffer[name] + part[name] for name in params}
        total = {name: total[name] + buffer[name] for name in params}
    return {name: g / n for name, g in total.items()}


def counts_make(dtype):
    r = np.random.default_rng(214)
    params = {"w": r.normal(size=(4, 3)) * 0.4, "log_r": r.normal(size=3) * 0.4}
    reads = r.poisson(3.0, size=(10, 3)).astype(float)
    return cast(params, dtype), cast((r.normal(size=(10, 4)), r.normal(size=10) * 0.3 + 0.8, reads), dtype)
