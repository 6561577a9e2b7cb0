"""Bugs in the backward pass of a loss, each one line: ∂loss/∂z of a linear model z = x w + b."""

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid, log_softmax, sigmoid, softmax
from jax.scipy.special import xlogy

from experiments.benchmarks.catalogue.case import (
    Problem,
    labels,
    normal,
    one_hot,
    squared_error,
    squared_error_backward,
)

THEME = "losses"
SAMPLES, FEATURES, CLASSES = 8, 5, 3


def on_linear_model(loss, right_dz, make) -> Problem:
    """The problem of a loss ``(z, target)``; its one line is ``dz``, a function of the same."""

    def loss_fn(params, x, target):
        return loss(x @ params["w"] + params["b"], target)

    def gradient(dz=right_dz):
        def grad_fn(params, x, target):
            cotangent = dz(x @ params["w"] + params["b"], target)
            return {"w": x.T @ cotangent, "b": cotangent.sum(axis=0)}

        return grad_fn

    return Problem(THEME, loss_fn, gradient, make)


def linear_model(dtype, outputs=CLASSES):
    w, b, x = normal(dtype, 1, (FEATURES, outputs), (outputs,), (SAMPLES, FEATURES))
    return {"w": w, "b": b}, x


def real_targets(dtype):
    params, x = linear_model(dtype)
    (target,) = normal(dtype, 2, (SAMPLES, CLASSES))
    return params, (x, target)


def yes_or_no(dtype):
    params, x = linear_model(dtype)
    (draw,) = normal(dtype, 3, (SAMPLES, CLASSES))
    return params, (x, (draw > 0).astype(dtype))


def plus_or_minus(dtype):
    params, (x, target) = yes_or_no(dtype)
    return params, (x, 2 * target - 1)


def plus_or_minus_one_output(dtype):
    params, x = linear_model(dtype, outputs=1)
    (draw,) = normal(dtype, 3, (SAMPLES, 1))
    return params, (x, jnp.sign(draw))


def class_labels(dtype):
    params, x = linear_model(dtype)
    return params, (x, labels(4, SAMPLES, CLASSES))


def distributions(dtype):
    params, (x, draw) = real_targets(dtype)
    return params, (x, softmax(draw))


def counts(dtype):
    params, x = linear_model(dtype)
    return params, (x, labels(5, SAMPLES * CLASSES, 5).reshape(SAMPLES, CLASSES).astype(dtype))


mean_squared_error = on_linear_model(squared_error, squared_error_backward, real_targets)

SQUARED = (
    mean_squared_error.bug("mse_missing_two", {"scaled"}, dz=lambda z, y: (z - y) / len(y)),
    mean_squared_error.bug("mse_missing_batch_mean", {"scaled"}, dz=lambda z, y: 2 * (z - y)),
    mean_squared_error.bug("mse_mean_over_outputs_too", {"scaled"}, dz=lambda z, y: 2 * (z - y) / y.size),
    mean_squared_error.bug("mse_sign", {"sign"}, dz=lambda z, y: 2 * (y - z) / len(y)),
    mean_squared_error.bug(
        "mse_gradient_of_absolute_error",
        {"activation_derivative", "loss_derivative"},
        "['w']",
        dz=lambda z, y: jnp.sign(z - y) / len(y),
    ),
)


# On probabilities p = σ(z): dz = dp p (1 − p), and the line is dp.
def binary_cross_entropy(z, y):
    p = sigmoid(z)
    return -(y * jnp.log(p) + (1 - y) * jnp.log(1 - p)).sum(axis=1).mean()


def through_sigmoid(dp):
    return lambda z, y: dp(sigmoid(z), y) * sigmoid(z) * (1 - sigmoid(z)) / len(y)


binary = on_linear_model(binary_cross_entropy, through_sigmoid(lambda p, y: (p - y) / (p * (1 - p))), yes_or_no)

