"""Bugs in single formulas: matrices, norms, scalars, orderings and complex numbers."""

import jax
import jax.numpy as jnp
from jax.nn import softmax

from experiments.benchmarks.catalogue.case import (
    Problem,
    labels,
    normal,
    one_hot,
    plain,
    squared_error,
    squared_error_backward,
)

THEME = "formulas"
SIZE = 6


# Matrices: xᵀ A x, log det A and the inverse of A.
def matrix_make(dtype):
    a, x, y = normal(dtype, 71, (SIZE, SIZE), (SIZE,), (SIZE,))
    return a + 4 * jnp.eye(SIZE, dtype=dtype), (x, y)


def vector_make(dtype):
    a, (x, _) = matrix_make(dtype)
    return x, (a,)


def quadratic_form(x, a):
    return x @ a @ x


def log_determinant(a, x, y):
    return jnp.linalg.slogdet(a)[1]


def solution_loss(a, x, y):
    return (y * jnp.linalg.solve(a, x)).sum()


quadratic = plain(quadratic_form, lambda x, a: (a + a.T) @ x, vector_make, THEME)
determinant = plain(log_determinant, lambda a, x, y: jnp.linalg.inv(a).T, matrix_make, THEME)
solution = plain(
    solution_loss,
    lambda a, x, y: -jnp.outer(jnp.linalg.solve(a.T, y), jnp.linalg.solve(a, x)),
    matrix_make,
    THEME,
)

MATRICES = (
    quadratic.bug("quadratic_form_taken_for_symmetric", {"lost_use", "transposed"}, grad_fn=lambda x, a: 2 * a @ x),
    quadratic.bug("quadratic_form_one_side_only", {"lost_use"}, grad_fn=lambda x, a: a @ x),
    determinant.bug("log_determinant_untransposed", {"transposed"}, grad_fn=lambda a, x, y: jnp.linalg.inv(a)),
    solution.bug(
        "inverse_sign_forgotten",
        {"sign"},
        grad_fn=lambda a, x, y: jnp.outer(jnp.linalg.solve(a.T, y), jnp.linalg.solve(a, x)),
    ),
    solution.bug(
        "inverse_not_transposed",
        {"transposed"},
        grad_fn=lambda a, x, y: -jnp.outer(jnp.linalg.solve(a, y), jnp.linalg.solve(a, x)),
    ),
    solution.bug(
        "inverse_outer_product_reversed",
        {"transposed"},
        grad_fn=lambda a, x, y: -jnp.outer(jnp.linalg.solve(a, x), jnp.linalg.solve(a.T, y)),
    ),
)


# Vectors: lengths, angles, roots, spreads.
def vectors_make(dtype):
    x, y = normal(dtype, 72, (9,), (9,))
    return x, (y,)


def positive_make(dtype):
    x, (y,) = vectors_make(dtype)
    return 0.5 + x**2, (y,)


def length(x):
    return jnp.sqrt((x**2).sum())


def cosine(x, y):
    return (x * y).sum() / (length(x) * length(y))


def cosine_gradient(x, y):
    return (y / length(y) - cosine(x, y) * x / length(x)) / length(x)


def product_gradient(x, y):
    return jnp.prod(x) / x


norm = plain(lambda x, y: length(x), lambda x, y: x / length(x), vectors_make, THEME)
angle = plain(cosine, cosine_gradient, vectors_make, THEME)
roots = plain(lambda x, y: (y * jnp.sqrt(x)).sum(), lambda x, y: y / (2 * jnp.sqrt(x)), positive_make, THEME)
spread = plain(lambda x, y: x.var(), lambda x, y: 2 * (x - x.mean()) / x.size, vectors_make, THEME)
products = plain(lambda x, y: jnp.prod(x), product_gradient, positive_make, THEME)
powers = plain(lambda x, y: (x**y).sum(), lambda x, y: y * x ** (y - 1), positive_make, THEME)
entropy = plain(lambda x, y: (x * jnp.log(x)).sum(), lambda x, y: jnp.log(x) + 1, positive_make, THEME)
soft_maximum = plain(
    lambda x, y: jax.nn.logsumexp(x), lambda x, y: jnp.exp(x - jax.nn.logsumexp(x)), vectors_make, THEME
)
# The prefix sums of x, and x sorted, each weighed by y.
prefix = plain(
    lambda x, y: (y * jnp.cumsum(x) ** 2).sum(),
    lambda x, y: jnp.cumsum((2 * y * jnp.cumsum(x))[::-1])[::-1],
    vectors_make,
    THEME,
)
ordered = plain(
    lambda x, y: (y * jnp.sort(x)).sum(), lambda x, y: jnp.zeros_like(x).at[jnp.argsort(x)].set(y), vectors_make, THEME
)

