"""An Elman network by scan; Cross entropy with weights of the classes and labels to ignore; and more."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind_seventh.grouped_query_attention import maker

# an Elman network by scan, with a learned first state


def elman_loss(params, x, y):
    def step(h, x_t):
        h = jnp.tanh(x_t @ params["wx"] + h @ params["wh"] + params["b"])
        return h, h @ params["wo"] + params["bo"]

    h0 = jnp.broadcast_to(params["h0"], (x.shape[1], *params["h0"].shape))
    _, pred = jax.lax.scan(step, h0, x)
    return jnp.mean(jnp.square(pred - y))


def elman_grad(params, x, y, fixed_start=False):
    h0 = jnp.broadcast_to(params["h0"], (x.shape[1], *params["h0"].shape))

    def forward(h, x_t):
        new = jnp.tanh(x_t @ params["wx"] + h @ params["wh"] + params["b"])
        return new, (h, new)

    _, (before, after) = jax.lax.scan(forward, h0, x)
    d_pred = 2 * (after @ params["wo"] + params["bo"] - y) / y.size

    def backward(carry, saved):
        dh, acc = carry
        x_t, prev, new, dp = saved
        dh = dh + dp @ params["wo"].T
        da = dh * (1 - new**2)
        acc = {
            "wx": acc["wx"] + x_t.T @ da,
            "wh": acc["wh"] + prev.T @ da,
            "b": acc["b"] + da.sum(0),
            "wo": acc["wo"] + new.T @ dp,
            "bo": acc["bo"] + dp.sum(0),
        }
        return (da @ params["wh"].T, acc), None

    acc = {k: jnp.zeros_like(params[k]) for k in ("wx", "wh", "b", "wo", "bo")}
    (dh0, grads), _ = jax.lax.scan(backward, (jnp.zeros_like(h0), acc), (x, before, after, d_pred), reverse=True)
    grads["h0"] = jnp.zeros_like(params["h0"]) if fixed_start else dh0.sum(axis=0)
    return grads


@maker(207)
def elman_make(rng):
    params = {
        "wx": rng.normal(size=(3, 4)) * 0.6,
        "wh": rng.normal(size=(4, 4)) * 0.5,
        "b": rng.normal(size=4) * 0.2,
        "wo": rng.normal(size=(4, 2)),
        "bo": rng.normal(size=2) * 0.2,
        "h0": rng.normal(size=4) * 0.5,
    }
    return params, (rng.normal(size=(6, 5, 3)), rng.normal(size=(6, 5, 2)))


# cross entropy with weights of the classes and labels to ignore


def wce_loss(params, x, label, class_weight):
    logp = jax.nn.log_softmax(x @ params["w"] + params["b"])
    valid = label >= 0
    safe = jnp.where(valid, label, 0)
    weight = jnp.where(valid, class_weight[safe], 0.0)
    nll = -jnp.take_along_axis(logp, safe[:, None], axis=1)[:, 0]
    return jnp.sum(weight * nll) / jnp.sum(weight)


def wce_grad(params, x, label, class_weight, use_ignored=False):
    logits = x @ params["w"] + params["b"]
    valid = (label >= 0).astype(x.dtype)
    safe = jnp.maximum(label, 0)
    weight = class_weight[safe]
    total = jnp.sum(weight * valid)
    if not use_ignored:
        weight = weight * valid
    err = jax.nn.softmax(logits) - jax.nn.one_hot(safe, logits.shape[1], dtype=x.dtype)
    dlogits = err * (weight / total)[:, None]
    return {"w": x.T @ dlogits, "b": dlogits.sum(0)}


@maker(208)
def wce_make(rng):
    params = {"w": rng.normal(size=(4, 5)) * 0.6, "b": rng.normal(size=5) * 0.3}
    label = np.array([2, 0, -1, 4, 1, 3, -1, 2, 0, -1])
    return params, (rng.normal(size=(10, 4)), label, np.array([0.5, 1.0, 2.0, 1.5, 0.8]))


# multidimensional scaling: stress of distances


def stress_loss(params, wanted):
    p = params["points"]
    n = p.shape[0]
    same = jnp.eye(n, dtype=bool)
    sq = jnp.sum((p[:, None] - p[None]) ** 2, -1)
    dist = jnp.where(same, 0.0, jnp.sqrt(jnp.where(same, 1.0, sq)))
    return jnp.sum(jnp.square(jnp.exp(params["log_scale"]) * dist - wanted)) / (n * (n - 1))


def stress_grad(params, wanted, bare_division=False):
    p, scale = params["points"], jnp.exp(params["log_scale"])
    n = p.shape[0]
    diff = p[:, None, :] - p[None, :, :]
    dist = jnp.sqrt(jnp.sum(diff**2, axis=-1))
    g_scaled = 2 * (scale * dist - wanted) / (n * (n - 1))
    if bare_division:
        direction = diff / dist[:, :, None]
    else:
        same = jnp.eye(n, dtype=bool)
        direction = diff / jnp.where(same, 1.0, dist)[:, :, None]
    pull = (scale * g_scaled)[:, :, None] * direction
    return {"points": pull.sum(axis=1) - pull.sum(axis=0), "log_scale": scale * jnp.sum(g_scaled * dist)}


@maker(209)
def stress_make(rng):
    params = {"points": rng.normal(size=(7, 2)), "log_scale": np.float64(0.2)}
    other = rng.normal(size=(7, 4))
    return params, (np.sqrt(((other[:, None] - other[None]) ** 2).sum(-1)),)


# focal loss

FOCUS = 2.0


def focal_loss(params, x, label):
    logp = jax.nn.log_softmax(x @ params["w"] + params["b"])
    lp = jnp.take_along_axis(logp, label[:, None], axis=1)[:, 0]
    return -jnp.mean((1 - jnp.exp(lp)) ** FOCUS * lp)


def focal_grad(params, x, label, constant_focus=False):
    logits = x @ params["w"] + params["b"]
    p = jax.nn.softmax(logits)
    onehot = jax.nn.one_hot(label, p.shape[1], dtype=x.dtype)
    pt = jnp.sum(p * onehot, axis=1)
    # per sample: d loss / d log pt
    slope = -((1 - pt) ** FOCUS)
    if not constant_focus:
        slope = slope + FOCUS * pt * (1 - pt) ** (FOCUS - 1) * jnp.log(pt)
    dlogits = slope[:, None] * (onehot - p) / label.shape[0]
    return {"w": x.T @ dlogits, "b": dlogits.sum(axis=0)}


@maker(210)
def focal_make(rng):
    params = {"w": rng.normal(size=(5, 3)) * 0.7, "b": rng.normal(size=3) * 0.3}
    return params, (rng.normal(size=(9, 5)), rng.integers(0, 3, size=9))


# regression on a basis of splines with smooth coefficients

ROUGH = 0.3


def smooth_loss(params, basis, y):
    pred = basis @ params["coef"] + params["level"]
    return 0.5 * jnp.mean((pred - y) ** 2) + ROUGH * jnp.sum(jnp.diff(params["coef"]) ** 2)


def smooth_grad(params, basis, y, wrap_around=False):
    coef = params["coef"]
    resid = (basis @ coef + params["level"] - y) / y.shape[0]
    left, right = coef - jnp.roll(coef, 1), coef - jnp.roll(coef, -1)
    if not wrap_around:
        left = left.at[0].set(0.0)
        right = right.at[-1].set(0.0)
    return {"coef": basis.T @ resid + 2 * ROUGH * (left + right), "level": resid.sum()}


@maker(211)
def smooth_make(rng):
    params = {"coef": np.sort(rng.normal(size=8)), "level": np.float64(0.2)}
    place = np.linspace(0, 1, 10)[:, None]
    basis = np.exp(-0.5 * ((place - np.linspace(0, 1, 8)[None]) / 0.15) ** 2)
    return params, (basis, rng.normal(size=10))


# Weibull survival times, some censored


def weibull_loss(params, x, time, event):
    shape = jnp.exp(params["log_shape"])
    z = shape * (jnp.log(time) - x @ params["beta"] - params["base"])
    log_hazard = params["log_shape"] - jnp.log(time) + z
    return jnp.mean(jnp.exp(z) - event * log_hazard)


def weibull_grad(params, x, time, event, max_norm=None):
    shape = jnp.exp(params["log_shape"])
    eta = x @ params["beta"] + params["base"]
    z = shape * (jnp.log(time) - eta)
    dz = (jnp.exp(z) - event) / time.shape[0]
    deta = -shape * dz
    grads = {"beta": x.T @ deta, "base": deta.sum(), "log_shape": jnp.sum(dz * z) - event.mean()}
    if max_norm is not None:
        norm = jnp.sqrt(sum(jnp.sum(g**2) for g in grads.values()))
        grads = {k: g * max_norm / norm for k, g in grads.items()}
    return grads


@maker(212)
def weibull_make(rng):
    params = {"beta": 0.6 * rng.normal(size=4), "base": np.float64(-0.3), "log_shape": np.float64(0.25)}
    return params, (rng.normal(size=(9, 4)), rng.exponential(1.5, size=9) + 0.1, (rng.random(9) < 0.7).astype(float))


# one-against-all classification by a squared hinge; the first row of the weights is the intercept, not penalized

RIDGE = 0.4


def svm_loss(params, x, label):
    W = params["W"]
    score = W[0] + x @ W[1:]
    side = 2.0 * jax.nn.one_hot(label, W.shape[1], dtype=x.dtype) - 1.0
    hinge = jnp.square(jnp.maximum(0.0, 1.0 - side * score))
    return hinge.sum() / x.shape[0] + 0.5 * RIDGE * jnp.sum(W[1:] ** 2)


def svm_grad(params, x, label, shrink_intercept=False):
    W = params["W"]
    n, classes = x.shape[0], W.shape[1]
    design = jnp.concatenate([jnp.ones((n, 1), x.dtype), x], axis=1)
    side = jnp.where(label[:, None] == jnp.arange(classes), 1.0, -1.0).astype(x.dtype)
    slack = jnp.maximum(0.0, 1.0 - side * (design @ W))
    dW = design.T @ (-2.0 * side * slack) / n
    dW = dW + RIDGE * W if shrink_intercept else dW.at[1:].add(RIDGE * W[1:])
    return {"W": dW}


@maker(213)
def svm_make(rng):
    W = 0.5 * rng.normal(size=(6, 3))
    W[0] = [0.9, -1.2, 0.7]
    return {"W": W}, (rng.normal(size=(8, 5)), rng.integers(0, 3, size=8))


# regression with Student's t errors, in chunks


def student_loss(params, x, y):
    df = jnp.exp(params["log_df"])
    z = (y - x @ params["w"] - params["b"]) * jnp.exp(-params["log_scale"])
    gammaln = jax.scipy.special.gammaln
    logpdf = (
        gammaln(0.5 * (df + 1))
        - gammaln(0.5 * df)
        - 0.5 * jnp.log(df * np.pi)
        - params["log_scale"]
        - 0.5 * (df + 1) * jnp.log1p(z**2 / df)
    )
    return -jnp.mean(logpdf)


def student_grad(params, x, y, drop_last=False):
    n, chunk = y.shape[0], 4
    n_chunks = n // chunk if drop_last else -(-n // chunk)
    df, scale = jnp.exp(params["log_df"]), jnp.exp(params["log_scale"])
    digamma = jax.scipy.special.digamma
    grads = {k: jnp.zeros_like(v) for k, v in params.items()}
    for i in range(n_chunks):
        xc, yc = x[i * chunk : (i + 1) * chunk], y[i * chunk : (i + 1) * chunk]
        z = (yc - xc @ params["w"] - params["b"]) / scale
        dz = (df + 1) * z / (df + z**2) / n
        dpred = -dz / scale
        ddf = (
            -0.5 * digamma(0.5 * (df + 1))
            + 0.5 * digamma(0.5 * df)
            + 0.5 / df
            + 0.5 * jnp.log1p(z**2 / df)
            - 0.5 * (df + 1) * z**2 / (df * (df + z**2))
        )
        grads["w"] += xc.T @ dpred
        grads["b"] += dpred.sum()
        grads["log_scale"] += yc.shape[0] / n - jnp.sum(dz * z)
        grads["log_df"] += df * jnp.sum(ddf) / n
    return grads


@maker(214)
def student_make(rng):
    params = {"w": rng.normal(size=5), "b": np.float64(0.3), "log_scale": np.float64(-0.2), "log_df": np.float64(1.1)}
    return params, (rng.normal(size=(10, 5)), rng.normal(size=10))