BINARY = (
    binary.bug(
        "bce_missing_reciprocal",
        {"activation_derivative", "loss_derivative", "scaled_path"},
        "['w']",
        dz=through_sigmoid(lambda p, y: p - y),
    ),
    binary.bug(
        "bce_missing_second_term", {"loss_derivative", "lost_path"}, "['w']", dz=through_sigmoid(lambda p, y: -y / p)
    ),
    binary.bug(
        "bce_log_of_the_wrong_side",
        {"loss_derivative", "wrong_operand"},
        "['w']",
        dz=through_sigmoid(lambda p, y: y / (1 - p) - (1 - y) / p),
    ),
    binary.bug(
        "bce_sign_of_second_term",
        {"loss_derivative", "scaled_path"},
        "['w']",
        dz=through_sigmoid(lambda p, y: -y / p - (1 - y) / (1 - p)),
    ),
    binary.bug(
        "bce_missing_one_minus_p",
        {"activation_derivative", "loss_derivative", "wrong_operand"},
        "['w']",
        dz=through_sigmoid(lambda p, y: -y / p + (1 - y) / p),
    ),
    binary.bug(
        "bce_sigmoid_forgotten",
        {"activation_derivative"},
        "['w']",
        dz=lambda z, y: (sigmoid(z) - y) / (sigmoid(z) * (1 - sigmoid(z))) / len(y),
    ),
)


# On probabilities p = softmax(z): dz = p (dp − Σ dp p), and the line is dp.
def categorical_cross_entropy(z, y):
    return -(one_hot(y, z) * jnp.log(softmax(z))).sum(axis=1).mean()


def through_softmax(dp):
    def dz(z, y):
        p = softmax(z)
        cotangent = dp(p, one_hot(y, p)) / len(y)
        return p * (cotangent - (cotangent * p).sum(axis=1, keepdims=True))

    return dz


categorical = on_linear_model(categorical_cross_entropy, through_softmax(lambda p, y: -y / p), class_labels)

CATEGORICAL = (
    categorical.bug(
        "cce_missing_reciprocal",
        {"activation_derivative", "loss_derivative"},
        "['w']",
        dz=through_softmax(lambda p, y: -y),
    ),
    categorical.bug(
        "cce_gradient_of_logits",
        {"activation_derivative", "loss_derivative"},
        "['w']",
        dz=through_softmax(lambda p, y: p - y),
    ),
    categorical.bug("cce_sign", {"sign"}, dz=through_softmax(lambda p, y: y / p)),
    categorical.bug(
        "cce_softmax_jacobian_forgotten",
        {"activation_derivative"},
        "['w']",
        dz=lambda z, y: -one_hot(y, z) / softmax(z) / len(y),
    ),
)


# On logits.
def sigmoid_cross_entropy(z, y):
    return -(y * log_sigmoid(z) + (1 - y) * log_sigmoid(-z)).sum(axis=1).mean()


def softmax_cross_entropy(z, y):
    return -(one_hot(y, z) * log_softmax(z)).sum(axis=1).mean()


SMOOTHING = 0.1


def smooth(y, z):
    return (1 - SMOOTHING) * one_hot(y, z) + SMOOTHING / CLASSES


def smoothed_cross_entropy(z, y):
    return -(smooth(y, z) * log_softmax(z)).sum(axis=1).mean()


def one_hot_cross_entropy(z, y):
    return -(y * log_softmax(z)).sum(axis=1).mean()


def weighted_cross_entropy(z, y):
    weights = jnp.asarray([0.5, 1.0, 3.0], z.dtype)[y]
    return -(weights * (one_hot(y, z) * log_softmax(z)).sum(axis=1)).mean()


def weighted_dz(z, y):
    return jnp.asarray([0.5, 1.0, 3.0], z.dtype)[y][:, None] * (softmax(z) - one_hot(y, z)) / len(y)


sigmoid_logits = on_linear_model(sigmoid_cross_entropy, lambda z, y: (sigmoid(z) - y) / len(y), yes_or_no)
softmax_logits = on_linear_model(
    softmax_cross_entropy, lambda z, y: (softmax(z) - one_hot(y, z)) / len(y), class_labels
)
smoothed = on_linear_model(smoothed_cross_entropy, lambda z, y: (softmax(z) - smooth(y, z)) / len(y), class_labels)
soft_targets = on_linear_model(one_hot_cross_entropy, lambda z, y: (softmax(z) - y) / len(y), distributions)
weighted = on_linear_model(weighted_cross_entropy, weighted_dz, class_labels)

