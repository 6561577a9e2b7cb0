"""Bugs in the derivative of an activation, each one line: dz of the hidden layer a = f(z)."""

import jax
import jax.numpy as jnp
from jax.nn import sigmoid, softmax
from jax.scipy.special import erf
from jax.scipy.stats import norm

from experiments.benchmarks.catalogue.case import Problem, normal, squared_error, squared_error_backward

THEME = "activations"
SAMPLES, FEATURES, HIDDEN, OUTPUTS = 12, 4, 6, 3
W1 = "['w1']"


def make(dtype):
    w1, b1, w2, x, y = normal(
        dtype, 11, (FEATURES, HIDDEN), (HIDDEN,), (HIDDEN, OUTPUTS), (SAMPLES, FEATURES), (SAMPLES, OUTPUTS)
    )
    return {"w1": w1, "b1": b1, "w2": w2}, (x, y)


def hidden_layer(activation, right_dz, *, theme=THEME, make=make) -> Problem:
    """The problem of an activation; its one line is ``dz``, a function of da, z and a."""

    def loss_fn(params, x, y):
        return squared_error(activation(x @ params["w1"] + params["b1"]) @ params["w2"], y)

    def gradient(dz=right_dz):
        def grad_fn(params, x, y):
            z = x @ params["w1"] + params["b1"]
            a = activation(z)
            dy = squared_error_backward(a @ params["w2"], y)
            cotangent = dz(dy @ params["w2"].T, z, a)
            return {"w1": x.T @ cotangent, "b1": cotangent.sum(axis=0), "w2": a.T @ dy}

        return grad_fn

    return Problem(theme, loss_fn, gradient, make)


logistic = hidden_layer(sigmoid, lambda da, z, a: da * a * (1 - a))
tangent = hidden_layer(jnp.tanh, lambda da, z, a: da * (1 - a**2))

SIGMOIDAL = (
    logistic.bug("sigmoid_without_derivative", {"activation_derivative"}, W1, dz=lambda da, z, a: da),
    logistic.bug("sigmoid_missing_factor", {"activation_derivative"}, W1, dz=lambda da, z, a: da * (1 - a)),
    logistic.bug("sigmoid_rule_on_pre_activation", {"activation_derivative"}, W1, dz=lambda da, z, a: da * z * (1 - z)),
    logistic.bug(
        "sigmoid_derivative_at_activation",
        {"activation_derivative"},
        W1,
        dz=lambda da, z, a: da * sigmoid(a) * (1 - sigmoid(a)),
    ),
    logistic.bug(
        "sigmoid_derivative_twice", {"activation_derivative"}, W1, dz=lambda da, z, a: da * (a * (1 - a)) ** 2
    ),
    logistic.bug("sigmoid_derivative_negated", {"sign"}, W1, dz=lambda da, z, a: da * a * (a - 1)),
    logistic.bug(
        "sigmoid_derivative_replaces_cotangent", {"activation_derivative"}, W1, dz=lambda da, z, a: a * (1 - a)
    ),
    tangent.bug("tanh_by_sigmoid_rule", {"activation_derivative"}, W1, dz=lambda da, z, a: da * a * (1 - a)),
    tangent.bug("tanh_missing_square", {"activation_derivative"}, W1, dz=lambda da, z, a: da * (1 - a)),
    tangent.bug("tanh_square_of_pre_activation", {"activation_derivative"}, W1, dz=lambda da, z, a: da * (1 - z**2)),
    tangent.bug(
        "tanh_derivative_at_activation", {"activation_derivative"}, W1, dz=lambda da, z, a: da * (1 - jnp.tanh(a) ** 2)
    ),
)

ALPHA = 0.2
ELU_ALPHA = 1.5


def leaky(z):
    return jnp.where(z > 0, z, ALPHA * z)


def elu(z):
    return jnp.where(z > 0, z, ELU_ALPHA * jnp.expm1(jnp.minimum(z, 0)))


