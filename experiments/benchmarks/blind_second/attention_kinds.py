"""Attention: sequences of several lengths, cosine similarities and linear attention."""

import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind_second.attention import FOUR, THEME
from experiments.benchmarks.blind_second.common import maker, right, softmax, softmax_backward, t, unit, unit_backward
from experiments.benchmarks.catalogue.case import Problem, squared_error, squared_error_backward

# Sequences of several lengths, averaged over their positions


def pooled_forward(params, x, lengths):
    q, k, v = (x @ params[name] for name in ("wq", "wk", "wv"))
    valid = jnp.arange(4) < lengths[:, None]
    p = softmax(jnp.where(valid[:, None], q @ t(k) / 2, -1e9))
    weight = valid.astype(x.dtype)[..., None]
    return q, k, v, p, weight, ((p @ v) * weight).sum(1) / weight.sum(1)


def pooled_loss(params, x, target, lengths):
    return squared_error(pooled_forward(params, x, lengths)[-1] @ params["wo"], target)


def pooled_gradient(spread=lambda g, weight: weight * g[:, None] / weight.sum(1, keepdims=True)):
    def grad_fn(params, x, target, lengths):
        q, k, v, p, weight, pooled = pooled_forward(params, x, lengths)
        dy = squared_error_backward(pooled @ params["wo"], target)
        do = spread(dy @ params["wo"].T, weight)
        ds = softmax_backward(p, do @ t(v)) / 2
        grads = {"wq": ds @ k, "wk": t(ds) @ q, "wv": t(p) @ do}
        return {name: jnp.einsum("bsi,bso->io", x, g) for name, g in grads.items()} | {"wo": pooled.T @ dy}

    return grad_fn


LENGTHS = np.array([4, 2, 3])
POOLED = Problem(
    THEME, pooled_loss, pooled_gradient, maker(108, {**FOUR, "wo": (4, 3)}, (3, 4, 4), (3, 3), extra=(LENGTHS,))
)

# Cosine similarities with a learned scale


def cosine_forward(params, x):
    (q, q_norm), (k, k_norm) = unit(x @ params["wq"]), unit(x @ params["wk"])
    similarity = q @ k.T
    scale = jnp.exp(params["log_scale"])
    return q, q_norm, k, k_norm, similarity, scale, softmax(scale * similarity)


def cosine_loss(params, x, values, target):
    return squared_error(cosine_forward(params, x)[-1] @ values, target)


def cosine_gradient(k_backward=unit_backward, d_log=lambda ds, similarity, scale: (ds * similarity).sum() * scale):
    def grad_fn(params, x, values, target):
        q, q_norm, k, k_norm, similarity, scale, p = cosine_forward(params, x)
        ds = softmax_backward(p, squared_error_backward(p @ values, target) @ values.T)
        return {
            "wq": x.T @ unit_backward(scale * ds @ k, q, q_norm),
            "wk": x.T @ k_backward(scale * ds.T @ q, k, k_norm),
            "log_scale": d_log(ds, similarity, scale),
        }

    return grad_fn


COSINE = Problem(
    THEME,
    cosine_loss,
    cosine_gradient,
    maker(109, {"wq": (4, 3), "wk": (4, 3), "log_scale": ()}, (5, 4), (5, 3), (5, 3), add={"log_scale": 0.7}),
)

# Linear attention with exponential features


def linear_forward(params, x):
    q, k = jnp.exp(x @ params["wq"]), jnp.exp(x @ params["wk"])
    v = x @ params["wv"]
    total = q @ k.sum(0)
    return q, k, v, total, q @ (k.T @ v) / total[:, None]


def linear_loss(params, x, target):
    return squared_error(linear_forward(params, x)[-1], target)


def linear_gradient(through_total_k=lambda q, d_total: q.T @ d_total):
    def grad_fn(params, x, target):
        q, k, v, total, o = linear_forward(params, x)
        do = squared_error_backward(o, target)
        dn = do / total[:, None]
        d_total = -(do * o).sum(1) / total
        d_memory = q.T @ dn
        dq = dn @ (k.T @ v).T + d_total[:, None] * k.sum(0)
        dk = v @ d_memory.T + through_total_k(q, d_total)
        return {"wq": x.T @ (dq * q), "wk": x.T @ (dk * k), "wv": x.T @ (k @ d_memory)}

    return grad_fn


LINEAR = Problem(THEME, linear_loss, linear_gradient, maker(110, FOUR, (5, 4), (5, 4)))

BUGS = (
    POOLED.bug(
        "pooled_mean_over_longest", ("scaled_path", "mask"), "['wv']", spread=lambda g, weight: weight * g[:, None] / 4
    ),
    POOLED.bug(
        "pooled_gradient_at_padding",
        ("mask",),
        "['wv']",
        spread=lambda g, weight: g[:, None] / weight.sum(1, keepdims=True) + 0 * weight,
    ),
    COSINE.bug(
        "cosine_key_norm_constant",
        ("lost_path", "normalization_term"),
        "['wk']",
        k_backward=lambda g, direction, norm: g / norm,
    ),
    COSINE.bug(
        "cosine_log_scale_without_exp",
        ("scaled", "scaled_path", "activation_derivative"),
        "['log_scale']",
        d_log=lambda ds, similarity, scale: (ds * similarity).sum(),
    ),
    LINEAR.bug("linear_key_total_constant", ("lost_path",), "['wk']", through_total_k=lambda q, d_total: 0.0),
)
RIGHT = (
    right(POOLED, "pooled_right"),
    right(COSINE, "cosine_right"),
    right(LINEAR, "linear_attention_right"),
)
