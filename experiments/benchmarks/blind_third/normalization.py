"""Layer norm in a residual net, group norm, RMS norm with a gated unit, weight and spectral norm, batch norm."""

import math

import jax
import jax.numpy as jnp

from experiments.benchmarks.blind_third.tools import mean_square, mean_square_back, sigmoid
from experiments.benchmarks.catalogue.case import Problem, normal, one_hot

EPS = 1e-5


def standardize(x, axes):
    inv = 1 / jnp.sqrt(jnp.var(x, axis=axes, keepdims=True) + EPS)
    return (x - jnp.mean(x, axis=axes, keepdims=True)) * inv, inv


def standardize_back(d, hat, inv, axes):
    mean, product = jnp.mean(d, axis=axes, keepdims=True), jnp.mean(d * hat, axis=axes, keepdims=True)
    return inv * (d - mean - hat * product)


ROOT = math.sqrt(2 / math.pi)


def gelu_slope(z):
    """Of the tanh form of GELU."""
    t = jnp.tanh(ROOT * (z + 0.044715 * z**3))
    return 0.5 * (1 + t) + 0.5 * z * (1 - t**2) * ROOT * (1 + 3 * 0.044715 * z**2)


def block_forward(params, x):
    """Embedding, one residual block with the layer norm first, class scores."""
    e = x @ params["emb"]
    hat, inv = standardize(e, (1,))
    n = hat * params["gamma"] + params["beta"]
    z = n @ params["w1"]
    g = jax.nn.gelu(z, approximate=True)
    r = e + g @ params["w2"]
    return e, hat, inv, n, z, g, r, r @ params["head"]


def block_loss(params, x, target):
    scores = block_forward(params, x)[-1]
    return -jnp.mean(jnp.sum(one_hot(target, scores) * jax.nn.log_softmax(scores), axis=1))


def block_gradient(
    through_norm=lambda d, hat, inv: standardize_back(d, hat, inv, (1,)),
    slope=lambda z: gelu_slope(z),
    join=lambda around, through: around + through,
    d_gamma=lambda dn, hat, e: (dn * hat).sum(axis=0),
):
    def grad_fn(params, x, target):
        e, hat, inv, n, z, g, r, scores = block_forward(params, x)
        d = (jax.nn.softmax(scores) - one_hot(target, scores)) / len(x)
        dr = d @ params["head"].T
        dz = dr @ params["w2"].T * slope(z)
        dn = dz @ params["w1"].T
        de = join(dr, through_norm(dn * params["gamma"], hat, inv))
        return {
            "emb": x.T @ de,
            "gamma": d_gamma(dn, hat, e),
            "beta": dn.sum(axis=0),
            "w1": n.T @ dz,
            "w2": g.T @ dr,
            "head": r.T @ d,
        }

    return grad_fn


def block_make(dtype, offset=0.0):
    emb, gamma, beta, w1, w2, head, x = normal(dtype, 31, (3, 4), (4,), (4,), (4, 5), (5, 4), (4, 3), (6, 3))
    params = {"emb": emb, "gamma": 1 + 0.3 * gamma, "beta": beta, "w1": w1, "w2": w2, "head": head}
    if offset:
        params["emb"], x = emb.at[0].set(offset), x.at[:, 0].set(1)
        params["head"] = head - head.mean(axis=0)
    return params, (x, jnp.array([0, 2, 1, 1, 0, 2]))


block = Problem("normalization", block_loss, block_gradient, block_make)


def grouped_forward(params, x):
    """Group norm of (batch, height, width, groups, channels) after a 1x1 layer; tanh; mean over the pixels."""
    u = (x @ params["stem"]).reshape(*x.shape[:3], 2, -1)
    hat, inv = standardize(u, (1, 2, 4))
    a = jnp.tanh(hat.reshape(*x.shape[:3], -1) * params["gamma"] + params["beta"])
    m = a.mean(axis=(1, 2))
    return hat, inv, a, m, m @ params["head"]


def grouped_loss(params, x, target):
    return mean_square(grouped_forward(params, x)[-1], target)


def grouped_gradient(
    through_norm=lambda d, hat, inv: standardize_back(d, hat, inv, (1, 2, 4)),
    spread=lambda dm, pixels: dm[:, None, None] / pixels,
    d_beta=lambda dt: dt.sum(axis=(0, 1, 2)),
):
    def grad_fn(params, x, target):
        hat, inv, a, m, y = grouped_forward(params, x)
        dy = mean_square_back(y, target)
        dt = spread(dy @ params["head"].T, x.shape[1] * x.shape[2]) * (1 - a**2)
        du = through_norm((dt * params["gamma"]).reshape(hat.shape), hat, inv).reshape(a.shape)
        return {
            "stem": jnp.einsum("bhwi,bhwc->ic", x, du),
            "gamma": (dt * hat.reshape(a.shape)).sum(axis=(0, 1, 2)),
            "beta": d_beta(dt),
            "head": m.T @ dy,
        }

    return grad_fn


def grouped_make(dtype):
    stem, gamma, beta, head, x, target = normal(dtype, 32, (3, 4), (4,), (4,), (4, 2), (3, 2, 3, 3), (3, 2))
    return {"stem": stem, "gamma": 1 + 0.4 * gamma, "beta": beta, "head": head}, (x, target)


grouped = Problem("normalization", grouped_loss, grouped_gradient, grouped_make)


