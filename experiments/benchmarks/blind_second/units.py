"""Ordinary mistakes in single units: activations, penalties, shared weights, polynomials and forms."""

import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind_second.common import maker, right, sigmoid
from experiments.benchmarks.catalogue.case import Problem, squared_error, squared_error_backward

THEME = "ordinary units"
LAYER = {"w": (4, 3), "b": (3,)}


def dense_backward(x, dz):
    return {"w": x.T @ dz, "b": dz.sum(0)}


# Logistic regression with an L1 penalty


def logistic_loss(params, x, labels):
    z = x @ params["w"] + params["b"]
    return (jnp.log(1 + jnp.exp(z)) - labels * z).mean() + 0.2 * abs(params["w"]).sum()


def logistic_gradient(
    difference=lambda p, labels: p - labels,
    penalty=lambda w: 0.2 * jnp.sign(w),
    penalty_b=lambda b: 0.0,
):
    def grad_fn(params, x, labels):
        p = sigmoid(x @ params["w"] + params["b"])
        dz = (p - labels) / len(x)
        return {
            "w": x.T @ difference(p, labels) / len(x) + penalty(params["w"]),
            "b": dz.sum() + penalty_b(params["b"]),
        }

    return grad_fn


LOGISTIC = Problem(
    THEME,
    logistic_loss,
    logistic_gradient,
    maker(1201, {"w": (4,), "b": ()}, (6, 4), extra=(np.array([1.0, 0, 0, 1, 1, 0]),)),
)

# Activations


def swish_loss(params, x, target):
    z = x @ params["w"] + params["b"]
    return squared_error(z * sigmoid(z), target)


def swish_gradient(slope=lambda z, s: s + z * s * (1 - s)):
    def grad_fn(params, x, target):
        z = x @ params["w"] + params["b"]
        s = sigmoid(z)
        return dense_backward(x, squared_error_backward(z * s, target) * slope(z, s))

    return grad_fn


SWISH = Problem(THEME, swish_loss, swish_gradient, maker(1202, LAYER, (5, 4), (5, 3)))
ROOT = (2 / np.pi) ** 0.5


def gelu_loss(params, x, target):
    z = x @ params["w"] + params["b"]
    return squared_error(z / 2 * (1 + jnp.tanh(ROOT * (z + 0.044715 * z**3))), target)


def gelu_gradient(inner=lambda z: ROOT * (1 + 3 * 0.044715 * z**2)):
    def grad_fn(params, x, target):
        z = x @ params["w"] + params["b"]
        tanh = jnp.tanh(ROOT * (z + 0.044715 * z**3))
        dy = squared_error_backward(z / 2 * (1 + tanh), target)
        return dense_backward(x, dy * ((1 + tanh) / 2 + z / 2 * (1 - tanh**2) * inner(z)))

    return grad_fn


GELU = Problem(THEME, gelu_loss, gelu_gradient, maker(1203, LAYER, (5, 4), (5, 3)))


def leaky_loss(params, x, target):
    z = x @ params["w"]
    return squared_error(jnp.where(z > 0, z, params["slope"] * z), target)


def leaky_gradient(
    d_slope=lambda dy, z: (dy * jnp.minimum(z, 0)).sum(0),
    d_input=lambda dy, z, slope: jnp.where(z > 0, dy, slope * dy),
):
    def grad_fn(params, x, target):
        z = x @ params["w"]
        dy = squared_error_backward(jnp.where(z > 0, z, params["slope"] * z), target)
        return {"w": x.T @ d_input(dy, z, params["slope"]), "slope": d_slope(dy, z)}

    return grad_fn


LEAKY = Problem(THEME, leaky_loss, leaky_gradient, maker(1204, {"w": (4, 3), "slope": (3,)}, (6, 4), (6, 3)))


def gated_forward(params, x):
    z = x @ params["w"]
    return z[:, :3], sigmoid(z[:, 3:])


