"""Triangle multiplication of a pair representation; Cox regression: partial likelihood; and more."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind_sixth.grouped_query_attention import cast

# Triangle multiplication of a pair representation, gated


def triangle_loss(params, z, y):
    a = jax.nn.sigmoid(z @ params["gate_a"]) * (z @ params["proj_a"])
    b = jax.nn.sigmoid(z @ params["gate_b"]) * (z @ params["proj_b"])
    t = jnp.einsum("nikh,njkh->nijh", a, b)
    centred = t - t.mean(axis=-1, keepdims=True)
    norm = centred / jnp.sqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + 1e-5)
    out = jax.nn.sigmoid(z @ params["gate_out"]) * (norm @ params["w_out"])
    return jnp.mean(jnp.abs(out - y) ** 3)


def triangle_grad(params, z, y):
    sa, la = jax.nn.sigmoid(z @ params["gate_a"]), z @ params["proj_a"]
    sb, lb = jax.nn.sigmoid(z @ params["gate_b"]), z @ params["proj_b"]
    a, b = sa * la, sb * lb
    t = jnp.einsum("nikh,njkh->nijh", a, b)
    centred = t - t.mean(axis=-1, keepdims=True)
    inv = 1.0 / jnp.sqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + 1e-5)
    norm = centred * inv
    so, lo = jax.nn.sigmoid(z @ params["gate_out"]), norm @ params["w_out"]
    diff = so * lo - y

    dout = 3.0 * diff * jnp.abs(diff) / y.size
    dso = dout * lo * so * (1 - so)
    dlo = dout * so
    dnorm = dlo @ params["w_out"].T
    dt = inv * (dnorm - dnorm.mean(axis=-1, keepdims=True) - norm * jnp.mean(dnorm * norm, axis=-1, keepdims=True))
    da = jnp.einsum("nijh,njkh->nikh", dt, b)
    db = jnp.einsum("nijh,nikh->njkh", dt, a)

    def to_weight(g):
        return jnp.einsum("nijc,nijh->ch", z, g)

    return {
        "proj_a": to_weight(da * sa),
        "gate_a": to_weight(da * la * sa * (1 - sa)),
        "proj_b": to_weight(db * sb),
        "gate_b": to_weight(db * lb * sb * (1 - sb)),
        "gate_out": to_weight(dso),
        "w_out": jnp.einsum("nijh,nijo->ho", norm, dlo),
    }


def triangle_make(dtype):
    rng = np.random.default_rng(110)
    n, r, c, h, o = 6, 4, 3, 5, 2
    params = {
        "proj_a": rng.normal(size=(c, h)),
        "gate_a": rng.normal(size=(c, h)),
        "proj_b": rng.normal(size=(c, h)),
        "gate_b": rng.normal(size=(c, h)),
        "gate_out": rng.normal(size=(c, o)),
        "w_out": rng.normal(size=(h, o)) * 0.5,
    }
    args = (rng.normal(size=(n, r, r, c)), rng.normal(size=(n, r, r, o)))
    return cast(params, dtype), cast(args, dtype)


# Cox regression: partial likelihood, ridge on one part and a smooth lasso on the other

RIDGE, LASSO = 0.35, 0.1


def cox_loss(params, x, basis, time, event):
    eta = x @ params["beta"] + basis @ params["gamma"]
    at_risk = time[None, :] >= time[:, None]
    log_risk = jax.nn.logsumexp(jnp.where(at_risk, eta[None, :], -jnp.inf), axis=1)
    partial_ll = jnp.sum(event * (eta - log_risk)) / jnp.sum(event)
    penalty = 0.5 * RIDGE * jnp.sum(params["beta"] ** 2) + LASSO * jnp.sum(jnp.sqrt(params["gamma"] ** 2 + 0.01))
    return -partial_ll + penalty


def cox_grad(params, x, basis, time, event, earlier_at_risk=False, no_ridge=False):
    beta, gamma = params["beta"], params["gamma"]
    eta = x @ beta + basis @ gamma
    theta = jnp.exp(eta - eta.max())
    risk = time[None, :] <= time[:, None] if earlier_at_risk else time[None, :] >= time[:, None]
    weights = risk * theta[None, :]
    weights = weights / weights.sum(axis=1, keepdims=True)  # of j in the risk set of i
    residual = (event @ weights - event) / event.sum()
    dbeta = x.T @ residual
    if not no_ridge:
        dbeta = dbeta + RIDGE * beta
    dgamma = basis.T @ residual + LASSO * gamma / jnp.sqrt(gamma**2 + 0.01)
    return {"beta": dbeta, "gamma": dgamma}


def cox_make(dtype):
    rng = np.random.default_rng(111)
    n, p, k = 9, 4, 3
    params = {"beta": rng.normal(size=p) * 0.7, "gamma": rng.normal(size=k) * 0.6}
    args = (
        rng.normal(size=(n, p)),
        rng.normal(size=(n, k)),
        rng.permutation(n) + rng.uniform(0, 0.5, size=n),
        np.array([1, 0, 1, 1, 0, 1, 1, 0, 1], float),
    )
    return cast(params, dtype), cast(args, dtype)


# Gaussian process: Matern 3/2, a length for each input, marginal likelihood

ROOT3 = float(np.sqrt(3.0))


def gp_loss(params, x, y):
    n = x.shape[0]
    diff = (x[:, None, :] - x[None, :, :]) / jnp.exp(params["log_len"])
    eye = jnp.eye(n, dtype=bool)
    sq = jnp.sum(diff**2, axis=-1)
    r = jnp.where(eye, 0.0, jnp.sqrt(jnp.where(eye, 1.0, sq)))
    amp2 = jnp.exp(2.0 * params["log_amp"])
    cov = amp2 * (1 + ROOT3 * r) * jnp.exp(-ROOT3 * r)
    cov = cov + jnp.exp(2.0 * params["log_noise"]) * jnp.eye(n, dtype=x.dtype)
    res = y - params["mean"]
    chol = jnp.linalg.cholesky(cov)
    white = jax.scipy.linalg.solve_triangular(chol, res, lower=True)
    return 0.5 * jnp.sum(white**2) + jnp.sum(jnp.log(jnp.diag(chol)))


def gp_grad(params, x, y, noise_is_variance=False, divide_by_distance=False):
    n = x.shape[0]
    diff2 = ((x[:, None, :] - x[None, :, :]) / jnp.exp(params["log_len"])) ** 2
    r = jnp.sqrt(diff2.sum(axis=-1))
    amp2, noise2 = jnp.exp(2 * params["log_amp"]), jnp.exp(2 * params["log_noise"])
    decay = jnp.exp(-ROOT3 * r)
    signal = amp2 * (1 + ROOT3 * r) * decay
    inv = jnp.linalg.inv(signal + noise2 * jnp.eye(n, dtype=x.dtype))
    alpha = inv @ (y - params["mean"])
    dcov = 0.5 * (inv - jnp.outer(alpha, alpha))  # of the loss by each entry of the covariance
    if divide_by_distance:
        dk_dr = -3.0 * amp2 * r * decay
        dr_dlen = -diff2 / r[:, :, None]
        dlen = jnp.einsum("ij,ij,ijp->p", dcov, dk_dr, dr_dlen)
    else:
        dlen = jnp.einsum("ij,ij,ijp->p", dcov, 3.0 * amp2 * decay, diff2)
    dnoise = noise2 * jnp.trace(dcov)
    if not noise_is_variance:
        dnoise = 2.0 * dnoise
    return {"log_len": dlen, "log_amp": 2.0 * jnp.sum(dcov * signal), "log_noise": dnoise, "mean": -jnp.sum(alpha)}


def gp_make(dtype):
    rng = np.random.default_rng(112)
    n, p = 7, 3
    params = {
        "log_len": rng.normal(size=p) * 0.3 + 0.2,
        "log_amp": np.array(0.3),
        "log_noise": np.array(-0.9),
        "mean": np.array(0.25),
    }
    args = (rng.normal(size=(n, p)), rng.normal(size=n) * 1.3)
    return cast(params, dtype), cast(args, dtype)


# Conditional variances: GARCH with leverage, mean by regressors


def garch_loss(params, returns, z, start):
    e = returns - (z @ params["phi"])[:, None]
    a, g, b = jnp.exp(params["coef"])
    omega = jnp.exp(params["omega"])

    def step(h, e_t):
        nll = 0.5 * (jnp.log(h) + e_t**2 / h)
        return omega + (a + g * (e_t < 0)) * e_t**2 + b * h, nll

    _, nll = jax.lax.scan(step, start, e.T)
    return jnp.mean(nll)


def garch_grad(params, returns, z, start, no_recursion=False, unlagged=False):
    _batch, length = returns.shape
    e = returns - (z @ params["phi"])[:, None]
    a, g, b = jnp.exp(params["coef"])
    omega = jnp.exp(params["omega"])
    leverage = (e < 0).astype(e.dtype)
    h = [start]
    for t in range(1, length):
        h.append(omega + (a + g * leverage[:, t - 1]) * e[:, t - 1] ** 2 + b * h[-1])
    h = jnp.stack(h, axis=1)

    direct = 0.5 * (1.0 / h - e**2 / h**2) / h.size
    # lam[:, t]: the loss by h[t], with all that h[t] does to the later ones
    lam = [direct[:, -1]]
    for t in reversed(range(length - 1)):
        later = 0.0 if no_recursion else b * lam[0]
        lam.insert(0, direct[:, t] + later)
    lam = jnp.stack(lam, axis=1)
    nxt = lam[:, 1:]  # h[0] is given
    lag = slice(1, None) if unlagged else slice(0, -1)
    sq, neg = e[:, lag] ** 2, leverage[:, lag]
    dcoef = jnp.stack([a * jnp.sum(nxt * sq), g * jnp.sum(nxt * sq * neg), b * jnp.sum(nxt * h[:, :-1])])
    de = e / h / h.size
    de = de.at[:, :-1].add(2 * (a + g * leverage[:, :-1]) * e[:, :-1] * nxt)
    return {"phi": -z.T @ de.sum(axis=1), "omega": omega * jnp.sum(nxt), "coef": dcoef}


def garch_make(dtype):
    rng = np.random.default_rng(113)
    b, t, q = 5, 8, 4
    params = {"phi": rng.normal(size=q) * 0.3, "omega": np.array(-1.2), "coef": np.log([0.25, 0.2, 0.6])}
    args = (rng.normal(size=(b, t)) * 1.6, rng.normal(size=(b, q)), rng.uniform(0.5, 1.5, size=b))
    return cast(params, dtype), cast(args, dtype)


# Hidden Markov model with Gaussian emissions


def _emission(params, x):
    dev = (x[:, :, None, :] - params["mean"]) / jnp.exp(params["log_sd"])[:, None]
    return -0.5 * jnp.sum(dev**2, axis=-1) - x.shape[-1] * (params["log_sd"] + 0.5 * float(np.log(2 * np.pi)))


def hmm_loss(params, x):
    log_a = jax.nn.log_softmax(params["trans"], axis=1)
    log_b = _emission(params, x)

    def step(alpha, lb):
        return jax.nn.logsumexp(alpha[:, :, None] + log_a, axis=1) + lb, None

    first = jax.nn.log_softmax(params["init"]) + log_b[:, 0]
    last, _ = jax.lax.scan(step, first, jnp.moveaxis(log_b[:, 1:], 1, 0))
    return -jnp.mean(jax.nn.logsumexp(last, axis=1)) / x.shape[1]


def hmm_grad(params, x, from_to_exchanged=False, column_totals=False):
    batch, length, dim = x.shape
    log_a = jax.nn.log_softmax(params["trans"], axis=1)
    log_b = _emission(params, x)
    alpha = [jax.nn.log_softmax(params["init"]) + log_b[:, 0]]
    for t in range(1, length):
        alpha.append(jax.nn.logsumexp(alpha[-1][:, :, None] + log_a, axis=1) + log_b[:, t])
    loglik = jax.nn.logsumexp(alpha[-1], axis=1)
    beta = [jnp.zeros_like(alpha[-1])]
    for t in reversed(range(length - 1)):
        ahead = log_b[:, t + 1] + beta[0]
        beta.insert(0, jax.nn.logsumexp(log_a + ahead[:, None, :], axis=2))

    post = jnp.exp(jnp.stack(alpha, 1) + jnp.stack(beta, 1) - loglik[:, None, None])
    counts = 0.0
    for t in range(length - 1):
        ahead = log_b[:, t + 1] + beta[t + 1]
        xi = jnp.exp(alpha[t][:, :, None] + log_a + ahead[:, None, :] - loglik[:, None, None])
        if from_to_exchanged:
            xi = jnp.swapaxes(xi, 1, 2)
        counts = counts + xi.sum(axis=0)
    norm = 1.0 / (batch * length)
    leaving = counts.sum(axis=0, keepdims=True) if column_totals else counts.sum(axis=1, keepdims=True)
    dtrans = (jnp.exp(log_a) * leaving - counts) * norm
    dinit = (batch * jax.nn.softmax(params["init"]) - post[:, 0].sum(axis=0)) * norm
    dev = x[:, :, None, :] - params["mean"]
    var = jnp.exp(2 * params["log_sd"])
    dmean = -jnp.einsum("btk,btkd->kd", post, dev) / var[:, None] * norm
    dlog_sd = -jnp.sum(post * (jnp.sum(dev**2, axis=-1) / var - dim), axis=(0, 1)) * norm
    return {"init": dinit, "trans": dtrans, "mean": dmean, "log_sd": dlog_sd}


def hmm_make(dtype):
    rng = np.random.default_rng(114)
    b, t, k, d = 4, 6, 3, 2
    params = {
        "init": rng.normal(size=k),
        "trans": rng.normal(size=(k, k)) * 1.2,
        "mean": rng.normal(size=(k, d)),
        "log_sd": rng.normal(size=k) * 0.2,
    }
    return cast(params, dtype), cast((rng.normal(size=(b, t, d)) * 1.2,), dtype)


# Ratings by factors and biases, the gradient gathered over two halves of the batch

REG = 0.15


def ratings_loss(params, users, items, stars):
    p, q = params["p"][users], params["q"][items]
    bu, bi = params["bu"][users], params["bi"][items]
    err = params["mu"] + bu + bi + jnp.sum(p * q, axis=1) - stars
    reg = jnp.sum(p**2, axis=1) + jnp.sum(q**2, axis=1) + bu**2 + bi**2
    return 0.5 * jnp.mean(err**2 + REG * reg)


def ratings_grad(params, users, items, stars, step_users_first=False, buffer_kept=False, lr=0.8):
    n = stars.shape[0]
    half = n // 2
    total = {k: jnp.zeros_like(v) for k, v in params.items()}
    buf = {k: jnp.zeros_like(v) for k, v in params.items()}
    for part in (slice(0, half), slice(half, n)):
        if not buffer_kept:
            buf = {k: jnp.zeros_like(v) for k, v in params.items()}
        u, i = users[part], items[part]
        p, q = params["p"][u], params["q"][i]
        err = params["mu"] + params["bu"][u] + params["bi"][i] + jnp.sum(p * q, axis=1) - stars[part]
        dp = (err[:, None] * q + REG * p) / n
        if step_users_first:
            p = params["p"].at[u].add(-lr * dp * n)[u]
        dq = (err[:, None] * p + REG * q) / n
        buf["p"] = buf["p"].at[u].add(dp)
        buf["q"] = buf["q"].at[i].add(dq)
        buf["bu"] = buf["bu"].at[u].add((err + REG * params["bu"][u]) / n)
        buf["bi"] = buf["bi"].at[i].add((err + REG * params["bi"][i]) / n)
        buf["mu"] = buf["mu"] + err.sum() / n
        total = {k: total[k] + buf[k] for k in total}
    return total


def ratings_make(dtype):
    rng = np.random.default_rng(115)
    n, nu, ni, k = 10, 6, 5, 3
    params = {
        "p": rng.normal(size=(nu, k)) * 0.8,
        "q": rng.normal(size=(ni, k)) * 0.8,
        "bu": rng.normal(size=nu) * 0.3,
        "bi": rng.normal(size=ni) * 0.3,
        "mu": np.array(3.1),
    }
    args = (rng.integers(0, nu, size=n), rng.integers(0, ni, size=n), rng.integers(1, 6, size=n).astype(float))
    return cast(params, dtype), cast(args, dtype)


# Item response with guessing (three parameters for an item), answers missing


def item_loss(params, answers, seen):
    guess = jax.nn.sigmoid(params["guess"])
    z = jnp.exp(params["log_disc"]) * (params["ability"][:, None] - params["difficulty"])
    prob = guess + (1 - guess) * jax.nn.sigmoid(z)
    ll = answers * jnp.log(prob) + (1 - answers) * jnp.log1p(-prob)
    return -jnp.sum(seen * ll) / jnp.sum(seen) + 0.05 * jnp.sum(params["ability"] ** 2)


def item_grad(params, answers, seen, harder_is_better=False):
    guess = jax.nn.sigmoid(params["guess"])
    disc = jnp.exp(params["log_disc"])
    gap = params["ability"][:, None] - params["difficulty"]
    s = jax.nn.sigmoid(disc * gap)
    prob = guess + (1 - guess) * s
    dprob = -seen * (answers - prob) / (prob * (1 - prob)) / seen.sum()
    dz = dprob * (1 - guess) * s * (1 - s)
    dgap = dz * disc
    ddifficulty = dgap.sum(axis=0) if harder_is_better else -dgap.sum(axis=0)
    return {
        "ability": dgap.sum(axis=1) + 0.1 * params["ability"],
        "difficulty": ddifficulty,
        "log_disc": jnp.sum(dz * gap, axis=0) * disc,
        "guess": jnp.sum(dprob * (1 - s), axis=0) * guess * (1 - guess),
    }


def item_make(dtype):
    rng = np.random.default_rng(116)
    s, j = 7, 4
    params = {
        "ability": rng.normal(size=s),
        "difficulty": rng.normal(size=j),
        "log_disc": rng.normal(size=j) * 0.3,
        "guess": rng.normal(size=j) * 0.3 - 1.2,
    }
    seen = np.ones((s, j))
    seen[[0, 2, 5], [1, 3, 0]] = 0
    return cast(params, dtype), cast((rng.integers(0, 2, size=(s, j)).astype(float), seen), dtype)
