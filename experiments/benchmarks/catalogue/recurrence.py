"""Bugs of backpropagation through time: plain recurrent networks, long short-term memories, gated recurrent units."""

import jax.numpy as jnp
from jax.nn import sigmoid

from experiments.benchmarks.catalogue.case import Problem, normal, squared_error, squared_error_backward

THEME = "recurrence"
SAMPLES, STEPS, INPUTS, WIDTH = 3, 4, 2, 3
W, U, B, H0, C0 = "['w']", "['u']", "['b']", "['h0']", "['c0']"


def made(seed, blocks, *states, every_step=True):
    """Parameters of gates beside each other, learned vectors of the size of the state, and the data, time first."""

    def make(dtype):
        target = (STEPS, SAMPLES, WIDTH) if every_step else (SAMPLES, WIDTH)
        w, u, b, x, y, *vectors = normal(
            dtype, seed, (INPUTS, blocks * WIDTH), (WIDTH, blocks * WIDTH), (blocks * WIDTH,),
            (STEPS, SAMPLES, INPUTS), target, *((WIDTH,) for _ in states),
        )  # fmt: skip
        return {"w": w, "u": u / 1.5, "b": b / 2} | dict(zip(states, vectors, strict=True)), (x, y)

    return make


def sum_of_products(a, dz):
    return jnp.einsum("tnf,tng->fg", a, dz)


# h[t] = tanh(x[t] w + h[t−1] u + b) from zero. The loss is of every step's output, or of the last one's.
def rnn_forward(params, x):
    h, z = [jnp.zeros((SAMPLES, WIDTH), x.dtype)], []
    for given in x:
        z.append(given @ params["w"] + h[-1] @ params["u"] + params["b"])
        h.append(jnp.tanh(z[-1]))
    return jnp.stack(h), jnp.stack(z)


def of_outputs(choose, cotangent) -> Problem:
    """``choose`` takes outputs from all of them; ``cotangent`` gives theirs back to every step."""

    def loss_fn(params, x, y):
        return squared_error(choose(rnn_forward(params, x)[0][1:]), y)

    def gradient(
        given_back=cotangent,
        carry=lambda dz, u, step: dz @ u.T,
        together=lambda dy, carried, step: dy + carried,
        slope=lambda h, z, step: 1 - h[step + 1] ** 2,
        before=lambda h: h[:-1],
        order=range(STEPS - 1, -1, -1),
        db=lambda dz: dz.sum(axis=(0, 1)),
        dw=sum_of_products,
    ):
        def grad_fn(params, x, y):
            h, z = rnn_forward(params, x)
            dy = given_back(squared_error_backward(choose(h[1:]), y))
            carried, dz = jnp.zeros_like(h[0]), [jnp.zeros_like(h[0])] * STEPS
            for step in order:
                dz[step] = together(dy[step], carried, step) * slope(h, z, step)
                carried = carry(dz[step], params["u"], step)
            dz = jnp.stack(dz)
            return {"w": dw(x, dz), "u": sum_of_products(before(h), dz), "b": db(dz)}

        return grad_fn

    return Problem(THEME, loss_fn, gradient, made(341, 1, every_step=choose is every))


def every(h):
    return h


def last(h):
    return h[-1]


def from_last(dy):
    return jnp.zeros((STEPS, *dy.shape), dy.dtype).at[-1].set(dy)


rnn = of_outputs(every, every)
last_step = of_outputs(last, from_last)

