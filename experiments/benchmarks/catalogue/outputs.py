"""Bugs in the derivatives of further activations, and of losses of values, scores, distributions and labels."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import log_softmax, sigmoid, softmax, softplus

from experiments.benchmarks.catalogue.activations import hidden_layer
from experiments.benchmarks.catalogue.case import Problem, normal

THEME = "activations and losses of layers"
SAMPLES, FEATURES, HIDDEN = 10, 3, 4
# Data as wide as it is long somewhere: a softmax over the wrong axis goes unnoticed by the shapes.
W1, W = "['w1']", "['w']"
LAMBDA, ALPHA = 1.0507009873554805, 1.6732632423543772


def make(dtype):
    w1, b1, w2, x, y = normal(dtype, 351, (FEATURES, HIDDEN), (HIDDEN,), (HIDDEN, 2), (SAMPLES, FEATURES), (SAMPLES, 2))
    return {"w1": w1, "b1": b1 / 4, "w2": w2}, (x, y)


activated = partial(hidden_layer, theme=THEME, make=make)
"""The problem of an activation on these data; its line is ``dz``, a function of da, z and a."""


def selu(z):
    return LAMBDA * jnp.where(z > 0, z, ALPHA * jnp.expm1(jnp.minimum(z, 0)))


def mish(z):
    return z * jnp.tanh(softplus(z))


def squared_relu(z):
    return jax.nn.relu(z) ** 2


def hard_tanh(z):
    return jnp.clip(z, -1, 1)


def mish_slope(z):
    t = jnp.tanh(softplus(z))
    return t + z * (1 - t**2) * sigmoid(z)


def log_softmax_backward(da, z, a):
    return da - jnp.exp(a) * da.sum(axis=-1, keepdims=True)


scaled_exponential = activated(selu, lambda da, z, a: da * jnp.where(z > 0, LAMBDA, a + LAMBDA * ALPHA))
smooth = activated(mish, lambda da, z, a: da * mish_slope(z))
hard = activated(hard_tanh, lambda da, z, a: jnp.where(jnp.abs(z) < 1, da, 0))
squared = activated(squared_relu, lambda da, z, a: da * 2 * jax.nn.relu(z))
log_probabilities = activated(log_softmax, log_softmax_backward)

ACTIVATIONS = (
    scaled_exponential.bug(
        "selu_scale_forgotten", {"scaled", "activation_derivative"}, W1,
        dz=lambda da, z, a: da * jnp.where(z > 0, 1, a / LAMBDA + ALPHA),
    ),
    scaled_exponential.bug(
        "selu_scale_forgotten_below_zero", {"activation_derivative"}, W1,
        dz=lambda da, z, a: da * jnp.where(z > 0, LAMBDA, a / LAMBDA + ALPHA),
    ),
    scaled_exponential.bug(
        "selu_alpha_added_without_scale", {"activation_derivative"}, W1,
        dz=lambda da, z, a: da * jnp.where(z > 0, LAMBDA, a + ALPHA),
    ),
    scaled_exponential.bug(
        "selu_by_the_rule_of_relu", {"activation_derivative", "mask"}, W1,
        dz=lambda da, z, a: da * jnp.where(z > 0, LAMBDA, 0),
    ),
    smooth.bug(
        "mish_first_term_only", {"activation_derivative"}, W1, dz=lambda da, z, a: da * jnp.tanh(softplus(z))
    ),
    smooth.bug(
        "mish_softplus_without_slope", {"activation_derivative"}, W1,
        dz=lambda da, z, a: da * (jnp.tanh(softplus(z)) + z * (1 - jnp.tanh(softplus(z)) ** 2)),
    ),
    smooth.bug(
        "mish_tanh_without_slope", {"activation_derivative"}, W1,
        dz=lambda da, z, a: da * (jnp.tanh(softplus(z)) + z * sigmoid(z)),
    ),
    smooth.bug("mish_slope_at_the_activation", {"activation_derivative"}, W1, dz=lambda da, z, a: da * mish_slope(a)),
    hard.bug(
        "hard_tanh_mask_of_the_activation", {"activation_derivative", "mask"}, W1,
        dz=lambda da, z, a: jnp.where(jnp.abs(a) <= 1, da, 0),
    ),
    hard.bug("hard_tanh_by_the_rule_of_tanh", {"activation_derivative"}, W1, dz=lambda da, z, a: da * (1 - a**2)),
    hard.bug(
        "hard_tanh_above_only", {"activation_derivative", "mask"}, W1, dz=lambda da, z, a: jnp.where(z < 1, da, 0),
    ),
    squared.bug(
        "squared_relu_without_its_two", {"scaled", "activation_derivative"}, W1,
        dz=lambda da, z, a: da * jax.nn.relu(z),
    ),
    squared.bug("squared_relu_of_both_sides", {"activation_derivative", "mask"}, W1, dz=lambda da, z, a: da * 2 * z),
    squared.bug("squared_relu_of_the_square", {"activation_derivative"}, W1, dz=lambda da, z, a: da * 2 * a),
    squared.bug("squared_relu_by_the_step", {"activation_derivative"}, W1, dz=lambda da, z, a: da * 2 * (z > 0)),
    log_probabilities.bug(
        "log_softmax_without_the_sum", {"activation_derivative"}, W1, dz=lambda da, z, a: da - jnp.exp(a)
    ),
    log_probabilities.bug(
        "log_softmax_by_the_rule_of_softmax", {"activation_derivative"}, W1,
        dz=lambda da, z, a: jnp.exp(a) * (da - (da * jnp.exp(a)).sum(axis=-1, keepdims=True)),
    ),
    log_probabilities.bug(
        "log_softmax_sum_over_the_batch", {"activation_derivative", "wrong_axis"}, W1,
        dz=lambda da, z, a: da - jnp.exp(a) * da.sum(axis=0),
    ),
    log_probabilities.bug(
        "log_softmax_logarithms_for_probabilities", {"activation_derivative", "wrong_operand"}, W1,
        dz=lambda da, z, a: da - a * da.sum(axis=-1, keepdims=True),
    ),
    log_probabilities.bug(
        "log_softmax_mean_for_sum", {"activation_derivative"}, W1,
        dz=lambda da, z, a: da - jnp.exp(a) * da.mean(axis=-1, keepdims=True),
    ),
)  # fmt: skip


# Losses of the outputs tanh(x w) v of a small network; the line is ``dp``, their ∂/∂prediction.
OUTPUTS = 3


def predicted(params, x):
    h = jnp.tanh(x @ params["w"])
    return h, h @ params["v"]


def of_predictions(loss, right_dp, targets) -> Problem:
    """``targets`` makes them of normal numbers, ``(samples, outputs)``."""

    def made(dtype):
        w, v, x, y = normal(dtype, 352, (FEATURES, HIDDEN), (HIDDEN, OUTPUTS), (SAMPLES, FEATURES), (SAMPLES, OUTPUTS))
        return {"w": w, "v": v}, (x, targets(y))

    def loss_fn(params, x, y):
        return loss(predicted(params, x)[1], y)

    def gradient(dp=right_dp):
        def grad_fn(params, x, y):
            h, p = predicted(params, x)
            dout = dp(p, y)
            return {"w": x.T @ (dout @ params["v"].T * (1 - h**2)), "v": h.T @ dout}

        return grad_fn

    return Problem(THEME, loss_fn, gradient, made)


DELTA = 0.7


def huber_loss(p, y):
    size = jnp.abs(p - y)
    return jnp.where(size <= DELTA, size**2 / 2, DELTA * (size - DELTA / 2)).mean()


def hinge_loss(p, y):
    return jax.nn.relu(1 - y * p).mean()


def squared_hinge_loss(p, y):
    return (jax.nn.relu(1 - y * p) ** 2).mean()


absolute = of_predictions(lambda p, y: jnp.abs(p - y).mean(), lambda p, y: jnp.sign(p - y) / p.size, lambda y: y)
huber = of_predictions(huber_loss, lambda p, y: jnp.clip(p - y, -DELTA, DELTA) / p.size, lambda y: y)
hinge = of_predictions(hinge_loss, lambda p, y: jnp.where(y * p < 1, -y, 0) / p.size, jnp.sign)
squared_hinge = of_predictions(
    squared_hinge_loss, lambda p, y: jnp.where(y * p < 1, -2 * y * (1 - y * p), 0) / p.size, jnp.sign
)

VALUES = (
    absolute.bug("absolute_error_without_sign", {"loss_derivative"}, W, dp=lambda p, y: (p - y) / p.size),
    absolute.bug("absolute_error_mean_over_the_batch", {"scaled"}, W, dp=lambda p, y: jnp.sign(p - y) / len(p)),
    absolute.bug("absolute_error_sign_of_the_prediction", {"loss_derivative"}, W, dp=lambda p, y: jnp.sign(p) / p.size),
    absolute.bug(
        "absolute_error_sign_of_target_less_prediction", {"sign"}, W, dp=lambda p, y: jnp.sign(y - p) / p.size,
    ),
    huber.bug("huber_delta_of_one", {"loss_derivative"}, W, dp=lambda p, y: jnp.clip(p - y, -1, 1) / p.size),
    huber.bug("huber_never_linear", {"loss_derivative"}, W, dp=lambda p, y: (p - y) / p.size),
    huber.bug(
        "huber_delta_forgotten_beyond", {"loss_derivative"}, W,
        dp=lambda p, y: jnp.where(jnp.abs(p - y) <= DELTA, p - y, jnp.sign(p - y)) / p.size,
    ),
    huber.bug(
        "huber_branches_exchanged", {"loss_derivative", "mask"}, W,
        dp=lambda p, y: jnp.where(jnp.abs(p - y) > DELTA, p - y, DELTA * jnp.sign(p - y)) / p.size,
    ),
    huber.bug(
        "huber_zero_beyond", {"loss_derivative", "mask"}, W,
        dp=lambda p, y: jnp.where(jnp.abs(p - y) <= DELTA, p - y, 0) / p.size,
    ),
    hinge.bug(
        "hinge_margin_forgotten", {"loss_derivative", "mask"}, W, dp=lambda p, y: jnp.where(y * p < 0, -y, 0) / p.size,
    ),
    hinge.bug("hinge_of_all_samples", {"loss_derivative", "mask"}, W, dp=lambda p, y: -y / p.size),
    hinge.bug(
        "hinge_of_the_wrong_side", {"loss_derivative", "mask"}, W, dp=lambda p, y: jnp.where(y * p > 1, -y, 0) / p.size,
    ),
    hinge.bug(
        "hinge_without_target", {"loss_derivative"}, W,
        dp=lambda p, y: jnp.where(y * p < 1, -1.0, 0).astype(p.dtype) / p.size,
    ),
    squared_hinge.bug(
        "squared_hinge_by_the_rule_of_hinge", {"loss_derivative"}, W,
        dp=lambda p, y: jnp.where(y * p < 1, -y, 0) / p.size
    ),
)  # fmt: skip


# The divergence from a teacher's probabilities at a temperature, times its square, as in distillation.
TEMPERATURE = 2.0


def divergence(z, t):
    return TEMPERATURE**2 * (t * (jnp.log(t) - log_softmax(z / TEMPERATURE))).sum(axis=-1).mean()


def teacher(y):
    return softmax(y)


distilled = of_predictions(divergence, lambda z, t: TEMPERATURE * (softmax(z / TEMPERATURE) - t) / len(z), teacher)

DISTRIBUTIONS = (
    distilled.bug(
        "kl_divergence_temperature_forgotten", {"scaled"}, W,
        dp=lambda z, t: TEMPERATURE**2 * (softmax(z / TEMPERATURE) - t) / len(z),
    ),
    distilled.bug(
        "kl_divergence_probabilities_without_temperature", {"loss_derivative"}, W,
        dp=lambda z, t: TEMPERATURE * (softmax(z) - t) / len(z),
    ),
    distilled.bug(
        "kl_divergence_in_the_other_direction", {"loss_derivative"}, W,
        dp=lambda z, t: TEMPERATURE * (t - softmax(z / TEMPERATURE)) * softmax(z / TEMPERATURE) / len(z),
    ),
    distilled.bug(
        "kl_divergence_by_probabilities", {"loss_derivative", "activation_derivative"}, W,
        dp=lambda z, t: -TEMPERATURE * t / softmax(z / TEMPERATURE) / len(z),
    ),
    distilled.bug(
        "kl_divergence_sum_over_the_batch", {"scaled"}, W, dp=lambda z, t: TEMPERATURE * (softmax(z / TEMPERATURE) - t)
    ),
)  # fmt: skip


# The cross-entropy of every token that has a label, smoothed; label −1 stands for none, and for class 0 nowhere.
SMOOTHING = 0.2
UNLABELLED = np.arange(SAMPLES) % 4 == 1


def to_labels(y):
    return jnp.where(UNLABELLED, -1, y.argmax(axis=-1))


def smoothed(labels, share=SMOOTHING, dtype="float64"):
    """Class 0 in the place of no label."""
    return (1 - share) * jax.nn.one_hot(jnp.maximum(labels, 0), OUTPUTS, dtype=dtype) + share / OUTPUTS


def entropy(z, labels):
    losses = -(smoothed(labels, dtype=z.dtype) * log_softmax(z)).sum(axis=-1)
    return jnp.where(labels >= 0, losses, 0).sum() / (labels >= 0).sum()


def entropy_backward(
    z, labels, targets=smoothed, counted=lambda labels: labels >= 0, count=lambda labels: (labels >= 0).sum()
):
    error = softmax(z) - targets(labels, dtype=z.dtype)
    return jnp.where(counted(labels)[:, None], error, 0) / count(labels)


labelled = of_predictions(entropy, entropy_backward, to_labels)


def entropy_bug(name, causes, **lines):
    return labelled.bug(name, causes, W, dp=lambda z, labels: entropy_backward(z, labels, **lines))


def smoothed_among_the_others(labels, dtype):
    own = jax.nn.one_hot(jnp.maximum(labels, 0), OUTPUTS, dtype=dtype)
    return own * (1 - SMOOTHING) + (1 - own) * SMOOTHING / (OUTPUTS - 1)


LABELS = (
    entropy_bug("ignored_labels_counted_in_the_mean", {"scaled"}, count=len),
    entropy_bug("ignored_labels_taken_for_class_0", {"mask"}, counted=lambda labels: labels >= -1),
    entropy_bug("ignored_labels_alone_counted", {"mask"}, counted=lambda labels: labels < 0),
    entropy_bug("class_0_ignored_too", {"mask"}, counted=lambda labels: labels > 0),
    entropy_bug("mask_of_labels_shifted_by_one", {"mask"}, counted=lambda labels: jnp.roll(labels, 1) >= 0),
    entropy_bug("smoothing_left_out", {"loss_derivative"}, targets=lambda labels, dtype: smoothed(labels, 0.0, dtype)),
    entropy_bug("smoothing_among_the_other_classes", {"loss_derivative"}, targets=smoothed_among_the_others),
    entropy_bug(
        "smoothing_without_the_share_of_all", {"loss_derivative"},
        targets=lambda labels, dtype: smoothed(labels, dtype=dtype) - SMOOTHING / OUTPUTS,
    ),
    entropy_bug("cross_entropy_targets_forgotten", {"loss_derivative"}, targets=lambda labels, dtype: 0),
    entropy_bug("cross_entropy_of_tokens_divided_by_classes", {"scaled"}, count=lambda labels: OUTPUTS),
)  # fmt: skip

CASES = ACTIVATIONS + VALUES + DISTRIBUTIONS + LABELS