LOGITS = (
    sigmoid_logits.bug("sigmoid_ce_missing_batch_mean", {"scaled"}, dz=lambda z, y: sigmoid(z) - y),
    sigmoid_logits.bug(
        "sigmoid_ce_derivative_once_more",
        {"activation_derivative", "loss_derivative"},
        "['w']",
        dz=lambda z, y: (sigmoid(z) - y) * sigmoid(z) * (1 - sigmoid(z)) / len(y),
    ),
    sigmoid_logits.bug(
        "sigmoid_ce_targets_of_plus_and_minus_one",
        {"loss_derivative", "wrong_operand"},
        "['w']",
        dz=lambda z, y: (sigmoid(z) - (2 * y - 1)) / len(y),
    ),
    sigmoid_logits.bug(
        "sigmoid_ce_linear_residual",
        {"activation_derivative", "loss_derivative"},
        "['w']",
        dz=lambda z, y: (z - y) / len(y),
    ),
    softmax_logits.bug("softmax_ce_missing_batch_mean", {"scaled"}, dz=lambda z, y: softmax(z) - one_hot(y, z)),
    softmax_logits.bug(
        "softmax_ce_mean_over_classes_too", {"scaled"}, dz=lambda z, y: (softmax(z) - one_hot(y, z)) / z.size
    ),
    softmax_logits.bug("softmax_ce_sign", {"sign"}, dz=lambda z, y: (one_hot(y, z) - softmax(z)) / len(y)),
    softmax_logits.bug(
        "softmax_ce_labels_off_by_one",
        {"loss_derivative", "shifted", "wrong_operand"},
        "['w']",
        dz=lambda z, y: (softmax(z) - one_hot(y - 1, z)) / len(y),
    ),
    softmax_logits.bug(
        "softmax_ce_softmax_over_the_batch",
        {"activation_derivative", "loss_derivative", "wrong_axis"},
        "['w']",
        dz=lambda z, y: (softmax(z, axis=0) - one_hot(y, z)) / len(y),
    ),
    softmax_logits.bug(
        "softmax_ce_target_forgotten", {"loss_derivative", "lost_path"}, "['w']", dz=lambda z, y: softmax(z) / len(y)
    ),
    softmax_logits.bug(
        "softmax_ce_gradient_only_at_the_label",
        {"activation_derivative", "loss_derivative", "mask"},
        "['w']",
        dz=lambda z, y: (softmax(z) - 1) * one_hot(y, z) / len(y),
    ),
    smoothed.bug(
        "label_smoothing_forgotten",
        {"loss_derivative", "wrong_operand"},
        "['w']",
        dz=lambda z, y: (softmax(z) - one_hot(y, z)) / len(y),
    ),
    soft_targets.bug(
        "soft_targets_rounded_to_labels",
        {"loss_derivative", "wrong_operand"},
        "['w']",
        dz=lambda z, y: (softmax(z) - one_hot(y.argmax(axis=1), z)) / len(y),
    ),
    weighted.bug(
        "class_weights_forgotten",
        {"loss_derivative", "scaled_path"},
        "['w']",
        dz=lambda z, y: (softmax(z) - one_hot(y, z)) / len(y),
    ),
)

# Losses with a corner, and losses between distributions.
DELTA = 0.7
TEMPERATURE = 2.5


def huber(z, y):
    error = jnp.abs(z - y)
    return jnp.where(error <= DELTA, error**2 / 2, DELTA * (error - DELTA / 2)).sum(axis=1).mean()


def hinge(z, y):
    return jax.nn.relu(1 - y * z).sum(axis=1).mean()


def squared_hinge(z, y):
    return (jax.nn.relu(1 - y * z) ** 2).sum(axis=1).mean()


