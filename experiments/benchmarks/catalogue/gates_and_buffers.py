"""Bugs of longer backward passes: gates, heads, rotations, two directions; and of the arrays that NumPy works in."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import log_softmax, sigmoid, softmax

from experiments.benchmarks.catalogue.case import Problem, normal, squared_error, squared_error_backward

THEME = "gates and buffers"


# A long short-term memory over four steps, its gates beside each other in one kernel: input, forget, output, candidate.
STEPS, WIDTH, SAMPLES = 4, 3, 6


def memory_make(dtype):
    w, b, x, y = normal(dtype, 181, (2 + WIDTH, 4 * WIDTH), (4 * WIDTH,), (STEPS, SAMPLES, 2), (SAMPLES, WIDTH))
    return {"w": w / 2, "b": b / 3}, (x, y)


def memory_states(params, x):
    h = cell = jnp.zeros((SAMPLES, WIDTH), x.dtype)
    states = []
    for step in range(STEPS):
        inputs, before = jnp.concatenate([x[step], h], axis=1), cell
        z = jnp.split(inputs @ params["w"] + params["b"], 4, axis=1)
        gates = (*map(sigmoid, z[:3]), jnp.tanh(z[3]))
        cell = gates[1] * before + gates[0] * gates[3]
        h = gates[2] * jnp.tanh(cell)
        states.append((inputs, gates, before, cell))
    return h, states


def memory_loss(params, x, y):
    return squared_error(memory_states(params, x)[0], y)


def memory_gradient(
    dcell=lambda carried, dh, out, cell: carried + dh * out * (1 - jnp.tanh(cell) ** 2),
    dforget=lambda dc, before, cell: dc * before,
    dcandidate=lambda dc, gate, candidate: dc * gate * (1 - candidate**2),
):
    def grad_fn(params, x, y):
        h, states = memory_states(params, x)
        dh = squared_error_backward(h, y)
        carried, dw, db = jnp.zeros_like(dh), jnp.zeros_like(params["w"]), jnp.zeros_like(params["b"])
        for inputs, (gate, forget, out, candidate), before, cell in reversed(states):
            dc = dcell(carried, dh, out, cell)
            dz = (
                dc * candidate * gate * (1 - gate),
                dforget(dc, before, cell) * forget * (1 - forget),
                dh * jnp.tanh(cell) * out * (1 - out),
                dcandidate(dc, gate, candidate),
            )
            dz = jnp.concatenate(dz, axis=1)
            dw, db = dw + inputs.T @ dz, db + dz.sum(axis=0)
            dh, carried = (dz @ params["w"].T)[:, 2:], dc * forget
        return {"w": dw, "b": db}

    return grad_fn


memory = Problem(THEME, memory_loss, memory_gradient, memory_make)

GATES = (
    memory.bug(
        "memory_forget_gate_of_the_new_cell", {"wrong_operand"}, "['w']", dforget=lambda dc, before, cell: dc * cell
    ),
    memory.bug(
        "memory_cell_not_carried",
        {"lost_path"},
        "['w']",
        dcell=lambda carried, dh, out, cell: dh * out * (1 - jnp.tanh(cell) ** 2),
    ),
    memory.bug(
        "memory_candidate_by_sigmoid_rule",
        {"activation_derivative"},
        "['w']",
        dcandidate=lambda dc, gate, candidate: dc * gate * candidate * (1 - candidate),
    ),
)


# Values summed along the heads, tokens turned by their positions, and states from the last token to the first.
TOKENS = 6


def tokens_make(dtype):
    w, x, y = normal(dtype, 182, (4, 4), (TOKENS, 4), (TOKENS, 4))
    return w, (x, y)


def along_heads(values):
    return jnp.cumsum(values.reshape(TOKENS, 2, 2), axis=1).reshape(TOKENS, 4)


def along_heads_backward(dvalues, axis=1):
    return jnp.flip(jnp.cumsum(jnp.flip(dvalues.reshape(TOKENS, 2, 2), axis), axis), axis).reshape(TOKENS, 4)


def turned(values, sign=1):
    angle = sign * 0.4 * jnp.arange(TOKENS, dtype=values.dtype)[:, None]
    first, second = values[:, :2], values[:, 2:]
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    return jnp.concatenate([first * cosine - second * sine, first * sine + second * cosine], axis=1)


def from_the_end(values):
    return jnp.cumsum(values[::-1], axis=0)[::-1]


def on_tokens(mix, right_dvalues) -> Problem:
    def gradient(dvalues=right_dvalues):
        return lambda w, x, y: x.T @ dvalues(squared_error_backward(mix(x @ w), y))

    return Problem(THEME, lambda w, x, y: squared_error(mix(x @ w), y), gradient, tokens_make)


MIXING = (
    # The last width of the last head is right by chance.
    on_tokens(along_heads, along_heads_backward).bug(
        "heads_taken_for_their_width", {"wrong_axis"}, dvalues=lambda dv: along_heads_backward(dv, axis=2)
    ),
    on_tokens(turned, lambda dv: turned(dv, -1)).bug("rotation_not_turned_back", {"transposed"}, dvalues=turned),
    on_tokens(from_the_end, lambda dv: jnp.cumsum(dv, axis=0)).bug(
        "backward_direction_not_reversed", {"transposed"}, dvalues=from_the_end
    ),
)


# Losses of two parts: a variational bound, two directions of a contrast, quantiles.
def bound_make(dtype):
    mean, log_scale, noise, y = normal(dtype, 183, (5,), (5,), (5,), (5,))
    return {"mean": mean, "log_scale": log_scale / 3}, (noise, y)


def bound_loss(params, noise, y):
    scale = jnp.exp(params["log_scale"])
    divergence = (params["mean"] ** 2 + scale**2 - 1 - 2 * params["log_scale"]).sum() / 2
    return ((params["mean"] + scale * noise - y) ** 2).sum() + divergence


def bound_gradient(divergence=lambda mean, scale: (mean, scale**2 - 1), draw=lambda scale, noise: scale * noise):
    def grad_fn(params, noise, y):
        scale = jnp.exp(params["log_scale"])
        dsample = 2 * (params["mean"] + scale * noise - y)
        dmean, dlog_scale = divergence(params["mean"], scale)
        return {"mean": dsample + dmean, "log_scale": dsample * draw(scale, noise) + dlog_scale}

    return grad_fn


def contrast_loss(w, x, y):
    scores = x @ w @ y.T
    return -(jnp.diag(log_softmax(scores, axis=1)) + jnp.diag(log_softmax(scores, axis=0))).mean() / 2


def contrast_gradient(dscores=lambda s: (softmax(s, axis=1) + softmax(s, axis=0)) / 2):
    return lambda w, x, y: x.T @ ((dscores(x @ w @ y.T) - jnp.eye(TOKENS, dtype=x.dtype)) / TOKENS) @ y


def quantile_make(dtype):
    w, x, y = normal(dtype, 184, (4,), (15, 4), (15,))
    return w, (x, y)


def quantile_loss(w, x, y):
    error = y - x @ w
    return jnp.maximum(0.9 * error, -0.1 * error).mean()


def quantile_gradient(above=-0.9, below=0.1):
    return lambda w, x, y: x.T @ jnp.where(y > x @ w, above, below).astype(x.dtype) / len(y)


bound = Problem(THEME, bound_loss, bound_gradient, bound_make)
contrast = Problem(THEME, contrast_loss, contrast_gradient, tokens_make)
quantile = Problem(THEME, quantile_loss, quantile_gradient, quantile_make)

PARTS = (
    bound.bug(
        "bound_without_its_divergence",
        {"lost_path", "offset_by_parameter"},
        "['mean']",
        divergence=lambda mean, scale: (0, 0),
    ),
    bound.bug("bound_noise_forgotten", {"scaled_path"}, "['log_scale']", draw=lambda scale, noise: scale),
    contrast.bug(
        "contrast_of_rows_only",
        {"activation_derivative", "loss_derivative", "wrong_axis"},
        dscores=lambda s: softmax(s, axis=1),
    ),
    quantile.bug("quantile_sides_exchanged", {"loss_derivative", "mask"}, above=-0.1, below=0.9),
)


# In most units some samples lie beyond the edges of a hard tanh, in one of them none: only that one is right by chance.
def edges_make(dtype):
    w1, b1, w2, x, y = normal(dtype, 185, (5, 7), (7,), (7, 3), (14, 5), (14, 3))
    return {"w1": w1.at[:, 4].multiply(1e-3), "b1": b1.at[4].set(0.1), "w2": w2}, (x, y)


def edges_loss(params, x, y):
    return squared_error(jnp.clip(x @ params["w1"] + params["b1"], -0.8, 0.8) @ params["w2"], y)


def edges_gradient(inside=lambda z: jnp.abs(z) < 0.8):
    def grad_fn(params, x, y):
        z = x @ params["w1"] + params["b1"]
        a = jnp.clip(z, -0.8, 0.8)
        dy = squared_error_backward(a @ params["w2"], y)
        dz = jnp.where(inside(z), dy @ params["w2"].T, 0)
        return {"w1": x.T @ dz, "b1": dz.sum(axis=0), "w2": a.T @ dy}

    return grad_fn


EDGES = (
    Problem(THEME, edges_loss, edges_gradient, edges_make).bug(
        "edges_passed_in_all_units_but_one",
        {"activation_derivative", "mask"},
        "['b1']",
        inside=lambda z: jnp.full(z.shape, True),
    ),
)


# A network by NumPy, whose arrays are changed in place.
def network_make(dtype):
    w1, b1, w2, x, y = normal(dtype, 186, (4, 4), (4,), (4, 4), (10, 4), (10, 4))
    return {"w1": w1, "b1": b1, "w2": w2}, (x, y)


def network_loss(params, x, y):
    return squared_error(jax.nn.relu(x @ params["w1"] + params["b1"]) @ params["w2"], y)


def network_gradient(rectified=lambda z: np.maximum(z, 0), sums=lambda w1, w2: (np.zeros_like(w1), np.zeros_like(w2))):
    def grad_fn(params, x, y):
        w1, b1, w2, x, y = map(np.asarray, (params["w1"], params["b1"], params["w2"], x, y))
        z = np.dot(x, w1) + b1
        a = rectified(z)
        dy = 2 * (np.dot(a, w2) - y) / len(y)
        dz = np.dot(dy, w2.T)
        dz[z < 0] = 0
        dw1, dw2 = sums(w1, w2)
        dw1 += np.dot(x.T, dz)
        dw2 += np.dot(a.T, dy)
        return {"w1": dw1, "b1": dz.sum(axis=0), "w2": dw2}

    return grad_fn


network = Problem(THEME, network_loss, network_gradient, network_make)

BUFFERS = (
    network.bug(
        "rectified_in_place", {"activation_derivative", "mask"}, "['w1']", rectified=lambda z: np.maximum(z, 0, out=z)
    ),
    network.bug("one_buffer_for_two_kernels", {"accumulated"}, "['w1']", sums=lambda w1, w2: (np.zeros_like(w1),) * 2),
)

CASES = GATES + MIXING + PARTS + EDGES + BUFFERS
