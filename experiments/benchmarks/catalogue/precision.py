"""Formulas that are right on paper and in float64, and fail in float32: bugs of precision, counted in float32 alone.

Each loss is written in its stable form, and so is the right gradient beside the wrong one.
"""

import jax
import jax.numpy as jnp
from jax.nn import log_softmax, sigmoid, softmax, softplus

from experiments.benchmarks.catalogue.case import (
    Problem,
    labels,
    normal,
    one_hot,
    plain,
    squared_error,
    squared_error_backward,
)

THEME = "precision"
FLOAT32_ONLY = {"dtypes": ("float32",)}
UNSTABLE = {"unstable"}
EPSILON = 1e-5


# Linear models with logits up to about ±200: eᶻ overflows float32 above 88, and is 0 below −104.
def wide_make(dtype):
    w, x, y = normal(dtype, 101, (5, 3), (8, 5), (8, 3))
    return 40 * w, (x, y)


def on_linear_model(loss, right_dz) -> Problem:
    def loss_fn(w, x, y):
        return loss(x @ w, y)

    def gradient(dz=right_dz):
        return lambda w, x, y: x.T @ dz(x @ w, y)

    return Problem(THEME, loss_fn, gradient, wide_make)


def cross_entropy(z, y):
    return -(one_hot(labels(102, 8, 3), z) * log_softmax(z)).sum(axis=1).mean()


def cross_entropy_dz(z, y, probabilities=softmax):
    return (probabilities(z) - one_hot(labels(102, 8, 3), z)) / len(z)


def naive_softmax(z):
    return jnp.exp(z) / jnp.exp(z).sum(axis=1, keepdims=True)


def naive_sigmoid(z):
    return jnp.exp(z) / (1 + jnp.exp(z))


def through_probabilities(z, y):
    p = softmax(z)
    dp = -one_hot(labels(102, 8, 3), z) / p / len(z)
    return p * (dp - (dp * p).sum(axis=1, keepdims=True))


def tanh_by_exponentials(z):
    return (jnp.exp(z) - jnp.exp(-z)) / (jnp.exp(z) + jnp.exp(-z))


def soft_maximum(z, y):
    # Everything far below zero.
    return (y**2 * jax.nn.logsumexp(z - 400, axis=1, keepdims=True)).sum()


softmax_logits = on_linear_model(cross_entropy, cross_entropy_dz)
softplus_outputs = on_linear_model(lambda z, y: (y * softplus(z)).mean(), lambda z, y: y * sigmoid(z) / y.size)
tanh_outputs = on_linear_model(
    lambda z, y: squared_error(jnp.tanh(z), y),
    lambda z, y: squared_error_backward(jnp.tanh(z), y) * (1 - jnp.tanh(z) ** 2),
)
logistic_outputs = on_linear_model(
    lambda z, y: (softplus(z) - (y > 0) * z).mean(), lambda z, y: (sigmoid(z) - (y > 0)) / y.size
)
far_below = on_linear_model(soft_maximum, lambda z, y: (y**2).sum(axis=1, keepdims=True) * softmax(z - 400))

EXPONENTIALS = (
    softmax_logits.bug(
        "softmax_overflows",
        UNSTABLE,
        dz=lambda z, y: cross_entropy_dz(z, y, naive_softmax),
        options=FLOAT32_ONLY,
    ),
    softmax_logits.bug("cross_entropy_through_probabilities", UNSTABLE, dz=through_probabilities, options=FLOAT32_ONLY),
    softplus_outputs.bug(
        "softplus_derivative_overflows", UNSTABLE, dz=lambda z, y: y * naive_sigmoid(z) / y.size, options=FLOAT32_ONLY
    ),
    logistic_outputs.bug(
        "sigmoid_overflows", UNSTABLE, dz=lambda z, y: (naive_sigmoid(z) - (y > 0)) / y.size, options=FLOAT32_ONLY
    ),
    tanh_outputs.bug(
        "tanh_by_exponentials_overflows",
        UNSTABLE,
        dz=lambda z, y: squared_error_backward(tanh_by_exponentials(z), y) * (1 - tanh_by_exponentials(z) ** 2),
        options=FLOAT32_ONLY,
    ),
    far_below.bug(
        "softmax_underflows",
        UNSTABLE,
        dz=lambda z, y: (y**2).sum(axis=1, keepdims=True) * naive_softmax(z - 400),
        options=FLOAT32_ONLY,
    ),
)


# Normalization of values with a mean of a thousand beside a spread of one.
def offset_make(dtype):
    h, gamma, y = normal(dtype, 103, (8, 4), (4,), (8, 4))
    return {"h": 1000 + h, "gamma": gamma}, (y,)


