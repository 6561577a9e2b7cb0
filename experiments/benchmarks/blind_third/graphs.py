"""Graph networks: sums over edges by segments, and attention over the edges."""

import jax
import jax.numpy as jnp

from experiments.benchmarks.blind_third.tools import mean_square, mean_square_back, right, sigmoid
from experiments.benchmarks.catalogue.case import Problem, normal

NODES = 7
SENDERS = jnp.array([0, 1, 2, 2, 3, 4, 5, 6, 6, 1, 0])
RECEIVERS = jnp.array([1, 2, 0, 3, 1, 5, 6, 4, 5, 3, 2])
GRAPH = jnp.array([0, 0, 0, 0, 1, 1, 1])


def spread_over(h, coefficient, senders, receivers):
    return jax.ops.segment_sum(coefficient[:, None] * h[senders], receivers, NODES) + h


def net_coefficient(dtype):
    """1 / sqrt(out-degree of the sender times in-degree of the receiver)."""
    one = jnp.ones(len(SENDERS), dtype)
    out, into = (jax.ops.segment_sum(one, index, NODES) + 1 for index in (SENDERS, RECEIVERS))
    return 1 / jnp.sqrt(out[SENDERS] * into[RECEIVERS])


def net_forward(params, x):
    c = net_coefficient(x.dtype)
    m0 = spread_over(x, c, SENDERS, RECEIVERS)
    z = m0 @ params["w0"] + params["b0"]
    h = jnp.logaddexp(z, 0)
    m1 = spread_over(h, c, SENDERS, RECEIVERS)
    g = jnp.tanh(m1 @ params["w1"])
    size = jnp.array([4, 3])[:, None].astype(x.dtype)
    pooled = jax.ops.segment_sum(g, GRAPH, 2) / size
    return c, m0, z, m1, g, size, pooled, pooled @ params["out"]


def net_loss(params, x, target):
    return mean_square(net_forward(params, x)[-1], target)


def net_gradient(
    gather_back=lambda d, c: spread_over(d, c, RECEIVERS, SENDERS),
    d_nodes=lambda d, size: (d / size)[GRAPH],
    d_bias=lambda dz: dz.sum(axis=0),
):
    def grad_fn(params, x, target):
        c, m0, z, m1, g, size, pooled, y = net_forward(params, x)
        dy = mean_square_back(y, target)
        du = d_nodes(dy @ params["out"].T, size) * (1 - g**2)
        dz = gather_back(du @ params["w1"].T, c) * sigmoid(z)
        return {"w0": m0.T @ dz, "b0": d_bias(dz), "w1": m1.T @ du, "out": pooled.T @ dy}

    return grad_fn


def net_make(dtype):
    w0, b0, w1, out, x, target = normal(dtype, 81, (2, 4), (4,), (4, 3), (3, 2), (NODES, 2), (2, 2))
    return {"w0": w0, "b0": b0, "w1": w1, "out": out}, (x, target)


net = Problem("graph", net_loss, net_gradient, net_make)


def edge_softmax(scores, index):
    """Softmax among the edges with the same index."""
    top = jax.ops.segment_max(scores, index, NODES)
    e = jnp.exp(scores - jax.lax.stop_gradient(top)[index])
    return e / jax.ops.segment_sum(e, index, NODES)[index]


def look_forward(params, x):
    h = x @ params["w"]
    raw = (h @ params["source"])[SENDERS] + (h @ params["goal"])[RECEIVERS]
    alpha = edge_softmax(jnp.where(raw > 0, raw, 0.2 * raw), RECEIVERS)
    y = jax.ops.segment_sum(alpha[:, None] * h[SENDERS], RECEIVERS, NODES)
    return h, raw, alpha, y


def look_loss(params, x, target):
    return mean_square(look_forward(params, x)[-1], target)


def look_gradient(
    within=RECEIVERS,
    slope=lambda raw: jnp.where(raw > 0, 1.0, 0.2),
    join=lambda values, source, goal: values + source + goal,
    d_goal=lambda dr: jax.ops.segment_sum(dr, RECEIVERS, NODES),
):
    def grad_fn(params, x, target):
        h, raw, alpha, y = look_forward(params, x)
        dy = mean_square_back(y, target)
        d_alpha = jnp.sum(dy[RECEIVERS] * h[SENDERS], axis=1)
        total = jax.ops.segment_sum(alpha * d_alpha, within, NODES)[within]
        dr = alpha * (d_alpha - total) * slope(raw)
        ds, dg = jax.ops.segment_sum(dr, SENDERS, NODES), d_goal(dr)
        values = jax.ops.segment_sum(alpha[:, None] * dy[RECEIVERS], SENDERS, NODES)
        dh = join(values, jnp.outer(ds, params["source"]), jnp.outer(dg, params["goal"]))
        return {"w": x.T @ dh, "source": h.T @ ds, "goal": h.T @ dg}

    return grad_fn


def look_make(dtype):
    w, source, goal, x, target = normal(dtype, 82, (3, 4), (4,), (4,), (NODES, 3), (NODES, 4))
    return {"w": w, "source": source, "goal": goal}, (x, target)


look = Problem("graph", look_loss, look_gradient, look_make)

BUGS = [
    net.bug(
        "net_edges_not_reversed",
        {"transposed"},
        "['w0']",
        gather_back=lambda d, c: spread_over(d, c, SENDERS, RECEIVERS),
    ),
    net.bug(
        "net_self_loop_forgotten",
        {"lost_path"},
        "['w0']",
        gather_back=lambda d, c: spread_over(d, c, RECEIVERS, SENDERS) - d,
    ),
    net.bug(
        "net_edge_weights_left_out",
        {"scaled_path"},
        "['b0']",
        gather_back=lambda d, c: spread_over(d, jnp.ones_like(c), RECEIVERS, SENDERS),
    ),
    net.bug("net_pool_not_divided", {"scaled_path"}, "['w1']", d_nodes=lambda d, size: d[GRAPH]),
    look.bug("look_softmax_by_sender", {"wrong_axis", "activation_derivative"}, "['source']", within=SENDERS),
    look.bug(
        "look_leak_left_out", {"activation_derivative"}, "['source']", slope=lambda raw: (raw > 0).astype(raw.dtype)
    ),
    look.bug("look_attention_detached", {"lost_path"}, "['w']", join=lambda values, source, goal: values),
    look.bug(
        "look_goal_by_sender",
        {"wrong_operand", "swapped"},
        "['goal']",
        d_goal=lambda dr: jax.ops.segment_sum(dr, SENDERS, NODES),
    ),
]
RIGHT = [right(net, "net_segments"), right(look, "look_edge_attention")]