def gated_loss(params, x, target):
    value, gate = gated_forward(params, x)
    return squared_error(value * gate, target)


def gated_gradient(join=lambda d_value, d_gate: jnp.concatenate([d_value, d_gate], 1)):
    def grad_fn(params, x, target):
        value, gate = gated_forward(params, x)
        dy = squared_error_backward(value * gate, target)
        return {"w": x.T @ join(dy * gate, dy * value * gate * (1 - gate))}

    return grad_fn


GATED = Problem(THEME, gated_loss, gated_gradient, maker(1205, {"w": (4, 6)}, (5, 4), (5, 3)))

# Polynomial with a learned center


def polynomial_loss(params, x, target):
    powers = (x - params["center"])[:, None] ** np.arange(4)
    return ((powers @ params["c"] - target) ** 2).mean()


def polynomial_gradient(exponents=lambda k: k, inner=-1.0, d_c=lambda powers, dy: powers.T @ dy):
    def grad_fn(params, x, target):
        offset = (x - params["center"])[:, None]
        powers = offset ** np.arange(4)
        dy = 2 * (powers @ params["c"] - target) / len(x)
        slope = (exponents(np.arange(1, 4)) * powers[:, :3]) @ params["c"][1:]
        return {"c": d_c(powers, dy), "center": inner * (dy * slope).sum()}

    return grad_fn


POLYNOMIAL = Problem(THEME, polynomial_loss, polynomial_gradient, maker(1206, {"c": (4,), "center": ()}, (6,), (6,)))

# Bilinear form


def form_loss(params, x, y, target):
    return ((jnp.einsum("ni,ij,nj->n", x, params["w"], y) - target) ** 2).mean()


def form_gradient(outer=lambda x, y, d: (x * d[:, None]).T @ y):
    def grad_fn(params, x, y, target):
        d = 2 * (jnp.einsum("ni,ij,nj->n", x, params["w"], y) - target) / len(x)
        return {"w": outer(x, y, d)}

    return grad_fn


FORM = Problem(THEME, form_loss, form_gradient, maker(1207, {"w": (4, 4)}, (5, 4), (5, 4), (5,)))

# Two inputs through the same layer


def shared_loss(params, x1, x2, target):
    a, b = jnp.tanh(x1 @ params["w"]), jnp.tanh(x2 @ params["w"])
    return (((a - b) @ params["v"] - target) ** 2).mean()


def shared_gradient(join=lambda first, second: first - second):
    def grad_fn(params, x1, x2, target):
        a, b = jnp.tanh(x1 @ params["w"]), jnp.tanh(x2 @ params["w"])
        d = 2 * ((a - b) @ params["v"] - target) / len(target)
        dh = jnp.outer(d, params["v"])
        return {"w": join(x1.T @ (dh * (1 - a**2)), x2.T @ (dh * (1 - b**2))), "v": (a - b).T @ d}

    return grad_fn


SHARED = Problem(THEME, shared_loss, shared_gradient, maker(1208, {"w": (4, 3), "v": (3,)}, (5, 4), (5, 4), (5,)))

# A normal likelihood whose deviation is a softplus


def deviation_loss(params, x, target):
    mean, raw = x @ params["m"], x @ params["s"]
    deviation = jnp.log(1 + jnp.exp(raw)) + 0.1
    return (jnp.log(deviation) + ((target - mean) / deviation) ** 2 / 2).mean()


def deviation_gradient(
    softplus_slope=sigmoid,
    d_deviation=lambda error, deviation: 1 / deviation - error**2 / deviation**3,
    d_mean=lambda error, deviation: -error / deviation**2,
):
    def grad_fn(params, x, target):
        raw, error = x @ params["s"], target - x @ params["m"]
        deviation = jnp.log(1 + jnp.exp(raw)) + 0.1
        ds = d_deviation(error, deviation) * softplus_slope(raw)
        return {"m": x.T @ d_mean(error, deviation) / len(x), "s": x.T @ ds / len(x)}

    return grad_fn


