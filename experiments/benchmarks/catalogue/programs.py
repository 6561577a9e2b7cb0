"""Right gradients of losses that are programs: loops, branches, decompositions, transforms, rules of their own."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, expm
from jax.scipy.special import digamma, erf, gammaln
from jax.scipy.stats import norm

from experiments.benchmarks.catalogue.case import Case, normal

THEME = "programs"
WIDTH = 5


def right(name, loss_fn, grad_fn, make, **fields) -> Case:
    return Case(name, THEME, loss_fn, grad_fn, make, **fields)


def vector_make(dtype):
    x, y = normal(dtype, 191, (WIDTH,), (WIDTH,))
    return x, (y,)


def positive_make(dtype):
    x, y = normal(dtype, 192, (WIDTH,), (WIDTH,))
    return 0.5 + x**2, (0.5 + y**2,)


# Loops and branches.
def by_branch(x, y):
    return jax.lax.cond(x.sum() > y.sum(), lambda x: (x**2).sum(), lambda x: (x**3).sum(), x)


def by_branch_gradient(x, y):
    return jnp.where(x.sum() > y.sum(), 2 * x, 3 * x**2)


def by_python_branch(x, y):
    return (x**2).sum() if x.sum() > y.sum() else (x**3).sum()


def by_python_branch_gradient(x, y):
    return 2 * x if x.sum() > y.sum() else 3 * x**2


@jax.custom_vjp
def newton_root(a):
    """√a by Newton's steps, until they stand still: JAX has no derivative of such a loop but the one given here."""
    step = jax.lax.while_loop(lambda x: jnp.abs(x * x - a) > 1e-6 * a, lambda x: (x + a / x) / 2, a)
    return (step + a / step) / 2


newton_root.defvjp(lambda a: (newton_root(a),) * 2, lambda root, dy: (dy / (2 * root),))

LOOPS = (
    right(
        "power_by_fori_loop",
        lambda x, y: jax.lax.fori_loop(0, 5, lambda _, power: power * x, y).sum(),
        lambda x, y: 5 * y * x**4,
        vector_make,
    ),
    right(
        "root_by_while_loop", lambda x, y: newton_root((x**2).sum()), lambda x, y: x / jnp.linalg.norm(x), vector_make
    ),
    right("branch_by_cond", by_branch, by_branch_gradient, vector_make),
    right("branch_by_python", by_python_branch, by_python_branch_gradient, vector_make),
    right(
        "product_by_associative_scan",
        lambda x, y: jax.lax.associative_scan(jnp.multiply, x).sum(),
        lambda x, y: jnp.cumsum(jnp.cumprod(x)[::-1])[::-1] / x,
        positive_make,
    ),
)


# Decompositions.
def matrix_make(dtype):
    matrix, b, y = normal(dtype, 193, (4, 4), (4,), (4,))
    return {"a": matrix + 4 * jnp.eye(4, dtype=dtype), "b": b}, (y,)


def definite_make(dtype):
    root, y = normal(dtype, 194, (4, 4), (4,))
    return root @ root.T + jnp.eye(4, dtype=dtype), (y,)


def solution_loss(params, y):
    return ((jnp.linalg.solve(params["a"], params["b"]) - y) ** 2).sum()


def solution_gradient(params, y):
    x = jnp.linalg.solve(params["a"], params["b"])
    db = jnp.linalg.solve(params["a"].T, 2 * (x - y))
    return {"a": -jnp.outer(db, x), "b": db}


def likelihood_loss(covariance, y):
    factor = jnp.linalg.cholesky((covariance + covariance.T) / 2)
    return y @ cho_solve((factor, True), y) / 2 + jnp.log(jnp.diag(factor)).sum()


def likelihood_gradient(covariance, y):
    inverse = jnp.linalg.inv(covariance)
    return (inverse - jnp.outer(inverse @ y, inverse @ y)) / 2


def largest_eigenvalue_gradient(matrix, y):
    vector = jnp.linalg.eigh(matrix)[1][:, -1]
    return jnp.outer(vector, vector)


def nuclear_norm_gradient(matrix, y):
    left, _, right_vectors = jnp.linalg.svd(matrix, full_matrices=False)
    return left @ right_vectors


def determinant_gradient(matrix, y):
    return (jnp.linalg.det(matrix) * jnp.linalg.inv(matrix)).T


DECOMPOSITIONS = (
    right("linear_system", solution_loss, solution_gradient, matrix_make),
    right("likelihood_by_cholesky", likelihood_loss, likelihood_gradient, definite_make),
    right(
        "largest_eigenvalue",
        lambda matrix, y: jnp.linalg.eigvalsh((matrix + matrix.T) / 2)[-1],
        largest_eigenvalue_gradient,
        definite_make,
    ),
    right(
        "nuclear_norm",
        lambda matrix, y: jnp.linalg.svd(matrix, compute_uv=False).sum(),
        nuclear_norm_gradient,
        definite_make,
    ),
    right("determinant", lambda matrix, y: jnp.linalg.det(matrix), determinant_gradient, definite_make),
    right(
        "trace_of_exponential",
        lambda matrix, y: jnp.trace(expm(matrix / 10)),
        lambda matrix, y: expm(matrix / 10).T / 10,
        definite_make,
    ),
)


