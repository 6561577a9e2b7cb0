"""Normalizations, splines, grids, portfolios and rankings, with gradients by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind_fourth.networks import cast, sigmoid

# Batch, layer and weight normalization


def make_norm(dtype, seed=16):
    rng = np.random.default_rng(seed)
    params = {"w": rng.normal(size=(4, 5)), "gamma": rng.uniform(0.5, 1.5, size=5), "beta": 0.3 * rng.normal(size=5)}
    return cast(dtype, (params, (rng.normal(size=(7, 4)), rng.normal(size=(7, 5)))))


def norm_forward(params, x, axis, eps=1e-3):
    z = x @ params["w"]
    std = jnp.sqrt(jnp.var(z, axis=axis, keepdims=True) + eps)
    return (z - jnp.mean(z, axis=axis, keepdims=True)) / std, std


def norm_loss(params, x, y, axis):
    """Squared error of a normalized linear layer; axis 0 for the batch, 1 for the layer."""
    hat, _ = norm_forward(params, x, axis)
    return 0.5 * jnp.sum((params["gamma"] * hat + params["beta"] - y) ** 2) / len(x)


def norm_grad(params, x, y, axis, variance_term=True):
    hat, std = norm_forward(params, x, axis)
    d_out = (params["gamma"] * hat + params["beta"] - y) / len(x)
    d_hat = d_out * params["gamma"]
    d_z = d_hat - jnp.mean(d_hat, axis=axis, keepdims=True)
    if variance_term:
        d_z = d_z - hat * jnp.mean(d_hat * hat, axis=axis, keepdims=True)
    return {"w": x.T @ (d_z / std), "gamma": jnp.sum(d_out * hat, axis=0), "beta": jnp.sum(d_out, axis=0)}


def make_weight_norm(dtype, seed=17):
    rng = np.random.default_rng(seed)
    params = {"v": rng.normal(size=(4, 3)), "g": rng.uniform(0.5, 1.5, size=3), "b": 0.3 * rng.normal(size=3)}
    return cast(dtype, (params, (rng.normal(size=(7, 4)), rng.normal(size=(7, 3)))))


def weight_norm_loss(params, x, y):
    """Squared error of tanh units whose weights have a length g and a direction v."""
    w = params["g"] * params["v"] / jnp.sqrt(jnp.sum(params["v"] ** 2, axis=0))
    return 0.5 * jnp.sum((jnp.tanh(x @ w + params["b"]) - y) ** 2) / len(x)


def weight_norm_grad(params, x, y, raw_direction=False):
    """Wrong variant: the gradient of g takes v itself, not v of length one."""
    length = jnp.sqrt(jnp.sum(params["v"] ** 2, axis=0))
    unit = params["v"] / length
    out = jnp.tanh(x @ (params["g"] * unit) + params["b"])
    d_z = (out - y) * (1 - out**2) / len(x)
    d_w = x.T @ d_z
    along = jnp.sum(d_w * unit, axis=0)
    d_v = params["g"] / length * (d_w - unit * along)
    d_g = jnp.sum(d_w * params["v"], axis=0) if raw_direction else along
    return {"v": d_v, "g": d_g, "b": jnp.sum(d_z, axis=0)}


# Polynomials and splines


def make_polynomial(dtype, seed=18):
    rng = np.random.default_rng(seed)
    params = {"coef": rng.normal(size=(4, 3)), "shift": 0.3 * rng.normal(size=3)}
    return cast(dtype, (params, (rng.uniform(-1.3, 1.3, size=9), rng.normal(size=(9, 3)))))


def powers(x, count):
    return jnp.stack([x**k for k in range(count)], axis=1)


def polynomial_loss(params, x, y):
    """Squared error of three cubic curves inside a softplus."""
    z = powers(x, 4) @ params["coef"] + params["shift"] ** 2
    return 0.5 * jnp.mean((jax.nn.softplus(z) - y) ** 2)


def polynomial_grad(params, x, y, highest_first=False):
    """Wrong variant: the powers in numpy's order, the highest first."""
    features = powers(x, 4)
    z = features @ params["coef"] + params["shift"] ** 2
    d_z = (jax.nn.softplus(z) - y) * sigmoid(z) / y.size
    if highest_first:
        features = features[:, ::-1]
    return {"coef": features.T @ d_z, "shift": 2 * params["shift"] * jnp.sum(d_z, axis=0)}