DEVIATION = Problem(THEME, deviation_loss, deviation_gradient, maker(1209, {"m": (4,), "s": (4,)}, (6, 4), (6,)))

BUGS = (
    LOGISTIC.bug(
        "logistic_label_minus_probability", ("sign", "scaled_path"), "['w']", difference=lambda p, labels: labels - p
    ),
    LOGISTIC.bug(
        "logistic_intercept_penalized", ("offset_by_parameter",), "['b']", penalty_b=lambda b: 0.2 * jnp.sign(b)
    ),
    LOGISTIC.bug("logistic_penalty_squared", ("offset_by_parameter",), "['w']", penalty=lambda w: 2 * 0.2 * w),
    LOGISTIC.bug(
        "logistic_sigmoid_derived_again",
        ("activation_derivative", "loss_derivative"),
        "['w']",
        difference=lambda p, labels: (p - labels) * p * (1 - p),
    ),
    SWISH.bug("swish_product_rule_missed", ("activation_derivative", "lost_path"), "['w']", slope=lambda z, s: s),
    SWISH.bug("swish_slope_of_sigmoid_alone", ("activation_derivative",), "['b']", slope=lambda z, s: s * (1 - s)),
    GELU.bug("gelu_inner_slope_constant", ("activation_derivative",), "['w']", inner=lambda z: ROOT),
    LEAKY.bug(
        "leaky_slope_of_every_sample", ("wrong_operand", "mask"), "['slope']", d_slope=lambda dy, z: (dy * z).sum(0)
    ),
    LEAKY.bug(
        "leaky_sides_swapped",
        ("activation_derivative", "mask"),
        "['w']",
        d_input=lambda dy, z, slope: jnp.where(z > 0, slope * dy, dy),
    ),
    GATED.bug(
        "gated_halves_swapped",
        ("swapped",),
        "['w']",
        join=lambda d_value, d_gate: jnp.concatenate([d_gate, d_value], 1),
    ),
    POLYNOMIAL.bug("polynomial_exponents_missed", ("activation_derivative",), "['center']", exponents=np.ones_like),
    POLYNOMIAL.bug("polynomial_inner_minus_missed", ("sign",), "['center']", inner=1.0),
    POLYNOMIAL.bug(
        "polynomial_powers_from_one", ("shifted",), "['c']", d_c=lambda powers, dy: jnp.roll(powers, -1, 1).T @ dy
    ),
    FORM.bug("form_outer_swapped", ("transposed",), "['w']", outer=lambda x, y, d: (y * d[:, None]).T @ x),
    SHARED.bug("shared_second_input_missed", ("lost_use", "lost_path"), "['w']", join=lambda first, second: first),
    SHARED.bug(
        "shared_second_input_added", ("sign", "scaled_path"), "['w']", join=lambda first, second: first + second
    ),
    DEVIATION.bug("deviation_softplus_slope_missed", ("activation_derivative",), "['s']", softplus_slope=jnp.ones_like),
    DEVIATION.bug(
        "deviation_logarithm_missed",
        ("lost_path", "loss_derivative"),
        "['s']",
        d_deviation=lambda error, deviation: -(error**2) / deviation**3,
    ),
    DEVIATION.bug(
        "deviation_mean_not_weighted",
        ("scaled_path", "loss_derivative"),
        "['m']",
        d_mean=lambda error, deviation: -error / deviation,
    ),
)
RIGHT = (
    right(LOGISTIC, "logistic_right"),
    right(SWISH, "swish_right"),
    right(GELU, "gelu_right"),
    right(LEAKY, "leaky_right"),
    right(GATED, "gated_right"),
    right(POLYNOMIAL, "polynomial_right"),
    right(FORM, "form_right"),
    right(SHARED, "shared_right"),
    right(DEVIATION, "deviation_right"),
)