VECTORS = (
    # A multiple of x by hand and by autodiff: their difference is one as well.
    norm.bug("norm_not_divided", {"scaled", "offset_by_parameter"}, grad_fn=lambda x, y: x),
    norm.bug("norm_for_its_square", {"scaled", "offset_by_parameter"}, grad_fn=lambda x, y: 2 * x),
    # What is forgotten is a multiple of x.
    angle.bug(
        "cosine_projection_forgotten",
        {"lost_path", "normalization_term", "offset_by_parameter"},
        grad_fn=lambda x, y: y / (length(x) * length(y)),
    ),
    angle.bug(
        "cosine_not_divided_by_length",
        {"scaled"},
        grad_fn=lambda x, y: y / length(y) - cosine(x, y) * x / length(x),
    ),
    roots.bug("root_in_the_numerator", {"activation_derivative"}, grad_fn=lambda x, y: y * jnp.sqrt(x) / 2),
    roots.bug("root_missing_half", {"scaled"}, grad_fn=lambda x, y: y / jnp.sqrt(x)),
    spread.bug(
        "variance_not_centred",
        {"loss_derivative", "lost_path", "normalization_term"},
        grad_fn=lambda x, y: 2 * x / x.size,
    ),
    spread.bug("variance_divided_by_one_less", {"scaled"}, grad_fn=lambda x, y: 2 * (x - x.mean()) / (x.size - 1)),
    products.bug(
        "product_not_divided",
        {"activation_derivative", "loss_derivative", "wrong_operand"},
        grad_fn=lambda x, y: jnp.full_like(x, jnp.prod(x)),
    ),
    powers.bug("power_exponent_kept", {"activation_derivative"}, grad_fn=lambda x, y: y * x**y),
    powers.bug("power_factor_forgotten", {"activation_derivative"}, grad_fn=lambda x, y: x ** (y - 1)),
    entropy.bug("entropy_product_rule_forgotten", {"lost_path", "lost_use"}, grad_fn=lambda x, y: jnp.log(x)),
    soft_maximum.bug("logsumexp_not_normalized", {"scaled"}, grad_fn=lambda x, y: jnp.exp(x - x.max())),
    soft_maximum.bug(
        "logsumexp_taken_for_maximum",
        {"activation_derivative", "loss_derivative"},
        grad_fn=lambda x, y: (x == x.max()).astype(x.dtype),
    ),
    prefix.bug("cumsum_not_reversed", {"transposed"}, grad_fn=lambda x, y: jnp.cumsum(2 * y * jnp.cumsum(x))),
    prefix.bug("cumsum_own_term_only", {"lost_path"}, grad_fn=lambda x, y: 2 * y * jnp.cumsum(x)),
    ordered.bug("sort_not_undone", {"transposed"}, grad_fn=lambda x, y: y),
    ordered.bug("sort_undone_the_wrong_way", {"transposed"}, grad_fn=lambda x, y: y[jnp.argsort(x)]),
)


# A temperature beside a kernel: softmax cross-entropy of x w / T. For a scalar, every wrong value is a multiple.
def temperature_make(dtype):
    w, x = normal(dtype, 73, (5, 3), (8, 5))
    return {"w": w, "temperature": jnp.asarray(1.7, dtype)}, (x, labels(74, 8, 3))


def temperature_loss(params, x, y):
    z = x @ params["w"] / params["temperature"]
    return (jax.nn.logsumexp(z, axis=1) - (z * one_hot(y, z)).sum(axis=1)).mean()


