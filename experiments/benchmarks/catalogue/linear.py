"""Bugs in the backward pass of linear layers: two square ones, z₂ = tanh(x w₁ + b₁) w₂ + b₂, and single large ones."""

import jax.numpy as jnp

from experiments.benchmarks.catalogue.case import Problem, normal, plain, squared_error, squared_error_backward

THEME = "linear"
# As many samples as units: a sum over the wrong axis goes unnoticed by the shapes.
WIDTH = 6


def make(dtype):
    square, vector = (WIDTH, WIDTH), (WIDTH,)
    w1, b1, w2, b2, x, y = normal(dtype, 21, square, vector, square, vector, square, square)
    return {"w1": w1 / 2, "b1": b1, "w2": w2 / 2, "b2": b2}, (x, y)


def loss_fn(params, x, y):
    return squared_error(jnp.tanh(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"], y)


def kernel(inputs, dz):
    return inputs.T @ dz


def bias(dz):
    return dz.sum(axis=0)


def gradient(
    dw1=kernel,
    db1=bias,
    dw2=kernel,
    db2=bias,
    da=lambda dz, w: dz @ w.T,
    dw2_from=lambda x, a: a,
    answer=lambda grads: grads,
):
    def grad_fn(params, x, y):
        a = jnp.tanh(x @ params["w1"] + params["b1"])
        dz2 = squared_error_backward(a @ params["w2"] + params["b2"], y)
        dz1 = da(dz2, params["w2"]) * (1 - a**2)
        return answer({"w1": dw1(x, dz1), "b1": db1(dz1), "w2": dw2(dw2_from(x, a), dz2), "b2": db2(dz2)})

    return grad_fn


def exchanged(first, second):
    return lambda grads: grads | {first: grads[second], second: grads[first]}


two_layers = Problem(THEME, loss_fn, gradient, make)

TWO_LAYERS = (
    two_layers.bug("kernel_transposed", {"transposed"}, "['w2']", dw2=lambda a, dz: dz.T @ a),
    two_layers.bug("input_gradient_untransposed", {"transposed"}, "['w1']", da=lambda dz, w: dz @ w),
    two_layers.bug("kernel_from_inputs_of_other_layer", {"wrong_operand"}, "['w2']", dw2_from=lambda x, a: x),
    two_layers.bug("kernel_without_inputs_transposed", {"transposed"}, "['w1']", dw1=lambda x, dz: x @ dz),
    two_layers.bug("kernel_mean_once_more", {"scaled"}, "['w1']", dw1=lambda x, dz: x.T @ dz / len(x)),
    two_layers.bug(
        "kernel_from_means",
        {"wrong_operand"},
        "['w2']",
        dw2=lambda a, dz: len(a) * jnp.outer(a.mean(axis=0), dz.mean(axis=0)),
    ),
    two_layers.bug("kernel_from_rows_out_of_step", {"shifted"}, "['w1']", dw1=lambda x, dz: jnp.roll(x, 1, 0).T @ dz),
    two_layers.bug("kernel_first_sample", {"subset_of_batch"}, "['w1']", dw1=lambda x, dz: jnp.outer(x[0], dz[0])),
    two_layers.bug("kernel_last_sample_dropped", {"subset_of_batch"}, "['w2']", dw2=lambda a, dz: a[:-1].T @ dz[:-1]),
    two_layers.bug("kernel_every_other_sample", {"subset_of_batch"}, "['w1']", dw1=lambda x, dz: x[::2].T @ dz[::2]),
    two_layers.bug("bias_mean_for_sum", {"scaled"}, "['b1']", db1=lambda dz: dz.mean(axis=0)),
    two_layers.bug("bias_first_sample", {"subset_of_batch"}, "['b2']", db2=lambda dz: dz[0]),
    two_layers.bug("bias_sum_over_units", {"wrong_axis"}, "['b1']", db1=lambda dz: dz.sum(axis=1)),
    two_layers.bug("bias_sum_of_everything", {"wrong_axis"}, "['b2']", db2=lambda dz: jnp.full(dz.shape[1:], dz.sum())),
    two_layers.bug("bias_forgotten", {"zero"}, "['b2']", db2=lambda dz: jnp.zeros_like(dz[0])),
    two_layers.bug("bias_one_entry_negated", {"element"}, "['b1']", db1=lambda dz: dz.sum(axis=0).at[4].multiply(-1)),
    two_layers.bug("first_layer_taken_for_frozen", {"zero"}, "['w1']", dw1=lambda x, dz: jnp.zeros_like(x.T @ dz)),
    two_layers.bug("kernels_swapped", {"swapped"}, answer=exchanged("w1", "w2")),
    two_layers.bug("biases_swapped", {"swapped"}, answer=exchanged("b1", "b2")),
    two_layers.bug("one_unit_forgotten", {"unit"}, "['w2']", dw2=lambda a, dz: (a.T @ dz).at[:, 2].set(0)),
    two_layers.bug("one_input_counted_twice", {"unit"}, "['w1']", dw1=lambda x, dz: (x.T @ dz).at[3].multiply(2)),
    two_layers.bug(
        "hidden_activation_detached",
        {"zero"},
        "['b1']",
        db1=lambda dz: 0 * dz.sum(axis=0),
        dw1=lambda x, dz: 0 * (x.T @ dz),
    ),
)


# A layer that isn't square, where the numbers fit after a reshape though not in their places.
def oblong(dtype):
    w, x, y = normal(dtype, 22, (5, 3), (8, 5), (8, 3))
    return w, (x, y)


def oblong_loss(w, x, y):
    return squared_error(x @ w, y)


def oblong_gradient(w, x, y):
    return x.T @ squared_error_backward(x @ w, y)


oblong_layer = plain(oblong_loss, oblong_gradient, oblong, THEME)


# The bias as the last row of the kernel, beside a column of ones.
def with_ones(x):
    return jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=1)


def folded(dtype):
    w, x, y = normal(dtype, 23, (6, 3), (8, 5), (8, 3))
    return w, (x, y)


def folded_loss(w, x, y):
    return squared_error(with_ones(x) @ w, y)


def folded_gradient(w, x, y):
    return with_ones(x).T @ squared_error_backward(with_ones(x) @ w, y)


def folded_gradient_without_ones(w, x, y):
    dw = x.T @ squared_error_backward(with_ones(x) @ w, y)
    return jnp.zeros_like(w).at[:-1].set(dw)


folded_bias = plain(folded_loss, folded_gradient, folded, THEME)


# A kernel of 10⁴ entries.
def large(dtype):
    w, x, y = normal(dtype, 24, (100, 100), (40, 100), (40, 100))
    return w / 10, (x, y)


large_layer = plain(oblong_loss, oblong_gradient, large, THEME)

# Two blocks of features side by side, (x u, x v), then a square kernel.
HALF = 4


def side_by_side(dtype):
    u, v, w, x, y = normal(dtype, 25, (5, HALF), (5, HALF), (2 * HALF, 3), (8, 5), (8, 3))
    return {"u": u, "v": v, "w": w}, (x, y)


def side_by_side_loss(params, x, y):
    return squared_error(jnp.concatenate([x @ params["u"], x @ params["v"]], axis=1) @ params["w"], y)


def side_by_side_gradient(u_columns=slice(0, HALF), v_columns=slice(HALF, None)):
    def grad_fn(params, x, y):
        joined = jnp.concatenate([x @ params["u"], x @ params["v"]], axis=1)
        dy = squared_error_backward(joined @ params["w"], y)
        djoined = dy @ params["w"].T
        return {"u": x.T @ djoined[:, u_columns], "v": x.T @ djoined[:, v_columns], "w": joined.T @ dy}

    return grad_fn


blocks = Problem(THEME, side_by_side_loss, side_by_side_gradient, side_by_side)

SINGLE_LAYERS = (
    oblong_layer.bug(
        "kernel_transposed_then_reshaped",
        {"transposed"},
        grad_fn=lambda w, x, y: (squared_error_backward(x @ w, y).T @ x).reshape(w.shape),
    ),
    oblong_layer.bug(
        "kernel_of_transposed_shape", {"shape"}, grad_fn=lambda w, x, y: squared_error_backward(x @ w, y).T @ x
    ),
    oblong_layer.bug(
        "kernel_of_every_sample",
        {"shape"},
        grad_fn=lambda w, x, y: x[:, :, None] * squared_error_backward(x @ w, y)[:, None],
    ),
    folded_bias.bug("column_of_ones_forgotten", {"unit"}, grad_fn=folded_gradient_without_ones),
    large_layer.bug(
        "one_entry_of_ten_thousand",
        {"element"},
        grad_fn=lambda w, x, y: oblong_gradient(w, x, y).at[17, 61].multiply(1.5),
    ),
    large_layer.bug(
        "one_entry_of_ten_thousand_zero",
        {"element"},
        grad_fn=lambda w, x, y: oblong_gradient(w, x, y).at[99, 0].set(0),
    ),
    large_layer.bug(
        "one_column_of_a_hundred_scaled",
        {"unit"},
        grad_fn=lambda w, x, y: oblong_gradient(w, x, y).at[:, 40].multiply(0.9),
    ),
    blocks.bug(
        "concatenation_taken_apart_the_other_way", {"swapped"}, u_columns=slice(HALF, None), v_columns=slice(0, HALF)
    ),
    blocks.bug("concatenation_first_block_twice", {"swapped"}, "['v']", v_columns=slice(0, HALF)),
)

CASES = TWO_LAYERS + SINGLE_LAYERS