# Transforms, orders and special functions.
def filtered(x, y):
    return jnp.fft.irfft(jnp.fft.rfft(x) * jnp.fft.rfft(y).real, n=WIDTH)


def two_largest_gradient(x, y):
    order = jnp.argsort(x)
    return jnp.zeros_like(x).at[order[-2:]].set(2 * x[order[-2:]])


def product_gradient(x, y):
    """Without a division, for one factor is zero."""
    one = jnp.ones(1, x.dtype)
    before = jnp.concatenate([one, jnp.cumprod(x)[:-1]])
    after = jnp.concatenate([jnp.cumprod(x[::-1])[::-1][1:], one])
    return before * after


def zero_factor_make(dtype):
    x, others = vector_make(dtype)
    return x.at[2].set(0), others


def masked_attention(w, x):
    scores = jnp.where(jnp.tri(len(x), dtype=bool), x @ w @ x.T, -jnp.inf)
    return jax.nn.softmax(scores)


def masked_attention_gradient(w, x):
    p = masked_attention(w, x)
    dp = 2 * (p @ x) @ x.T
    return x.T @ (p * (dp - (p * dp).sum(axis=1, keepdims=True))) @ x


def attention_make(dtype):
    w, x = normal(dtype, 195, (4, 4), (6, 4))
    return w / 4, (x,)


TRANSFORMS = (
    right(
        "filter_by_fourier_transform",
        lambda x, y: (filtered(x, y) ** 2).sum(),
        lambda x, y: 2 * filtered(filtered(x, y), y),
        vector_make,
    ),
    right(
        "two_largest_entries",
        lambda x, y: (jax.lax.top_k(x, 2)[0] ** 2).sum(),
        two_largest_gradient,
        vector_make,
    ),
    right("product_with_a_zero_factor", lambda x, y: jnp.prod(x), product_gradient, zero_factor_make),
    right(
        "log_gamma",
        lambda x, y: (gammaln(x) - x * jnp.log(y)).sum(),
        lambda x, y: digamma(x) - jnp.log(y),
        positive_make,
    ),
    right(
        "attention_masked_by_minus_infinity",
        lambda w, x: ((masked_attention(w, x) @ x) ** 2).sum(),
        masked_attention_gradient,
        attention_make,
    ),
)


# What is done to a function or to its arguments: recomputation, rules, constants, callbacks, many leaves.
@jax.custom_jvp
def swish(x):
    return x * jax.nn.sigmoid(x)


swish.defjvp(lambda primals, tangents: (swish(*primals), tangents[0] * swish_slope(*primals)))


def swish_slope(x):
    s = jax.nn.sigmoid(x)
    return s * (1 + x * (1 - s))


ROOT_OF_TWO = np.float32(2**0.5)
"""Right to the digits of float32, as a constant of a module may be."""


def error_function_gradient(x, y):
    return y * (1 + erf(x / ROOT_OF_TWO)) / 2


def error_function_loss(x, y):
    return (y * (x * norm.cdf(x) + norm.pdf(x))).sum()


def many_make(dtype):
    leaves = normal(dtype, 196, *[(3, 3), (3,)] * 50)
    (x,) = normal(dtype, 197, (4, 3))
    return {f"layer {n}": {"w": leaves[2 * n] / 2, "b": leaves[2 * n + 1]} for n in range(50)}, (x,)


def many_states(params, x):
    states = [x]
    for n in range(50):
        layer = params[f"layer {n}"]
        states.append(states[-1] + jnp.tanh(states[-1] @ layer["w"] + layer["b"]) / 5)
    return states


def many_gradient(params, x):
    states, grads = many_states(params, x), {}
    dh = 2 * states[-1]
    for n in reversed(range(50)):
        dz = dh * (1 - (5 * (states[n + 1] - states[n])) ** 2) / 5
        grads[f"layer {n}"] = {"w": states[n].T @ dz, "b": dz.sum(axis=0)}
        dh = dh + dz @ params[f"layer {n}"]["w"].T
    return grads


TREATMENTS = (
    right(
        "recomputed_by_checkpoint",
        jax.checkpoint(lambda x, y: (jnp.tanh(x) * y).sum()),
        lambda x, y: y * (1 - jnp.tanh(x) ** 2),
        vector_make,
    ),
    right("custom_rule_in_the_loss", lambda x, y: (y * swish(x)).sum(), lambda x, y: y * swish_slope(x), vector_make),
    right(
        "constant_kept_in_float32",
        error_function_loss,
        error_function_gradient,
        vector_make,
        dtypes=("float32",),
        tolerance=1e-6,
    ),
    right(
        "callback_to_numpy",
        lambda x, y: (y * jnp.sin(x)).sum(),
        lambda x, y: y * jax.pure_callback(np.cos, jax.ShapeDtypeStruct(x.shape, x.dtype), x),
        vector_make,
    ),
    right(
        "function_as_an_argument",
        lambda x, y, activation: (y * activation(x)).sum(),
        lambda x, y, activation: y * jax.vmap(jax.grad(activation))(x),
        lambda dtype: (vector_make(dtype)[0], (*vector_make(dtype)[1], partial(jax.nn.gelu, approximate=False))),
    ),
    right("hundred_leaves", lambda params, x: (many_states(params, x)[-1] ** 2).sum(), many_gradient, many_make),
)

CASES = LOOPS + DECOMPOSITIONS + TRANSFORMS + TREATMENTS
