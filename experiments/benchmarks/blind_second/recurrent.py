"""Recurrent networks: tanh, LSTM, GRU, both directions, several lengths, stacked and fed back."""

import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind_second.common import maker, right, sigmoid
from experiments.benchmarks.catalogue.case import Problem, squared_error, squared_error_backward

THEME = "recurrent"


def zeros(params):
    return {name: jnp.zeros_like(value) for name, value in params.items()}


# Tanh network with a loss at every step


def run(xs, wx, wh, b):
    states = [jnp.zeros((xs.shape[1], wh.shape[0]), xs.dtype)]
    for x in xs:
        states.append(jnp.tanh(x @ wx + states[-1] @ wh + b))
    return states


def plain_loss(params, xs, targets):
    states = run(xs, params["wx"], params["wh"], params["b"])
    return squared_error(jnp.stack(states[1:]), targets)


def plain_gradient(
    previous=lambda states, time: states[time],
    to_previous=lambda dz, wh: dz @ wh.T,
    add_bias=lambda total, dz: total + dz.sum(0),
):
    def grad_fn(params, xs, targets):
        states = run(xs, params["wx"], params["wh"], params["b"])
        d_states = squared_error_backward(jnp.stack(states[1:]), targets)
        grads, carry = zeros(params), 0.0
        for time in reversed(range(len(xs))):
            dz = (d_states[time] + carry) * (1 - states[time + 1] ** 2)
            grads["wx"] += xs[time].T @ dz
            grads["wh"] += previous(states, time).T @ dz
            grads["b"] = add_bias(grads["b"], dz)
            carry = to_previous(dz, params["wh"])
        return grads

    return grad_fn


PLAIN = Problem(
    THEME,
    plain_loss,
    plain_gradient,
    maker(201, {"wx": (3, 4), "wh": (4, 4), "b": (4,)}, (4, 3, 3), (4, 3, 4)),
)

# LSTM with a loss at the last step

GATES = ("input", "forget", "output", "cell")


def lstm_forward(params, xs):
    h = c = jnp.zeros((xs.shape[1], 4), xs.dtype)
    steps = []
    for x in xs:
        u = jnp.concatenate([x, h], 1)
        i, f, o = (sigmoid(u @ params[name]) for name in GATES[:3])
        g = jnp.tanh(u @ params["cell"])
        before, c = c, f * c + i * g
        h = o * jnp.tanh(c)
        steps.append((u, i, f, o, g, before, c))
    return h, steps


def lstm_loss(params, xs, target):
    return squared_error(lstm_forward(params, xs)[0], target)


def lstm_gradient(
    cell_total=lambda dc, through_output: dc + through_output,
    forget=lambda dc, before, after: dc * before,
    to_previous=lambda dc, f: dc * f,
):
    def grad_fn(params, xs, target):
        h, steps = lstm_forward(params, xs)
        dh, dc, grads = squared_error_backward(h, target), jnp.zeros_like(h), zeros(params)
        for u, i, f, o, g, before, after in reversed(steps):
            tanh_c = jnp.tanh(after)
            dc = cell_total(dc, dh * o * (1 - tanh_c**2))
            dz = {
                "input": dc * g * i * (1 - i),
                "forget": forget(dc, before, after) * f * (1 - f),
                "output": dh * tanh_c * o * (1 - o),
                "cell": dc * i * (1 - g**2),
            }
            for name in GATES:
                grads[name] += u.T @ dz[name]
            dh = sum(dz[name] @ params[name].T for name in GATES)[:, xs.shape[2] :]
            dc = to_previous(dc, f)
        return grads

    return grad_fn


LSTM = Problem(THEME, lstm_loss, lstm_gradient, maker(202, dict.fromkeys(GATES, (7, 4)), (4, 3, 3), (3, 4), scale=0.8))

# GRU whose reset gate multiplies the product of the state


def gru_forward(params, xs):
    h = jnp.zeros((xs.shape[1], 4), xs.dtype)
    steps = []
    for x in xs:
        r = sigmoid(x @ params["wr"] + h @ params["ur"])
        z = sigmoid(x @ params["wz"] + h @ params["uz"])
        inner = h @ params["un"] + params["bn"]
        n = jnp.tanh(x @ params["wn"] + r * inner)
        steps.append((x, h, r, z, inner, n))
        h = (1 - z) * n + z * h
    return h, steps


def gru_loss(params, xs, target):
    return squared_error(gru_forward(params, xs)[0], target)