def hard_tanh(z):
    return jnp.clip(z, -1, 1)


def shrink(z):
    return jnp.sign(z) * jnp.maximum(jnp.abs(z) - 0.5, 0)


rectified = hidden_layer(jax.nn.relu, lambda da, z, a: jnp.where(z > 0, da, 0))
leaky_rectified = hidden_layer(leaky, lambda da, z, a: jnp.where(z > 0, da, ALPHA * da))
exponential = hidden_layer(elu, lambda da, z, a: jnp.where(z > 0, da, da * (a + ELU_ALPHA)))
clipped = hidden_layer(hard_tanh, lambda da, z, a: jnp.where(jnp.abs(z) < 1, da, 0))
shrunk = hidden_layer(shrink, lambda da, z, a: jnp.where(jnp.abs(z) >= 0.5, da, 0))

PIECEWISE = (
    rectified.bug("relu_mask_forgotten", {"activation_derivative", "mask"}, W1, dz=lambda da, z, a: da),
    rectified.bug(
        "relu_mask_inverted", {"activation_derivative", "mask"}, W1, dz=lambda da, z, a: jnp.where(z < 0, da, 0)
    ),
    rectified.bug(
        "relu_mask_of_the_cotangent", {"activation_derivative"}, W1, dz=lambda da, z, a: jnp.where(da > 0, da, 0)
    ),
    # Some units are right by luck, for none of their pre-activations is where the two differ.
    rectified.bug(
        "relu_mask_at_wrong_threshold",
        {"activation_derivative", "mask"},
        W1,
        dz=lambda da, z, a: jnp.where(z >= 0.5, da, 0),
    ),
    rectified.bug("relu_activation_for_step", {"activation_derivative"}, W1, dz=lambda da, z, a: da * a),
    rectified.bug(
        "relu_of_both_signs", {"activation_derivative"}, W1, dz=lambda da, z, a: jnp.where((z > 0) & (da > 0), da, 0)
    ),
    leaky_rectified.bug(
        "leaky_relu_alpha_at_wrong_side",
        {"activation_derivative"},
        W1,
        dz=lambda da, z, a: jnp.where(z > 0, 0.2 * da, da),
    ),
    leaky_rectified.bug(
        "leaky_relu_alpha_forgotten", {"activation_derivative"}, W1, dz=lambda da, z, a: jnp.where(z > 0, da, 0)
    ),
    leaky_rectified.bug(
        "leaky_relu_default_alpha", {"activation_derivative"}, W1, dz=lambda da, z, a: jnp.where(z > 0, da, 0.01 * da)
    ),
    exponential.bug(
        "elu_alpha_of_one", {"activation_derivative"}, W1, dz=lambda da, z, a: jnp.where(z > 0, da, da * (a + 1))
    ),
    exponential.bug(
        "elu_alpha_forgotten", {"activation_derivative"}, W1, dz=lambda da, z, a: jnp.where(z > 0, da, da * jnp.exp(z))
    ),
    clipped.bug("hard_tanh_passes_everything", {"activation_derivative"}, W1, dz=lambda da, z, a: da),
    clipped.bug(
        "hard_tanh_upper_edge_only", {"activation_derivative"}, W1, dz=lambda da, z, a: jnp.where(z < 1, da, 0)
    ),
    shrunk.bug(
        "shrink_positive_side_only", {"activation_derivative"}, W1, dz=lambda da, z, a: jnp.where(z >= 0.5, da, 0)
    ),
)

TANH_SCALE, TANH_CUBE = (2 / 3.141592653589793) ** 0.5, 0.044715


def exact_gelu(z):
    return z * (1 + erf(z / 2**0.5)) / 2


def gelu_by_tanh(z):
    return z * (1 + jnp.tanh(TANH_SCALE * (z + TANH_CUBE * z**3))) / 2


