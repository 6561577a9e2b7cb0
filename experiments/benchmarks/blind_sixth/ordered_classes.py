"""Ordered classes: thresholds that rise; and more."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import digamma, gammaln, i0e, i1e

from experiments.benchmarks.blind_sixth.grouped_query_attention import cast

# Ordered classes: thresholds that rise, the first free and the rest by positive steps


def _thresholds(raw):
    return jnp.cumsum(jnp.concatenate([raw[:1], jnp.exp(raw[1:])]))


def ordinal_loss(params, x, grade):
    eta = jnp.tanh(x @ params["w1"]) @ params["w2"]
    cum = jax.nn.sigmoid(_thresholds(params["raw"])[None, :] - eta[:, None])
    ones = jnp.ones_like(eta)[:, None]
    edges = jnp.concatenate([0 * ones, cum, ones], axis=1)
    prob = jnp.take_along_axis(edges[:, 1:] - edges[:, :-1], grade[:, None], axis=1)
    return -jnp.mean(jnp.log(prob))


def ordinal_grad(params, x, grade, exponential_everywhere=False):
    raw = params["raw"]
    n, n_cut = x.shape[0], raw.shape[0]
    hid = jnp.tanh(x @ params["w1"])
    eta = hid @ params["w2"]
    cum = jax.nn.sigmoid(_thresholds(raw)[None, :] - eta[:, None])
    slope = cum * (1 - cum)
    upper = jax.nn.one_hot(grade, n_cut, dtype=x.dtype)  # none for the last class
    lower = jax.nn.one_hot(grade - 1, n_cut, dtype=x.dtype)  # none for the first
    has_top = (grade == n_cut).astype(x.dtype)
    prob = jnp.sum((upper - lower) * cum, axis=1) + has_top
    dcut = -(upper - lower) * slope / prob[:, None] / n  # by each threshold, of each sample
    deta = -dcut.sum(axis=1)
    dcum = jnp.cumsum(dcut.sum(axis=0)[::-1])[::-1]
    draw = dcum * jnp.exp(raw) if exponential_everywhere else jnp.concatenate([dcum[:1], dcum[1:] * jnp.exp(raw[1:])])
    dpre = deta[:, None] * params["w2"] * (1 - hid**2)
    return {"w1": x.T @ dpre, "w2": hid.T @ deta, "raw": draw}


def ordinal_make(dtype):
    rng = np.random.default_rng(117)
    n, p, h, _k = 9, 3, 5, 4
    params = {"w1": rng.normal(size=(p, h)), "w2": rng.normal(size=h), "raw": np.array([-1.3, -0.2, 0.3, 0.1])}
    return cast(params, dtype), cast((rng.normal(size=(n, p)), np.array([0, 3, 1, 4, 2, 2, 0, 4, 1])), dtype)


# Counts with overdispersion: negative binomial with exposures, a dispersion for each site


def counts_loss(params, x, exposure, site, y):
    mu = jnp.exp(x @ params["beta"] + params["b0"] + jnp.log(exposure))
    r = jnp.exp(params["log_r"])[site]
    ll = gammaln(y + r) - gammaln(r) - gammaln(y + 1) + r * jnp.log(r / (r + mu)) + y * jnp.log(mu / (r + mu))
    return -jnp.mean(ll)


def counts_grad(params, x, exposure, site, y, poisson_score=False, whole_batches_only=False, size=4):
    n = x.shape[0]
    n_batches = n // size if whole_batches_only else -(-n // size)
    dbeta, db0, dlog_r = jnp.zeros_like(params["beta"]), 0.0, jnp.zeros_like(params["log_r"])
    for k in range(n_batches):
        part = slice(k * size, min((k + 1) * size, n))
        xb, yb, site_b = x[part], y[part], site[part]
        mu = jnp.exp(xb @ params["beta"] + params["b0"] + jnp.log(exposure[part]))
        r = jnp.exp(params["log_r"])[site_b]
        deta = mu - yb
        if not poisson_score:
            deta = deta * r / (r + mu)
        dr = digamma(r) - digamma(yb + r) - jnp.log(r / (r + mu)) - 1 + (r + yb) / (r + mu)
        dbeta = dbeta + xb.T @ deta / n
        db0 = db0 + deta.sum() / n
        dlog_r = dlog_r.at[site_b].add(dr * r / n)
    return {"beta": dbeta, "b0": db0, "log_r": dlog_r}


def counts_make(dtype):
    rng = np.random.default_rng(118)
    n, p, s = 10, 3, 2
    params = {"beta": rng.normal(size=p) * 0.5, "b0": np.array(0.4), "log_r": np.array([0.5, -0.2])}
    args = (
        rng.normal(size=(n, p)),
        rng.uniform(0.5, 2.0, size=n),
        rng.integers(0, s, size=n),
        rng.poisson(2.5, size=n).astype(float),
    )
    return cast(params, dtype), cast(args, dtype)


# Epidemic in several regions: susceptible and infected by Euler steps, reported cases Poisson

POPULATION = 50.0


def epidemic_loss(params, season, cases):
    recover, report = jnp.exp(params["log_recover"]), jnp.exp(params["log_report"])
    infected = jax.nn.sigmoid(params["start"])

    def step(state, inputs):
        s, i = state
        season_t, cases_t = inputs
        new = jnp.exp(params["log_rate"] + season_t @ params["season"]) * s * i
        rate = POPULATION * report * new
        return (s - new, i + new - recover * i), rate - cases_t * jnp.log(rate)

    _, nll = jax.lax.scan(step, (1 - infected, infected), (season, cases))
    return jnp.mean(nll)


def epidemic_grad(params, season, cases, limit=None):
    length = season.shape[0]
    recover, report = jnp.exp(params["log_recover"]), jnp.exp(params["log_report"])
    i0 = jax.nn.sigmoid(params["start"])
    s, i = 1 - i0, i0
    trace = []
    for t in range(length):
        force = jnp.exp(params["log_rate"] + season[t] @ params["season"])
        new = force * s * i
        trace.append((s, i, force, new))
        s, i = s - new, i + new - recover * i

    # adjoint equations, backward in time
    adj_s, adj_i = jnp.zeros_like(s), jnp.zeros_like(i)
    dlog_rate, dseason = jnp.zeros_like(params["log_rate"]), jnp.zeros_like(params["season"])
    dreport, drecover = 0.0, 0.0
    for t in reversed(range(length)):
        s, i, force, new = trace[t]
        drate = (1.0 - cases[t] / (POPULATION * report * new)) / cases.size
        dreport = dreport + jnp.sum(drate * POPULATION * new)
        drecover = drecover - jnp.sum(adj_i * i)
        dnew = adj_i - adj_s + drate * POPULATION * report
        dlog_rate = dlog_rate + dnew * new
        dseason = dseason + jnp.sum(dnew * new) * season[t]
        adj_s, adj_i = adj_s + dnew * force * i, adj_i * (1 - recover) + dnew * force * s
    grads = {
        "log_rate": dlog_rate,
        "season": dseason,
        "log_report": dreport * report,
        "log_recover": drecover * recover,
        "start": (adj_i - adj_s) * i0 * (1 - i0),
    }
    if limit is not None:
        grads = {k: jnp.clip(g, -limit, limit) for k, g in grads.items()}
    return grads


def epidemic_make(dtype):
    rng = np.random.default_rng(119)
    r, t, k = 5, 7, 3
    params = {
        "log_rate": rng.normal(size=r) * 0.2 - 0.3,
        "season": rng.normal(size=k) * 0.2,
        "log_report": np.array(-0.4),
        "log_recover": np.array(-1.5),
        "start": rng.normal(size=r) * 0.4 - 2.0,
    }
    args = (rng.normal(size=(t, k)), rng.poisson(4.0, size=(t, r)).astype(float))
    return cast(params, dtype), cast(args, dtype)


# Mixture density of directions: a network gives weights, angles and concentrations


def directions_loss(params, x, angle):
    hid = jnp.tanh(x @ params["w1"] + params["b1"])
    logit, mu, raw = jnp.split(hid @ params["w2"] + params["b2"], 3, axis=1)
    kappa = jnp.exp(raw)
    comp = kappa * (jnp.cos(angle[:, None] - mu) - 1) - jnp.log(2 * np.pi * i0e(kappa))
    return -jnp.mean(jax.nn.logsumexp(jax.nn.log_softmax(logit, axis=1) + comp, axis=1))


def directions_grad(params, x, angle, bias_not_summed=False):
    n = x.shape[0]
    hid = jnp.tanh(x @ params["w1"] + params["b1"])
    logit, mu, raw = jnp.split(hid @ params["w2"] + params["b2"], 3, axis=1)
    kappa = jnp.exp(raw)
    dev = angle[:, None] - mu
    comp = kappa * (jnp.cos(dev) - 1) - jnp.log(2 * np.pi * i0e(kappa))
    resp = jax.nn.softmax(logit + comp, axis=1)

    dlogit = jax.nn.softmax(logit, axis=1) - resp
    dmu = -resp * kappa * jnp.sin(dev)
    bessel_ratio = i1e(kappa) / i0e(kappa)
    draw = -resp * (jnp.cos(dev) - bessel_ratio) * kappa
    dout = jnp.concatenate([dlogit, dmu, draw], axis=1) / n
    dpre = (dout @ params["w2"].T) * (1 - hid**2)
    db2 = dout if bias_not_summed else dout.sum(axis=0)
    return {"w1": x.T @ dpre, "b1": dpre.sum(axis=0), "w2": hid.T @ dout, "b2": db2}


def directions_make(dtype):
    rng = np.random.default_rng(120)
    n, p, h, k = 7, 2, 5, 3
    params = {
        "w1": rng.normal(size=(p, h)),
        "b1": rng.normal(size=h) * 0.3,
        "w2": rng.normal(size=(h, 3 * k)) * 0.6,
        "b2": rng.normal(size=3 * k) * 0.4,
    }
    return cast(params, dtype), cast((rng.normal(size=(n, p)), rng.uniform(-np.pi, np.pi, size=n)), dtype)