def gru_gradient(
    d_update=lambda dh, h, n: dh * (h - n),
    inner_bias=lambda d_inner, d_new: d_inner.sum(0),
    kept=lambda dh, z: dh * z,
):
    def grad_fn(params, xs, target):
        out, steps = gru_forward(params, xs)
        dh, grads = squared_error_backward(out, target), zeros(params)
        for x, h, r, z, inner, n in reversed(steps):
            d_new = dh * (1 - z) * (1 - n**2)
            d_inner = d_new * r
            d_reset = d_new * inner * r * (1 - r)
            d_z = d_update(dh, h, n) * z * (1 - z)
            for name, d in (("r", d_reset), ("z", d_z), ("n", d_new)):
                grads["w" + name] += x.T @ d
            for name, d in (("r", d_reset), ("z", d_z), ("n", d_inner)):
                grads["u" + name] += h.T @ d
            grads["bn"] += inner_bias(d_inner, d_new)
            dh = kept(dh, z) + d_inner @ params["un"].T + d_reset @ params["ur"].T + d_z @ params["uz"].T
        return grads

    return grad_fn


GRU = Problem(
    THEME,
    gru_loss,
    gru_gradient,
    maker(
        203,
        {"wr": (3, 4), "wz": (3, 4), "wn": (3, 4), "ur": (4, 4), "uz": (4, 4), "un": (4, 4), "bn": (4,)},
        (4, 3, 3),
        (3, 4),
        scale=0.8,
    ),
)

# Both directions


def both_forward(params, xs):
    ahead = run(xs, params["wf"], params["uf"], 0.0)
    back = run(xs[::-1], params["wb"], params["ub"], 0.0)
    return ahead, back, jnp.concatenate([jnp.stack(ahead[1:]), jnp.stack(back[1:])[::-1]], -1)


def both_loss(params, xs, targets):
    return squared_error(both_forward(params, xs)[-1], targets)


def run_backward(xs, states, d_states, wh):
    dwx, dwh, carry = 0.0, 0.0, 0.0
    for time in reversed(range(len(xs))):
        dz = (d_states[time] + carry) * (1 - states[time + 1] ** 2)
        dwx, dwh, carry = dwx + xs[time].T @ dz, dwh + states[time].T @ dz, dz @ wh.T
    return dwx, dwh


def both_gradient(flip=lambda d: d[::-1]):
    def grad_fn(params, xs, targets):
        ahead, back, out = both_forward(params, xs)
        d = squared_error_backward(out, targets)
        dwf, duf = run_backward(xs, ahead, d[..., :3], params["uf"])
        dwb, dub = run_backward(xs[::-1], back, flip(d[..., 3:]), params["ub"])
        return {"wf": dwf, "uf": duf, "wb": dwb, "ub": dub}

    return grad_fn


BOTH = Problem(
    THEME,
    both_loss,
    both_gradient,
    maker(204, {"wf": (4, 3), "uf": (3, 3), "wb": (4, 3), "ub": (3, 3)}, (5, 3, 4), (5, 3, 6)),
)

# Sequences of several lengths, with a learned first state


def lengths_forward(params, xs, lengths):
    h = jnp.broadcast_to(params["h0"], (xs.shape[1], 4))
    steps = []
    for time, x in enumerate(xs):
        new = jnp.tanh(x @ params["wx"] + h @ params["wh"])
        running = (time < lengths)[:, None]
        steps.append((x, h, new, running))
        h = jnp.where(running, new, h)
    return h, steps


def lengths_loss(params, xs, target, lengths):
    return squared_error(lengths_forward(params, xs, lengths)[0], target)


def lengths_gradient(kept=lambda dh, running: jnp.where(running, 0.0, dh), first=lambda dh: dh.sum(0)):
    def grad_fn(params, xs, target, lengths):
        out, steps = lengths_forward(params, xs, lengths)
        dh, grads = squared_error_backward(out, target), zeros(params)
        for x, h, new, running in reversed(steps):
            dz = jnp.where(running, dh * (1 - new**2), 0.0)
            grads["wx"] += x.T @ dz
            grads["wh"] += h.T @ dz
            dh = kept(dh, running) + dz @ params["wh"].T
        return grads | {"h0": first(dh)}

    return grad_fn


LENGTHS = Problem(
    THEME,
    lengths_loss,
    lengths_gradient,
    maker(
        205,
        {"wx": (3, 4), "wh": (4, 4), "h0": (4,)},
        (4, 3, 3),
        (3, 4),
        extra=(np.array([4, 2, 3], np.int32),),
    ),
)

# Two layers


def stacked_forward(params, xs):
    lower = run(xs, params["w1"], params["u1"], 0.0)
    return lower, run(jnp.stack(lower[1:]), params["w2"], params["u2"], 0.0)


def stacked_loss(params, xs, target):
    return squared_error(stacked_forward(params, xs)[1][-1], target)


