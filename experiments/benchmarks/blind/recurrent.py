"""Backpropagation through time by hand: a character model in NumPy, an LSTM, a GRU, and truncation."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind.model import Model, jax_normal, numpy_normal

TIME, BATCH, INPUTS, HIDDEN = 5, 3, 4, 4


# A character model in NumPy


CHARACTERS = np.array([0, 3, 1, 1, 2, 4])
LETTERS = 5


def characters_loss(params, inputs, targets, start):
    """Return the cross-entropy of the next characters, summed over time."""
    h, loss = start, 0.0
    for letter, target in zip(inputs, targets, strict=True):
        h = np.tanh(params["Wxh"][:, letter] + params["Whh"] @ h + params["bh"])
        scores = params["Why"] @ h + params["by"]
        scores -= scores.max()
        loss += np.log(np.exp(scores).sum()) - scores[target]
    return loss


def characters_gradient(params, inputs, targets, start):
    """Return the gradient of ``characters_loss``."""
    states, probabilities = {-1: start}, {}
    for t, letter in enumerate(inputs):
        states[t] = np.tanh(params["Wxh"][:, letter] + params["Whh"] @ states[t - 1] + params["bh"])
        scores = params["Why"] @ states[t] + params["by"]
        probabilities[t] = np.exp(scores - scores.max())
        probabilities[t] /= probabilities[t].sum()
    gradients = {name: np.zeros_like(value) for name, value in params.items()}
    dh_next = np.zeros_like(start)
    for t in reversed(range(len(inputs))):
        dy = probabilities[t].copy()
        dy[targets[t]] -= 1
        gradients["Why"] += np.outer(dy, states[t])
        gradients["by"] += dy
        dh = params["Why"].T @ dy + dh_next
        dz = (1 - states[t] ** 2) * dh
        gradients["bh"] += dz
        gradients["Wxh"][:, inputs[t]] += dz
        gradients["Whh"] += np.outer(dz, states[t - 1])
        dh_next = params["Whh"].T @ dz
    return {name: gradients[name] for name in params}


def make_characters(dtype):
    """Return the parameters of a character model, five letters, the next ones and a state."""
    wxh, whh, why, bh, by, start = numpy_normal(
        dtype, 31, (HIDDEN, LETTERS), (HIDDEN, HIDDEN), (LETTERS, HIDDEN), (HIDDEN,), (LETTERS,), (HIDDEN,)
    )
    params = {"Wxh": wxh, "Whh": whh / 2, "Why": 2 * why, "bh": bh / 2, "by": by}
    return params, (CHARACTERS[:-1], CHARACTERS[1:], start)


RNN = Model("recurrent in NumPy", characters_loss, characters_gradient, make_characters)


# An LSTM over padded sequences, in a Python loop


def lstm_loss(params, x, y, lengths):
    """Return the squared error of the last state of each sequence; a padded step carries the state on."""
    h = c = jnp.zeros((BATCH, HIDDEN), x.dtype)
    for t in range(TIME):
        gates = x[:, t] @ params["wx"] + h @ params["wh"] + params["b"]
        i, f, o, g = jnp.split(gates, 4, axis=-1)
        i, f, o, g = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jax.nn.sigmoid(o), jnp.tanh(g)
        valid = (t < lengths)[:, None]
        c = jnp.where(valid, f * c + i * g, c)
        h = jnp.where(valid, o * jnp.tanh(c), h)
    return 0.5 * jnp.mean(jnp.sum((h @ params["wy"] - y) ** 2, axis=1))


def lstm_gradient(params, x, y, lengths):
    """Return the gradient of ``lstm_loss``."""
    wx, wh, b, wy = (params[name] for name in ("wx", "wh", "b", "wy"))
    h = c = jnp.zeros((BATCH, HIDDEN), x.dtype)
    tape = []
    for t in range(TIME):
        i, f, o, g = jnp.split(x[:, t] @ wx + h @ wh + b, 4, axis=-1)
        i, f, o, g = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jax.nn.sigmoid(o), jnp.tanh(g)
        valid = (t < lengths)[:, None].astype(x.dtype)
        c_new = valid * (f * c + i * g) + (1 - valid) * c
        tape.append((h, c, c_new, i, f, o, g, valid))
        c, h = c_new, valid * o * jnp.tanh(c_new) + (1 - valid) * h
    derror = (h @ wy - y) / BATCH
    dwy = h.T @ derror
    dh, dc = derror @ wy.T, jnp.zeros_like(c)
    dwx, dwh, db = jnp.zeros_like(wx), jnp.zeros_like(wh), jnp.zeros_like(b)
    for t in reversed(range(TIME)):
        h_old, c_old, c_new, i, f, o, g, valid = tape[t]
        do = valid * dh * jnp.tanh(c_new)
        dc_total = dc + valid * dh * o * (1 - jnp.tanh(c_new) ** 2)
        di, df, dg = valid * dc_total * g, valid * dc_total * c_old, valid * dc_total * i
        parts = [di * i * (1 - i), df * f * (1 - f), do * o * (1 - o), dg * (1 - g**2)]
        dgates = jnp.concatenate(parts, axis=-1)
        dwx = dwx + x[:, t].T @ dgates
        dwh = dwh + h_old.T @ dgates
        db = db + dgates.sum(0)
        dc = valid * dc_total * f + (1 - valid) * dc_total
        dh = dgates @ wh.T + (1 - valid) * dh
    return {"wx": dwx, "wh": dwh, "b": db, "wy": dwy}


def make_lstm(dtype):
    """Return the parameters of an LSTM, three sequences of other lengths and their targets."""
    wx, wh, b, wy, x, y = jax_normal(
        dtype,
        32,
        (INPUTS, 4 * HIDDEN),
        (HIDDEN, 4 * HIDDEN),
        (4 * HIDDEN,),
        (HIDDEN, 2),
        (BATCH, TIME, INPUTS),
        (BATCH, 2),
    )
    return {"wx": wx / 2, "wh": wh / 2, "b": b / 2, "wy": wy}, (x, y, jnp.array([5, 3, 4]))


LSTM = Model("LSTM", lstm_loss, lstm_gradient, make_lstm)


# A GRU with a learned first state, in a scan


def gru_step(params, h, x):
    """Return the new state and what the backward pass needs."""
    z = jax.nn.sigmoid(x @ params["wz"] + h @ params["uz"])
    r = jax.nn.sigmoid(x @ params["wr"] + h @ params["ur"])
    n = jnp.tanh(x @ params["wn"] + (r * h) @ params["un"])
    return (1 - z) * n + z * h, (h, z, r, n)


def gru_loss(params, xs, y):
    """Return the mean squared error of all states, read out by the same weights, from a learned first state."""

    def step(h, x):
        h, _ = gru_step(params, h, x)
        return h, h @ params["wy"]

    start = jnp.broadcast_to(params["h0"], (BATCH, HIDDEN))
    _, outputs = jax.lax.scan(step, start, xs)
    return jnp.mean((outputs - y) ** 2)


def gru_gradient(params, xs, y):
    """Return the gradient of ``gru_loss``."""

    def forward(h, x):
        new, tape = gru_step(params, h, x)
        return new, (new, *tape)

    def backward(carry, step):
        dh, grads = carry
        x, doutput, h_new, h, z, r, n = step
        dh = dh + doutput @ params["wy"].T
        dz = dh * (h - n) * z * (1 - z)
        dn = dh * (1 - z) * (1 - n**2)
        dreset = dn @ params["un"].T
        dr = dreset * h * r * (1 - r)
        new = {"wz": x.T @ dz, "uz": h.T @ dz, "wr": x.T @ dr, "ur": h.T @ dr, "wn": x.T @ dn, "un": (r * h).T @ dn}
        grads = {name: grads[name] + d for name, d in (new | {"wy": h_new.T @ doutput}).items()}
        dh_gates = dz @ params["uz"].T + dr @ params["ur"].T
        dh = dh * z + dreset * r + dh_gates
        return (dh, grads), None

    start = jnp.broadcast_to(params["h0"], (BATCH, HIDDEN))
    _, tape = jax.lax.scan(forward, start, xs)
    doutputs = 2 * (tape[0] @ params["wy"] - y) / y.size
    zeros = {name: jnp.zeros_like(value) for name, value in params.items() if name != "h0"}
    carry = (jnp.zeros_like(start), zeros)
    (dh, grads), _ = jax.lax.scan(backward, carry, (xs, doutputs, *tape), reverse=True)
    return grads | {"h0": dh.sum(0)}


def make_gru(dtype):
    """Return the parameters of a GRU, a batch of sequences along the first axis, and targets."""
    *weights, wy, h0, xs, y = jax_normal(
        dtype, 33, *[(HIDDEN, HIDDEN)] * 6, (HIDDEN, 2), (HIDDEN,), (TIME, BATCH, INPUTS), (TIME, BATCH, 2)
    )
    params = {name: w / 2 for name, w in zip(("wz", "uz", "wr", "ur", "wn", "un"), weights, strict=True)}
    return params | {"wy": wy, "h0": h0}, (xs, y)


GRU = Model("GRU", gru_loss, gru_gradient, make_gru)


# A network whose loss cuts backpropagation after every second step


SPAN = 2


def truncated_loss(params, x, y):
    """Return the mean squared error of a network over time whose state is a constant at every second step."""
    w, u, b, v = params
    h, loss = jnp.zeros((BATCH, HIDDEN), x.dtype), 0.0
    for t in range(TIME):
        h = jax.lax.stop_gradient(h) if t % SPAN == 0 else h
        h = jnp.tanh(x[:, t] @ w + h @ u + b)
        loss = loss + jnp.sum((h @ v - y[:, t]) ** 2)
    return loss / y.size


def truncated_gradient(params, x, y):
    """Return the gradient of ``truncated_loss``."""
    w, u, b, v = params
    states = [jnp.zeros((BATCH, HIDDEN), x.dtype)]
    for t in range(TIME):
        states.append(jnp.tanh(x[:, t] @ w + states[-1] @ u + b))
    dw, du, db, dv = (jnp.zeros_like(leaf) for leaf in params)
    dh = jnp.zeros_like(states[0])
    for t in reversed(range(TIME)):
        dy = 2 * (states[t + 1] @ v - y[:, t]) / y.size
        dv = dv + states[t + 1].T @ dy
        dz = (dy @ v.T + dh) * (1 - states[t + 1] ** 2)
        dw = dw + x[:, t].T @ dz
        du = du + states[t].T @ dz
        db = db + dz.sum(0)
        dh = dz @ u.T if t % SPAN else jnp.zeros_like(dh)
    return (dw, du, db, dv)


def make_truncated(dtype):
    """Return a tuple of parameters, three sequences and targets."""
    w, u, b, v, x, y = jax_normal(
        dtype, 34, *[(HIDDEN, HIDDEN)] * 2, (HIDDEN,), (HIDDEN, 2), (BATCH, TIME, INPUTS), (BATCH, TIME, 2)
    )
    return (w / 2, u, b / 2, v), (x, y)


TRUNCATED = Model("truncated recurrence", truncated_loss, truncated_gradient, make_truncated)


BUGS = (
    RNN.bug(
        "rnn_state_forgets_its_future",
        "lost_path lost_use stop_gradient",
        "['bh']",
        'dh = params["Why"].T @ dy + dh_next',
        'dh = params["Why"].T @ dy',
    ),
    RNN.bug(
        "rnn_recurrent_weights_against_the_new_state",
        "shifted wrong_operand",
        "['Whh']",
        'gradients["Whh"] += np.outer(dz, states[t - 1])',
        'gradients["Whh"] += np.outer(dz, states[t])',
    ),
    RNN.bug(
        "rnn_tanh_of_the_state_before",
        "activation_derivative shifted",
        "['bh']",
        "dz = (1 - states[t] ** 2) * dh",
        "dz = (1 - states[t - 1] ** 2) * dh",
    ),
    RNN.bug(
        "rnn_gradients_clipped",
        "clipped",
        "['Why']",
        "return {name: gradients[name] for name in params}",
        "return {name: np.clip(gradients[name], -0.5, 0.5) for name in params}",
    ),
    RNN.bug(
        "rnn_recurrent_weights_untransposed",
        "transposed",
        "['Whh']",
        'dh_next = params["Whh"].T @ dz',
        'dh_next = params["Whh"] @ dz',
    ),
    RNN.bug(
        "rnn_input_letter_assigned",
        "lost_use unit",
        "['Wxh']",
        'gradients["Wxh"][:, inputs[t]] += dz',
        'gradients["Wxh"][:, inputs[t]] = dz',
    ),
    RNN.bug(
        "rnn_letters_of_the_targets",
        "shifted wrong_operand",
        "['Wxh']",
        'gradients["Wxh"][:, inputs[t]] += dz',
        'gradients["Wxh"][:, targets[t]] += dz',
    ),
    LSTM.bug(
        "lstm_cell_without_its_own_future",
        "lost_path lost_use",
        "['b']",
        "dc = valid * dc_total * f + (1 - valid) * dc_total",
        "dc = (1 - valid) * dc_total",
    ),
    LSTM.bug(
        "lstm_cell_through_the_input_gate",
        "wrong_operand swapped",
        "['b']",
        "dc = valid * dc_total * f + (1 - valid) * dc_total",
        "dc = valid * dc_total * i + (1 - valid) * dc_total",
    ),
    LSTM.bug(
        "lstm_candidate_as_a_gate",
        "activation_derivative",
        "['wx']",
        "do * o * (1 - o), dg * (1 - g**2)]",
        "do * o * (1 - o), dg * g * (1 - g)]",
    ),
    LSTM.bug(
        "lstm_padded_steps_lose_the_state",
        "mask lost_path subset_of_batch",
        "['wh']",
        "dh = dgates @ wh.T + (1 - valid) * dh",
        "dh = dgates @ wh.T",
    ),
    LSTM.bug(
        "lstm_forget_gate_from_the_new_cell",
        "wrong_operand shifted",
        "['wx']",
        "valid * dc_total * c_old,",
        "valid * dc_total * c_new,",
    ),
    GRU.bug(
        "gru_state_without_its_carry",
        "lost_path lost_use",
        "['h0']",
        "dh = dh * z + dreset * r + dh_gates",
        "dh = dreset * r + dh_gates",
    ),
    GRU.bug(
        "gru_reset_gate_left_out",
        "scaled_path wrong_operand lost_path",
        "['h0']",
        "dh = dh * z + dreset * r + dh_gates",
        "dh = dh * z + dreset + dh_gates",
    ),
    GRU.bug(
        "gru_update_gate_of_the_other_convention",
        "sign scaled_path",
        "['wz']",
        "dz = dh * (h - n) * z * (1 - z)",
        "dz = dh * (n - h) * z * (1 - z)",
    ),
    GRU.bug(
        "gru_first_state_a_constant",
        "zero",
        "['h0']",
        'return grads | {"h0": dh.sum(0)}',
        'return grads | {"h0": jnp.zeros(HIDDEN, xs.dtype)}',
    ),
    GRU.bug(
        "gru_candidate_weights_without_the_reset",
        "wrong_operand",
        "['un']",
        '"un": (r * h).T @ dn}',
        '"un": h.T @ dn}',
    ),
    TRUNCATED.bug(
        "truncation_left_out",
        "stop_gradient",
        "[1]",
        "dh = dz @ u.T if t % SPAN else jnp.zeros_like(dh)",
        "dh = dz @ u.T",
    ),
    TRUNCATED.bug(
        "truncation_a_step_early",
        "stop_gradient shifted",
        "[1]",
        "dh = dz @ u.T if t % SPAN else jnp.zeros_like(dh)",
        "dh = dz @ u.T if (t + 1) % SPAN else jnp.zeros_like(dh)",
    ),
)
RIGHT = (RNN.right("rnn"), LSTM.right("lstm"), GRU.right("gru"), TRUNCATED.right("truncated_rnn"))