PLAIN = (
    rnn.bug("rnn_hidden_gradient_not_carried", {"lost_path"}, U, carry=lambda dz, u, step: 0 * dz),
    rnn.bug(
        "rnn_own_output_forgotten", {"lost_path"}, U,
        together=lambda dy, carried, step: dy if step == STEPS - 1 else carried,
    ),
    rnn.bug(
        "rnn_truncated_every_second_step", {"lost_path"}, U,
        carry=lambda dz, u, step: dz @ u.T if step % 2 else 0 * dz,
    ),
    rnn.bug("rnn_slope_of_the_sum", {"activation_derivative"}, U, slope=lambda h, z, step: 1 - z[step] ** 2),
    rnn.bug(
        "rnn_slope_of_the_step_before", {"activation_derivative", "shifted"}, U,
        slope=lambda h, z, step: 1 - h[step] ** 2
    ),
    rnn.bug("rnn_slope_forgotten", {"activation_derivative"}, U, slope=lambda h, z, step: 1),
    rnn.bug("rnn_kernel_not_transposed", {"transposed"}, U, carry=lambda dz, u, step: dz @ u),
    rnn.bug("rnn_output_after_for_before", {"shifted", "wrong_operand"}, U, before=lambda h: h[1:]),
    rnn.bug(
        "rnn_state_before_the_first_from_the_end", {"wrong_operand"}, U, before=lambda h: jnp.roll(h[1:], 1, axis=0)
    ),
    rnn.bug("rnn_bias_of_the_last_step", {"lost_use"}, B, db=lambda dz: dz[-1].sum(axis=0)),
    rnn.bug("rnn_bias_mean_over_time", {"scaled"}, B, db=lambda dz: dz.mean(axis=0).sum(axis=0)),
    rnn.bug("rnn_kernel_of_the_last_step", {"lost_use", "lost_path"}, W, dw=lambda x, dz: x[-1].T @ dz[-1]),
    rnn.bug(
        "rnn_inputs_in_reverse", {"kernel_flipped", "wrong_operand"}, W, dw=lambda x, dz: sum_of_products(x[::-1], dz)
    ),
    rnn.bug(
        "rnn_backward_in_the_order_of_forward", {"transposed", "kernel_flipped"}, U, order=range(STEPS)
    ),
    last_step.bug(
        "last_step_given_to_the_first", {"lost_path", "wrong_operand"}, W,
        given_back=lambda dy: jnp.zeros((STEPS, *dy.shape), dy.dtype).at[0].set(dy),
    ),
    last_step.bug(
        "last_step_given_to_every_step", {"mask", "accumulated"}, U,
        given_back=lambda dy: jnp.broadcast_to(dy, (STEPS, *dy.shape)),
    ),
    last_step.bug(
        "last_step_given_to_the_one_before", {"shifted"}, U,
        given_back=lambda dy: jnp.zeros((STEPS, *dy.shape), dy.dtype).at[-2].set(dy),
    ),
    last_step.bug(
        "last_step_truncated_at_one_step", {"lost_path", "lost_use"}, W,
        carry=lambda dz, u, step: 0 * dz,
    ),
)  # fmt: skip


# A long short-term memory from learned states; gates in the order input, forget, cell, output.
def lstm_forward(params, x):
    h = jnp.broadcast_to(params["h0"], (SAMPLES, WIDTH))
    c = jnp.broadcast_to(params["c0"], (SAMPLES, WIDTH))
    states, gates = [(h, c)], []
    for given in x:
        i, f, g, o = jnp.split(given @ params["w"] + h @ params["u"] + params["b"], 4, axis=-1)
        i, f, g, o = sigmoid(i), sigmoid(f), jnp.tanh(g), sigmoid(o)
        c = f * c + i * g
        h = o * jnp.tanh(c)
        states.append((h, c))
        gates.append((i, f, g, o))
    return states, gates


def outputs(states):
    return jnp.stack([h for h, _ in states[1:]])


def lstm_loss(params, x, y):
    return squared_error(outputs(lstm_forward(params, x)[0]), y)


def lstm_gradient(
    dh_of=lambda dy, carried: dy + carried,
    dc_of=lambda carried, dh, o, c: carried + dh * o * (1 - jnp.tanh(c) ** 2),
    dc_before=lambda dc, gates, step: dc * gates[step][1],
    di=lambda dc, g, i: dc * g * i * (1 - i),
    df=lambda dc, c_before, f: dc * c_before * f * (1 - f),
    dg=lambda dc, i, g: dc * i * (1 - g**2),
    do=lambda dh, c, o: dh * jnp.tanh(c) * o * (1 - o),
    order=lambda i, f, g, o: (i, f, g, o),
    columns=lambda dw: dw,
    answer=lambda grads: grads,
):
    def grad_fn(params, x, y):
        states, gates = lstm_forward(params, x)
        dy = squared_error_backward(outputs(states), y)
        carried = carried_cell = jnp.zeros_like(dy[0])
        dz = [dy[0]] * STEPS
        for step in reversed(range(STEPS)):
            (i, f, g, o), c, c_before = gates[step], states[step + 1][1], states[step][1]
            dh = dh_of(dy[step], carried)
            dc = dc_of(carried_cell, dh, o, c)
            blocks = order(di(dc, g, i), df(dc, c_before, f), dg(dc, i, g), do(dh, c, o))
            dz[step] = jnp.concatenate(blocks, axis=-1)
            carried, carried_cell = dz[step] @ params["u"].T, dc_before(dc, gates, step)
        dz = jnp.stack(dz)
        before = jnp.stack([h for h, _ in states[:-1]])
        return answer({
            "w": columns(sum_of_products(x, dz)), "u": sum_of_products(before, dz), "b": dz.sum(axis=(0, 1)),
            "h0": carried.sum(axis=0), "c0": carried_cell.sum(axis=0),
        })  # fmt: skip

    return grad_fn