def stacked_gradient(lower_total=lambda from_above, from_later: from_above + from_later):
    def grad_fn(params, xs, target):
        lower, upper = stacked_forward(params, xs)
        grads, carry1, carry2 = zeros(params), 0.0, squared_error_backward(upper[-1], target)
        for time in reversed(range(len(xs))):
            dz2 = carry2 * (1 - upper[time + 1] ** 2)
            grads["w2"] += lower[time + 1].T @ dz2
            grads["u2"] += upper[time].T @ dz2
            dz1 = lower_total(dz2 @ params["w2"].T, carry1) * (1 - lower[time + 1] ** 2)
            grads["w1"] += xs[time].T @ dz1
            grads["u1"] += lower[time].T @ dz1
            carry1, carry2 = dz1 @ params["u1"].T, dz2 @ params["u2"].T
        return grads

    return grad_fn


STACKED = Problem(
    THEME,
    stacked_loss,
    stacked_gradient,
    maker(206, {"w1": (3, 4), "u1": (4, 4), "w2": (4, 3), "u2": (3, 3)}, (4, 3, 3), (3, 3)),
)

# The output is the next input


def feedback_forward(params, x, steps):
    h, trace = jnp.zeros((x.shape[0], 4), x.dtype), []
    for _ in range(steps):
        before, h = h, jnp.tanh(x @ params["wx"] + h @ params["wh"])
        trace.append((x, before, h))
        x = h @ params["wo"]
    return trace


def feedback_loss(params, x, targets):
    outputs = [h @ params["wo"] for _, _, h in feedback_forward(params, x, len(targets))]
    return squared_error(jnp.stack(outputs), targets)


def feedback_gradient(output_total=lambda own, from_next: own + from_next):
    def grad_fn(params, x, targets):
        trace = feedback_forward(params, x, len(targets))
        d_outputs = squared_error_backward(jnp.stack([h @ params["wo"] for _, _, h in trace]), targets)
        grads, carry, from_next = zeros(params), 0.0, 0.0
        for (x_t, before, h), own in zip(reversed(trace), d_outputs[::-1], strict=True):
            dy = output_total(own, from_next)
            grads["wo"] += h.T @ dy
            dz = (dy @ params["wo"].T + carry) * (1 - h**2)
            grads["wx"] += x_t.T @ dz
            grads["wh"] += before.T @ dz
            carry, from_next = dz @ params["wh"].T, dz @ params["wx"].T
        return grads

    return grad_fn


FEEDBACK = Problem(
    THEME,
    feedback_loss,
    feedback_gradient,
    maker(207, {"wx": (3, 4), "wh": (4, 4), "wo": (4, 3)}, (3, 3), (4, 3, 3)),
)

BUGS = (
    PLAIN.bug(
        "recurrent_state_of_the_same_step",
        ("shifted", "wrong_operand"),
        "['wh']",
        previous=lambda states, time: states[time + 1],
    ),
    PLAIN.bug("recurrent_carry_without_transpose", ("transposed",), "['wx']", to_previous=lambda dz, wh: dz @ wh),
    PLAIN.bug(
        "recurrent_bias_of_first_step_only", ("lost_use", "lost_path"), "['b']", add_bias=lambda total, dz: dz.sum(0)
    ),
    LSTM.bug(
        "lstm_forget_with_new_cell",
        ("shifted", "wrong_operand"),
        "['forget']",
        forget=lambda dc, before, after: dc * after,
    ),
    LSTM.bug("lstm_cell_carry_without_forget", ("scaled_path",), "['cell']", to_previous=lambda dc, f: dc),
    LSTM.bug(
        "lstm_cell_path_overwritten", ("lost_path",), "['input']", cell_total=lambda dc, through_output: through_output
    ),
    GRU.bug("gru_update_gate_reversed", ("sign",), "['wz']", d_update=lambda dh, h, n: dh * (n - h)),
    GRU.bug("gru_inner_bias_without_reset", ("scaled_path",), "['bn']", inner_bias=lambda d_inner, d_new: d_new.sum(0)),
    GRU.bug("gru_kept_state_missed", ("lost_path",), "['wn']", kept=lambda dh, z: 0.0),
    BOTH.bug("both_directions_not_flipped_back", ("kernel_flipped",), "['wb']", flip=lambda d: d),
    LENGTHS.bug(
        "lengths_finished_state_not_carried", ("lost_path", "subset_of_batch"), "['wx']", kept=lambda dh, running: 0.0
    ),
    LENGTHS.bug("lengths_first_state_averaged", ("scaled",), "['h0']", first=lambda dh: dh.mean(0)),
    STACKED.bug(
        "stacked_lower_layer_without_time",
        ("lost_path",),
        "['w1']",
        lower_total=lambda from_above, from_later: from_above,
    ),
    FEEDBACK.bug(
        "feedback_into_next_input_missed", ("lost_use", "lost_path"), "['wo']", output_total=lambda own, from_next: own
    ),
)
RIGHT = (
    right(PLAIN, "recurrent_right"),
    right(LSTM, "lstm_right"),
    right(GRU, "gru_right"),
    right(BOTH, "both_directions_right"),
    right(LENGTHS, "lengths_right"),
    right(STACKED, "stacked_right"),
    right(FEEDBACK, "feedback_right"),
)
