"""Bugs in the backward passes of batch norm, layer norm, RMS norm and weight norm."""

import jax.numpy as jnp

from experiments.benchmarks.catalogue.case import Problem, normal, squared_error, squared_error_backward

THEME = "normalization"
# As many samples as features: a mean over the wrong axis goes unnoticed by the shapes.
SAMPLES = FEATURES = 8
EPSILON = 0.05
W, GAMMA, BETA = "['w']", "['gamma']", "['beta']"


def make(dtype):
    w, gamma, beta, x, y = normal(dtype, 31, (5, FEATURES), (FEATURES,), (FEATURES,), (SAMPLES, 5), (SAMPLES, FEATURES))
    return {"w": w, "gamma": 1.5 + gamma / 2, "beta": beta}, (x, y)


def standardized(h, axis, epsilon=EPSILON, mean=None, variance=None):
    """x̂ and 1/σ of a pre-activation."""
    mean = h.mean(axis=axis, keepdims=True) if mean is None else mean
    variance = h.var(axis=axis, keepdims=True) if variance is None else variance
    inverse = 1 / jnp.sqrt(variance + epsilon)
    return (h - mean) * inverse, inverse


def normalized(axis, right_dh) -> Problem:
    """Normalization over an axis before tanh. Its lines: ``dh``, of dy, x̂, γ, 1/σ and h; ``dgamma``; ``dbeta``."""

    def loss_fn(params, x, y):
        x_hat, _ = standardized(x @ params["w"], axis)
        return squared_error(jnp.tanh(params["gamma"] * x_hat + params["beta"]), y)

    def gradient(
        dh=right_dh,
        dgamma=lambda dy, x_hat, h: (dy * x_hat).sum(axis=0),
        dbeta=lambda dy: dy.sum(axis=0),
        answer=lambda grads: grads,
    ):
        def grad_fn(params, x, y):
            h = x @ params["w"]
            x_hat, inverse = standardized(h, axis)
            a = jnp.tanh(params["gamma"] * x_hat + params["beta"])
            dy = squared_error_backward(a, y) * (1 - a**2)
            dw = x.T @ dh(dy, x_hat, params["gamma"], inverse, h)
            return answer({"w": dw, "gamma": dgamma(dy, x_hat, h), "beta": dbeta(dy)})

        return grad_fn

    return Problem(THEME, loss_fn, gradient, make)


def mean(values, axis=0):
    return values.mean(axis=axis, keepdims=True)


def batch_dh(dy, x_hat, gamma, inverse, h, axis=0):
    dx_hat = dy * gamma
    return inverse * (dx_hat - mean(dx_hat, axis) - x_hat * mean(dx_hat * x_hat, axis))


def layer_dh(dy, x_hat, gamma, inverse, h):
    return batch_dh(dy, x_hat, gamma, inverse, h, axis=1)


def batch_dh_divided_by_one_less(dy, x_hat, gamma, inverse, h):
    dx_hat, degrees = dy * gamma, len(h) - 1
    return inverse * (dx_hat - dx_hat.sum(axis=0) / degrees - x_hat * (dx_hat * x_hat).sum(axis=0) / degrees)


def batch_dh_with_unbiased_variance(dy, x_hat, gamma, inverse, h):
    x_hat, inverse = standardized(h, 0, variance=h.var(axis=0, ddof=1))
    return batch_dh(dy, x_hat, gamma, inverse, h)


def batch_dh_without_epsilon(dy, x_hat, gamma, inverse, h):
    return batch_dh(dy, x_hat, gamma, 1 / h.std(axis=0), h)


def batch_dh_without_root(dy, x_hat, gamma, inverse, h):
    return batch_dh(dy, x_hat, gamma, inverse**2, h)


def batch_dh_of_running_statistics(dy, x_hat, gamma, inverse, h):
    # After one step of momentum 0.9 from mean 0 and variance 1.
    x_hat, inverse = standardized(h, 0, mean=0.1 * h.mean(axis=0), variance=0.9 + 0.1 * h.var(axis=0))
    return batch_dh(dy, x_hat, gamma, inverse, h)


batch_norm = normalized(0, batch_dh)