def divergence(z, p):
    return (xlogy(p, p) - p * log_softmax(z)).sum(axis=1).mean()


def distillation(z, p):
    return divergence(z / TEMPERATURE, p)


def poisson(z, y):
    return (jnp.exp(z) - y * z).sum(axis=1).mean()


def reversed_divergence_dz(z, p):
    q = softmax(z)
    log_ratio = jnp.log(q / p)
    return q * (log_ratio - (q * log_ratio).sum(axis=1, keepdims=True)) / len(p)


huber_loss = on_linear_model(huber, lambda z, y: jnp.clip(z - y, -DELTA, DELTA) / len(y), real_targets)
hinge_loss = on_linear_model(hinge, lambda z, y: jnp.where(y * z < 1, -y, 0) / len(y), plus_or_minus_one_output)
hinges = on_linear_model(hinge, lambda z, y: jnp.where(y * z < 1, -y, 0) / len(y), plus_or_minus)
squared_hinges = on_linear_model(squared_hinge, lambda z, y: -2 * y * jax.nn.relu(1 - y * z) / len(y), plus_or_minus)
kullback_leibler = on_linear_model(divergence, lambda z, p: (softmax(z) - p) / len(p), distributions)
distilled = on_linear_model(
    distillation, lambda z, p: (softmax(z / TEMPERATURE) - p) / TEMPERATURE / len(p), distributions
)
poisson_loss = on_linear_model(poisson, lambda z, y: (jnp.exp(z) - y) / len(y), counts)

OTHERS = (
    huber_loss.bug(
        "huber_slope_one_outside",
        {"activation_derivative", "loss_derivative", "scaled_path"},
        "['w']",
        dz=lambda z, y: jnp.where(jnp.abs(z - y) <= DELTA, z - y, jnp.sign(z - y)) / len(y),
    ),
    huber_loss.bug(
        "huber_never_clipped",
        {"activation_derivative", "loss_derivative", "mask"},
        "['w']",
        dz=lambda z, y: (z - y) / len(y),
    ),
    # With one output, what is left out are whole samples: those inside the margin on the right side.
    hinge_loss.bug(
        "hinge_without_margin",
        {"activation_derivative", "loss_derivative", "mask", "subset_of_batch"},
        "['w']",
        dz=lambda z, y: jnp.where(y * z < 0, -y, 0) / len(y),
    ),
    hinges.bug(
        "hinge_label_forgotten",
        {"loss_derivative", "scaled_path"},
        "['w']",
        dz=lambda z, y: jnp.where(y * z < 1, -1.0, 0) / len(y),
    ),
    hinges.bug(
        "hinge_active_everywhere",
        {"activation_derivative", "loss_derivative", "mask"},
        "['w']",
        dz=lambda z, y: -y / len(y),
    ),
    squared_hinges.bug(
        "squared_hinge_margin_forgotten",
        {"activation_derivative", "loss_derivative", "scaled_path"},
        "['w']",
        dz=lambda z, y: jnp.where(y * z < 1, -2 * y, 0) / len(y),
    ),
    kullback_leibler.bug("kl_sign", {"sign"}, dz=lambda z, p: (p - softmax(z)) / len(p)),
    kullback_leibler.bug("kl_of_the_other_direction", {"loss_derivative"}, "['w']", dz=reversed_divergence_dz),
    distilled.bug(
        "distillation_temperature_forgotten", {"scaled"}, dz=lambda z, p: (softmax(z / TEMPERATURE) - p) / len(p)
    ),
    distilled.bug(
        "distillation_softmax_at_temperature_one",
        {"activation_derivative", "loss_derivative", "scaled_path"},
        "['w']",
        dz=lambda z, p: (softmax(z) - p) / TEMPERATURE / len(p),
    ),
    poisson_loss.bug(
        "poisson_exponential_forgotten",
        {"activation_derivative", "loss_derivative"},
        "['w']",
        dz=lambda z, y: (z - y) / len(y),
    ),
)

CASES = SQUARED + BINARY + CATEGORICAL + LOGITS + OTHERS