def two_pass(h, axis):
    return h.var(axis=axis, keepdims=True)


def one_pass(h, axis):
    return (h**2).mean(axis=axis, keepdims=True) - h.mean(axis=axis, keepdims=True) ** 2


def normalized(axis) -> Problem:
    def standardized(h, variance=two_pass):
        inverse = 1 / jnp.sqrt(variance(h, axis) + EPSILON)
        return (h - h.mean(axis=axis, keepdims=True)) * inverse, inverse

    def loss_fn(params, y):
        return squared_error(params["gamma"] * standardized(params["h"])[0], y)

    def gradient(variance=two_pass):
        def grad_fn(params, y):
            x_hat, inverse = standardized(params["h"], variance)
            dy = squared_error_backward(params["gamma"] * x_hat, y)
            dx_hat = dy * params["gamma"]
            centred = dx_hat - dx_hat.mean(axis=axis, keepdims=True)
            dh = inverse * (centred - x_hat * (dx_hat * x_hat).mean(axis=axis, keepdims=True))
            return {"h": dh, "gamma": (dy * x_hat).sum(axis=0)}

        return grad_fn

    return Problem(THEME, loss_fn, gradient, offset_make)


# Points near each other and far from the origin, and their distances.
def points_make(dtype):
    point, others = normal(dtype, 104, (3,), (6, 3))
    return 3000 + point, (3000 + others,)


def distances(point, others):
    return jnp.sqrt(((point - others) ** 2).sum(axis=1))


def distances_expanded(point, others):
    return jnp.sqrt((point**2).sum() - 2 * others @ point + (others**2).sum(axis=1))


nearby = plain(
    lambda point, others: distances(point, others).sum(),
    lambda point, others: ((point - others) / distances(point, others)[:, None]).sum(axis=0),
    points_make,
    THEME,
)

CANCELLATION = (
    normalized(0).bug("batch_norm_one_pass_variance", UNSTABLE, "['h']", variance=one_pass, options=FLOAT32_ONLY),
    normalized(1).bug("layer_norm_one_pass_variance", UNSTABLE, "['h']", variance=one_pass, options=FLOAT32_ONLY),
    nearby.bug(
        "distance_by_expanded_square",
        UNSTABLE,
        grad_fn=lambda point, others: ((point - others) / distances_expanded(point, others)[:, None]).sum(axis=0),
        options=FLOAT32_ONLY,
    ),
)


# Sizes beyond float32's range on the way to a result within it.
def huge_make(dtype):
    (x,) = normal(dtype, 105, (6,))
    return 1e25 * x, ()


def huge_length(x):
    largest = jnp.abs(x).max()
    return largest * jnp.sqrt(((x / largest) ** 2).sum())


def likelihood_make(dtype):
    w, x = normal(dtype, 106, (4,), (300, 4))
    return w, (x,)


def likelihood_as_product(w, x):
    p = sigmoid(x @ w)
    likelihood = jnp.prod(p)
    return -(x.T @ (likelihood / p * p * (1 - p))) / likelihood


def tiny_make(dtype):
    x, y = normal(dtype, 107, (6,), (6,))
    return 1e-6 * jnp.abs(x), (y,)


length = plain(huge_length, lambda x: x / huge_length(x), huge_make, THEME)
likelihood = plain(lambda w, x: softplus(-x @ w).sum(), lambda w, x: -(x.T @ sigmoid(-x @ w)), likelihood_make, THEME)
logarithm = plain(
    lambda x, y: (y * jnp.log1p(x) ** 2).sum(), lambda x, y: 2 * y * jnp.log1p(x) / (1 + x), tiny_make, THEME
)
growth = plain(
    lambda x, y: (y * jnp.expm1(x) ** 2).sum(), lambda x, y: 2 * y * jnp.expm1(x) * jnp.exp(x), tiny_make, THEME
)

RANGE = (
    length.bug("norm_of_huge_squares", UNSTABLE, grad_fn=lambda x: x / jnp.sqrt((x**2).sum()), options=FLOAT32_ONLY),
    likelihood.bug("likelihood_as_a_product", UNSTABLE, grad_fn=likelihood_as_product, options=FLOAT32_ONLY),
    logarithm.bug(
        "logarithm_of_one_plus_tiny",
        UNSTABLE,
        grad_fn=lambda x, y: 2 * y * jnp.log(1 + x) / (1 + x),
        options=FLOAT32_ONLY,
    ),
    growth.bug(
        "exponential_minus_one_of_tiny",
        UNSTABLE,
        grad_fn=lambda x, y: 2 * y * (jnp.exp(x) - 1) * jnp.exp(x),
        options=FLOAT32_ONLY,
    ),
)

CASES = EXPONENTIALS + CANCELLATION + RANGE