def gated_forward(params, x):
    """RMS norm with the gain 1 + g, then silu(h A) * (h B), then a linear map."""
    e = x @ params["emb"]
    inv = 1 / jnp.sqrt(jnp.mean(e**2, axis=1, keepdims=True) + EPS)
    h = e * inv * (1 + params["g"])
    a, b = h @ params["a"], h @ params["b"]
    s = sigmoid(a)
    return e, inv, h, a, b, s, a * s * b, a * s * b @ params["c"]


def gated_loss(params, x, target):
    return mean_square(gated_forward(params, x)[-1], target)


def gated_gradient(
    slope=lambda a, s: s * (1 + a * (1 - s)),
    join=lambda from_a, from_b: from_a + from_b,
    gain=lambda g: 1 + g,
    through_norm=lambda d, hat, inv: inv * (d - hat * jnp.mean(d * hat, axis=1, keepdims=True)),
):
    def grad_fn(params, x, target):
        e, inv, h, a, b, s, p, y = gated_forward(params, x)
        dy = mean_square_back(y, target)
        dp = dy @ params["c"].T
        da, db = dp * b * slope(a, s), dp * a * s
        dh = join(da @ params["a"].T, db @ params["b"].T)
        de = through_norm(dh * gain(params["g"]), e * inv, inv)
        return {
            "emb": x.T @ de,
            "g": (dh * e * inv).sum(axis=0),
            "a": h.T @ da,
            "b": h.T @ db,
            "c": p.T @ dy,
        }

    return grad_fn


def gated_make(dtype):
    emb, g, a, b, c, x, target = normal(dtype, 33, (3, 4), (4,), (4, 5), (4, 5), (5, 2), (5, 3), (5, 2))
    return {"emb": emb, "g": g * 0.5, "a": a, "b": b, "c": c}, (x, target)


gated = Problem("normalization", gated_loss, gated_gradient, gated_make)


def reweighted_forward(params, x):
    """Weight norm by column in the first layer; the second is divided by uᵀWv, with u and v from one power step."""
    length = jnp.sqrt(jnp.sum(params["v"] ** 2, axis=0))
    w = params["g"] * params["v"] / length
    a = jnp.tanh(x @ w + params["b"])
    left = params["w"] @ jnp.ones(params["w"].shape[1], x.dtype)
    left = jax.lax.stop_gradient(left / jnp.linalg.norm(left))
    across = params["w"].T @ left
    across = jax.lax.stop_gradient(across / jnp.linalg.norm(across))
    sigma = left @ params["w"] @ across
    return length, w, a, left, across, sigma, a @ (params["w"] / sigma)


def reweighted_loss(params, x, target):
    return mean_square(reweighted_forward(params, x)[-1], target)


def reweighted_gradient(
    d_direction=lambda dw, g, v, length: g / length * (dw - v * jnp.sum(dw * v, axis=0) / length**2),
    d_spectral=lambda dm, w, left, across, sigma: dm / sigma - jnp.sum(dm * w) / sigma**2 * jnp.outer(left, across),
    d_gain=lambda dw, v, length: jnp.sum(dw * v / length, axis=0),
):
    def grad_fn(params, x, target):
        length, _, a, left, across, sigma, y = reweighted_forward(params, x)
        dy = mean_square_back(y, target)
        dz = dy @ (params["w"] / sigma).T * (1 - a**2)
        dw = x.T @ dz
        return {
            "v": d_direction(dw, params["g"], params["v"], length),
            "g": d_gain(dw, params["v"], length),
            "b": dz.sum(axis=0),
            "w": d_spectral(a.T @ dy, params["w"], left, across, sigma),
        }

    return grad_fn


def reweighted_make(dtype):
    v, g, b, w, x, target = normal(dtype, 34, (4, 4), (4,), (4,), (4, 3), (6, 4), (6, 3))
    return {"v": v, "g": g, "b": b, "w": w}, (x, target)


reweighted = Problem("normalization", reweighted_loss, reweighted_gradient, reweighted_make)


def dropped_forward(params, x, keep):
    """Linear layer, batch norm, leaky ReLU, inverted dropout with three in four kept, linear layer."""
    hat, inv = standardize(x @ params["w"], (0,))
    z = hat * params["gamma"] + params["beta"]
    h = jnp.where(z > 0, z, 0.1 * z) * keep / 0.75
    return hat, inv, z, h, h @ params["out"]


def dropped_loss(params, x, keep, target):
    return mean_square(dropped_forward(params, x, keep)[-1], target)


def dropped_gradient(
    through_norm=lambda d, hat, inv: standardize_back(d, hat, inv, (0,)),
    undrop=lambda dh, keep: dh * keep / 0.75,
    slope=lambda z: jnp.where(z > 0, 1.0, 0.1),
):
    def grad_fn(params, x, keep, target):
        hat, inv, z, h, y = dropped_forward(params, x, keep)
        dy = mean_square_back(y, target)
        dz = undrop(dy @ params["out"].T, keep) * slope(z)
        return {
            "w": x.T @ through_norm(dz * params["gamma"], hat, inv),
            "gamma": (dz * hat).sum(axis=0),
            "beta": dz.sum(axis=0),
            "out": h.T @ dy,
        }

    return grad_fn


def dropped_make(dtype):
    w, gamma, beta, out, x, target, mask = normal(dtype, 35, (3, 5), (5,), (5,), (5, 2), (6, 3), (6, 2), (6, 5))
    params = {"w": w, "gamma": 1 + 0.3 * gamma, "beta": beta, "out": out}
    return params, (x, (mask > -0.6).astype(dtype), target)


dropped = Problem("normalization", dropped_loss, dropped_gradient, dropped_make)