BATCH_NORM = (
    batch_norm.bug(
        "batch_norm_missing_mean_term",
        {"normalization_term"},
        W,
        dh=lambda dy, x_hat, gamma, inverse, h: inverse * gamma * (dy - x_hat * mean(dy * x_hat)),
    ),
    batch_norm.bug(
        "batch_norm_missing_x_hat_term",
        {"normalization_term"},
        W,
        dh=lambda dy, x_hat, gamma, inverse, h: inverse * gamma * (dy - mean(dy)),
    ),
    batch_norm.bug(
        "batch_norm_statistics_taken_for_constants",
        {"normalization_term"},
        W,
        dh=lambda dy, x_hat, gamma, inverse, h: inverse * gamma * dy,
    ),
    batch_norm.bug(
        "batch_norm_sign_of_x_hat_term",
        {"normalization_term"},
        W,
        dh=lambda dy, x_hat, gamma, inverse, h: inverse * gamma * (dy - mean(dy) + x_hat * mean(dy * x_hat)),
    ),
    batch_norm.bug(
        "batch_norm_gamma_forgotten",
        {"scaled_path"},
        W,
        dh=lambda dy, x_hat, gamma, inverse, h: batch_dh(dy, x_hat, 1, inverse, h),
    ),
    batch_norm.bug(
        "batch_norm_deviation_forgotten",
        {"normalization_term", "scaled_path"},
        W,
        dh=lambda dy, x_hat, gamma, inverse, h: batch_dh(dy, x_hat, gamma, 1, h),
    ),
    batch_norm.bug("batch_norm_root_forgotten", {"normalization_term", "scaled_path"}, W, dh=batch_dh_without_root),
    batch_norm.bug(
        "batch_norm_epsilon_forgotten", {"normalization_term", "wrong_operand"}, W, dh=batch_dh_without_epsilon
    ),
    batch_norm.bug("batch_norm_divided_by_one_less", {"normalization_term"}, W, dh=batch_dh_divided_by_one_less),
    batch_norm.bug("batch_norm_unbiased_variance", {"normalization_term"}, W, dh=batch_dh_with_unbiased_variance),
    batch_norm.bug("batch_norm_means_over_features", {"wrong_axis"}, W, dh=layer_dh),
    batch_norm.bug(
        "batch_norm_running_for_batch_statistics",
        {"normalization_term", "wrong_operand"},
        W,
        dh=batch_dh_of_running_statistics,
    ),
    batch_norm.bug(
        "batch_norm_gamma_from_input", {"wrong_operand"}, GAMMA, dgamma=lambda dy, x_hat, h: (dy * h).sum(axis=0)
    ),
    batch_norm.bug("batch_norm_gamma_without_input", {"swapped"}, GAMMA, dgamma=lambda dy, x_hat, h: dy.sum(axis=0)),
    batch_norm.bug("batch_norm_beta_mean_for_sum", {"scaled"}, BETA, dbeta=lambda dy: dy.mean(axis=0)),
    batch_norm.bug("batch_norm_beta_sum_over_features", {"wrong_axis"}, BETA, dbeta=lambda dy: dy.sum(axis=1)),
    batch_norm.bug(
        "batch_norm_gamma_and_beta_swapped",
        {"swapped"},
        answer=lambda grads: grads | {"gamma": grads["beta"], "beta": grads["gamma"]},
    ),
)

layer_norm = normalized(1, layer_dh)

LAYER_NORM = (
    layer_norm.bug("layer_norm_means_over_the_batch", {"wrong_axis"}, W, dh=batch_dh),
    layer_norm.bug(
        "layer_norm_missing_mean_term",
        {"normalization_term"},
        W,
        dh=lambda dy, x_hat, gamma, inverse, h: inverse * (dy * gamma - x_hat * mean(dy * gamma * x_hat, 1)),
    ),
    layer_norm.bug(
        "layer_norm_missing_x_hat_term",
        {"normalization_term"},
        W,
        dh=lambda dy, x_hat, gamma, inverse, h: inverse * (dy * gamma - mean(dy * gamma, 1)),
    ),
    layer_norm.bug(
        "layer_norm_gamma_outside_the_means",
        {"normalization_term"},
        W,
        dh=lambda dy, x_hat, gamma, inverse, h: inverse * gamma * (dy - mean(dy, 1) - x_hat * mean(dy * x_hat, 1)),
    ),
    layer_norm.bug(
        "layer_norm_gamma_sum_over_features",
        {"wrong_axis"},
        GAMMA,
        dgamma=lambda dy, x_hat, h: (dy * x_hat).sum(axis=1),
    ),
)


# Batch norm in prediction mode: the running statistics are constants.
def prediction_make(dtype):
    params, (x, y) = make(dtype)
    running_mean, spread = normal(dtype, 32, (FEATURES,), (FEATURES,))
    return params, (running_mean, 0.5 + spread**2, x, y)


def prediction_loss(params, running_mean, running_variance, x, y):
    x_hat, _ = standardized(x @ params["w"], 0, mean=running_mean, variance=running_variance)
    return squared_error(params["gamma"] * x_hat + params["beta"], y)