lstm = Problem(THEME, lstm_loss, lstm_gradient, made(342, 4, "h0", "c0"))


def in_another_order(dw):
    """Input, forget, output, cell."""
    i, f, g, o = jnp.split(dw, 4, axis=1)
    return jnp.concatenate([i, f, o, g], axis=1)


LSTM = (
    lstm.bug(
        "lstm_cell_not_carried", {"lost_path"}, U, dc_of=lambda carried, dh, o, c: dh * o * (1 - jnp.tanh(c) ** 2)
    ),
    lstm.bug("lstm_output_not_carried", {"lost_path"}, U, dh_of=lambda dy, carried: dy),
    lstm.bug("lstm_path_of_the_output_into_the_cell_lost", {"lost_path"}, U, dc_of=lambda carried, dh, o, c: carried),
    lstm.bug("lstm_forget_gate_lost", {"lost_path"}, U, df=lambda dc, c_before, f: 0 * dc),
    lstm.bug(
        "lstm_gates_of_forget_and_input_exchanged", {"wrong_operand", "swapped"}, U,
        order=lambda i, f, g, o: (f, i, g, o),
    ),
    lstm.bug("lstm_columns_in_another_order", {"unit"}, W, columns=in_another_order),
    lstm.bug(
        "lstm_output_gate_by_the_rule_of_tanh", {"activation_derivative"}, U,
        do=lambda dh, c, o: dh * jnp.tanh(c) * (1 - o**2),
    ),
    lstm.bug(
        "lstm_tanh_of_the_cell_without_slope", {"activation_derivative"}, U,
        dc_of=lambda carried, dh, o, c: carried + dh * o
    ),
    lstm.bug(
        "lstm_slope_at_the_squashed_cell", {"activation_derivative"}, U,
        dc_of=lambda carried, dh, o, c: carried + dh * o * (1 - jnp.tanh(jnp.tanh(c)) ** 2),
    ),
    lstm.bug("lstm_cell_carried_without_forget_gate", {"scaled_path"}, U, dc_before=lambda dc, gates, step: dc),
    lstm.bug(
        "lstm_cell_carried_by_the_next_forget_gate", {"wrong_operand", "shifted"}, U,
        dc_before=lambda dc, gates, step: dc * gates[min(step + 1, STEPS - 1)][1],
    ),
    lstm.bug(
        "lstm_cell_carried_by_the_input_gate", {"wrong_operand", "scaled_path"}, U,
        dc_before=lambda dc, gates, step: dc * gates[step][0],
    ),
    lstm.bug(
        "lstm_output_gate_by_the_cell", {"wrong_operand", "activation_derivative"}, U,
        do=lambda dh, c, o: dh * c * o * (1 - o),
    ),
    lstm.bug("lstm_input_gate_by_itself", {"wrong_operand"}, U, di=lambda dc, g, i: dc * i * i * (1 - i)),
    lstm.bug("lstm_cell_input_without_gate", {"scaled_path"}, W, dg=lambda dc, i, g: dc * (1 - g**2)),
    lstm.bug(
        "lstm_first_states_swapped", {"swapped"}, H0,
        answer=lambda grads: grads | {"h0": grads["c0"], "c0": grads["h0"]}
    ),
    lstm.bug(
        "lstm_first_state_mean_over_the_batch", {"scaled"}, C0,
        answer=lambda grads: grads | {"c0": grads["c0"] / SAMPLES},
    ),
    lstm.bug("lstm_first_cell_taken_for_constant", {"zero"}, C0, answer=lambda grads: grads | {"c0": 0 * grads["c0"]}),
)  # fmt: skip


# A gated recurrent unit, blocks in the order reset, update, candidate; the reset gate after the product.
D = "['d']"


