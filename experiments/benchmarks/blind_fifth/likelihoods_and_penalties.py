"""Likelihoods, penalties, splines, a dense classifier and a Markov chain."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.benchmarks.blind_fifth.attention_and_recurrence import cast, normals

# Gaussian process with two fixed kernels


def fixed_kernels(x):
    sq = jnp.sum((x[:, None, :] - x[None, :, :]) ** 2, axis=-1)
    return jnp.stack([jnp.exp(-0.5 * sq / 0.8), 1.0 / (1.0 + sq / 3.0)])


def gp_loss(params, x, feats, y):
    n = y.shape[0]
    cov = jnp.tensordot(jnp.exp(params["log_amp"]), fixed_kernels(x), axes=1)
    cov = cov + jnp.exp(params["log_noise"]) * jnp.eye(n, dtype=x.dtype)
    resid = y - feats @ params["beta"]
    chol = jnp.linalg.cholesky(cov)
    white = jax.scipy.linalg.solve_triangular(chol, resid, lower=True)
    return 0.5 * white @ white + jnp.sum(jnp.log(jnp.diag(chol))) + 0.5 * n * 1.8378770664093453


def gp_grad(params, x, feats, y, without_log_determinant=False, mean_with_plus=False):
    eye = jnp.eye(y.shape[0], dtype=x.dtype)
    kernels = fixed_kernels(x)
    amp, noise = jnp.exp(params["log_amp"]), jnp.exp(params["log_noise"])
    inverse = jnp.linalg.inv(jnp.tensordot(amp, kernels, axes=1) + noise * eye)
    alpha = inverse @ (y - feats @ params["beta"])
    dcov = -0.5 * jnp.outer(alpha, alpha)
    if not without_log_determinant:
        dcov = dcov + 0.5 * inverse
    dbeta = feats.T @ alpha
    if not mean_with_plus:
        dbeta = -dbeta
    return {
        "beta": dbeta,
        "log_amp": amp * jnp.sum(dcov * kernels, axis=(1, 2)),
        "log_noise": noise * jnp.trace(dcov),
    }


def gp_make(dtype):
    _, n = normals(201)
    params = {"beta": n(3), "log_amp": n(2, scale=0.4), "log_noise": np.float64(-1.1)}
    return cast((params, (n(8, 4), n(8, 3), n(8, scale=1.5))), dtype)


# Weibull survival times with censoring


def weibull_loss(params, x, group, time, event):
    log_k = params["log_k"][group]
    u = jnp.log(time) - x @ params["w"] - params["b"]
    log_hazard = log_k + jnp.exp(log_k) * u - jnp.log(time)
    return -jnp.mean(event * log_hazard - jnp.exp(jnp.exp(log_k) * u))


def weibull_grad(params, x, group, time, event, censored_as_events=False, shape_in_plain_scale=False):
    n = time.shape[0]
    k = jnp.exp(params["log_k"])[group]
    u = jnp.log(time) - (x @ params["w"] + params["b"])
    cumulative = jnp.exp(k * u)
    happened = jnp.ones_like(event) if censored_as_events else event
    deta = k * (happened - cumulative) / n
    dk = -(event * (1.0 / k + u) - u * cumulative) / n
    if not shape_in_plain_scale:
        dk = dk * k
    return {"w": x.T @ deta, "b": deta.sum(), "log_k": jnp.zeros_like(params["log_k"]).at[group].add(dk)}


def weibull_make(dtype):
    rng, n = normals(202)
    params = {"w": n(4, scale=0.4), "b": np.float64(0.2), "log_k": np.array([0.5, -0.6, 0.9])}
    x = n(10, 4)
    group = np.array([0, 1, 2, 0, 1, 2, 1, 0, 2, 0])
    event = np.array([1.0, 0, 1, 1, 0, 1, 0, 1, 1, 0])
    spread = rng.exponential(1.0, 10) ** np.exp(-params["log_k"][group])
    time = np.exp(x @ params["w"] - 0.1) * spread
    return cast((params, (x, group, time, event)), dtype)


# Ordinal regression with ordered cuts


def ordered_cuts(raw):
    return jnp.cumsum(jnp.concatenate([raw[:1], jax.nn.softplus(raw[1:])]))


def ordinal_loss(params, x, y):
    edge = jnp.full((1,), jnp.inf, x.dtype)
    cuts = jnp.concatenate([-edge, ordered_cuts(params["raw"]), edge])
    score = x @ params["w"]
    prob = jax.nn.sigmoid(cuts[y + 1] - score) - jax.nn.sigmoid(cuts[y] - score)
    return -jnp.mean(jnp.log(prob))


def ordinal_grad(params, x, y, cuts_off_by_one=False, first_cut_also_softplus=False):
    raw = params["raw"]
    edge = jnp.full((1,), jnp.inf, x.dtype)
    cuts = jnp.concatenate([-edge, ordered_cuts(raw), edge])
    score = x @ params["w"]
    upper, lower = jax.nn.sigmoid(cuts[y + 1] - score), jax.nn.sigmoid(cuts[y] - score)
    dprob = -1.0 / ((upper - lower) * y.shape[0])
    dupper = dprob * upper * (1.0 - upper)
    dlower = -dprob * lower * (1.0 - lower)
    dcuts = jnp.zeros_like(cuts).at[y + 1].add(dupper).at[y].add(dlower)
    inner = dcuts[:-2] if cuts_off_by_one else dcuts[1:-1]
    dsteps = jnp.cumsum(inner[::-1])[::-1]
    slope = jax.nn.sigmoid(raw)
    if not first_cut_also_softplus:
        slope = slope.at[0].set(1.0)
    return {"w": -x.T @ (dupper + dlower), "raw": dsteps * slope}


def ordinal_make(dtype):
    _, n = normals(203)
    params = {"w": n(3, scale=0.6), "raw": np.array([-1.3, 0.2, -0.4, 0.7])}
    y = np.array([0, 1, 2, 3, 4, 2, 1, 0, 3, 1])
    return cast((params, (n(10, 3), y)), dtype)


# Contrastive loss over the distances of pairs

MARGIN = 2.5


def twin(params, x):
    h = jnp.tanh(x @ params["w1"] + params["b1"])
    return h, h @ params["w2"]


def contrastive_loss(params, left, right, same):
    diff = twin(params, left)[1] - twin(params, right)[1]
    sq = jnp.sum(diff**2, axis=-1)
    dist = jnp.where(sq > 0, jnp.sqrt(jnp.where(sq > 0, sq, 1.0)), 0.0)
    short = jnp.maximum(MARGIN - dist, 0.0)
    return 0.5 * jnp.mean(same * dist**2 + (1.0 - same) * short**2)


def contrastive_grad(params, left, right, same, second_twin_forgotten=False, distance_unguarded=False):
    h_left, e_left = twin(params, left)
    h_right, e_right = twin(params, right)
    diff = e_left - e_right
    dist = jnp.sqrt(jnp.sum(diff**2, axis=-1))
    ddist = (same * dist - (1.0 - same) * jnp.maximum(MARGIN - dist, 0.0)) / same.shape[0]
    length = dist if distance_unguarded else jnp.where(dist > 0, dist, 1.0)
    ddiff = ddist[:, None] * diff / length[:, None]
    branches = [(left, h_left, ddiff)]
    if not second_twin_forgotten:
        branches.append((right, h_right, -ddiff))
    grads = {name: jnp.zeros_like(p) for name, p in params.items()}
    for x, h, de in branches:
        da = (de @ params["w2"].T) * (1.0 - h**2)
        grads["w2"] += h.T @ de
        grads["w1"] += x.T @ da
        grads["b1"] += da.sum(axis=0)
    return grads


def contrastive_make(dtype):
    _, n = normals(204)
    b, d, h, k = 8, 4, 6, 3
    params = {"w1": n(d, h, scale=0.7), "b1": n(h, scale=0.3), "w2": n(h, k, scale=0.7)}
    left, right = n(b, d), n(b, d)
    right[2] = left[2]  # a pair of one and the same sample
    same = np.array([1.0, 0, 1, 0, 0, 1, 0, 1])
    return cast((params, (left, right, same)), dtype)


# Huber regression with weighted samples

DELTA = 0.4


def huber_loss(params, x, y, weight):
    r = x @ params["w"] + params["b"] - y
    size = jnp.abs(r)
    each = jnp.where(size <= DELTA, 0.5 * r**2, DELTA * (size - 0.5 * DELTA))
    return jnp.sum(weight * each.sum(axis=-1)) / jnp.sum(weight)


def huber_grad(params, x, y, weight, unit_tails=False):
    r = x @ params["w"] + params["b"] - y
    tail = jnp.sign(r) if unit_tails else DELTA * jnp.sign(r)
    dr = jnp.where(jnp.abs(r) <= DELTA, r, tail)
    dr = dr * weight[:, None] / weight.sum()
    return {"w": x.T @ dr, "b": dr.sum(axis=0)}


def huber_make(dtype):
    rng, n = normals(205)
    x, w, b = n(9, 4), n(4, 3), n(3, scale=0.5)
    y = x @ w + b + n(9, 3, scale=0.5)
    return cast(({"w": w, "b": b}, (x, y, rng.uniform(0.2, 2.0, 9))), dtype)


# Elastic net

STRENGTH, L1_SHARE = 0.3, 0.6


def elastic_net_loss(params, x, y):
    r = x @ params["w"] + params["b"] - y
    penalty = L1_SHARE * jnp.abs(params["w"]).sum() + 0.5 * (1 - L1_SHARE) * jnp.sum(params["w"] ** 2)
    return 0.5 * jnp.mean(jnp.sum(r**2, axis=-1)) + STRENGTH * penalty


def elastic_net_grad(params, x, y, lasso_part_left_out=False, steps_of_one_length=False):
    w = params["w"]
    dr = (x @ w + params["b"] - y) / x.shape[0]
    dw = x.T @ dr + STRENGTH * (1 - L1_SHARE) * w
    if not lasso_part_left_out:
        dw = dw + STRENGTH * L1_SHARE * jnp.sign(w)
    if steps_of_one_length:
        dw = dw / jnp.sqrt(jnp.sum(dw**2))
    return {"w": dw, "b": dr.sum(axis=0)}


def elastic_net_make(dtype):
    _, n = normals(206)
    return cast(({"w": n(5, 3), "b": n(3, scale=0.4)}, (n(10, 5), n(10, 3))), dtype)


# Truncated power splines with free knots


def spline_loss(params, x, y):
    over = jnp.maximum(x[:, None] - params["knots"], 0.0)
    trend = jnp.vander(x, params["poly"].shape[0], increasing=True) @ params["poly"]
    pred = trend + over**3 @ params["jumps"]
    return jnp.mean((pred - y) ** 2)


def spline_grad(params, x, y, highest_power_first=False):
    over = jnp.maximum(x[:, None] - params["knots"], 0.0)
    degree = params["poly"].shape[0]
    powers = jnp.stack([x**p for p in range(degree)], axis=1)
    dpred = 2.0 * (powers @ params["poly"] + over**3 @ params["jumps"] - y) / y.shape[0]
    if highest_power_first:
        powers = jnp.vander(x, degree)
    return {
        "poly": powers.T @ dpred,
        "jumps": (over**3).T @ dpred,
        "knots": -params["jumps"] * ((3.0 * over**2).T @ dpred),
    }


def spline_make(dtype):
    rng, n = normals(207)
    params = {"poly": n(4), "jumps": n(3), "knots": np.array([-0.8, 0.1, 0.9])}
    return cast((params, (rng.uniform(-1.8, 1.8, 10), n(10))), dtype)


# Heteroscedastic regression, one head for both


def hetero_loss(params, x, y):
    h = jax.nn.softplus(x @ params["w1"] + params["b1"])
    mean, log_var = jnp.split(h @ params["head"] + params["bhead"], 2, axis=-1)
    return 0.5 * jnp.mean(jnp.sum(log_var + (y - mean) ** 2 * jnp.exp(-log_var), axis=-1))


def hetero_grad(params, x, y, head_in_other_order=False):
    a = x @ params["w1"] + params["b1"]
    h = jax.nn.softplus(a)
    mean, log_var = jnp.split(h @ params["head"] + params["bhead"], 2, axis=-1)
    precision = jnp.exp(-log_var)
    dmean = (mean - y) * precision / y.shape[0]
    dlog_var = 0.5 * (1.0 - (y - mean) ** 2 * precision) / y.shape[0]
    pieces = [dlog_var, dmean] if head_in_other_order else [dmean, dlog_var]
    dhead = jnp.concatenate(pieces, axis=-1)
    da = (dhead @ params["head"].T) * jax.nn.sigmoid(a)
    return {"w1": x.T @ da, "b1": da.sum(axis=0), "head": h.T @ dhead, "bhead": dhead.sum(axis=0)}


def hetero_make(dtype):
    _, n = normals(208)
    params = {"w1": n(3, 5, scale=0.7), "b1": n(5, scale=0.3), "head": n(5, 4, scale=0.4), "bhead": n(4, scale=0.3)}
    return cast((params, (n(9, 3), n(9, 2))), dtype)


# Dense classifier with a skip connection


def skip_loss(params, x, label):
    h1 = jnp.tanh(x @ params["w1"] + params["b1"])
    h2 = jnp.tanh(h1 @ params["w2"] + params["b2"]) + x @ params["skip"]
    logp = jax.nn.log_softmax(h2 @ params["w3"] + params["b3"], axis=-1)
    return -jnp.mean(logp[jnp.arange(label.shape[0]), label])


def skip_grad(params, x, label, last_layer_stepped_first=False, bias_over_units=False):
    w2, w3 = params["w2"], params["w3"]
    h1 = jnp.tanh(x @ params["w1"] + params["b1"])
    t2 = jnp.tanh(h1 @ w2 + params["b2"])
    h2 = t2 + x @ params["skip"]
    probs = jax.nn.softmax(h2 @ w3 + params["b3"], axis=-1)

    dlogits = (probs - jax.nn.one_hot(label, probs.shape[-1], dtype=probs.dtype)) / label.shape[0]
    dw3, db3 = h2.T @ dlogits, dlogits.sum(axis=0)
    if last_layer_stepped_first:
        w3 = w3 - 0.5 * dw3
    dh2 = dlogits @ w3.T
    dskip = x.T @ dh2
    da2 = dh2 * (1.0 - t2**2)
    dw2 = h1.T @ da2
    db2 = da2.sum(axis=1 if bias_over_units else 0)
    da1 = (da2 @ w2.T) * (1.0 - h1**2)
    return {"w1": x.T @ da1, "b1": da1.sum(axis=0), "w2": dw2, "b2": db2, "skip": dskip, "w3": dw3, "b3": db3}


def skip_make(dtype):
    _, n = normals(209)
    d, h1, h2, k = 4, 6, 5, 3
    params = {
        "w1": n(d, h1, scale=0.7),
        "b1": n(h1, scale=0.3),
        "w2": n(h1, h2, scale=0.7),
        "b2": n(h2, scale=0.3),
        "skip": n(d, h2, scale=0.6),
        "w3": n(h2, k, scale=0.8),
        "b3": n(k, scale=0.3),
    }
    return cast((params, (n(8, d), np.array([0, 2, 1, 1, 0, 2, 2, 0]))), dtype)


# Hidden Markov chain by scan


def chain_logs(params):
    return (
        jax.nn.log_softmax(params["init"]),
        jax.nn.log_softmax(params["move"], axis=1),
        jax.nn.log_softmax(params["emit"], axis=1),
    )


def chain_loss(params, obs):
    log_init, log_move, log_emit = chain_logs(params)

    def body(alpha, symbols):
        alpha = jax.nn.logsumexp(alpha[:, :, None] + log_move, axis=1) + log_emit[:, symbols].T
        return alpha, None

    alpha, _ = lax.scan(body, log_init + log_emit[:, obs[:, 0]].T, obs[:, 1:].T)
    return -jnp.mean(jax.nn.logsumexp(alpha, axis=-1))


def chain_grad(params, obs, counted_from_to_exchanged=False):
    log_init, log_move, log_emit = chain_logs(params)
    n, _steps = obs.shape
    seen = log_emit[:, obs].transpose(2, 1, 0)  # time, sequence, state

    def forward(alpha, now):
        alpha = jax.nn.logsumexp(alpha[:, :, None] + log_move, axis=1) + now
        return alpha, alpha

    first = log_init + seen[0]
    _, rest = lax.scan(forward, first, seen[1:])
    alphas = jnp.concatenate([first[None], rest])

    def backward(beta, now):
        beta = jax.nn.logsumexp(log_move + (now + beta)[:, None, :], axis=2)
        return beta, beta

    last = jnp.zeros_like(first)
    _, earlier = lax.scan(backward, last, seen[1:], reverse=True)
    betas = jnp.concatenate([earlier, last[None]])
    evidence = jax.nn.logsumexp(alphas[-1], axis=-1)

    gamma = jnp.exp(alphas + betas - evidence[:, None])
    pairs = jnp.exp(
        alphas[:-1, :, :, None] + log_move + (seen[1:] + betas[1:])[:, :, None, :] - evidence[:, None, None]
    )
    moved = jnp.einsum("tnij->ji" if counted_from_to_exchanged else "tnij->ij", pairs) / n
    began = gamma[0].mean(axis=0)
    symbol = jax.nn.one_hot(obs.T, log_emit.shape[1], dtype=gamma.dtype)
    emitted = jnp.einsum("tns,tnv->sv", gamma, symbol) / n
    return {
        "init": jnp.exp(log_init) * began.sum() - began,
        "move": jnp.exp(log_move) * moved.sum(axis=1, keepdims=True) - moved,
        "emit": jnp.exp(log_emit) * emitted.sum(axis=1, keepdims=True) - emitted,
    }


def chain_make(dtype):
    rng, n = normals(210)
    params = {"init": n(3), "move": n(3, 3), "emit": n(3, 5)}
    return cast((params, (rng.integers(0, 5, (4, 6)),)), dtype)
