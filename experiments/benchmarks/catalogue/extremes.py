"""Right gradients where numbers are hard: saturation, tiny and huge, at an optimum, cancelled, ill-conditioned."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import log_softmax, sigmoid, softmax

from experiments.benchmarks.catalogue.case import (
    Case,
    labels,
    normal,
    one_hot,
    squared_error,
    squared_error_backward,
)
from experiments.benchmarks.catalogue.normalization import batch_dh, standardized

THEME = "extremes"
# What a gradient of exactly zero is made of: terms of about one, that cancel.
CANCELS = {"scale": 1.0}


def right(name, loss_fn, grad_fn, make, **fields) -> Case:
    return Case(name, THEME, loss_fn, grad_fn, make, **fields)


# Saturated units: a hidden layer whose pre-activations are about ±40, all of them or half.
def saturated_make(bias):
    def make(dtype):
        w1, w2, x, y = normal(dtype, 121, (4, 6), (6, 3), (8, 4), (8, 3))
        return {"w1": w1, "b1": jnp.asarray(bias, dtype), "w2": w2}, (x, y)

    return make


ALL = [40, -40, 40, -40, 41, -42]
HALF = [40, 0.5, -40, 0, 45, -1]


def hidden_layer(activation):
    def loss_fn(params, x, y):
        return squared_error(activation(x @ params["w1"] + params["b1"]) @ params["w2"], y)

    return loss_fn


def hidden_gradient(activation, derivative):
    def grad_fn(params, x, y):
        z = x @ params["w1"] + params["b1"]
        a = activation(z)
        dy = squared_error_backward(a @ params["w2"], y)
        dz = dy @ params["w2"].T * derivative(z, a)
        return {"w1": x.T @ dz, "b1": dz.sum(axis=0), "w2": a.T @ dy}

    return grad_fn


sigmoid_loss = hidden_layer(sigmoid)
sigmoid_gradient = hidden_gradient(sigmoid, lambda z, a: a * (1 - a))
# Where 1 − a rounds to 0, this one still knows e⁻⁴⁰.
sigmoid_gradient_by_reflection = hidden_gradient(sigmoid, lambda z, a: sigmoid(z) * sigmoid(-z))
tanh_loss = hidden_layer(jnp.tanh)
tanh_gradient = hidden_gradient(jnp.tanh, lambda z, a: 1 - a**2)
relu_gradient = hidden_gradient(jax.nn.relu, lambda z, a: (z > 0).astype(z.dtype))

SATURATED = (
    right("sigmoid_half_saturated", sigmoid_loss, sigmoid_gradient, saturated_make(HALF)),
    right("sigmoid_all_saturated", sigmoid_loss, sigmoid_gradient, saturated_make(ALL), **CANCELS),
    right(
        "sigmoid_all_saturated_by_reflection",
        sigmoid_loss,
        sigmoid_gradient_by_reflection,
        saturated_make(ALL),
        **CANCELS,
    ),
    right("tanh_half_saturated", tanh_loss, tanh_gradient, saturated_make(HALF)),
    right("tanh_all_saturated", tanh_loss, tanh_gradient, saturated_make(ALL), **CANCELS),
    right("relu_all_dead", hidden_layer(jax.nn.relu), relu_gradient, saturated_make([-50] * 6)),
    right("relu_half_dead", hidden_layer(jax.nn.relu), relu_gradient, saturated_make([-50, 0.5, -50, 0.1, 1, -50])),
)


# Cross-entropy of logits far apart, where each label is either far ahead or far behind.
def logits_make(size):
    def make(dtype):
        w, x = normal(dtype, 122, (5, 3), (8, 5))
        return size * w, (x, labels(123, 8, 3))

    return make


def cross_entropy(w, x, y):
    return -(one_hot(y, x @ w) * log_softmax(x @ w)).sum(axis=1).mean()


def cross_entropy_gradient(w, x, y):
    z = x @ w
    return x.T @ (softmax(z) - one_hot(y, z)) / len(y)


def cross_entropy_gradient_by_logsumexp(w, x, y):
    z = x @ w
    largest = z.max(axis=1, keepdims=True)
    log_total = largest + jnp.log(jnp.exp(z - largest).sum(axis=1, keepdims=True))
    return x.T @ (jnp.exp(z - log_total) - one_hot(y, z)) / len(y)


def learned_make(dtype):
    """Every label far ahead: nothing is left to learn, to the last digit of float32 and beyond."""
    w, (x, _) = logits_make(60)(dtype)
    return w, (x, (x @ w).argmax(axis=1))


CROSS_ENTROPY = (
    right("logits_of_a_hundred", cross_entropy, cross_entropy_gradient, logits_make(100)),
    right("logits_of_ten_thousand", cross_entropy, cross_entropy_gradient, logits_make(10_000)),
    right("softmax_by_log_sum_exp", cross_entropy, cross_entropy_gradient_by_logsumexp, logits_make(3)),
    right("softmax_saturated_on_the_right_side", cross_entropy, cross_entropy_gradient, learned_make, **CANCELS),
)


# Scales.
def regression_make(dtype):
    w, b, x, y = normal(dtype, 124, (5, 3), (3,), (8, 5), (8, 3))
    return {"w": w, "b": b}, (x, y)


def linear_loss(params, x, y):
    return squared_error(x @ params["w"] + params["b"], y)


def linear_gradient(params, x, y):
    dz = squared_error_backward(x @ params["w"] + params["b"], y)
    return {"w": x.T @ dz, "b": dz.sum(axis=0)}


def scaled(scale):
    def loss_fn(*given):
        return scale * linear_loss(*given)

    def grad_fn(*given):
        return {name: scale * grad for name, grad in linear_gradient(*given).items()}

    return loss_fn, grad_fn


def mixed_loss(params, x, y):
    return 1e4 * squared_error(x @ params["w"], y) + 1e-4 * squared_error(0 * y + params["b"], y)


def mixed_gradient(params, x, y):
    dw = 1e4 * x.T @ squared_error_backward(x @ params["w"], y)
    return {"w": dw, "b": 1e-4 * squared_error_backward(params["b"], y).sum(axis=0)}


SCALES = (
    right("gradient_of_1e_minus_20", *scaled(1e-20), regression_make),
    right("gradient_of_1e_plus_20", *scaled(1e20), regression_make),
    right("leaves_of_mixed_scales", mixed_loss, mixed_gradient, regression_make),
    right("loss_beside_a_million", lambda *given: 1e6 + linear_loss(*given), linear_gradient, regression_make),
    right(
        "constant_loss",
        lambda params, x, y: (x**2).mean(),
        lambda params, x, y: {"w": jnp.zeros_like(params["w"]), "b": jnp.zeros_like(params["b"])},
        regression_make,
    ),
    right("batch_of_one", linear_loss, linear_gradient, lambda dtype: first_samples(dtype, 1)),
)


def first_samples(dtype, number):
    params, (x, y) = regression_make(dtype)
    return params, (x[:number], y[:number])


# At the optimum, and where the problem is ill-conditioned.
def optimum_make(dtype):
    _, (x, y) = regression_make("float64")
    design = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    best = np.linalg.lstsq(design, np.asarray(y), rcond=None)[0]
    return {"w": jnp.asarray(best[:-1], dtype), "b": jnp.asarray(best[-1], dtype)}, (x.astype(dtype), y.astype(dtype))


def uniform_make(dtype):
    (x,) = normal(dtype, 125, (9, 4))
    # Every sample once with every label: zero weights are the best there are.
    return jnp.zeros((4, 3), dtype), (jnp.repeat(x, 3, axis=0), jnp.tile(jnp.arange(3), 9))


def ill_conditioned_make(dtype):
    generator = np.random.default_rng(126)
    rows, columns = np.linalg.qr(generator.normal(size=(12, 6)))[0], np.linalg.qr(generator.normal(size=(6, 6)))[0]
    x = rows * np.geomspace(1, 1e-5, 6) @ columns
    w, y = generator.normal(size=(6, 2)), generator.normal(size=(12, 2))
    return {"w": jnp.asarray(w, dtype), "b": jnp.zeros(2, dtype)}, (jnp.asarray(x, dtype), jnp.asarray(y, dtype))


OPTIMA = (
    right("least_squares_at_the_optimum", linear_loss, linear_gradient, optimum_make, **CANCELS),
    right("cross_entropy_at_the_optimum", cross_entropy, cross_entropy_gradient, uniform_make, **CANCELS),
    right("least_squares_of_condition_1e5", linear_loss, linear_gradient, ill_conditioned_make),
)


# Gradients that are zero because the next layer takes them out.
def invariant_make(samples, mean=0.0):
    def make(dtype):
        w, b, x, y = normal(dtype, 127, (5, 4), (4,), (samples, 5), (samples, 4))
        return {"w": w, "b": mean + b}, (x, y)

    return make


def batch_norm_loss(params, x, y):
    return squared_error(jnp.tanh(standardized(x @ params["w"] + params["b"], 0)[0]), y)


def batch_norm_gradient(params, x, y):
    h = x @ params["w"] + params["b"]
    x_hat, inverse = standardized(h, 0)
    a = jnp.tanh(x_hat)
    dh = batch_dh(squared_error_backward(a, y) * (1 - a**2), x_hat, 1, inverse, h)
    return {"w": x.T @ dh, "b": dh.sum(axis=0)}


def shifted_make(dtype):
    z, y = normal(dtype, 128, (8, 4), (8, 4))
    return {"shift": jnp.asarray(0.7, dtype)}, (z, softmax(y))


def shifted_loss(params, z, p):
    return -(p * log_softmax(z + params["shift"])).sum(axis=1).mean()


def shifted_gradient(params, z, p):
    return {"shift": ((softmax(z + params["shift"]) - p) / len(p)).sum()}


def centred_loss(params, x, y):
    h = x @ params["w"] + params["b"]
    return squared_error(h - h.mean(axis=0), y)


def centred_gradient(params, x, y):
    h = x @ params["w"] + params["b"]
    dy = squared_error_backward(h - h.mean(axis=0), y)
    dh = dy - dy.mean(axis=0)
    return {"w": x.T @ dh, "b": dh.sum(axis=0)}


INVARIANT = (
    right("bias_before_batch_norm", batch_norm_loss, batch_norm_gradient, invariant_make(8), **CANCELS),
    right("bias_before_mean_subtraction", centred_loss, centred_gradient, invariant_make(8), **CANCELS),
    right("batch_norm_of_two_samples", batch_norm_loss, batch_norm_gradient, invariant_make(2), **CANCELS),
    right(
        "batch_norm_at_a_mean_of_a_thousand", batch_norm_loss, batch_norm_gradient, invariant_make(8, 1e3), **CANCELS
    ),
    right("shift_of_all_logits", shifted_loss, shifted_gradient, shifted_make, **CANCELS),
)


# Thirty layers.
def deep_make(scale):
    def make(dtype):
        *layers, x, y = normal(dtype, 129, *[(4, 4)] * 30, (8, 4), (8, 4))
        return [scale * w for w in layers], (x, y)

    return make


def deep(activation, derivative):
    def loss_fn(layers, x, y):
        a = x
        for w in layers:
            a = activation(a @ w)
        return squared_error(a, y)

    def grad_fn(layers, x, y):
        activations = [x]
        for w in layers:
            activations.append(activation(activations[-1] @ w))
        da, grads = squared_error_backward(activations[-1], y), []
        for w, inputs, a in zip(layers[::-1], activations[-2::-1], activations[:0:-1], strict=True):
            dz = da * derivative(a)
            grads.append(inputs.T @ dz)
            da = dz @ w.T
        return grads[::-1]

    return loss_fn, grad_fn


def identity(z):
    return z


DEEP = (
    right("thirty_sigmoid_layers_vanishing", *deep(sigmoid, lambda a: a * (1 - a)), deep_make(1.0)),
    right("thirty_linear_layers_exploding", *deep(identity, jnp.ones_like), deep_make(1.0)),
    right("thirty_tanh_layers_saturating", *deep(jnp.tanh, lambda a: 1 - a**2), deep_make(1.5)),
)


# Sums over many samples, taken in another order than autodiff's.
def many_make(dtype):
    w, x, y = normal(dtype, 130, (3,), (20_000, 3), (20_000,))
    return w, (x, x @ jnp.asarray([0.9, -0.5, 0.2], dtype) + 0.5 * y)


def many_loss(w, x, y):
    return ((x @ w - y) ** 2).mean()


def many_gradient_by_blocks(w, x, y):
    def step(total, block):
        x, y = block
        return total + x.T @ (2 * (x @ w - y) / 20_000), None

    return jax.lax.scan(step, jnp.zeros_like(w), (x.reshape(200, 100, 3), y.reshape(200, 100)))[0]


def many_gradient_by_halving(w, x, y):
    terms = x * (2 * (x @ w - y) / len(y))[:, None]
    while len(terms) > 1:
        odd = terms[len(terms) // 2 * 2 :]
        terms = jnp.concatenate([terms[0 : len(terms) // 2 * 2 : 2] + terms[1::2], odd])
    return terms[0]


def many_gradient_by_moments(w, x, y):
    return 2 * (x.T @ x / len(y) @ w - x.T @ y / len(y))


MANY = (
    right("twenty_thousand_samples_by_blocks", many_loss, many_gradient_by_blocks, many_make),
    right("twenty_thousand_samples_by_halving", many_loss, many_gradient_by_halving, many_make),
    right("twenty_thousand_samples_by_moments", many_loss, many_gradient_by_moments, many_make),
)

CASES = SATURATED + CROSS_ENTROPY + SCALES + OPTIMA + INVARIANT + DEEP + MANY
