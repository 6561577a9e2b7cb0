"""Attention: several heads, causal, grouped queries, rotary, ALiBi and relative positions."""

import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind_second.common import maker, right, softmax, softmax_backward, t
from experiments.benchmarks.catalogue.case import Problem, squared_error, squared_error_backward

THEME = "attention"
ROOT3 = 3**-0.5
CAUSAL = np.tril(np.ones((4, 4), bool))
DISTANCE = np.arange(4)[:, None] - np.arange(4)[None]


def split(x, heads):
    return x.reshape(*x.shape[:-1], heads, -1).swapaxes(-2, -3)


def merge(x):
    return x.swapaxes(-2, -3).reshape(*x.shape[:-3], x.shape[-2], -1)


def project(params, x, heads):
    return (split(x @ params[name], heads) for name in ("wq", "wk", "wv"))


# Several heads


def heads_forward(params, x):
    q, k, v = project(params, x, 2)
    p = softmax(q @ t(k) * ROOT3)
    return q, k, v, p, merge(p @ v)


def heads_loss(params, x, target):
    return squared_error(heads_forward(params, x)[-1] @ params["wo"], target)


def heads_gradient(scale_k=ROOT3, d_scores=softmax_backward, merge_v=merge):
    def grad_fn(params, x, target):
        q, k, v, p, merged = heads_forward(params, x)
        dy = squared_error_backward(merged @ params["wo"], target)
        do = split(dy @ params["wo"].T, 2)
        ds = d_scores(p, do @ t(v))
        return {
            "wq": x.T @ merge(ds @ k * ROOT3),
            "wk": x.T @ merge(t(ds) @ q * scale_k),
            "wv": x.T @ merge_v(t(p) @ do),
            "wo": merged.T @ dy,
        }

    return grad_fn


SQUARE = {"wq": (6, 6), "wk": (6, 6), "wv": (6, 6), "wo": (6, 6)}
HEADS = Problem(THEME, heads_loss, heads_gradient, maker(101, SQUARE, (4, 6), (4, 6)))

# Causal


def causal_probabilities(scores):
    return softmax(jnp.where(CAUSAL, scores, -1e9))


def causal_loss(params, x, target):
    q, k, v = project(params, x, 2)
    return squared_error(merge(causal_probabilities(q @ t(k) * ROOT3) @ v), target)


def causal_gradient(recompute=causal_probabilities):
    def grad_fn(params, x, target):
        q, k, v = project(params, x, 2)
        scores = q @ t(k) * ROOT3
        do = split(squared_error_backward(merge(causal_probabilities(scores) @ v), target), 2)
        p = recompute(scores)
        ds = softmax_backward(p, do @ t(v)) * ROOT3
        return {"wq": x.T @ merge(ds @ k), "wk": x.T @ merge(t(ds) @ q), "wv": x.T @ merge(t(p) @ do)}

    return grad_fn


THREE = {"wq": (6, 6), "wk": (6, 6), "wv": (6, 6)}
CAUSAL_HEADS = Problem(THEME, causal_loss, causal_gradient, maker(102, THREE, (4, 6), (4, 6)))

# Probabilities recomputed from the log of the sum


def streamed_forward(params, x):
    q, k, v = (x @ params[name] for name in ("wq", "wk", "wv"))
    scores = q @ t(k) / 2
    top = scores.max(-1, keepdims=True)
    log_sum = top + jnp.log(jnp.exp(scores - top).sum(-1, keepdims=True))
    return q, k, v, scores, log_sum, jnp.exp(scores - log_sum) @ v


def streamed_loss(params, x, target):
    return squared_error(streamed_forward(params, x)[-1], target)


def streamed_gradient(delta=lambda do, o, v: (do * o).sum(-1, keepdims=True)):
    def grad_fn(params, x, target):
        q, k, v, scores, log_sum, o = streamed_forward(params, x)
        do = squared_error_backward(o, target)
        p = jnp.exp(scores - log_sum)
        ds = p * (do @ t(v) - delta(do, o, v)) / 2
        grads = {"wq": ds @ k, "wk": t(ds) @ q, "wv": t(p) @ do}
        return {name: jnp.einsum("bsi,bso->io", x, g) for name, g in grads.items()}

    return grad_fn