def gelu_by_tanh_derivative(z, cube_slope=3 * TANH_CUBE):
    inner = jnp.tanh(TANH_SCALE * (z + TANH_CUBE * z**3))
    return (1 + inner) / 2 + z * (1 - inner**2) * TANH_SCALE * (1 + cube_slope * z**2) / 2


def silu(z):
    return z * sigmoid(z)


def silu_dz(da, z, a):
    return da * (sigmoid(z) + a * (1 - sigmoid(z)))


exact = hidden_layer(exact_gelu, lambda da, z, a: da * (norm.cdf(z) + z * norm.pdf(z)))
approximate = hidden_layer(gelu_by_tanh, lambda da, z, a: da * gelu_by_tanh_derivative(z))
swish = hidden_layer(silu, silu_dz)
smooth = hidden_layer(jax.nn.softplus, lambda da, z, a: da * sigmoid(z))
soft_sign = hidden_layer(jax.nn.soft_sign, lambda da, z, a: da / (1 + jnp.abs(z)) ** 2)

SMOOTH = (
    exact.bug("gelu_missing_density", {"activation_derivative"}, W1, dz=lambda da, z, a: da * norm.cdf(z)),
    exact.bug(
        "gelu_density_without_z", {"activation_derivative"}, W1, dz=lambda da, z, a: da * (norm.cdf(z) + norm.pdf(z))
    ),
    exact.bug(
        "gelu_derivative_of_its_approximation",
        {"activation_derivative"},
        W1,
        dz=lambda da, z, a: da * gelu_by_tanh_derivative(z),
    ),
    approximate.bug(
        "gelu_tanh_missing_three",
        {"activation_derivative"},
        W1,
        dz=lambda da, z, a: da * gelu_by_tanh_derivative(z, cube_slope=TANH_CUBE),
    ),
    approximate.bug(
        "gelu_tanh_inner_derivative_forgotten",
        {"activation_derivative"},
        W1,
        dz=lambda da, z, a: da * gelu_by_tanh_derivative(z, cube_slope=0),
    ),
    swish.bug("silu_missing_second_term", {"activation_derivative"}, W1, dz=lambda da, z, a: da * sigmoid(z)),
    swish.bug("silu_missing_z", {"activation_derivative"}, W1, dz=lambda da, z, a: silu_dz(da, z, sigmoid(z))),
    smooth.bug("softplus_of_minus_z", {"activation_derivative"}, W1, dz=lambda da, z, a: da * sigmoid(-z)),
    smooth.bug("softplus_derivative_at_activation", {"activation_derivative"}, W1, dz=lambda da, z, a: da * sigmoid(a)),
    soft_sign.bug("softsign_missing_square", {"activation_derivative"}, W1, dz=lambda da, z, a: da / (1 + jnp.abs(z))),
)

normalized = hidden_layer(softmax, lambda da, z, a: a * (da - (da * a).sum(axis=1, keepdims=True)))

SOFTMAX = (
    normalized.bug("softmax_diagonal_jacobian", {"activation_derivative"}, W1, dz=lambda da, z, a: da * a * (1 - a)),
    normalized.bug(
        "softmax_sum_over_the_batch", {"activation_derivative"}, W1, dz=lambda da, z, a: a * (da - (da * a).sum(axis=0))
    ),
    normalized.bug(
        "softmax_sum_without_probabilities",
        {"activation_derivative"},
        W1,
        dz=lambda da, z, a: a * (da - da.sum(axis=1, keepdims=True)),
    ),
    normalized.bug("softmax_sum_forgotten", {"activation_derivative"}, W1, dz=lambda da, z, a: a * da),
    normalized.bug(
        "softmax_sign_of_sum",
        {"activation_derivative"},
        W1,
        dz=lambda da, z, a: a * (da + (da * a).sum(axis=1, keepdims=True)),
    ),
)

CASES = SIGMOIDAL + PIECEWISE + SMOOTH + SOFTMAX