def prediction_gradient(
    dh=lambda dy, x_hat, gamma, inverse, h: dy * gamma * inverse, gamma_x_hat=lambda x_hat, h: x_hat
):
    def grad_fn(params, running_mean, running_variance, x, y):
        h = x @ params["w"]
        x_hat, inverse = standardized(h, 0, mean=running_mean, variance=running_variance)
        dy = squared_error_backward(params["gamma"] * x_hat + params["beta"], y)
        dw = x.T @ dh(dy, x_hat, params["gamma"], inverse, h)
        return {"w": dw, "gamma": (dy * gamma_x_hat(x_hat, h)).sum(axis=0), "beta": dy.sum(axis=0)}

    return grad_fn


prediction = Problem(THEME, prediction_loss, prediction_gradient, prediction_make)

PREDICTION = (
    prediction.bug("prediction_mode_with_training_formula", {"normalization_term"}, W, dh=batch_dh),
    prediction.bug(
        "prediction_mode_with_batch_deviation",
        {"normalization_term", "wrong_operand"},
        W,
        dh=lambda dy, x_hat, gamma, inverse, h: dy * gamma * standardized(h, 0)[1],
    ),
    prediction.bug(
        "prediction_mode_variance_for_deviation",
        {"normalization_term", "scaled_path", "wrong_operand"},
        W,
        dh=lambda dy, x_hat, gamma, inverse, h: dy * gamma * inverse**2,
    ),
    prediction.bug(
        "prediction_mode_gamma_by_batch_statistics",
        {"normalization_term", "wrong_operand"},
        GAMMA,
        gamma_x_hat=lambda x_hat, h: standardized(h, 0)[0],
    ),
)


# RMS norm of the features, x / √mean x², and weight norm, w = g v / ‖v‖ for each column.
def rms_loss(params, x, y):
    h = x @ params["w"]
    return squared_error(params["gamma"] * h / jnp.sqrt(mean(h**2, 1) + EPSILON) + params["beta"], y)


def rms_gradient(dh=lambda dx_hat, x_hat, inverse: inverse * (dx_hat - x_hat * mean(dx_hat * x_hat, 1))):
    def grad_fn(params, x, y):
        h = x @ params["w"]
        inverse = 1 / jnp.sqrt(mean(h**2, 1) + EPSILON)
        x_hat = h * inverse
        dy = squared_error_backward(params["gamma"] * x_hat + params["beta"], y)
        dw = x.T @ dh(dy * params["gamma"], x_hat, inverse)
        return {"w": dw, "gamma": (dy * x_hat).sum(axis=0), "beta": dy.sum(axis=0)}

    return grad_fn


rms_norm = Problem(THEME, rms_loss, rms_gradient, make)


def weight_norm_make(dtype):
    v, g, x, y = normal(dtype, 33, (5, 3), (3,), (8, 5), (8, 3))
    return {"v": v, "g": g}, (x, y)


def weight_norm_loss(params, x, y):
    v = params["v"]
    return squared_error(x @ (params["g"] * v / jnp.sqrt((v**2).sum(axis=0))), y)


def weight_norm_gradient(dv=lambda dw, g, unit, length: g / length * (dw - unit * (dw * unit).sum(axis=0))):
    def grad_fn(params, x, y):
        length = jnp.sqrt((params["v"] ** 2).sum(axis=0))
        unit = params["v"] / length
        dw = x.T @ squared_error_backward(x @ (params["g"] * unit), y)
        return {"v": dv(dw, params["g"], unit, length), "g": (dw * unit).sum(axis=0)}

    return grad_fn


weight_norm = Problem(THEME, weight_norm_loss, weight_norm_gradient, weight_norm_make)

FURTHER = (
    rms_norm.bug(
        "rms_norm_taken_for_constant", {"normalization_term"}, W, dh=lambda dx_hat, x_hat, inverse: inverse * dx_hat
    ),
    rms_norm.bug(
        "rms_norm_sum_for_mean",
        {"normalization_term", "scaled_path"},
        W,
        dh=lambda dx_hat, x_hat, inverse: inverse * (dx_hat - x_hat * (dx_hat * x_hat).sum(axis=1, keepdims=True)),
    ),
    weight_norm.bug(
        "weight_norm_projection_forgotten",
        {"lost_path", "normalization_term"},
        "['v']",
        dv=lambda dw, g, unit, length: g / length * dw,
    ),
)

CASES = BATCH_NORM + LAYER_NORM + PREDICTION + FURTHER