FOUR = {"wq": (4, 4), "wk": (4, 4), "wv": (4, 4)}
STREAMED = Problem(THEME, streamed_loss, streamed_gradient, maker(103, FOUR, (2, 5, 4), (2, 5, 4)))

# Grouped queries


def grouped_forward(params, x):
    q = split(x @ params["wq"], 4)
    k, v = (jnp.repeat(split(x @ params[name], 2), 2, axis=0) for name in ("wk", "wv"))
    p = softmax(q @ t(k) / 2**0.5)
    return q, k, v, p, merge(p @ v)


def grouped_loss(params, x, target):
    return squared_error(grouped_forward(params, x)[-1] @ params["wo"], target)


def sum_group(g):
    return g.reshape(2, 2, *g.shape[1:]).sum(1)


def grouped_gradient(gather_k=sum_group, gather_v=sum_group):
    def grad_fn(params, x, target):
        q, k, v, p, merged = grouped_forward(params, x)
        dy = squared_error_backward(merged @ params["wo"], target)
        do = split(dy @ params["wo"].T, 4)
        ds = softmax_backward(p, do @ t(v)) / 2**0.5
        return {
            "wq": x.T @ merge(ds @ k),
            "wk": x.T @ merge(gather_k(t(ds) @ q)),
            "wv": x.T @ merge(gather_v(t(p) @ do)),
            "wo": merged.T @ dy,
        }

    return grad_fn


GROUPED = Problem(
    THEME,
    grouped_loss,
    grouped_gradient,
    maker(104, {"wq": (5, 8), "wk": (5, 4), "wv": (5, 4), "wo": (8, 3)}, (4, 5), (4, 3)),
)

# Rotary

FREQUENCIES = np.array([1.0, 0.3])
ANGLES = np.arange(4)[:, None] * FREQUENCIES


def rotate(x, angles):
    cos, sin = jnp.asarray(np.cos(angles), x.dtype), jnp.asarray(np.sin(angles), x.dtype)
    first, second = x[..., :2], x[..., 2:]
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], -1)


def rotary_forward(params, x):
    q, k, v = (x @ params[name] for name in ("wq", "wk", "wv"))
    q, k = rotate(q, ANGLES), rotate(k, ANGLES)
    p = softmax(jnp.where(CAUSAL, q @ k.T / 2, -1e9))
    return q, k, v, p, p @ v


def rotary_loss(params, x, target):
    return squared_error(rotary_forward(params, x)[-1], target)


def rotary_gradient(angles_q=-ANGLES, angles_k=-ANGLES):
    def grad_fn(params, x, target):
        q, k, v, p, o = rotary_forward(params, x)
        do = squared_error_backward(o, target)
        ds = softmax_backward(p, do @ v.T) / 2
        return {
            "wq": x.T @ rotate(ds @ k, angles_q),
            "wk": x.T @ rotate(ds.T @ q, angles_k),
            "wv": x.T @ (p.T @ do),
        }

    return grad_fn


ROTARY = Problem(THEME, rotary_loss, rotary_gradient, maker(105, FOUR, (4, 4), (4, 4)))

# ALiBi with learned slopes


def alibi_forward(params, x):
    q, k, v = project(params, x, 2)
    bias = -params["slopes"][:, None, None] * DISTANCE
    p = softmax(jnp.where(CAUSAL, q @ t(k) * ROOT3 + bias, -1e9))
    return q, k, v, p, merge(p @ v)


def alibi_loss(params, x, target):
    return squared_error(alibi_forward(params, x)[-1], target)


def alibi_gradient(d_slopes=lambda ds, dp: -(ds * DISTANCE).sum((1, 2))):
    def grad_fn(params, x, target):
        q, k, v, p, o = alibi_forward(params, x)
        do = split(squared_error_backward(o, target), 2)
        dp = do @ t(v)
        ds = softmax_backward(p, dp)
        return {
            "wq": x.T @ merge(ds @ k) * ROOT3,
            "wk": x.T @ merge(t(ds) @ q) * ROOT3,
            "wv": x.T @ merge(t(p) @ do),
            "slopes": d_slopes(ds, dp),
        }

    return grad_fn