def temperature_gradient(
    dtemperature=lambda dz, z, temperature: -(dz * z).sum() / temperature, dw=lambda dw, temperature: dw / temperature
):
    def grad_fn(params, x, y):
        temperature = params["temperature"]
        z = x @ params["w"] / temperature
        dz = (softmax(z) - one_hot(y, z)) / len(y)
        return {"w": dw(x.T @ dz, temperature), "temperature": dtemperature(dz, z, temperature)}

    return grad_fn


tempered = Problem(THEME, temperature_loss, temperature_gradient, temperature_make)
TEMPERATURE = "['temperature']"

SCALARS = (
    tempered.bug(
        "temperature_not_squared", {"scaled"}, TEMPERATURE, dtemperature=lambda dz, z, temperature: -(dz * z).sum()
    ),
    tempered.bug(
        "temperature_sign", {"sign"}, TEMPERATURE, dtemperature=lambda dz, z, temperature: (dz * z).sum() / temperature
    ),
    tempered.bug(
        "temperature_mean_for_sum",
        {"scaled"},
        TEMPERATURE,
        dtemperature=lambda dz, z, temperature: -(dz * z).mean() / temperature,
    ),
    tempered.bug("temperature_forgotten_in_kernel", {"scaled"}, "['w']", dw=lambda dw, temperature: dw),
    tempered.bug(
        "temperature_of_every_class",
        {"shape"},
        TEMPERATURE,
        dtemperature=lambda dz, z, temperature: -(dz * z).sum(axis=0) / temperature,
    ),
)


# Complex least squares: JAX's gradient is the conjugate of the direction of steepest ascent.
def complex_make(dtype):
    parts = normal(dtype, 75, (5, 3), (5, 3), (8, 5), (8, 5), (8, 3), (8, 3))
    w, x, y = (jax.lax.complex(real, imaginary) for real, imaginary in zip(parts[::2], parts[1::2], strict=True))
    return w, (x, y)


def complex_loss(w, x, y):
    error = x @ w - y
    return (error.real**2 + error.imag**2).sum(axis=1).mean()


complex_layer = plain(complex_loss, lambda w, x, y: x.T @ squared_error_backward(x @ w, y).conj(), complex_make, THEME)

COMPLEX = (
    complex_layer.bug(
        "complex_not_conjugated", {"conjugate"}, grad_fn=lambda w, x, y: x.T @ squared_error_backward(x @ w, y)
    ),
    complex_layer.bug(
        "complex_ascent_direction", {"conjugate"}, grad_fn=lambda w, x, y: x.T.conj() @ squared_error_backward(x @ w, y)
    ),
    complex_layer.bug(
        "complex_half_of_wirtinger", {"scaled"}, grad_fn=lambda w, x, y: x.T @ (x @ w - y).conj() / len(y)
    ),
    complex_layer.bug(
        "complex_real_part_only",
        {"conjugate"},
        grad_fn=lambda w, x, y: (x.T @ squared_error_backward(x @ w, y).conj()).real.astype(w.dtype),
    ),
)


# A target network: what stands behind stop_gradient is a constant of the loss.
def bootstrap_make(dtype):
    w, x, following, reward = normal(dtype, 76, (5,), (8, 5), (8, 5), (8,))
    return w, (x, following, reward)


def bootstrap_loss(w, x, following, reward):
    return squared_error(x @ w, jax.lax.stop_gradient(reward + 0.9 * following @ w))


def bootstrap_gradient(w, x, following, reward):
    return x.T @ squared_error_backward(x @ w, reward + 0.9 * following @ w)


def bootstrap_gradient_through_target(w, x, following, reward):
    return (x - 0.9 * following).T @ squared_error_backward(x @ w, reward + 0.9 * following @ w)


bootstrap = plain(bootstrap_loss, bootstrap_gradient, bootstrap_make, THEME)

CONSTANTS = (bootstrap.bug("stop_gradient_not_honoured", {"stop_gradient"}, grad_fn=bootstrap_gradient_through_target),)

CASES = MATRICES + VECTORS + SCALARS + COMPLEX + CONSTANTS
