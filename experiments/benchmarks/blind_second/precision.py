"""Mixed precision: products in bfloat16, scaled losses and rounded weights inside a gradient in full precision."""

import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind_second.common import cross_entropy, maker, right, sigmoid, softmax, t
from experiments.benchmarks.catalogue.case import Problem, squared_error, squared_error_backward

THEME = "mixed precision"


def product(a, b):
    return a @ b


def short(x):
    return x.astype(jnp.bfloat16)


def short_product(a, b):
    """Return the product of both matrices rounded to bfloat16, itself in bfloat16."""
    return (short(a) @ short(b)).astype(a.dtype)


# Two dense layers


def dense_loss(params, x, target):
    h = jnp.tanh(x @ params["w1"] + params["b1"])
    return squared_error(h @ params["w2"], target)


def dense_gradient(times_w2=product, sum_bias=lambda dz: dz.sum(0), stored=lambda w: w):
    def grad_fn(params, x, target):
        h = jnp.tanh(x @ params["w1"] + params["b1"])
        dy = squared_error_backward(h @ params["w2"], target)
        dz = (dy @ stored(params["w2"]).T) * (1 - h**2)
        return {"w1": x.T @ dz, "b1": sum_bias(dz), "w2": times_w2(h.T, dy)}

    return grad_fn


def short_sum(rows):
    total = jnp.zeros(rows.shape[1], jnp.bfloat16)
    for row in short(rows):
        total = total + row
    return total.astype(rows.dtype)


DENSE = Problem(THEME, dense_loss, dense_gradient, maker(401, {"w1": (4, 5), "b1": (5,), "w2": (5, 3)}, (6, 4), (6, 3)))

# Attention


def scores_forward(params, x):
    q, k = x @ params["wq"], x @ params["wk"]
    return q, k, softmax(q @ k.T / 2)


def scores_loss(params, x, values, target):
    return squared_error(scores_forward(params, x)[2] @ values, target)


def scores_gradient(kind=lambda x: x, times_key=product):
    def grad_fn(params, x, values, target):
        q, k, p = scores_forward(params, x)
        dp = kind(squared_error_backward(p @ values, target) @ values.T)
        short_p = kind(p)
        ds = (short_p * (dp - (short_p * dp).sum(-1, keepdims=True))).astype(x.dtype) / 2
        return {"wq": x.T @ (ds @ k), "wk": x.T @ times_key(t(ds), q)}

    return grad_fn


SCORES = Problem(THEME, scores_loss, scores_gradient, maker(402, {"wq": (4, 4), "wk": (4, 4)}, (5, 4), (5, 3), (5, 3)))

# Standardized features whose mean is large


def offset_forward(params, x):
    h = x @ params["w"] + 20.0
    return h, params["gain"] * (h - h.mean(1, keepdims=True)) / jnp.sqrt(h.var(1, keepdims=True) + 1e-3)


def offset_loss(params, x, target):
    return squared_error(offset_forward(params, x)[1], target)


def offset_gradient(for_statistics=lambda h: h):
    def grad_fn(params, x, target):
        h, y = offset_forward(params, x)
        dy = squared_error_backward(y, target)
        inverse = 1 / jnp.sqrt(h.var(1, keepdims=True) + 1e-3)
        unit = (h - h.mean(1, keepdims=True)) * inverse
        rounded = for_statistics(h)
        stored = (rounded - rounded.mean(1, keepdims=True)) * inverse
        du = dy * params["gain"]
        dh = inverse * (du - du.mean(1, keepdims=True) - unit * (du * unit).mean(1, keepdims=True))
        return {"w": x.T @ dh, "gain": (dy * stored).sum(0)}

    return grad_fn


OFFSET = Problem(
    THEME,
    offset_loss,
    offset_gradient,
    maker(403, {"w": (3, 4), "gain": (4,)}, (5, 3), (5, 4), add={"gain": 1.0}),
)

# Cross-entropy multiplied by a scale and divided again


def scaled_forward(params, x):
    h = sigmoid(x @ params["w"] + params["b"])
    return h, h @ params["wo"]


def scaled_loss(params, x, targets):
    return cross_entropy(scaled_forward(params, x)[1], targets)


def scaled_gradient(unscale_bias=lambda g: g / 1024, half=lambda g: g):
    def grad_fn(params, x, targets):
        h, scores = scaled_forward(params, x)
        dy = 1024 * (softmax(scores) - targets) / len(targets)
        dz = (dy @ params["wo"].T) * h * (1 - h)
        return {"w": x.T @ dz / 1024, "b": unscale_bias(dz.sum(0)), "wo": half(h.T @ dy / 1024)}

    return grad_fn


ONE_HOT = np.eye(3)[[0, 2, 1, 1, 0]]
SCALED = Problem(
    THEME,
    scaled_loss,
    scaled_gradient,
    maker(404, {"w": (4, 4), "b": (4,), "wo": (4, 3)}, (5, 4), extra=(ONE_HOT,)),
)

# A loss so small that float16 loses its gradient


def tiny_loss(params, x, target):
    return 1e-7 * squared_error(jnp.tanh(x @ params["w1"]) @ params["w2"], target)


def tiny_gradient(stored=lambda g: g):
    def grad_fn(params, x, target):
        h = jnp.tanh(x @ params["w1"])
        dy = 1e-7 * squared_error_backward(h @ params["w2"], target)
        dz = (dy @ params["w2"].T) * (1 - h**2)
        return {"w1": x.T @ stored(dz), "w2": h.T @ dy}

    return grad_fn


TINY = Problem(THEME, tiny_loss, tiny_gradient, maker(405, {"w1": (4, 4), "w2": (4, 3)}, (4, 4), (4, 3)))

BUGS = (
    DENSE.bug("dense_weight_product_in_bfloat16", ("unstable",), "['w2']", times_w2=short_product),
    DENSE.bug("dense_bias_summed_in_bfloat16", ("unstable",), "['b1']", sum_bias=short_sum),
    DENSE.bug(
        "dense_backward_through_rounded_weights", ("wrong_operand",), "['w1']", stored=lambda w: jnp.round(4 * w) / 4
    ),
    SCORES.bug("scores_softmax_backward_in_bfloat16", ("unstable",), "['wq']", kind=short),
    SCORES.bug("scores_key_product_in_bfloat16", ("unstable",), "['wk']", times_key=short_product),
    OFFSET.bug(
        "offset_statistics_in_bfloat16", ("unstable",), "['gain']", for_statistics=lambda h: short(h).astype(h.dtype)
    ),
    SCALED.bug("scaled_loss_bias_not_unscaled", ("scaled",), "['b']", unscale_bias=lambda g: g),
    SCALED.bug(
        "scaled_output_in_eight_bits",
        ("unstable",),
        "['wo']",
        half=lambda g: jnp.round(g / abs(g).max() * 127) * abs(g).max() / 127,
    ),
    TINY.bug(
        "tiny_gradient_stored_in_float16",
        ("unstable",),
        "['w1']",
        stored=lambda g: g.astype(jnp.float16).astype(g.dtype),
    ),
)
RIGHT = (
    right(DENSE, "dense_full_precision_right"),
    right(SCORES, "scores_full_precision_right"),
    right(OFFSET, "offset_right"),
    right(SCALED, "scaled_loss_right"),
    right(TINY, "tiny_loss_right"),
)