ALIBI = Problem(THEME, alibi_loss, alibi_gradient, maker(106, {**THREE, "slopes": (2,)}, (4, 6), (4, 6)))

# A learned bias for each relative position


def relative_forward(params, x):
    q, k, v = project(params, x, 2)
    p = softmax(q @ t(k) * ROOT3 + params["table"][:, DISTANCE + 3])
    return q, k, v, p, merge(p @ v)


def relative_loss(params, x, target):
    return squared_error(relative_forward(params, x)[-1], target)


def relative_gradient(entry=lambda ds, row: jnp.diagonal(ds, 3 - row, 1, 2).sum(-1)):
    def grad_fn(params, x, target):
        q, k, v, p, o = relative_forward(params, x)
        do = split(squared_error_backward(o, target), 2)
        ds = softmax_backward(p, do @ t(v))
        return {
            "wq": x.T @ merge(ds @ k) * ROOT3,
            "wk": x.T @ merge(t(ds) @ q) * ROOT3,
            "wv": x.T @ merge(t(p) @ do),
            "table": jnp.stack([entry(ds, row) for row in range(7)], -1),
        }

    return grad_fn


RELATIVE = Problem(THEME, relative_loss, relative_gradient, maker(107, {**THREE, "table": (2, 7)}, (4, 6), (4, 6)))

BUGS = (
    HEADS.bug("heads_merged_by_reshape_alone", ("transposed",), "['wv']", merge_v=lambda g: g.reshape(4, 6)),
    HEADS.bug("heads_key_scaled_by_width_of_all", ("scaled",), "['wk']", scale_k=6**-0.5),
    HEADS.bug(
        "heads_softmax_diagonal_only",
        ("activation_derivative", "lost_path"),
        "['wq']",
        d_scores=lambda p, dp: p * (1 - p) * dp,
    ),
    CAUSAL_HEADS.bug("causal_recompute_without_mask", ("mask",), "['wv']", recompute=softmax),
    STREAMED.bug(
        "streamed_delta_of_values", ("wrong_operand",), "['wq']", delta=lambda do, o, v: (do * v).sum(-1, keepdims=True)
    ),
    GROUPED.bug(
        "grouped_key_gathered_in_tile_order",
        ("wrong_axis",),
        "['wk']",
        gather_k=lambda g: g.reshape(2, 2, *g.shape[1:]).sum(0),
    ),
    GROUPED.bug(
        "grouped_value_last_head_of_group",
        ("lost_use", "lost_path"),
        "['wv']",
        gather_v=lambda g: g.reshape(2, 2, *g.shape[1:])[:, 1],
    ),
    ROTARY.bug("rotary_query_rotated_forward_again", ("transposed",), "['wq']", angles_q=ANGLES),
    ROTARY.bug(
        "rotary_key_positions_from_one", ("shifted", "wrong_operand"), "['wk']", angles_k=-(ANGLES + FREQUENCIES)
    ),
    ALIBI.bug(
        "alibi_slope_before_softmax_backward",
        ("activation_derivative",),
        "['slopes']",
        d_slopes=lambda ds, dp: -(dp * CAUSAL * DISTANCE).sum((1, 2)),
    ),
    ALIBI.bug("alibi_slope_sign", ("sign",), "['slopes']", d_slopes=lambda ds, dp: (ds * DISTANCE).sum((1, 2))),
    RELATIVE.bug(
        "relative_table_written_not_added",
        ("lost_use", "lost_path"),
        "['table']",
        entry=lambda ds, row: jnp.diagonal(ds, 3 - row, 1, 2)[..., -1],
    ),
    RELATIVE.bug(
        "relative_table_key_minus_query",
        ("kernel_flipped", "transposed"),
        "['table']",
        entry=lambda ds, row: jnp.diagonal(ds, row - 3, 1, 2).sum(-1),
    ),
)
RIGHT = (
    right(HEADS, "heads_right"),
    right(CAUSAL_HEADS, "causal_right"),
    right(STREAMED, "streamed_right"),
    right(GROUPED, "grouped_right"),
    right(ROTARY, "rotary_right"),
    right(ALIBI, "alibi_right"),
    right(RELATIVE, "relative_right"),
)
