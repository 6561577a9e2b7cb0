"""An ARMA model; three quantiles of a forecast; and more."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# ARMA(2, 2) by conditional least squares, a level for each series


def build_arma(rng):
    params = {"phi": np.array([0.5, -0.3]), "theta": np.array([0.6, 0.25]), "level": rng.normal(size=4) * 0.5}
    return params, (rng.normal(size=(4, 9)),)


def arma_loss(params, y):
    phi, theta = params["phi"], params["theta"]

    def step(carry, y_t):
        y1, y2, e1, e2 = carry
        e = y_t - params["level"] - phi[0] * y1 - phi[1] * y2 - theta[0] * e1 - theta[1] * e2
        return (y_t, y1, e, e1), e

    zero = jnp.zeros(y.shape[0], y.dtype)
    _, errors = lax.scan(step, (y[:, 1], y[:, 0], zero, zero), y[:, 2:].T)
    return 0.5 * jnp.mean(errors**2)


def arma_grad(params, y, errors_fixed=False):
    phi, theta = params["phi"], params["theta"]
    zero = jnp.zeros(y.shape[0], y.dtype)
    errors = [zero, zero]
    steps = y.shape[1]
    for t in range(2, steps):
        predicted = params["level"] + phi[0] * y[:, t - 1] + phi[1] * y[:, t - 2]
        predicted += theta[0] * errors[t - 1] + theta[1] * errors[t - 2]
        errors.append(y[:, t] - predicted)
    count = y.shape[0] * (steps - 2)
    dphi, dtheta = jnp.zeros(2, y.dtype), jnp.zeros(2, y.dtype)
    dlevel = zero
    later1, later2 = zero, zero
    for t in reversed(range(2, steps)):
        de = errors[t] / count
        if not errors_fixed:
            de = de - theta[0] * later1 - theta[1] * later2
        dphi += -jnp.stack([jnp.sum(de * y[:, t - 1]), jnp.sum(de * y[:, t - 2])])
        dtheta += -jnp.stack([jnp.sum(de * errors[t - 1]), jnp.sum(de * errors[t - 2])])
        dlevel += -de
        later1, later2 = de, later1
    return {"phi": dphi, "theta": dtheta, "level": dlevel}


# Three quantiles of a forecast

TAUS = (0.1, 0.35, 0.8)


def build_quantile(rng):
    params = {
        "w1": rng.normal(size=(4, 5)) * 0.7,
        "b1": rng.normal(size=5) * 0.3,
        "w2": rng.normal(size=(5, 3)) * 0.7,
        "b2": rng.normal(size=3) * 0.3,
    }
    return params, (rng.normal(size=(7, 4)), rng.normal(size=7))


def quantile_loss(params, x, y):
    taus = jnp.array(TAUS, x.dtype)
    q = jnp.tanh(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]
    diff = y[:, None] - q
    return jnp.mean(jnp.sum(jnp.maximum(taus * diff, (taus - 1.0) * diff), axis=1))


def quantile_grad(params, x, y, tails_exchanged=False):
    taus = jnp.array(TAUS, x.dtype)
    hidden = jnp.tanh(x @ params["w1"] + params["b1"])
    q = hidden @ params["w2"] + params["b2"]
    below = y[:, None] > q
    if tails_exchanged:
        dq = jnp.where(below, taus - 1.0, taus) / y.shape[0]
    else:
        dq = jnp.where(below, -taus, 1.0 - taus) / y.shape[0]
    dpre = (dq @ params["w2"].T) * (1.0 - hidden**2)
    return {"w1": x.T @ dpre, "b1": dpre.sum(axis=0), "w2": hidden.T @ dq, "b2": dq.sum(axis=0)}


# Ratings of players from their games


def build_elo(rng):
    home = np.array([0, 1, 2, 3, 4, 5, 6, 2, 0, 5])
    away = np.array([3, 4, 0, 6, 2, 1, 5, 1, 4, 6])
    venue = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 1])
    result = np.array([1.0, 0.0, 0.5, 1.0, 1.0, 0.0, 0.0, 0.5, 1.0, 0.0])
    return {"rating": rng.normal(size=7), "advantage": rng.normal(size=3) * 0.3}, (home, away, venue, result)


def elo_loss(params, home, away, venue, result):
    gap = params["rating"][home] - params["rating"][away] + params["advantage"][venue]
    return jnp.mean(jax.nn.softplus(gap) - result * gap)


def elo_grad(params, home, away, venue, result, home_only=False):
    rating = params["rating"]
    gap = rating[home] - rating[away] + params["advantage"][venue]
    expected = 1.0 / (1.0 + jnp.exp(-gap))
    surprise = (expected - result) / result.shape[0]
    drating = jnp.zeros_like(rating).at[home].add(surprise)
    if not home_only:
        drating = drating.at[away].add(-surprise)
    dadvantage = jnp.zeros_like(params["advantage"]).at[venue].add(surprise)
    return {"rating": drating, "advantage": dadvantage}


# Poisson regression with exposure and a ridge

RIDGE = 0.4


def build_poisson(rng):
    params = {"coef": rng.normal(size=4), "intercept": np.array(-0.2)}
    return params, (
        rng.normal(size=(9, 4)) * 0.5,
        rng.uniform(0.5, 2.0, size=9),
        rng.poisson(2.0, size=9).astype(float),
    )


def poisson_loss(params, x, exposure, counts):
    eta = x @ params["coef"] + params["intercept"] + jnp.log(exposure)
    return jnp.mean(jnp.exp(eta) - counts * eta) + 0.5 * RIDGE * jnp.sum(params["coef"] ** 2)


def poisson_grad(params, x, exposure, counts, no_ridge=False):
    rate = exposure * jnp.exp(x @ params["coef"] + params["intercept"])
    deta = (rate - counts) / counts.shape[0]
    dcoef = x.T @ deta
    if not no_ridge:
        dcoef = dcoef + RIDGE * params["coef"]
    return {"coef": dcoef, "intercept": jnp.sum(deta)}


# A small recurrent network over characters


def build_char(rng):
    params = {
        "wxh": rng.normal(size=(5, 3)),
        "whh": rng.normal(size=(3, 3)) * 0.8,
        "bh": rng.normal(size=3) * 0.3,
        "why": rng.normal(size=(3, 5)),
        "by": rng.normal(size=5) * 0.3,
    }
    return params, (rng.integers(0, 5, size=(6, 4)), rng.integers(0, 5, size=(6, 4)))


def char_loss(params, inputs, targets):
    def step(h, both):
        ids, nxt = both
        h = jnp.tanh(params["wxh"][ids] + h @ params["whh"] + params["bh"])
        logp = jax.nn.log_softmax(h @ params["why"] + params["by"], axis=-1)
        return h, -jnp.mean(jnp.take_along_axis(logp, nxt[:, None], axis=1))

    h0 = jnp.zeros((inputs.shape[1], params["bh"].shape[0]), params["bh"].dtype)
    _, losses = lax.scan(step, h0, (inputs, targets))
    return jnp.sum(losses)


def char_grad(params, inputs, targets, clip_at=None, unit_length=False):
    steps, batch = inputs.shape
    hs = [jnp.zeros((batch, params["bh"].shape[0]), params["bh"].dtype)]
    probs = []
    for t in range(steps):
        hs.append(jnp.tanh(params["wxh"][inputs[t]] + hs[-1] @ params["whh"] + params["bh"]))
        probs.append(jax.nn.softmax(hs[-1] @ params["why"] + params["by"], axis=-1))
    grads = {name: jnp.zeros_like(p) for name, p in params.items()}
    dhnext = jnp.zeros_like(hs[0])
    for t in reversed(range(steps)):
        dy = probs[t].at[jnp.arange(batch), targets[t]].add(-1.0) / batch
        grads["why"] += hs[t + 1].T @ dy
        grads["by"] += dy.sum(axis=0)
        draw = (dy @ params["why"].T + dhnext) * (1.0 - hs[t + 1] ** 2)
        grads["bh"] += draw.sum(axis=0)
        grads["wxh"] = grads["wxh"].at[inputs[t]].add(draw)
        grads["whh"] += hs[t].T @ draw
        dhnext = draw @ params["whh"].T
    if clip_at is not None:
        grads = {name: jnp.clip(g, -clip_at, clip_at) for name, g in grads.items()}
    if unit_length:
        grads = {name: g / jnp.sqrt(jnp.sum(g * g)) for name, g in grads.items()}
    return grads


# Gaussian process: marginal likelihood


def build_gp(rng):
    params = {"log_length": np.array([0.2, -0.3]), "log_scales": np.array([0.25, -0.7])}
    return params, (rng.normal(size=(6, 2)), rng.normal(size=6))


def gp_loss(params, x, y):
    log_amp, log_noise = params["log_scales"]
    scaled = x / jnp.exp(params["log_length"])
    sq = jnp.sum((scaled[:, None] - scaled[None, :]) ** 2, axis=-1)
    cov = jnp.exp(2.0 * log_amp) * jnp.exp(-0.5 * sq)
    cov = cov + jnp.exp(2.0 * log_noise) * jnp.eye(x.shape[0], dtype=x.dtype)
    chol = jnp.linalg.cholesky(cov)
    white = jax.scipy.linalg.solve_triangular(chol, y, lower=True)
    return 0.5 * jnp.sum(white**2) + jnp.sum(jnp.log(jnp.diag(chol)))


def gp_grad(params, x, y, whole_logdet=False):
    n = x.shape[0]
    log_amp, log_noise = params["log_scales"]
    length = jnp.exp(params["log_length"])
    noise = jnp.exp(2.0 * log_noise)
    dist = ((x[:, None] - x[None, :]) / length) ** 2  # n n d
    kernel = jnp.exp(2.0 * log_amp - 0.5 * dist.sum(axis=-1))
    inverse = jnp.linalg.inv(kernel + noise * jnp.eye(n, dtype=x.dtype))
    alpha = inverse @ y
    fit = -0.5 * jnp.outer(alpha, alpha)
    volume = inverse if whole_logdet else 0.5 * inverse
    dcov = fit + volume
    dlength = jnp.einsum("ij,ij,ijd->d", dcov, kernel, dist)
    dscales = 2.0 * jnp.stack([jnp.sum(dcov * kernel), noise * jnp.trace(dcov)])
    return {"log_length": dlength, "log_scales": dscales}


# Three dense layers, smoothed labels

SMOOTH = 0.1


def build_dense(rng):
    params = {
        "w1": rng.normal(size=(4, 5)) * 0.7,
        "w2": rng.normal(size=(5, 5)) * 0.7,
        "w3": rng.normal(size=(5, 3)),
        "b3": rng.normal(size=3) * 0.3,
    }
    return params, (rng.normal(size=(8, 4)), rng.integers(0, 3, size=8))


def dense_loss(params, x, labels):
    h = jnp.tanh(jnp.tanh(x @ params["w1"]) @ params["w2"])
    logp = jax.nn.log_softmax(h @ params["w3"] + params["b3"], axis=-1)
    soft = (1.0 - SMOOTH) * jax.nn.one_hot(labels, 3, dtype=x.dtype) + SMOOTH / 3
    return -jnp.mean(jnp.sum(soft * logp, axis=-1))


def dense_grad(params, x, labels, step_first=False, w2_straight=False):
    w1, w2, w3 = params["w1"], params["w2"], params["w3"]
    h1 = jnp.tanh(x @ w1)
    h2 = jnp.tanh(h1 @ w2)
    probs = jax.nn.softmax(h2 @ w3 + params["b3"], axis=-1)
    soft = (1.0 - SMOOTH) * jax.nn.one_hot(labels, 3, dtype=x.dtype) + SMOOTH / 3
    dlogits = (probs - soft) / x.shape[0]
    dw3 = h2.T @ dlogits
    if step_first:
        w3 = w3 - 0.5 * dw3
    d2 = (dlogits @ w3.T) * (1.0 - h2**2)
    dw2 = h1.T @ d2
    d1 = (d2 @ w2 if w2_straight else d2 @ w2.T) * (1.0 - h1**2)
    return {"w1": x.T @ d1, "w2": dw2, "w3": dw3, "b3": dlogits.sum(axis=0)}


# Lennard-Jones parameters fitted to energies of conformers

SPECIES = np.array([0, 1, 2, 1, 0, 2])


def build_lj(rng):
    base = np.array([[0, 0, 0], [1.4, 0, 0], [0, 1.5, 0], [0, 0, 1.3], [1.3, 1.4, 0.2], [0.1, 1.4, 1.5]])
    pos = base + 0.1 * rng.normal(size=(4, 6, 3))
    return {"sigma": np.array([1.0, 1.15, 0.9]), "log_eps": np.array([-0.2, 0.1, 0.3])}, (pos, rng.normal(size=4) - 3.0)


def lj_loss(params, pos, energy):
    sig = params["sigma"][SPECIES]
    eps = jnp.exp(params["log_eps"])[SPECIES]
    sig_ij = 0.5 * (sig[:, None] + sig[None, :])
    eps_ij = jnp.sqrt(eps[:, None] * eps[None, :])
    upper = np.triu(np.ones((len(SPECIES), len(SPECIES)), bool), 1)
    r2 = jnp.sum((pos[:, :, None] - pos[:, None, :]) ** 2, axis=-1)
    s6 = (sig_ij**2 / jnp.where(upper, r2, 1.0)) ** 3
    pair = jnp.where(upper, 4.0 * eps_ij * (s6**2 - s6), 0.0)
    return jnp.mean((pair.sum(axis=(1, 2)) - energy) ** 2)


def lj_grad(params, pos, energy, bare_distance=False):
    n = len(SPECIES)
    sig = params["sigma"][SPECIES]
    eps = jnp.exp(params["log_eps"])[SPECIES]
    sig_ij = 0.5 * (sig[:, None] + sig[None, :])
    eps_ij = jnp.sqrt(eps[:, None] * eps[None, :])
    upper = jnp.triu(jnp.ones((n, n), pos.dtype), 1)
    r2 = jnp.sum((pos[:, :, None] - pos[:, None, :]) ** 2, axis=-1)
    if not bare_distance:
        r2 = r2 + jnp.eye(n, dtype=pos.dtype)
    s6 = (sig_ij**2 / r2) ** 3
    shape = 4.0 * (s6**2 - s6) * upper
    total = jnp.sum(jnp.where(upper > 0, eps_ij * shape, 0.0), axis=(1, 2))
    dtotal = 2.0 * (total - energy) / energy.shape[0]
    deps_ij = jnp.einsum("b,bij->ij", dtotal, shape)
    dsig_ij = jnp.einsum("b,bij->ij", dtotal, 4.0 * eps_ij * (12.0 * s6**2 - 6.0 * s6) / sig_ij * upper)
    dsig = 0.5 * (dsig_ij.sum(axis=0) + dsig_ij.sum(axis=1))
    dlog = 0.5 * ((deps_ij * eps_ij).sum(axis=0) + (deps_ij * eps_ij).sum(axis=1))
    return {
        "sigma": jnp.zeros_like(params["sigma"]).at[SPECIES].add(dsig),
        "log_eps": jnp.zeros_like(params["log_eps"]).at[SPECIES].add(dlog),
    }


# Q learning with one network

DISCOUNT = 0.9


def build_q(rng):
    done = np.array([0, 0, 1, 0, 0, 1.0])
    params = {"w1": rng.normal(size=(4, 5)) * 0.7, "w2": rng.normal(size=(5, 3)) * 0.8}
    return params, (
        rng.normal(size=(6, 4)),
        rng.integers(0, 3, size=6),
        rng.normal(size=6),
        rng.normal(size=(6, 4)),
        done,
    )


def q_loss(params, state, action, reward, after, done):
    q = jnp.tanh(state @ params["w1"]) @ params["w2"]
    q_after = jnp.tanh(after @ params["w1"]) @ params["w2"]
    target = lax.stop_gradient(reward + DISCOUNT * (1.0 - done) * q_after.max(axis=1))
    taken = jnp.take_along_axis(q, action[:, None], axis=1)[:, 0]
    return 0.5 * jnp.mean((taken - target) ** 2)


def q_backward(params, state, dq):
    hidden = jnp.tanh(state @ params["w1"])
    dhidden = dq @ params["w2"].T
    return state.T @ (dhidden * (1.0 - hidden**2)), hidden.T @ dq


def q_grad(params, state, action, reward, after, done, through_target=False):
    q = jnp.tanh(state @ params["w1"]) @ params["w2"]
    q_after = jnp.tanh(after @ params["w1"]) @ params["w2"]
    rows = jnp.arange(action.shape[0])
    td = q[rows, action] - (reward + DISCOUNT * (1.0 - done) * q_after.max(axis=1))
    dq = jnp.zeros_like(q).at[rows, action].set(td / action.shape[0])
    dw1, dw2 = q_backward(params, state, dq)
    if through_target:
        best = jnp.argmax(q_after, axis=1)
        dafter = jnp.zeros_like(q).at[rows, best].set(-DISCOUNT * (1.0 - done) * td / action.shape[0])
        more1, more2 = q_backward(params, after, dafter)
        dw1, dw2 = dw1 + more1, dw2 + more2
    return {"w1": dw1, "w2": dw2}