def gru_forward(params, x):
    h, saved = [jnp.zeros((SAMPLES, WIDTH), x.dtype)], []
    for given in x:
        inputs, recalled = given @ params["w"] + params["b"], h[-1] @ params["u"]
        r, z = jnp.split(sigmoid(inputs[:, : 2 * WIDTH] + recalled[:, : 2 * WIDTH]), 2, axis=-1)
        m = recalled[:, 2 * WIDTH :] + params["d"]
        n = jnp.tanh(inputs[:, 2 * WIDTH :] + r * m)
        h.append((1 - z) * n + z * h[-1])
        saved.append((r, z, n, m))
    return h, saved


def gru_loss(params, x, y):
    return squared_error(jnp.stack(gru_forward(params, x)[0][1:]), y)


def gru_gradient(
    dn=lambda dh, z, n: dh * (1 - z) * (1 - n**2),
    dz_of=lambda dh, h, n, z: dh * (h - n) * z * (1 - z),
    dm=lambda da, r: da * r,
    dr=lambda da, m, r: da * m * r * (1 - r),
    carry=lambda dh, z, through: dh * z + through,
    before=lambda h, r: h,
    dd=lambda dm, da: dm,
):
    def grad_fn(params, x, y):
        h, saved = gru_forward(params, x)
        dy = squared_error_backward(jnp.stack(h[1:]), y)
        dh, grads = jnp.zeros_like(h[0]), {name: jnp.zeros_like(leaf) for name, leaf in params.items()}
        for step in reversed(range(STEPS)):
            (r, z, n, m), dh = saved[step], dy[step] + dh
            candidate = dn(dh, z, n)
            recalled = dm(candidate, r)
            gates = [dr(candidate, m, r), dz_of(dh, h[step], n, z)]
            inner, outer = (jnp.concatenate([*gates, block], axis=-1) for block in (recalled, candidate))
            kernels = h[step].T @ inner[:, : 2 * WIDTH], before(h[step], r).T @ inner[:, 2 * WIDTH :]
            terms = {
                "w": x[step].T @ outer, "u": jnp.concatenate(kernels, axis=1), "b": outer.sum(axis=0),
                "d": dd(recalled, candidate).sum(axis=0),
            }  # fmt: skip
            grads = {name: grads[name] + term for name, term in terms.items()}
            dh = carry(dh, z, inner @ params["u"].T)
        return grads

    return grad_fn


gru = Problem(THEME, gru_loss, gru_gradient, made(343, 3, "d"))

GRU = (
    gru.bug("gru_carry_of_the_last_output_lost", {"lost_path"}, U, carry=lambda dh, z, through: through),
    gru.bug("gru_carry_through_the_gates_lost", {"lost_path"}, U, carry=lambda dh, z, through: dh * z),
    gru.bug(
        "gru_update_gate_taken_for_its_complement", {"wrong_operand", "scaled_path"}, U,
        dn=lambda dh, z, n: dh * z * (1 - n**2), carry=lambda dh, z, through: dh * (1 - z) + through,
    ),
    gru.bug(
        "gru_update_gate_with_the_other_sign", {"scaled_path"}, U, dz_of=lambda dh, h, n, z: dh * (n - h) * z * (1 - z),
    ),
    gru.bug(
        "gru_update_gate_without_the_last_output", {"lost_path"}, U, dz_of=lambda dh, h, n, z: dh * -n * z * (1 - z),
    ),
    gru.bug("gru_reset_gate_lost", {"lost_path"}, U, dr=lambda da, m, r: 0 * da),
    gru.bug("gru_reset_gate_forgotten_in_the_product", {"scaled_path", "wrong_operand"}, U, dm=lambda da, r: da),
    gru.bug("gru_hidden_bias_by_the_candidate", {"wrong_operand", "scaled_path"}, D, dd=lambda dm, da: da),
    gru.bug("gru_reset_gate_before_the_product", {"wrong_operand", "unit"}, U, before=lambda h, r: h * r),
    gru.bug("gru_candidate_without_slope", {"activation_derivative"}, U, dn=lambda dh, z, n: dh * (1 - z)),
    gru.bug(
        "gru_reset_gate_by_the_rule_of_tanh", {"activation_derivative"}, U, dr=lambda da, m, r: da * m * (1 - r**2),
    ),
    gru.bug("gru_update_gate_without_slope", {"activation_derivative"}, U, dz_of=lambda dh, h, n, z: dh * (h - n)),
)  # fmt: skip

CASES = PLAIN + LSTM + GRU