def make_spline(dtype, seed=19):
    rng = np.random.default_rng(seed)
    params = {"line": rng.normal(size=2), "c": rng.normal(size=4), "knot": np.array([-1.1, -0.4, 0.3, 0.9])}
    return cast(dtype, (params, (rng.uniform(-2, 2, size=11), rng.normal(size=11))))


def spline_loss(params, x, y):
    """Squared error of a cubic spline with learned knots."""
    bump = jnp.maximum(x[:, None] - params["knot"], 0)
    return jnp.mean((params["line"][0] + params["line"][1] * x + bump**3 @ params["c"] - y) ** 2)


def spline_grad(params, x, y):
    bump = jnp.maximum(x[:, None] - params["knot"], 0)
    d_out = 2 * (params["line"][0] + params["line"][1] * x + bump**3 @ params["c"] - y) / len(x)
    return {
        "line": jnp.stack([jnp.sum(d_out), jnp.sum(d_out * x)]),
        "c": (bump**3).T @ d_out,
        "knot": -3 * params["c"] * ((bump**2).T @ d_out),
    }


# Transport on a periodic grid by finite differences


def make_transport(dtype, seed=20):
    rng = np.random.default_rng(seed)
    params = {"u": rng.normal(size=(4, 9)), "speed": 0.5 + 0.3 * rng.normal(size=9)}
    return cast(dtype, (params, (0.3 * rng.normal(size=(3, 9)), rng.normal(size=9))))


def central(u, dx=0.5):
    return (jnp.roll(u, -1, axis=1) - jnp.roll(u, 1, axis=1)) / (2 * dx)


def transport_residual(params, source, dt=0.4):
    u = params["u"]
    return (u[1:] - u[:-1]) / dt + params["speed"] * central(u[1:]) - source


def transport_loss(params, source, start):
    """Residual of u_t + c u_x = f, four times by nine places, and the fit of the start."""
    residual = transport_residual(params, source)
    return 0.5 * jnp.mean(residual**2) + 0.5 * jnp.mean((params["u"][0] - start) ** 2)


def transport_grad(params, source, start, dt=0.4, same_operator=False):
    """Wrong variant: the backward pass takes the difference itself, not its transpose."""
    u = params["u"]
    d_res = transport_residual(params, source, dt) / source.size
    back = central(params["speed"] * d_res)
    d_u = jnp.zeros_like(u).at[1:].add(d_res / dt + (back if same_operator else -back))
    d_u = d_u.at[:-1].add(-d_res / dt)
    d_u = d_u.at[0].add((u[0] - start) / len(start))
    return {"u": d_u, "speed": jnp.sum(d_res * central(u[1:]), axis=0)}


# Portfolio from factors


def make_portfolio(dtype, seed=21):
    rng = np.random.default_rng(seed)
    params = {"w": rng.normal(size=3), "b": 0.5 * rng.normal(size=6)}
    factors, root = rng.normal(size=(6, 3)), rng.normal(size=(6, 6))
    args = (factors, rng.normal(size=6), root @ root.T / 6, rng.dirichlet(np.ones(6)))
    return cast(dtype, (params, args))


def portfolio_loss(params, factors, mu, cov, held, risk=1.5, cost=0.2):
    """Risk less return, and the cost of leaving what is held."""
    share = jax.nn.softmax(factors @ params["w"] + params["b"])
    return risk * share @ cov @ share - mu @ share + cost * jnp.sum(jnp.sqrt((share - held) ** 2 + 1e-2))


def portfolio_grad(params, factors, mu, cov, held, risk=1.5, cost=0.2, cross_terms=True):
    """Wrong variant: the softmax's Jacobian without the part that all shares have in common."""
    share = jax.nn.softmax(factors @ params["w"] + params["b"])
    move = share - held
    d_share = 2 * risk * cov @ share - mu + cost * move / jnp.sqrt(move**2 + 1e-2)
    if cross_terms:
        d_share = d_share - jnp.sum(share * d_share)
    d_z = share * d_share
    return {"w": factors.T @ d_z, "b": d_z}


# Ranking by pairs


def make_ranking(dtype, seed=22):
    rng = np.random.default_rng(seed)
    params = {"w1": rng.normal(size=(4, 3)), "b1": 0.3 * rng.normal(size=3), "w2": rng.normal(size=3)}
    grade = np.array([0, 2, 1, 3, 0, 2, 1], dtype=np.int32)
    return cast(dtype, (params, (rng.normal(size=(7, 4)), grade)))


def ranking_loss(params, x, grade):
    """Hinge with margin one over all pairs in which the first has the better grade."""
    score = jnp.tanh(x @ params["w1"] + params["b1"]) @ params["w2"]
    better = (grade[:, None] > grade[None, :]).astype(score.dtype)
    return jnp.sum(better * jnp.maximum(1 - score[:, None] + score[None, :], 0)) / jnp.sum(better)


def ranking_grad(params, x, grade, margin=1.0):
    """Wrong variant (margin 0): only pairs in the wrong order count, not those within the margin."""
    hidden = jnp.tanh(x @ params["w1"] + params["b1"])
    score = hidden @ params["w2"]
    better = (grade[:, None] > grade[None, :]).astype(score.dtype)
    active = better * (score[:, None] - score[None, :] < margin) / jnp.sum(better)
    d_score = jnp.sum(active, axis=0) - jnp.sum(active, axis=1)
    d_z = d_score[:, None] * params["w2"] * (1 - hidden**2)
    return {"w1": x.T @ d_z, "b1": jnp.sum(d_z, axis=0), "w2": hidden.T @ d_score}


# Two towers


def make_towers(dtype, seed=23):
    rng = np.random.default_rng(seed)
    params = {"wu": rng.normal(size=(5, 3)), "wv": rng.normal(size=(4, 3)), "scale": rng.uniform(1, 3, size=3)}
    return cast(dtype, (params, (rng.normal(size=(7, 5)), rng.normal(size=(7, 4)))))


def unit_rows(z):
    length = jnp.sqrt(jnp.sum(z**2, axis=1, keepdims=True))
    return z / length, length


def unit_rows_back(d_unit, unit, length):
    return (d_unit - unit * jnp.sum(d_unit * unit, axis=1, keepdims=True)) / length


def towers_loss(params, users, items):
    """Each user's own item against all items of the batch."""
    u, _ = unit_rows(users @ params["wu"])
    v, _ = unit_rows(items @ params["wv"])
    logits = (u * params["scale"]) @ v.T
    return -jnp.mean(jnp.diagonal(jax.nn.log_softmax(logits, axis=1)))


def towers_grad(params, users, items, untransposed=False):
    u, u_length = unit_rows(users @ params["wu"])
    v, v_length = unit_rows(items @ params["wv"])
    scaled = u * params["scale"]
    p = jax.nn.softmax(scaled @ v.T, axis=1)
    d_logits = (p - jnp.eye(len(p), dtype=p.dtype)) / len(p)
    d_scaled = d_logits @ v
    d_v = (d_logits if untransposed else d_logits.T) @ scaled
    return {
        "wu": users.T @ unit_rows_back(d_scaled * params["scale"], u, u_length),
        "wv": items.T @ unit_rows_back(d_v, v, v_length),
        "scale": jnp.sum(d_scaled * u, axis=0),
    }
